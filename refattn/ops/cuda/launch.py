"""How kernels are launched, and the sums inside a block: a block takes rows in turn, a thread has one column.

With D = 128 threads a block, 16 blocks fit on a multiprocessor; neighbouring threads read neighbouring columns, and a
row stays in registers from the first read to the last write. Rows are sites, edges or structures.
"""

from collections.abc import Callable

import numpy as np

from refattn.errors import ConfigError
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import SIMULATED, WARP, call, cuda, device, group_sum, kernel, warp_sum
from refattn.ops.types import Array

MAX_THREADS = 512  # of a block: local_attention_backward has 126 of a block's 65,536 registers for each
MAX_WARPS = 32  # of a block
MAX_BLOCKS = 2 if SIMULATED else 2112  # 16 for each of the 132 multiprocessors of an H200; fixed, as sums depend on it
PUT_OFF = None  # the Sums (sums.py) that are being collected
FLAT_THREADS = WARP if SIMULATED else 256  # of a block where each thread has elements of its own
ZERO = np.float32(0)  # a float32 constant takes the type of what it meets; a literal is float64
ONE = np.float32(1)


def n_blocks(n_rows: int) -> int:
    """Blocks of a launch over `n_rows` rows, at least one; as many rows has the array for their column sums."""
    return min(max(n_rows, 1), MAX_BLOCKS)


def threads_of(width: int) -> int:
    """Threads of a block with one for each of `width` columns. Raises ConfigError where that is too many."""
    threads = -(-width // WARP) * WARP
    if threads > MAX_THREADS:
        raise ConfigError(f"a width of {width} is too large for the device cuda, which has {MAX_THREADS} threads a row")
    return threads


def launch(function: Callable, n_rows: int, width: int, *arguments: object) -> None:
    """Run a kernel over `n_rows` rows with a thread for each of `width` columns.

    The kernel's threads with threadIdx.x >= width have no column, but take part in the sums. Dynamic shared memory
    holds the buffer of block_sum and head_sum.
    """
    threads = threads_of(width)
    call(function, n_blocks(n_rows), threads, (threads + MAX_WARPS) * 8, arguments)


def launch_flat(function: Callable, n: int, *arguments: object) -> None:
    """Run a kernel whose threads take `n` elements in turn: n = cuda.grid(1), cuda.grid(1) + cuda.gridsize(1), ..."""
    call(function, n_blocks(-(-n // FLAT_THREADS)), FLAT_THREADS, 0, arguments)


def partial_sums(n_sums: int, n_rows: int, width: int, dtype: np.dtype) -> Array:
    """(n_sums, n_blocks, D) for what each block sums over its rows."""
    if PUT_OFF is not None:
        return PUT_OFF.take(n_sums, n_blocks(n_rows), width)
    return empty((n_sums, n_blocks(n_rows), width), dtype)


def column_sums(partial: Array) -> Array | list:
    """(n_sums, D) sums over the blocks of (n_sums, n_blocks, D), in one launch: a block takes WARP columns of a sum."""
    if PUT_OFF is not None:
        return PUT_OFF.put_off(partial)
    n_sums, _, width = partial.shape
    sums = empty((n_sums, width), partial.dtype)
    n_parts = -(-width // WARP)
    threads = WARP * (WARP if partial.shape[1] > WARP else 1)
    call(_column_sums_kernel, n_sums * n_parts, threads, threads * 8, (sums, partial, n_parts))
    return sums


@kernel
def _column_sums_kernel(sums, partial, n_parts):
    _, n_rows, width = partial.shape
    buffer = cuda.shared.array(0, sums.dtype)
    lane = cuda.threadIdx.x
    first, stride = lane // WARP, cuda.blockDim.x // WARP
    p = cuda.blockIdx.x // n_parts
    d = cuda.blockIdx.x % n_parts * WARP + lane % WARP
    total = sums.dtype.type(0)
    if d < width:
        for n in range(first, n_rows, stride):
            total += partial[p, n, d]
    buffer[lane] = total
    cuda.syncthreads()
    if first == 0 and d < width:
        for other in range(1, stride):
            total += buffer[lane + other * WARP]
        sums[p, d] = total


@device
def block_sum(buffer, value):
    """Sum of `value` over the threads of the block, known to all of them; in a fixed order.

    buffer : (threads + MAX_WARPS,) in shared memory. Two barriers; the next call may follow at once, because the
    barrier of its warp_sum stands between the last reading of the parts and their next writing.
    """
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    value = warp_sum(buffer, value)
    if lane % WARP == 0:
        buffer[threads + lane // WARP] = value
    cuda.syncthreads()
    total = buffer[threads]
    for part in range(1, threads // WARP):
        total += buffer[threads + part]
    return total


@device
def head_sum(buffer, value, channels, first, last):
    """Sum of `value` over the threads first..last - 1 of the block: the `channels` channels of a head.

    Within a warp, and without a barrier, where a number of heads fills it; else by way of the buffer, two barriers.
    """
    if channels <= WARP and channels & (channels - 1) == 0:
        return group_sum(buffer, value, channels)
    buffer[cuda.threadIdx.x] = value
    cuda.syncthreads()
    total = buffer.dtype.type(0)
    for other in range(first, last):
        total += buffer[other]
    cuda.syncthreads()
    return total
