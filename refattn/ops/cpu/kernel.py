"""The decorator of the kernels and their helpers: refattn.jit, for functions that write into arrays and make none."""

import functools

from refattn.jit import jit

kernel = functools.partial(jit, allocates=False)
