"""The only module that imports the CUDA toolchain: numba.cuda for kernels, CuPy for arrays and products (cuBLAS).

With NUMBA_ENABLE_CUDASIM=1, read at import, Numba's simulator runs the kernels as Python threads, and NumPy's arrays
stand in for CuPy's. A kernel that runs in it uses no warp shuffles: the simulator has none.
"""

import functools
import math

import numpy as np
from numba import cuda as numba_cuda

from refattn.errors import ConfigError, MissingExtra, in_one_line

try:  # the package numba-cuda has a configuration of its own, the kernels that come with Numba have Numba's
    from numba.cuda.core import config
except ImportError:
    from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)


def _import_cupy():
    """CuPy, after a look for what it stands on. Raises MissingExtra, or ConfigError where there is no GPU."""
    try:
        import cupy
    except ImportError as error:
        raise MissingExtra(
            "the device cuda needs CuPy and numba-cuda, which come with the extra `cuda`: pip install 'refattn[cuda]'; "
            "without a GPU use --device cpu"
        ) from error
    if not numba_cuda.is_available():
        reason = in_one_line(numba_cuda.cuda_error() or "the driver answers, but knows no GPU")
        raise ConfigError(f"the device cuda needs an NVIDIA GPU and its driver: {reason}; use --device cpu")
    return cupy


class _SimulatedCuda:
    """numba.cuda as a kernel sees it in the simulator: threadIdx, shared memory and so on of the launch that runs.

    The simulator does this by exchanging the global `cuda` of a function while a thread is inside, which goes wrong
    for a device function of another file: the first thread to leave takes it from the others.
    """

    def __getattr__(self, name):
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context() or numba_cuda, name)


if SIMULATED:
    cuda, xp = _SimulatedCuda(), np
    to_host = np.asarray
    exp = np.exp  # of the type of its argument; math.exp is exact in float32 too, and a Python float
    kernel, device = numba_cuda.jit, lambda function: function
else:
    cuda, xp = numba_cuda, _import_cupy()
    to_host = xp.asnumpy
    exp = math.exp
    kernel, device = functools.partial(numba_cuda.jit, cache=True), functools.partial(numba_cuda.jit, device=True)
    # Both libraries work in the default stream, so that the order of launches is the order of execution: Numba need
    # not wait for the stream of every array. And small shards are meant.
    config.CUDA_ARRAY_INTERFACE_SYNC = config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
