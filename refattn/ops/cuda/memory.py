"""Arrays on the device. CuPy's pool gives back at once what was freed, in the order of the stream: no work arrays."""

import contextlib

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.toolchain import to_host  # noqa: F401  (the backend's)

work_arrays = contextlib.nullcontext
xp = toolchain.xp


def empty(shape, dtype):
    """An array with whatever was there before."""
    return toolchain.xp.empty(shape, dtype)


def to_device(array):
    """A NumPy array on the device."""
    return toolchain.xp.asarray(array)
