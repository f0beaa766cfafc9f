"""Gradients of biases and gains, all summed in one launch at the end of a backward pass.

A kernel that makes a column sum leaves one sum for each of its blocks (launch.partial_sums), which have to be added up:
some hundred small launches a step. While Sums are collected, partial sums go into one array that stays, column_sums
returns what it would have to add up, and writing that into a PendingGradient only notes the place.
"""

import contextlib
import typing

import numpy as np

from refattn.ops.cuda import launch, toolchain
from refattn.ops.cuda.memory import to_device
from refattn.ops.cuda.toolchain import WARP, call, cuda, kernel
from refattn.ops.types import Array


class Pending(typing.NamedTuple):
    """A sum to be made: partial[first + n width + d] over n < n_blocks, for every d < width."""

    first: int
    n_blocks: int
    width: int


class Sums:
    """See the head of this file.

    Parameters
    ----------
    vector : (P,) float     of the gradients, on the device
    n_columns : int         of the sums that are collected before they are made
    """

    def __init__(self, vector: Array, n_columns: int):
        self.vector = vector
        self.partial = to_device(np.zeros(n_columns * launch.MAX_BLOCKS, vector.dtype))
        self.used = 0
        self.rows = []
        self.tables = {}

    @contextlib.contextmanager
    def collected(self):
        """While this lasts, sums are put off."""
        self.used = 0
        self.rows = []
        launch.PUT_OFF = self
        try:
            yield
        finally:
            launch.PUT_OFF = None

    def take(self, n_sums: int, n_blocks: int, width: int) -> Array:
        """An array (n_sums, n_blocks, width) of those that stay."""
        first = self.used
        self.used += n_sums * n_blocks * width
        return self.partial[first : self.used].reshape(n_sums, n_blocks, width)

    def put_off(self, partial: Array) -> list[Pending]:
        """The Pending sums over the blocks of the array that was taken last."""
        n_sums, n_blocks, width = partial.shape
        first = self.used - n_sums * n_blocks * width
        return [Pending(first + number * n_blocks * width, n_blocks, width) for number in range(n_sums)]

    def add(self, key: typing.Hashable) -> None:
        """Make all sums that were put off; `key` stands for a step whose sums are always the same."""
        if key not in self.tables:  # the first time; not during a capture, where nothing may cross the bus
            with toolchain.lasting():
                self.tables[key] = to_device(np.array(self.rows, np.int64))
        threads = WARP * WARP
        call(_sums_kernel, len(self.rows), threads, threads * 8, (self.vector, self.partial, self.tables[key]))


class PendingGradient:
    """A gradient of one dimension, from `start` of the vector of gradients; a Pending is assigned to it."""

    def __init__(self, sums: Sums, start: int):
        self.sums = sums
        self.start = start

    def __setitem__(self, everything, pending):
        for column in range(0, pending.width, WARP):
            self.sums.rows.append((*pending, column, self.start))


@kernel
def _sums_kernel(vector, partial, table):
    row = cuda.blockIdx.x
    lane = cuda.threadIdx.x
    buffer = cuda.shared.array(0, vector.dtype)
    stride = cuda.blockDim.x // WARP
    first, n_blocks, width = table[row, 0], table[row, 1], table[row, 2]
    d = table[row, 3] + lane % WARP
    total = vector.dtype.type(0)
    if d < width:
        for n in range(lane // WARP, n_blocks, stride):
            total += partial[first + n * width + d]
    buffer[lane] = total
    cuda.syncthreads()
    if lane < WARP and d < width:
        for other in range(1, stride):
            total += buffer[lane + other * WARP]
        vector[table[row, 4] + d] = total
