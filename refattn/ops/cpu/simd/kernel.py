"""The decorator of the kernels and their helpers: jit, for functions that write into arrays and make none."""

import functools

from refattn.common.jit import jit

kernel = functools.partial(jit, allocates=False)
