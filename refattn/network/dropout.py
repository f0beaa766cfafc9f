"""Dropout of sites and of local attention: what of the network is missing in a training step, and how that is kept.

A mask is a function of seed, step, structure and place in the network alone (refattn/ops/random.py), so neither the cut
into shards nor a resume changes it. Places: 0 after the embedding, 2 l + 1 the attention and 2 l + 2 the residual block
of layer l.
"""

import copy
import functools

from refattn.ops.random import item_keys, layer_keys, structure_keys
from refattn.ops.types import Array, Ops
from refattn.structures.batch import GraphBatch


class Dropout:
    """Masks of one training step for the sites and edges of a shard; a function of seed, step and structure."""

    def __init__(self, seed: int, step: float, shard: GraphBatch):
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

    def site_keys(self, place: int) -> Array:
        """(N,) uint64: keys of the sites at a place of the network; kept, because backward asks again."""
        if place not in self.keys:
            self.keys[place] = layer_keys(self.site_key, place)
        return self.keys[place]

    @functools.cached_property
    def edge_key(self) -> Array:
        """(E,) uint64; made when the local attention is dropped from."""
        return item_keys(self.site_key, self.shard.edge_ptr)

    def edge_keys(self, place: int) -> Array:
        """(E,) uint64: keys of the edges at a place of the network."""
        return layer_keys(self.edge_key, place)
