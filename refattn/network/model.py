"""The network: forward in numbered steps 1 to 9, backward in steps 9 to 1, each written out (docs/design.md section 3).

Every step composes operations of one backend (`ops`, see refattn.ops.load_backend). What forward saves for backward
stands in the dataclasses of cache.py, step by step. Gradients have the types of the weights: what reads the weights of
an operation from the parameters reads from `grads` where to write their gradients.
"""

import functools
from collections.abc import MutableSequence, Sequence
from types import ModuleType

import numpy as np

from refattn.config import ModelConfig
from refattn.network.cache import EmbeddingCache, GeometryCache, HeadCache, LayerCache, ReadOutCache, Tape
from refattn.network.dropout import Dropout
from refattn.network.params import Parameters, Weights, dense, kernel_of
from refattn.ops.types import Array, EdgeList, Ops, RowDropout
from refattn.structures.batch import GraphBatch


@functools.cache
def radial_centres(config: ModelConfig, dtype: np.dtype, xp: ModuleType = np) -> list[Array]:
    """Centres of the distance expansion, 0 to radial_max (Å), of the solid angle's, 0 to 2 pi (sr), and of cosines."""
    n = config.n_radial
    ranges = (0, config.radial_max, n), (0, 2 * np.pi, n), (-1, 1, config.n_angular)
    return [xp.linspace(*of).astype(dtype) for of in ranges]


def forward(
    params: Parameters,
    shard: GraphBatch,
    config: ModelConfig,
    ops: Ops,
    dropout: Dropout | None = None,
    embedding: Array | None = None,
    layers: MutableSequence[LayerCache] | None = None,
) -> Tape:
    """Predict the properties of every structure of a shard: steps 1 to 6 for all targets, 7 to 9 for each.

    Parameters
    ----------
    params : Parameters
        Their type, float32 or float64, is the type of the computation; the shard's arrays have it too.
    shard : GraphBatch
    config : ModelConfig
    ops : namespace of operations
    dropout : Dropout, optional
        The masks of a training step; None at inference.
    embedding : (N, embedding_width, or more with ring features) float, optional
        Taken in the place of what input_embedding makes of the sites.
    layers : sequence with `append`, optional
        What keeps the LayerCaches, for the Tape; by default a list.

    Returns
    -------
    Tape
    """
    site, embedded = embed(params, shard, config, ops, dropout, embedding)
    geo, geometry = expand_geometry(params, shard, config, ops)
    layers = [] if layers is None else layers
    for layer, edges in enumerate(edge_lists(shard, config, ops, dropout)):
        residual = residual_dropout(config, dropout, layer)
        cache, geo, site = compute_layer(params.layer(layer), site, geo, edges, config, ops, residual)
        layers.append(cache)
    read_outs = []
    predictions = []
    for target in range(config.n_targets):
        weights = params.target(target)
        cache = project(weights, site, ops)
        attend_globally(cache, shard, config, ops)
        predictions.append(predict(weights, cache, shard, config, ops))
        read_outs.append(cache)
    return Tape(shard, embedded, geometry, layers, read_outs, beside_each_other(predictions, ops))


