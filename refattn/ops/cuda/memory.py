"""Arrays on the device. CuPy's pool gives back at once what was freed, in the order of the stream: no work arrays."""

import contextlib

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.toolchain import to_host  # noqa: F401  (the backend's)

to_device = toolchain.xp.asarray
work_arrays = contextlib.nullcontext
xp = toolchain.xp


def empty(shape, dtype):
    """An array with whatever was there before; under a Ledger (ledger.py) one that tells what is done with it."""
    array = toolchain.xp.empty(shape, dtype)
    return array if toolchain.LISTENER is None else toolchain.LISTENER.array(array)
