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
    """A stack of bytes: arrays are cut off its top, and all are given back together."""

    def __init__(self):
        self.block, self.used, self.needed, self.open = np.empty(0, dtype=np.uint8), 0, 0, False

    def array(self, shape, dtype):
        n_bytes = math.prod(shape) * dtype.itemsize
        start, self.needed = self.used, self.needed + n_bytes + -n_bytes % ALIGNMENT
        if start + n_bytes > len(self.block):
            return np.empty(shape, dtype)
        self.used = start + n_bytes + -n_bytes % ALIGNMENT
        return np.ndarray(shape, dtype, self.block, start)

    def reset(self):
        if self.needed > len(self.block):
            raw = np.empty(self.needed + self.needed // 4 + ALIGNMENT, dtype=np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            self.block = raw[start:]
        self.used = self.needed = 0


@contextlib.contextmanager
def work_arrays():
    """Inside the block `empty` takes memory from the thread's pool; the arrays are void after it."""
    pool = _thread.pool = getattr(_thread, "pool", None) or _Pool()
    if pool.open:
        raise RuntimeError("work_arrays is already open in this thread")
    pool.open = True
    try:
        yield
    finally:
        pool.open = False
        pool.reset()


def empty(shape, dtype):
    """An uninitialised array: from the pool inside `work_arrays`, else a new one."""
    pool = getattr(_thread, "pool", None)
    if pool is None or not pool.open:
        return np.empty(shape, dtype=dtype)
    return pool.array(shape, np.dtype(dtype))