def backward(
    grad_prediction: Array,
    tape: Tape,
    params: Parameters,
    grads: Parameters,
    config: ModelConfig,
    ops: Ops,
    dropout: Dropout | None = None,
    grad_inputs: dict[str, Array] | None = None,
    grad_scores: Sequence[Array | None] | None = None,
) -> None:
    """Gradients of the loss by every parameter, written into `grads`; the steps of forward in reverse.

    Parameters
    ----------
    grad_prediction : (S, K) float
    tape : Tape           of forward, with the same params, config, ops and dropout
    grads : Parameters    overwritten
    grad_inputs : dict, optional
        Filled with the gradients by the network's inputs: `embedded` (N, embedding_width) by the row of the
        element table or `features` (N, 92), `ring` (N, 2), `rbf_r` and `rbf_omega` (E, G), `weight` (E,); and by
        what input_embedding makes of the first: `embedding`.
    grad_scores : sequence of K (N,) float or None, optional
        Gradients by the scores of each target's global attention, where the loss reads these too.
    """
    shard = tape.shard
    grad_site = None
    for target, cache in enumerate(tape.read_outs):
        weights, grad_weights = params.target(target), grads.target(target)
        grad_y = ops.xp.ascontiguousarray(grad_prediction[:, target : target + 1])
        grads_of_head = _predict_backward(grad_y, weights, grad_weights, shard, config, ops, cache)
        grad_attention = *grads_of_head, grad_scores[target] if grad_scores else None
        grad_site = _read_out_backward(grad_attention, grad_site, weights, grad_weights, shard, config, ops, cache)
    grad_geo = None
    for layer in reversed(range(config.n_layers)):
        weights, grad_weights, cache = params.layer(layer), grads.layer(layer), tape.layers[layer]
        grad_sum = _update_sites_backward(grad_site, weights, grad_weights, cache, config, ops)
        grad_site, grad_geo, grad_q = _attend_backward(
            grad_sum, grad_geo, weights, grad_weights, cache, config, ops, grad_inputs
        )
        # forward: q = site w_q + b_q
        grad_q = grad_q.reshape(grad_sum.shape)
        ops.dense_backward(grad_q, cache.site, weights.query.w, grad_site, grad_weights.query)
    _geometry_backward(grad_geo, params, grads, config, ops, tape.geometry, grad_inputs)
    _embed_backward(grad_site, params, grads, shard, config, ops, dropout, tape.embedding, grad_inputs)


# ---- dropout, with the keys of a refattn.network.dropout.Dropout, and what of the edges the layers share ----------


def drop(x: Array, rate: float, ops: Ops, dropout: Dropout | None, slot: int) -> Array:
    """x (N, D) with a part `rate` of it dropped; x itself without a Dropout."""
    return ops.dropout_forward(x, dropout.site_keys(slot), rate) if dropout and rate else x


def drop_backward(grad_y: Array, rate: float, ops: Ops, dropout: Dropout | None, slot: int) -> Array:
    """The same of a gradient."""
    return ops.dropout_backward(grad_y, dropout.site_keys(slot), rate) if dropout and rate else grad_y


def edge_lists(shard: GraphBatch, config: ModelConfig, ops: Ops, dropout: Dropout | None) -> list[EdgeList]:
    """The edges of a shard as each layer's attention sees them: with masks, and with weights for SCANN."""
    n_layers, n_edges, dtype = config.n_layers, len(shard.r), shard.r.dtype
    if dropout and config.attention_dropout:
        ones = ops.xp.ones((n_layers * n_edges, config.n_heads), dtype=dtype)
        masks = ops.dropout_forward(ones, dropout.edge_key.reshape(-1), config.attention_dropout)
        masks = masks.reshape(n_layers, n_edges, config.n_heads)
    else:
        masks = n_layers * [ops.xp.ones((n_edges, config.n_heads), dtype=dtype)]
    weight = shard.weight if config.variant == "scann" else None
    return [EdgeList(shard.edge_ptr, shard.nbr, mask, weight) for mask in masks]


# ---- step 1: embedding -------------------------------------------------------------------------------------------


def input_embedding(params: Parameters, shard: GraphBatch, config: ModelConfig, ops: Ops) -> Array:
    """Where the network starts: c[i] = [embedded element | ring features], of each site alone.

    embedded = embed[z], or features w + b; ring features = ring w + b, appended where the network asks for them.

    Returns
    -------
    c : (N, embedding_width), or (N, embedding_width + 10) with ring features
    """
    if config.features == "cgcnn":
        c = ops.dense_forward(shard.features, *dense(params, "embed"))
    else:
        c = ops.embedding_forward(params["embed"], shard.z)
    if config.ring:
        c = ops.xp.concatenate([c, ops.dense_forward(shard.ring, *dense(params, "ring"))], axis=1)
    return c


