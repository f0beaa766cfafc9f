"""What the tests of the CUDA backend have in common: a quicker simulator, and a small network.

Numba's simulator runs a thread of Python for each thread of a GPU.
"""

import dataclasses
import sys
import time

from small_data import small_config

from refattn.ops.cuda.toolchain import SIMULATED

SMALL = {"n_layers": 1, "width": 4, "global_width": 4, "head_width": 4, "embedding_width": 4, "n_radial": 4}

if SIMULATED:
    from numba.cuda.simulator.kernel import BlockThread

    # The simulator's main thread asks without a pause whether the others are done, and keeps them from it.
    sys.setswitchinterval(0.0005)
    is_alive = BlockThread.is_alive
    BlockThread.is_alive = lambda thread: (time.sleep(0), is_alive(thread))[1]


def smaller_config(path, model=None, **training):
    """small_config with one layer of width 4, and the changes of [model] in the dict `model`."""
    config = small_config(path, **training)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **{**SMALL, **(model or {})}))
