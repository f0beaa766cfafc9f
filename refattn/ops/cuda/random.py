"""Random numbers by counter inside kernels: the bits of refattn/ops/random.py."""

import numpy as np

from refattn.ops.cuda.toolchain import device
from refattn.ops.random import INCREMENT, MULTIPLIER_1, MULTIPLIER_2


@device
def mix_key(counter):
    """See refattn.ops.random.mix: of one unsigned 64-bit integer."""
    state = counter * np.uint64(INCREMENT) + np.uint64(INCREMENT)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    return state ^ (state >> np.uint64(31))
