"""Arrays on the device. CuPy's pool gives back at once what was freed, in the order of the stream: no work arrays."""

import contextlib
from collections.abc import Callable

import numpy as np

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.toolchain import to_host  # noqa: F401  (the backend's)
from refattn.ops.types import Array

work_arrays = contextlib.nullcontext
xp = toolchain.xp


def side_by_side(map_fn: Callable) -> Callable:
    """map: one thread keeps the GPU busy."""
    return map


def empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """An array with whatever was there before."""
    return toolchain.xp.empty(shape, dtype)


def to_device(array: np.ndarray) -> Array:
    """A NumPy array on the device."""
    return toolchain.xp.asarray(array)
