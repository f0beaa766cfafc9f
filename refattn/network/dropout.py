"""Dropout masks of sites and of local attention.

A mask is a function of seed, step, structure and slot alone (refattn/ops/random.py), so neither the cut into shards nor
a resume changes it. A slot is a place in the network: 0 after the embedding, 2 l + 1 the attention and 2 l + 2 the
residual block of layer l.
"""

import copy
import functools

from refattn.ops.random import item_keys, slot_keys, structure_keys
from refattn.ops.types import Array, Ops
from refattn.structures.batch import GraphBatch


class Dropout:
    """Masks of one training step for the sites and edges of a shard; a function of seed, step and structure.

    Keys of all slots are made at once: a call of NumPy's for so few numbers costs more than they do.
    """

    def __init__(self, seed: int, step: int, shard: GraphBatch, n_layers: int):
        self.shard = shard
        self.n_layers = n_layers
        self._site = item_keys(structure_keys(seed, step, shard.structure), shard.site_ptr)

    def to(self, ops: Ops) -> "Dropout":
        """The masks where the operations of a backend compute; themselves on the CPU."""
        if not ops.on_device:
            return self
        placed = copy.copy(self)
        placed.site_key = ops.to_device(self.site_key)
        placed.edge_key = ops.to_device(self.edge_key)
        return placed

    @functools.cached_property
    def site_key(self) -> Array:
        """(L + 1, N) uint64: keys of the sites in the slots 0, 2, 4, ..."""
        return slot_keys(self._site, range(0, 2 * self.n_layers + 1, 2))

    @functools.cached_property
    def edge_key(self) -> Array:
        """(L, E) uint64: keys of the edges in the slots 1, 3, ...; made when the local attention is dropped from."""
        return slot_keys(item_keys(self._site, self.shard.edge_ptr), range(1, 2 * self.n_layers, 2))

    def site_keys(self, slot: int) -> Array:
        """(N,) uint64: keys of the sites in a slot."""
        return self.site_key[slot // 2]
