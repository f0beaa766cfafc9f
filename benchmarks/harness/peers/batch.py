"""A batch of structures as the layouts of the frameworks need it; made once, before any clock runs."""

import dataclasses

import numpy as np

from refattn.structures.batch import GraphBatch
from refattn.training.schedule import epoch_batches


@dataclasses.dataclass(frozen=True)
class Batch:
    """Ragged arrays of S structures, N sites and E edges, float32 and int64.

    z : (N,), structure : (N,)               element and structure of each site
    site, nbr : (E,)                         the site that looks, and the one that it sees
    r, omega, weight : (E,)                  Å, sr, 1
    rows, label : (S,)                       numbers in the data set, scaled label
    site_ptr : (S + 1,), edge_ptr : (N + 1,)
    """

    z: np.ndarray
    structure: np.ndarray
    site: np.ndarray
    nbr: np.ndarray
    r: np.ndarray
    omega: np.ndarray
    weight: np.ndarray
    rows: np.ndarray
    label: np.ndarray
    site_ptr: np.ndarray
    edge_ptr: np.ndarray

    @classmethod
    def of(cls, graphs: GraphBatch, rows, label):
        """The structures `rows` of a data set, with scaled labels (S,)."""
        shard = graphs.take(rows)
        n_structures, n_sites = len(rows), len(shard.z)
        return cls(
            z=shard.z.astype(np.int64),
            structure=np.repeat(np.arange(n_structures), np.diff(shard.site_ptr)),
            site=np.repeat(np.arange(n_sites), np.diff(shard.edge_ptr)),
            nbr=shard.nbr.astype(np.int64),
            r=shard.r.astype(np.float32),
            omega=shard.omega.astype(np.float32),
            weight=shard.weight.astype(np.float32),
            rows=rows,
            label=label[rows].astype(np.float32),
            site_ptr=shard.site_ptr.astype(np.int64),
            edge_ptr=shard.edge_ptr.astype(np.int64),
        )

    def padded(self):
        """Padded arrays: B structures of at most M sites with at most K edges; masks are 1 where something is.

        Returns
        -------
        dict with z (B, M), nbr (B, M, K), r, omega, weight (B, M, K), site_mask (B, M), edge_mask (B, M, K)
        """
        sizes, degree = np.diff(self.site_ptr), np.diff(self.edge_ptr)
        shape = (len(sizes), int(sizes.max()), int(degree.max(initial=1)))
        place = np.arange(len(self.z)) - self.site_ptr[self.structure]  # of a site in its structure
        slot = np.arange(len(self.nbr)) - self.edge_ptr[self.site]  # of an edge at its site
        at = self.structure[self.site], place[self.site], slot
        found = {"z": np.zeros(shape[:2], dtype=np.int64), "nbr": np.zeros(shape, dtype=np.int64)}
        found |= {name: np.zeros(shape, dtype=np.float32) for name in ("r", "omega", "weight", "edge_mask")}
        found["site_mask"] = np.zeros(shape[:2], dtype=np.float32)
        found["z"][self.structure, place] = self.z
        found["site_mask"][self.structure, place] = 1
        found["nbr"][at] = place[self.nbr]
        found["edge_mask"][at] = 1
        for name in ("r", "omega", "weight"):
            found[name][at] = getattr(self, name)
        return found


def train_epoch(peer, source, rows):
    """One epoch of a peer whose steps take a Batch, on the structures `rows`, shuffled.

    Batches are gathered by refattn's GraphBatch, which is faster than a DataLoader that collates structures one by one.
    """
    for own in epoch_batches(rows, peer.training.batch_size, peer.training.seed, 1):
        peer.step(Batch.of(source.dataset.graphs, own, source.label))
        peer.cache.clear()