def embed(
    params: Parameters,
    shard: GraphBatch,
    config: ModelConfig,
    ops: Ops,
    dropout: Dropout | None = None,
    embedding: Array | None = None,
) -> tuple[Array, EmbeddingCache]:
    """1. site = drop(swish(c w + b)), c the input embedding. Returns site (N, D) and the EmbeddingCache."""
    c = input_embedding(params, shard, config, ops) if embedding is None else embedding
    site, v = ops.swish_forward(ops.dense_forward(c, params["site_w"]), params["site_b"])
    return drop(site, config.dropout, ops, dropout, 0), EmbeddingCache(c, v, site)


def _embed_backward(grad_site, params, grads, shard, config, ops, dropout, cache, grad_inputs):
    grad_site = drop_backward(grad_site, config.dropout, ops, dropout, 0)
    grad_u, grads["site_b"][...] = ops.swish_backward(grad_site, cache.v)
    grad_c, *_ = ops.dense_backward(grad_u, cache.c, params["site_w"], out=kernel_of(grads, "site"))
    # forward: c = [embedded | ring w + b]
    found = {"embedding": grad_c}
    grad_embedded = ops.xp.ascontiguousarray(grad_c[:, : config.embedding_width])
    if config.ring:
        grad_ring = ops.xp.ascontiguousarray(grad_c[:, config.embedding_width :])
        found["ring"], *_ = ops.dense_backward(grad_ring, shard.ring, params["ring_w"], out=dense(grads, "ring"))
    if config.features == "cgcnn":
        found["features"], *_ = ops.dense_backward(
            grad_embedded, shard.features, params["embed_w"], out=dense(grads, "embed")
        )
    else:
        grads["embed"][...] = ops.embedding_backward(grad_embedded, params["embed"], shard.z)
        found["embedded"] = grad_embedded
    if grad_inputs is not None:
        grad_inputs.update(found)


# ---- step 2: geometry of the edges -------------------------------------------------------------------------------


def expand_geometry(
    params: Parameters, shard: GraphBatch, config: ModelConfig, ops: Ops
) -> tuple[Array, GeometryCache]:
    """2. Gaussian expansions; SCANN+: geo = swish(rbf(r) w_r + b_r) swish(rbf(omega) w_o + b_o).

    The expansion of the angles between edges, where there is one, is appended to rbf(omega), of SCANN to rbf(r).

    Returns
    -------
    geo : (E, D), SCANN the expansion (E, G); cache : GeometryCache
    """
    centres_r, centres_omega, centres_cos = radial_centres(config, params.vector.dtype, ops.xp)
    rbf_r = ops.gaussian_expand_forward(shard.r, centres_r, config.radial_width)
    if config.variant == "scann":
        rbf_r = with_angles(rbf_r, shard, centres_cos, ops)
        return rbf_r, GeometryCache(rbf_r)
    rbf_omega = ops.gaussian_expand_forward(shard.omega, centres_omega, config.radial_width)
    rbf_omega = with_angles(rbf_omega, shard, centres_cos, ops)
    u_r = ops.dense_forward(rbf_r, params["distance_w"])
    u_omega = ops.dense_forward(rbf_omega, params["angle_w"])
    geo, v_r, v_omega = ops.geometry_embed_forward(u_r, u_omega, params["distance_b"], params["angle_b"])
    return geo, GeometryCache(rbf_r, rbf_omega, v_r, v_omega)


def with_angles(rbf: Array, shard: GraphBatch, centres: Array, ops: Ops) -> Array:
    """An expansion (E, G) with that of the angles appended, which is as wide as two of its `centres` are apart."""
    if not len(centres):
        return rbf
    weight = ops.xp.stack([shard.weight, shard.weight * shard.species], axis=1)
    width = 2 / (len(centres) - 1)
    angles = ops.angular_expand_forward(shard.direction, weight, shard.edge_ptr, centres, width)
    return ops.xp.concatenate([rbf, angles], axis=1)


