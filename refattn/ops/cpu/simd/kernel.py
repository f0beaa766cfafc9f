"""The decorators of the CPU backend: for its kernels and their helpers, and for what these do by vectors."""

import functools
from collections.abc import Callable

import numba
from numba.extending import intrinsic

from refattn.common.jit import jit

kernel = functools.partial(jit, allocates=False)  # for functions that write into arrays and make none


def vector_intrinsic(meaning: Callable) -> Callable:
    """numba.extending.intrinsic for a function whose meaning is written in NumPy too, in meaning.py.

    With NUMBA_DISABLE_JIT=1 nothing is compiled, and the kernels call `meaning` itself.
    """
    return (lambda typed: meaning) if numba.config.DISABLE_JIT else intrinsic
