"""What vector.py, gemm.py and dropout.py have compiled, in NumPy; under NUMBA_DISABLE_JIT=1 this runs in its place.

A row is a view of an array. A vector is an array of as many numbers as the tuple `lanes` (or `heads`) is long.
"""

import numpy as np

from refattn.ops.random import scramble
from refattn.ops.types import Array


def row_view(array: Array, index: int | tuple) -> Array:
    """The last axis of an array at an index, a number or a tuple of numbers: its numbers have nothing between them."""
    return array[index]


def number_of(row: Array, value: float) -> Array:
    """A number as one of the row's type."""
    return row.dtype.type(value)


def load(row: Array, d: int, lanes: tuple) -> Array:
    """The numbers d and following of a row."""
    return row[d : d + len(lanes)].copy()


def store(row: Array, d: int, vector: Array) -> None:
    """Write the numbers d and following of a row."""
    row[d : d + len(vector)] = vector


def zeros(row: Array, lanes: tuple) -> Array:
    """A vector of zeros, of the type of a row."""
    return np.zeros(len(lanes), row.dtype)


def sum_of(vector: Array) -> Array:
    """The sum of a vector's numbers."""
    return vector.sum()


def larger_of(a: Array, b: Array) -> Array:
    """The larger numbers of two vectors, each with each; those of b where a number of a is NaN."""
    return np.where(a > b, a, b)


def head_sums(a: Array, b: Array, heads: tuple, channels: tuple) -> Array:
    """sum_c a[h,c] b[h,c] of two rows of H C numbers: a vector of H."""
    return (a * b).reshape(len(heads), len(channels)).sum(axis=1)


def products_with_rows(a: Array, x: Array, heads: tuple, lanes: tuple) -> Array:
    """sum_d a[h,d] x[d] of an array of H rows or more, whatever lies between them, and a row: a vector of H."""
    return a[: len(heads)] @ x


def add_heads(y: Array, factor: Array, x: Array, heads: tuple, channels: tuple) -> None:
    """y[h,c] += factor[h] x[h,c]; rows of H C numbers, and a vector of H."""
    y += np.repeat(factor, len(channels)) * x


def scale_heads(y: Array, factor: Array, x: Array, heads: tuple, channels: tuple) -> None:
    """y[h,c] = factor[h] x[h,c]; rows of H C numbers, and a vector of H."""
    y[:] = np.repeat(factor, len(channels)) * x


def drop(x: Array, key: Array, column: int, threshold: tuple, scale: Array) -> Array:
    """A vector, the numbers `column` and following of a row, with a part of it dropped and the rest times `scale`."""
    bits = scramble(key, np.arange(column, column + len(x), dtype=np.uint32))
    return np.where(bits >> np.uint32(8) >= threshold, x * scale, x.dtype.type(0))


def of_any_layout(array: Array) -> Array:
    """A matrix by a type that says nothing of its strides: one compilation serves all. What is none stays as it is."""
    return array


def copy_row(panels: Array, start: Array, b: Array, k: int, column: int, lanes: tuple) -> None:
    """panels[start + n] = b[k, column + n] for as many numbers as `lanes` is long."""
    panels[start : start + len(lanes)] = b[k, column : column + len(lanes)]


def multiply_block(
    c: Array, start: Array, a: Array, panels: Array, m: int, column: int, rows: tuple, vectors: tuple, lanes: tuple
) -> None:
    """Rows m and following, as many as `rows` is long, of c = start + a b, and so many vectors of columns."""
    depth = a.shape[1]
    width = len(vectors) * len(lanes)
    block = slice(m, m + len(rows)), slice(column, column + width)
    if panels.ndim == 1:
        b = panels[column * depth : (column + width) * depth].reshape(depth, width)
    else:
        b = panels[:, column : column + width]
    product = a[m : m + len(rows)] @ b
    if start is not None:
        product += start[block[1]] if start.ndim == 1 else start[block]
    c[block] = product
