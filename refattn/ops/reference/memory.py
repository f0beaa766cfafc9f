"""The reference allocates freely: work arrays are plain NumPy arrays."""

import contextlib

from numpy import empty  # noqa: F401  (the backend's `empty`)

work_arrays = contextlib.nullcontext
