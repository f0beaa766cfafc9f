"""Work arrays of a thread, reused from shard to shard: results of kernels and products touch no fresh page."""

import math
import threading

import numpy as np

xp = np
to_device = to_host = np.asarray
ALIGNMENT = 64  # bytes, a cache line and an AVX-512 register
_thread = threading.local()


class _Pool:
    """A stack of bytes: arrays are cut off its top, and given back together. It grows when nobody uses it."""

    def __init__(self):
        self.block, self.size, self.used, self.peak, self.open = np.empty(0, dtype=np.uint8), 0, 0, 0, 0

    def array(self, shape, dtype):
        start, n_bytes = self.used, math.prod(shape) * dtype.itemsize
        self.used = end = start + n_bytes + -n_bytes % ALIGNMENT
        if end > self.peak:
            self.peak = end
        return np.ndarray(shape, dtype, self.block, start) if end <= self.size else np.empty(shape, dtype)

    def release(self, mark):
        self.used = mark
        if self.peak > self.size and not self.open:
            raw = np.empty(self.peak + self.peak // 4 + ALIGNMENT, dtype=np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            self.block = raw[start:]
            self.size = len(self.block)


class work_arrays:
    """Inside the block `empty` takes memory from the thread's pool; the arrays are void after it.

    A block inside a block gives back what was taken in it.
    """

    def __enter__(self):
        self.pool = _thread.pool = getattr(_thread, "pool", None) or _Pool()
        self.mark = self.pool.used
        self.pool.open += 1

    def __exit__(self, *error):
        self.pool.open -= 1
        self.pool.release(self.mark)


def empty(shape, dtype):
    """An uninitialised array: from the pool inside `work_arrays`, else a new one."""
    pool = getattr(_thread, "pool", None)
    if pool is None or not pool.open:
        return np.empty(shape, dtype=dtype)
    return pool.array(shape, np.dtype(dtype))
