"""The attention that a network is taught: per-site arrays of the data set."""

import numpy as np

from refattn.config import Config
from refattn.data.store import Dataset
from refattn.errors import DataError


def taught_attention(dataset: Dataset, config: Config) -> np.ndarray | None:
    """(N, K) attention that the network of a configuration is taught, see Targets; None where there is none.

    Of a structure's per-site array negative entries are 0, and the rest is divided by its sum. A structure without the
    array, or with nothing left of it, is not taught.

    Raises DataError for an array that the data set does not have, or with more than a number a site.
    """
    if not config.training.attention:
        return None
    site_ptr = dataset.graphs.site_ptr
    share = np.zeros((len(dataset.graphs.z), len(config.data.targets)))
    for target, name in config.training.attention:
        array = dataset.arrays.get(name)
        if array is None or array.ndim != 1:
            names = ", ".join(sorted(n for n, a in dataset.arrays.items() if a.ndim == 1)) or "none"
            raise DataError(f"the data set has no array {name!r} with a number for every site; it has: {names}")
        clipped = np.maximum(array, 0)  # NaN stays
        sums = np.repeat(np.add.reduceat(clipped, site_ptr[:-1]), np.diff(site_ptr))
        taught = np.isfinite(sums) & (sums > 0)
        share[taught, config.data.targets.index(target)] = clipped[taught] / sums[taught]
    return share
