"""Gradients of biases and gains, all summed in one launch at the end of a backward pass.

A kernel that makes a column sum leaves one sum for each of its blocks (launch.partial_sums), which have to be added up:
some hundred small launches a step. While Sums are collected, partial sums go into one array that stays, column_sums
returns what it would have to add up, and writing that into a gradient of one dimension only notes the place.
"""

import contextlib
import typing

import numpy as np

from refattn.network.params import Parameters
from refattn.ops.cuda import launch
from refattn.ops.cuda.memory import to_device
from refattn.ops.cuda.toolchain import WARP, call, cuda, kernel


class Pending(typing.NamedTuple):
    """A sum to be made: partial[first + n width + d] over n < n_blocks, for every d < width."""

    first: int
    n_blocks: int
    width: int


class _Slot:
    """A gradient of one dimension, from place `start` of the vector of gradients."""

    def __init__(self, sums, start):
        self.sums, self.start = sums, start

    def __setitem__(self, everything, pending):
        for column in range(0, pending.width, WARP):
            self.sums.rows.append((*pending, column, self.start))


class Gradients(Parameters):
    """Parameters for the gradients of a step; those of one dimension are noted in `sums`, and written by its `add`."""

    def __init__(self, table, vector):
        super().__init__(table, vector)
        self.sums, start, n_columns = Sums(vector), 0, 0
        for entry in table:
            if len(entry.shape) == 1:
                layer, dot, name = entry.name.partition(".")
                views = self._layers[layer] if dot else self._views
                views[name if dot else layer] = _Slot(self.sums, start)
                n_columns += entry.size
            start += entry.size
        self.sums.partial = to_device(np.zeros(n_columns * launch.MAX_BLOCKS, vector.dtype))


class Sums:
    """See the head of this file. The key that `add` takes stands for a step whose sums are always the same."""

    def __init__(self, vector):
        self.vector, self.partial, self.used, self.rows, self.tables = vector, None, 0, [], {}

    @contextlib.contextmanager
    def collected(self):
        """While this lasts, sums are put off."""
        self.used, self.rows, launch.PUT_OFF = 0, [], self
        try:
            yield
        finally:
            launch.PUT_OFF = None

    def take(self, n_sums, n_blocks, width):
        """An array (n_sums, n_blocks, width) of those that stay."""
        first, self.used = self.used, self.used + n_sums * n_blocks * width
        return self.partial[first : self.used].reshape(n_sums, n_blocks, width)

    def put_off(self, partial):
        """The Pending sums over the blocks of the array that was taken last."""
        n_sums, n_blocks, width = partial.shape
        first = self.used - n_sums * n_blocks * width
        return [Pending(first + number * n_blocks * width, n_blocks, width) for number in range(n_sums)]

    def add(self, key):
        """Make all sums that were put off."""
        if key not in self.tables:  # the first time; not during a capture, where nothing may cross the bus
            self.tables[key] = to_device(np.array(self.rows, np.int64))
        threads = WARP * WARP
        call(_sums_kernel, len(self.rows), threads, threads * 8, (self.vector, self.partial, self.tables[key]))


@kernel
def _sums_kernel(vector, partial, table):
    row, lane = cuda.blockIdx.x, cuda.threadIdx.x
    buffer, stride = cuda.shared.array(0, vector.dtype), cuda.blockDim.x // WARP
    first, n_blocks, width, d = table[row, 0], table[row, 1], table[row, 2], table[row, 3] + lane % WARP
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
