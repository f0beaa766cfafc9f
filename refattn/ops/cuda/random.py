"""Random numbers by counter inside kernels: the bits of refattn/ops/random.py."""

import numpy as np

from refattn.ops.cuda.toolchain import device
from refattn.ops.random import INCREMENT, MULTIPLIER_1, MULTIPLIER_1_32, MULTIPLIER_2, MULTIPLIER_2_32, STEP_32


@device
def mix_key(counter):
    """See refattn.ops.random.mix: of one unsigned 64-bit integer."""
    state = counter * np.uint64(INCREMENT) + np.uint64(INCREMENT)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return state ^ (state >> np.uint64(31))


@device
def scramble(key, column):
    """See refattn.ops.random.scramble; every step is cut to 32 bits, which Numba would widen."""
    state = np.uint32(np.uint32(key & np.uint64(0xFFFFFFFF)) + np.uint32(np.uint32(column) * np.uint32(STEP_32)))
    state = np.uint32(np.uint32(state ^ np.uint32(state >> np.uint32(16))) * np.uint32(MULTIPLIER_1_32))
    high = np.uint32(key >> np.uint64(32))
    state = np.uint32(
        np.uint32(np.uint32(state ^ np.uint32(state >> np.uint32(15))) ^ high) * np.uint32(MULTIPLIER_2_32)
    )
    return np.uint32(state ^ np.uint32(state >> np.uint32(16)))
