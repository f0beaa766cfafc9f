"""Work arrays of a thread, reused from shard to shard: results of kernels and products touch no fresh page."""

import contextlib
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
        self.block, self.used, self.peak, self.open = np.empty(0, dtype=np.uint8), 0, 0, 0

    def array(self, shape, dtype):
        n_bytes = math.prod(shape) * dtype.itemsize
        start = self.used
        self.used += n_bytes + -n_bytes % ALIGNMENT
        self.peak = max(self.peak, self.used)
        if self.used > len(self.block):
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, self.block, start)

    def release(self, mark):
        self.used = mark
        if self.peak > len(self.block) and not self.open:
            raw = np.empty(self.peak + self.peak // 4 + ALIGNMENT, dtype=np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            self.block = raw[start:]


@contextlib.contextmanager
def work_arrays():
    """Inside the block `empty` takes memory from the thread's pool; the arrays are void after it.

    A block inside a block gives back what was taken in it.
    """
    pool = _thread.pool = getattr(_thread, "pool", None) or _Pool()
    mark = pool.used
    pool.open += 1
    try:
        yield
    finally:
        pool.open -= 1
        pool.release(mark)


def empty(shape, dtype):
    """An uninitialised array: from the pool inside `work_arrays`, else a new one."""
    pool = getattr(_thread, "pool", None)
    if pool is None or not pool.open:
        return np.empty(shape, dtype=dtype)
    return pool.array(shape, np.dtype(dtype))