def _geometry_backward(grad_geo, params, grads, config, ops, cache, grad_inputs):
    if config.variant == "scann":
        return
    grad_u_r, grad_u_omega, grads["distance_b"][...], grads["angle_b"][...] = ops.geometry_embed_backward(
        grad_geo, cache.v_r, cache.v_omega
    )
    found = {}
    for name, weights, rbf, grad_u in (
        ("rbf_r", "distance", cache.rbf_r, grad_u_r),
        ("rbf_omega", "angle", cache.rbf_omega, grad_u_omega),
    ):
        out = kernel_of(grads, weights)
        wanted = grad_inputs is not None
        found[name], *_ = ops.dense_backward(grad_u, rbf, params[f"{weights}_w"], out=out, input_gradients=wanted)
    if grad_inputs is not None:
        grad_inputs.update(found)


# ---- steps 3, 4: geometry features and local attention of a layer ------------------------------------------------


def centre_projections(weights: Weights, site: Array, config: ModelConfig, ops: Ops) -> list[Array]:
    """Query and filter projections of the centre site: [q = site w_q + b_q], SCANN+: [q, centre = site w_1 + b_f].

    w_1, w_2, w_3 are the parts of w_f for site_i, geo and site_j; the product of [site_i | geo | site_j] splits into
    one per edge and two per site, which are exact.
    """
    q = ops.dense_forward(site, *weights.query)
    return [q] if config.variant == "scann" else [q, ops.dense_forward(site, *weights.centre)]


def neighbour_projections(weights: Weights, site: Array, config: ModelConfig, ops: Ops) -> list[Array]:
    """Filter projection of the neighbour site: [], SCANN+: [neighbour = site w_3]."""
    return [] if config.variant == "scann" else [ops.dense_forward(site, *weights.neighbour)]


def compute_layer(
    weights: Weights,
    site: Array,
    geo: Array,
    edges: EdgeList,
    config: ModelConfig,
    ops: Ops,
    residual: RowDropout,
) -> tuple[LayerCache, Array, Array]:
    """Steps 3 to 6 of a layer: its LayerCache, and geo and site of the next one; arguments as of attend."""
    projections = centre_projections(weights, site, config, ops) + neighbour_projections(weights, site, config, ops)
    cache, geo = attend(weights, site, geo, projections, edges, config, ops)
    return cache, geo, update_sites(weights, cache, config, ops, residual)


