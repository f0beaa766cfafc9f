"""Work arrays of a thread, reused from shard to shard: results of kernels and products touch no fresh page."""

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator

import numpy as np

from refattn.ops.types import Array

xp = np
to_device = to_host = np.asarray
ALIGNMENT = 64  # bytes, a cache line and an AVX-512 register
KEPT = 64  # sets of scratch arrays, of more than the kernels of a few networks
_thread = threading.local()


def side_by_side(map_fn: Callable) -> Callable:
    return map_fn


class Pool:
    """A stack of bytes: arrays are cut off its top, and given back together. It grows when nobody uses it."""

    def __init__(self):
        self.block, self.size, self.used, self.peak, self.open = np.empty(0, dtype=np.uint8), 0, 0, 0, 0

    def arrays(self, dtype, shapes):
        found = []
        end = self.used
        for shape in shapes:
            start = end
            end += math.prod(shape) * dtype.itemsize
            end += -end % ALIGNMENT
            found.append(np.ndarray(shape, dtype, self.block, start) if end <= self.size else np.empty(shape, dtype))
        self.used = end
        self.peak = max(self.peak, end)
        return found

    def release(self, mark):
        self.used = mark
        if self.peak > self.size and not self.open:
            self.block = _aligned(self.peak + self.peak // 4)
            self.size = len(self.block)


class work_arrays:
    """Inside the block `empty` takes memory from the thread's pool; the arrays are void after it.

    A block inside a block gives back what was taken in it. From a Pool that is handed in the arrays stay until that
    is released, also for another thread.
    """

    def __init__(self, kept: Pool | None = None):
        self.kept = kept

    def __enter__(self):
        self.own = getattr(_thread, "pool", None)
        self.pool = _thread.pool = self.kept or self.own or Pool()
        self.mark = self.pool.used
        self.pool.open += 1

    def __exit__(self, *error):
        self.pool.open -= 1
        if self.kept is None:
            self.pool.release(self.mark)
        else:
            _thread.pool = self.own


def scratch(make: Callable) -> Callable:
    """Decorates a function that makes arrays for a kernel to work in: the same memory for every kernel of a thread, so
    void when the next one runs.

    make : callable (cut, *key) -> tuple
        Asks cut(dtype, *shapes) once for arrays. It is called without `cut`, and what it makes is kept for the next
        call of the thread with the same key: an array of `empty` takes 2 us every time.
    """

    @functools.wraps(make)
    def kept(*key):
        own = getattr(_thread, "scratch", None) or _Scratch.of_this_thread()
        return own.arrays.get((make, key)) or own.keep(make, key)

    return kept


class _Scratch:
    """A block of bytes, and the sets of arrays that it has been cut into, each from its beginning."""

    def __init__(self):
        self.block, self.arrays = _aligned(0), {}

    @classmethod
    def of_this_thread(cls):
        _thread.scratch = cls()
        return _thread.scratch

    def keep(self, make, key):
        arrays = make(self.cut, *key)
        if len(self.arrays) == KEPT:
            self.arrays.clear()
        self.arrays[make, key] = arrays
        return arrays

    def cut(self, dtype, *shapes):
        sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
        ends = list(itertools.accumulate((size + -size % ALIGNMENT for size in sizes), initial=0))
        if ends[-1] > len(self.block):
            self.block = _aligned(ends[-1])
            self.arrays.clear()
        return tuple(np.ndarray(shape, dtype, self.block, start) for shape, start in zip(shapes, ends, strict=False))


def _aligned(size):
    """Bytes that begin with a cache line."""
    raw = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:]


def plain(*structs: tuple) -> Iterator[tuple]:
    """Named tuples as tuples, for a kernel that names them again: those that it only reads.

    Numba finds the types of a call in half the time, 20 us less than between two layers of a training. What a kernel
    writes for others stays named: Numba drops what is assigned to elements of a tuple's field as dead code where the
    tuple was made in the kernel.
    """
    return map(tuple, structs)


def empty(shape: tuple, dtype: np.dtype) -> Array:
    """An uninitialised array: from the pool inside `work_arrays`, else a new one."""
    return empties(np.dtype(dtype), shape)[0]


def empties(dtype: np.dtype, *shapes: tuple) -> list[Array]:
    """Several of these at once, in half the time."""
    pool = getattr(_thread, "pool", None)
    if pool is None or not pool.open:
        return [np.empty(shape, dtype) for shape in shapes]
    return pool.arrays(dtype, shapes)


def zeros_like(array: Array) -> Array:
    """A work array of zeros."""
    zeros = empty(array.shape, array.dtype)
    zeros[...] = 0
    return zeros
