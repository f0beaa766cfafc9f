"""The library of the arrays of this backend, and its operations in TF32."""

from collections.abc import Callable

import numpy as np

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.memory import empty
from refattn.ops.types import Array


class Arrays:
    """The library of the arrays, whose ones are made by a copy, which may stand in a captured graph."""

    def ones(self, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """See numpy.ones."""
        array = empty(shape, dtype)
        array[...] = 1
        return array

    def __getattr__(self, name):
        return getattr(toolchain.xp, name)


def with_products(functions: dict[str, Callable], tf32: bool) -> dict:
    """The operations of the backend and `xp`, by name, whose products are cuBLAS's; in TF32 if wanted."""
    functions = functions | {"xp": Arrays()}
    if not tf32:
        return functions
    names = [name for name in functions if name.endswith(("_forward", "_backward"))]
    return functions | {name: toolchain.in_tf32(functions[name]) for name in names}
