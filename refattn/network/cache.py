"""What a forward pass saves for its backward: a dataclass a step, with the shape of every array."""

import dataclasses

from refattn.ops.types import (
    Array,
    EdgeList,
    FilteredAttentionCache,
    GlobalAttentionCache,
    RowDropout,
    SiteBlockCache,
    UpdatedAttentionCache,
)
from refattn.structures.batch import GraphBatch


@dataclasses.dataclass(slots=True)
class EmbeddingCache:
    """Step 1."""

    c: Array  # (N, W) input embedding
    v: Array  # (N, D) argument of the swish
    site: Array  # (N, D) before dropout


@dataclasses.dataclass(slots=True)
class GeometryCache:
    """Step 2; SCANN has the expansion of the distances only."""

    rbf_r: Array  # (E, G)
    rbf_omega: Array | None = None  # (E, G)
    v_r: Array | None = None  # (E, D) arguments of the swishes
    v_omega: Array | None = None  # (E, D)


@dataclasses.dataclass(slots=True)
class LayerCache:
    """Steps 3 to 6 of one layer."""

    site: Array  # (N, D) that came in
    geo: Array  # (E, D) that came in; SCANN: (E, G), the expansion
    edges: EdgeList  # with the dropout of the attention
    q: Array  # (N, H, C)
    context: Array  # (N, D)
    attention: UpdatedAttentionCache | FilteredAttentionCache
    dropout: RowDropout | None = None  # of the residual block
    block: SiteBlockCache | tuple | None = None  # without residual block x_hat (N, D) and rstd (N,) of the norm


@dataclasses.dataclass(slots=True)
class ReadOutCache:
    """Steps 7 and 8 of one target, with the cache of step 9."""

    site_before: Array  # (N, D) of the last layer
    v: Array  # (N, G) argument of the swish
    site: Array  # (N, G)
    q: Array  # (N, G)
    k: Array  # (N, G)
    struct: Array | None = None  # (S, G)
    attention: GlobalAttentionCache | None = None
    head: "HeadCache | None" = None


@dataclasses.dataclass(slots=True)
class HeadCache:
    """Step 9; M is S, or N for the additive head."""

    x: Array  # (M, G) struct, or the keys
    v: Array  # (M, O) argument of the swish
    hidden: Array  # (M, O)
    value: Array | None = None  # (N,) f of the additive head, and
    weight: Array | None = None  # (N,) how much it counts: beta, or 1

    @property
    def contribution(self) -> Array:
        """(N,) of every site to the prediction, by the additive head; they sum to it."""
        return self.weight * self.value


@dataclasses.dataclass(slots=True)
class Tape:
    """What a forward pass leaves behind, step by step."""

    shard: GraphBatch
    embedding: EmbeddingCache
    geometry: GeometryCache
    layers: list[LayerCache]
    read_outs: list[ReadOutCache]  # of each target
    prediction: Array  # (S, K) the properties, in units of the scaled targets

    @property
    def alpha(self) -> list[Array]:
        """(E, H) local attention of each layer; sums to 1 over the edges of a site."""
        return [layer.attention.alpha for layer in self.layers]

    @property
    def beta(self) -> list[Array]:
        """(N,) global attention of each target; sums to 1 over a structure."""
        return [read_out.attention.beta for read_out in self.read_outs]