def attend(
    weights: Weights,
    site: Array,
    geo: Array,
    projections: Sequence[Array],
    edges: EdgeList,
    config: ModelConfig,
    ops: Ops,
    save_for_backward: bool = True,
) -> tuple[LayerCache, Array]:
    """3. SCANN+: geo = LN(swish([site_i | geo | site_j] w_f + b_f) + geo); SCANN: swish(rbf(r) w_f + b_f) weight.
    4. x = site_j geo; q = site w_q + b_q; k = x w_k + b_k; alpha = softmax(C^-1/2 q k); context = sum alpha k.

    A key per edge, which is also the value. For SCANN `geo` is the distance expansion, the same in every layer.

    Parameters
    ----------
    site : (M, D) float
        Features of the sites that the edges point at; in training the shard's own N sites.
    geo : (E, D) or (E, G) float
    projections : q (N, D); SCANN+: q, centre (N, D), neighbour (M, D)
        See centre_projections and neighbour_projections.

    Returns
    -------
    cache : LayerCache, without what update_sites adds; geo : of the next layer
    """
    q, *sites = projections
    context_shape = q.shape
    q = q.reshape(len(q), config.n_heads, config.width // config.n_heads)
    options = q, edges, weights.attention, save_for_backward
    if config.variant == "scann":
        context, attention = ops.filtered_attention_forward(site, geo, *options)
        return LayerCache(site, geo, edges, q, context.reshape(context_shape), attention), geo
    context, new_geo, attention = ops.updated_attention_forward(site, geo, *sites, *options)
    return LayerCache(site, geo, edges, q, context.reshape(context_shape), attention), new_geo


def _attend_backward(grad_context, grad_geo, weights, grads, cache, config, ops, grad_inputs):
    """Gradients by site, all but what reaches it by way of q, and by the geometry features of the layer before; by q.

    grad_geo is None for SCANN, and in the last layer. grad_context is written over: q is the residual too, so that the
    gradient by it is added to that by context.
    """
    grad_context = grad_context.reshape(cache.q.shape)
    known = cache.site, cache.geo, cache.q, cache.edges, weights.attention, cache.attention
    if config.variant == "scann":
        wanted = grad_inputs is not None
        grad_site, grad_rbf, grad_weight, grad_q, *_ = ops.filtered_attention_backward(
            grad_context, *known, wanted, grad_context, grads.attention
        )
        if wanted:
            grad_inputs["rbf_r"] = grad_inputs.get("rbf_r", 0) + grad_rbf
            grad_inputs["weight"] = grad_inputs.get("weight", 0) + grad_weight
        return grad_site, None, grad_q
    if grad_geo is None:
        grad_geo = ops.empty(cache.geo.shape, cache.geo.dtype)
        grad_geo[...] = 0
    grad_site, grad_before, grad_centre, grad_neighbour, grad_q, *_ = ops.updated_attention_backward(
        grad_context, grad_geo, *known, grad_context, grads.attention
    )
    # forward: centre = site w_1 + b_f; neighbour = site w_3
    ops.dense_backward(grad_centre, cache.site, weights.centre.w, grad_site, grads.centre)
    ops.dense_backward(grad_neighbour, cache.site, weights.neighbour.w, grad_site, grads.neighbour)
    return grad_site, grad_before, grad_q


# ---- steps 5, 6: the query as residual, residual block -----------------------------------------------------------


def residual_dropout(config: ModelConfig, dropout: Dropout | None, layer: int) -> RowDropout:
    """The RowDropout of a layer's residual block."""
    return RowDropout(dropout.site_keys(2 * layer + 2) if dropout and config.dropout else None, config.dropout)


def update_sites(
    weights: Weights,
    cache: LayerCache,
    config: ModelConfig,
    ops: Ops,
    dropout: RowDropout,
    save_for_backward: bool = True,
) -> Array:
    """5. x = LN(context + q). 6. site = LN(x + drop(w_2 swish(w_1 x + b_1) + b_2)); without the block, site = x.

    Parameters
    ----------
    cache : LayerCache     of attend; what backward needs of these steps is added to it
    dropout : RowDropout

    Returns
    -------
    site : (N, D)
    """
    q = cache.q.reshape(cache.context.shape)
    if not config.residual:
        site, *cache.block = ops.residual_layernorm_forward(
            cache.context, q, weights["context_gain"], weights["context_offset"]
        )
        return site
    cache.dropout = dropout
    site, cache.block = ops.site_block_forward(cache.context, q, dropout, weights.block, save_for_backward)
    return site


def _update_sites_backward(grad_site, weights, grads, cache, config, ops):
    """The gradient by context, which is also one by q."""
    if not config.residual:
        grad_sum, grads["context_gain"][...], grads["context_offset"][...] = ops.residual_layernorm_backward(
            grad_site, weights["context_gain"], *cache.block
        )
        return grad_sum
    return ops.site_block_backward(grad_site, cache.dropout, weights.block, cache.block, grads.block)[0]


# ---- steps 7, 8: global attention of a target --------------------------------------------------------------------


def project(weights: Weights, site: Array, ops: Ops) -> ReadOutCache:
    """7. site = swish(site w_l + b_l), and q = site w_gq + b_gq, k = site w_gk + b_gk of the global attention.

    Returns
    -------
    ReadOutCache, without the attention
    """
    projected, v = ops.swish_forward(ops.dense_forward(site, weights["after_w"]), weights["after_b"])
    q = ops.dense_forward(projected, *dense(weights, "global_query"))
    k = ops.dense_forward(projected, *dense(weights, "global_key"))
    return ReadOutCache(site, v, projected, q, k)


def attend_globally(cache: ReadOutCache, shard: GraphBatch, config: ModelConfig, ops: Ops) -> None:
    """8. struct = sum beta k (S, G), beta the global attention; both are added to the ReadOutCache."""
    options = config.readout != "published", config.normalise_attention
    cache.struct, cache.attention = ops.global_attention_forward(cache.q, cache.k, shard.site_ptr, *options)


def _read_out_backward(grad_attention, grad_site_before, weights, grads, shard, config, ops, cache):
    """The gradient by the last layer's sites, added to what is known of it.

    grad_attention : gradients by struct, and where they are known by k, beta and score
    """
    grad_struct, grad_k_of_head, *known = grad_attention
    options = config.readout != "published", config.normalise_attention
    grad_q, grad_k = ops.global_attention_backward(
        grad_struct, cache.q, cache.k, shard.site_ptr, *options, cache.attention, *known
    )
    if grad_k_of_head is not None:
        grad_k += grad_k_of_head
    # forward: q = site w_gq + b_gq; k = site w_gk + b_gk
    grad_site, *_ = ops.dense_backward(grad_q, cache.site, weights["global_query_w"], out=dense(grads, "global_query"))
    ops.dense_backward(grad_k, cache.site, weights["global_key_w"], grad_site, dense(grads, "global_key"))
    # forward: site = swish(site w_l + b_l)
    grad_u, grads["after_b"][...] = ops.swish_backward(grad_site, cache.v)
    out = kernel_of(grads, "after")
    return ops.dense_backward(grad_u, cache.site_before, weights["after_w"], grad_site_before, out)[0]


# ---- step 9: the property ----------------------------------------------------------------------------------------


def predict(weights: Weights, cache: ReadOutCache, shard: GraphBatch, config: ModelConfig, ops: Ops) -> Array:
    """9. y = swish(struct w_p + b_p) w_y + b_y; for non-negative targets max(0, y), with the identity as gradient.

    Additive head: f_i = swish(k_i w_p + b_p) w_y + b_y of every site, y = sum_i beta_i f_i; read-out "sum": sum_i f_i.

    Returns
    -------
    prediction : (S, 1); the HeadCache is added to the ReadOutCache
    """
    x = cache.k if config.head == "additive" else cache.struct
    hidden, v = ops.swish_forward(ops.dense_forward(x, weights["hidden_w"]), weights["hidden_b"])
    prediction = ops.dense_forward(hidden, *dense(weights, "output"))
    cache.head = HeadCache(x, v, hidden)
    if config.head == "additive":
        beta = cache.attention.beta
        cache.head.value = prediction[:, 0]
        cache.head.weight = ops.xp.ones(beta.shape, beta.dtype) if config.readout == "sum" else beta
        prediction = ops.site_sum_forward(cache.head.value, cache.head.weight, shard.site_ptr)[:, None]
    return ops.xp.maximum(prediction, 0) if config.non_negative else prediction


def _predict_backward(grad_y, weights, grads, shard, config, ops, cache):
    """Gradients by struct, by k and by beta; None where the head does not read them."""
    head, grad_beta = cache.head, None
    if config.head == "additive":
        grad_f, grad_weight = ops.site_sum_backward(grad_y[:, 0], head.value, head.weight, shard.site_ptr)
        grad_y = grad_f[:, None]
        grad_beta = None if config.readout == "sum" else grad_weight
    grad_hidden, *_ = ops.dense_backward(grad_y, head.hidden, weights["output_w"], out=dense(grads, "output"))
    grad_u, grads["hidden_b"][...] = ops.swish_backward(grad_hidden, head.v)
    grad_x = ops.dense_backward(grad_u, head.x, weights["hidden_w"], out=kernel_of(grads, "hidden"))[0]
    if config.head == "additive":
        return ops.xp.zeros_like(cache.struct), grad_x, grad_beta
    return grad_x, None, None


def beside_each_other(columns: list[Array], ops: Ops) -> Array:
    """(S, K) array of what each target has, (S, 1)."""
    return columns[0] if len(columns) == 1 else ops.xp.concatenate(columns, axis=1)
