"""From a data set to shards: rows of ragged arrays are gathered, nothing is padded."""

import numpy as np

from refattn.data.store import ragged_rows
from refattn.errors import DataError
from refattn.structures.elements import cgcnn_features
from refattn.structures.graph import Shard, cut_shards


class Loader:
    """Hands out shards of a Dataset in the type and with the features that a network asks for.

    Parameters
    ----------
    dataset : Dataset
    config : ModelConfig
    dtype : float32 or float64

    Raises DataError when the network cannot read the structures: an element outside its table, no ring features.
    """

    def __init__(self, dataset, config, dtype):
        self.config, self.dtype = config, np.dtype(dtype)
        self.site_ptr, self.edge_ptr = dataset.site_ptr, dataset.edge_ptr
        self.z, self.nbr = dataset.z.astype(np.int32), dataset.nbr
        self.r, self.omega = dataset.r.astype(dtype), dataset.omega.astype(dtype)
        self.weight = dataset.weight.astype(dtype)
        self.n_edges = np.diff(dataset.edge_ptr[dataset.site_ptr])
        self.on_device = None  # its DeviceDataset, once a GPU has asked for it
        self._check_elements(dataset)
        self.element_features = self.ring = None
        if config.features == "cgcnn":
            self.element_features = cgcnn_features(np.arange(int(self.z.max(initial=0)) + 1)).astype(dtype)
        if config.ring:
            self.ring = self._ring_features(dataset)

    def _check_elements(self, dataset):
        unknown = np.flatnonzero(self.z >= self.config.n_elements)
        if self.config.features == "atomic" and len(unknown):
            where = dataset.id[np.searchsorted(self.site_ptr, unknown[0], side="right") - 1]
            raise DataError(
                f"structure {where} has an atom of atomic number {self.z[unknown[0]]}, but the network's table ends at "
                f"{self.config.n_elements - 1}; raise model.n_elements or leave the structure out"
            )

    def _ring_features(self, dataset):
        ring = dataset.arrays.get("ring")
        if ring is None or ring.shape[1:] != (2,):
            raise DataError(
                "the network asks for ring features, but the data set has no per-site array `ring` with two columns "
                "(in a ring, aromatic); add it to the source or set model.ring=false"
            )
        return ring.astype(self.dtype)

    def cut(self, rows):
        """Cut a batch of row numbers into the rows of its shards."""
        return [rows[part] for part in cut_shards(self.n_edges[rows])]

    def shard(self, rows):
        """The structures `rows` as one Shard."""
        site_ptr, sites = ragged_rows(self.site_ptr, rows)
        edge_ptr, edges = ragged_rows(self.edge_ptr, sites)
        offset = np.repeat(site_ptr[:-1], self.n_edges[rows])
        z = self.z[sites]
        return Shard(
            site_ptr=site_ptr.astype(np.int32),
            edge_ptr=edge_ptr.astype(np.int32),
            nbr=(self.nbr[edges] + offset).astype(np.int32),
            z=z,
            r=self.r[edges],
            omega=self.omega[edges],
            weight=self.weight[edges],
            structure=rows,
            features=None if self.element_features is None else self.element_features[z],
            ring=None if self.ring is None else self.ring[sites],
        )


def epoch_batches(rows, batch_size, seed, epoch):
    """Rows in a random order of their own for every epoch, in batches; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
