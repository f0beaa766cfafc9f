"""How kernels are launched, and the sums inside a block: a block takes rows in turn, a thread has one column.

With D = 128 threads a block, 16 blocks fit on a multiprocessor; neighbouring threads read neighbouring columns, and a
row stays in registers from the first read to the last write. Rows are sites, edges or structures.
"""

import numpy as np

from refattn.errors import ConfigError
from refattn.ops.cuda.toolchain import SIMULATED, cuda, device, xp

MAX_THREADS = 1024  # of a block, on every GPU
WARP = 4 if SIMULATED else 32  # a block is a multiple of it; the simulator pays for each idle thread
MAX_BLOCKS = 2 if SIMULATED else 2112  # 16 for each of the 132 multiprocessors of an H200; fixed, as sums depend on it
PARTS = 4 if SIMULATED else 8  # sums of which a block's sum is made
ZERO, ONE = np.float32(0), np.float32(1)  # a float32 constant takes the type of what it meets; a literal is float64


def n_blocks(n_rows):
    """Blocks of a launch over `n_rows` rows, at least one; as many rows has the array for their column sums."""
    return min(max(n_rows, 1), MAX_BLOCKS)


def launch(kernel, n_rows, width, *arguments):
    """Run a kernel over `n_rows` rows with a thread for each of `width` columns.

    The kernel's threads with threadIdx.x >= width have no column, but take part in the sums. Dynamic shared memory
    holds the buffer of block_sum and head_sum.
    """
    threads = -(-width // WARP) * WARP
    if threads > MAX_THREADS:
        raise ConfigError(f"a width of {width} is too large for the device cuda, which has {MAX_THREADS} threads a row")
    kernel[n_blocks(n_rows), threads, 0, (threads + PARTS) * 8](*arguments)


def partial_sums(n_rows, width, dtype):
    """(n_blocks, D) for what each block sums over its rows."""
    return xp.empty((n_blocks(n_rows), width), dtype)


def column_sum(partial):
    """(D,) sum over the blocks of (n_blocks, D)."""
    return partial.sum(axis=0)


@device
def block_sum(buffer, value):
    """Sum of `value` over the threads of the block, known to all of them; in a fixed order.

    buffer : (threads + PARTS,) in shared memory. Two barriers; the next call may follow at once, because its first
    barrier stands between the last reading of the parts and their next writing.
    """
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    buffer[lane] = value
    cuda.syncthreads()
    if lane < PARTS:
        total = buffer[lane]
        for other in range(lane + PARTS, threads, PARTS):
            total += buffer[other]
        buffer[threads + lane] = total
    cuda.syncthreads()
    total = buffer[threads]
    for part in range(1, PARTS):
        total += buffer[threads + part]
    return total


@device
def head_sum(buffer, value, first, last):
    """Sum of `value` over the threads first..last - 1 of the block: the channels of a head. Two barriers."""
    buffer[cuda.threadIdx.x] = value
    cuda.syncthreads()
    total = buffer.dtype.type(0)
    for other in range(first, last):
        total += buffer[other]
    cuda.syncthreads()
    return total
