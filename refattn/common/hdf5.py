"""HDF5 data sets that grow."""

import h5py
import numpy as np


def append(data: h5py.Dataset, values: np.ndarray | list, axis: int = 0) -> None:
    """Enlarge the h5py.Dataset `data` by `values` along `axis`."""
    start = data.shape[axis]
    data.resize(start + np.shape(values)[axis], axis=axis)
    if data.shape[axis] > start:
        data[(slice(None),) * axis + (slice(start, None),)] = values
