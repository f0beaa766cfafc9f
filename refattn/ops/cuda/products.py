"""The library of the arrays of this backend, and its operations in TF32."""

from collections.abc import Callable

import numpy as np

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.memory import empty
from refattn.ops.types import Array


class Arrays:
    """The library of the arrays; what it would make by a transfer is made by copies, which may stand in a graph."""

    def ones(self, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """See numpy.ones."""
        array = empty(shape, dtype)
        array[...] = 1
        return array

    def concatenate(self, arrays: list[Array], axis: int) -> Array:
        """See numpy.concatenate, of matrices along axis 1: CuPy sends the addresses of more than eight of them."""
        if axis != 1:
            raise NotImplementedError("concatenate is for axis 1")
        out = empty((len(arrays[0]), sum(array.shape[1] for array in arrays)), arrays[0].dtype)
        first = 0
        for array in arrays:
            out[:, first : first + array.shape[1]] = array
            first += array.shape[1]
        return out

    def __getattr__(self, name):
        return getattr(toolchain.xp, name)


def with_products(functions: dict[str, Callable], tf32: bool) -> dict:
    """The operations of the backend and `xp`, by name, whose products are cuBLAS's; in TF32 if wanted."""
    functions = functions | {"xp": Arrays()}
    if not tf32:
        return functions
    names = [name for name in functions if name.endswith(("_forward", "_backward"))]
    return functions | {name: toolchain.in_tf32(functions[name]) for name in names}
