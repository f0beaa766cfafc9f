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
    """Masks of one training step for the sites and edges of a shard; a function of seed, step and structure."""

    def __init__(self, seed: int, step: int, shard: GraphBatch):
        self.shard, self.site_key = shard, item_keys(structure_keys(seed, step, shard.structure), shard.site_ptr)
        self.keys = {}

    def to(self, ops: Ops) -> "Dropout":
        """The masks where the operations of a backend compute; themselves on the CPU."""
        if not ops.on_device:
            return self
        placed = copy.copy(self)
        placed.keys = {}
        placed.site_key = ops.to_device(self.site_key)
        placed.edge_key = ops.to_device(self.edge_key)
        return placed

    def site_keys(self, slot: int) -> Array:
        """(N,) uint64: keys of the sites in a slot; kept, because backward asks again."""
        if slot not in self.keys:
            self.keys[slot] = slot_keys(self.site_key, slot)
        return self.keys[slot]

    @functools.cached_property
    def edge_key(self) -> Array:
        """(E,) uint64; made when the local attention is dropped from."""
        return item_keys(self.site_key, self.shard.edge_ptr)

    def edge_keys(self, slot: int) -> Array:
        """(E,) uint64: keys of the edges in a slot."""
        return slot_keys(self.edge_key, slot)
