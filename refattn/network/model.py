"""The network: forward in numbered steps 1 to 9, backward in steps 9 to 1, each written out (docs/design.md section 3).

Every step composes operations of one backend (`ops`, see refattn.ops.load_backend). What forward needs to
remember for backward stands in a Tape, step by step.
"""

import dataclasses
import functools
from types import SimpleNamespace as Saved

import numpy as np

from refattn.network.dropout import drop, drop_backward, edge_mask


@dataclasses.dataclass
class Tape:
    """What a forward pass leaves behind.

    prediction : (S,)       the property, in units of the scaled target
    beta : (N,)             global attention; sums to 1 over a structure
    alpha : list of (E, H)  local attention of each layer; sums to 1 over the edges of a site
    saved : dict            intermediate results, by step
    """

    shard: object
    saved: dict
    alpha: list
    prediction: np.ndarray = None
    beta: np.ndarray = None


@functools.cache
def radial_centres(config, dtype, xp=np):
    """Centres of the distance expansion, 0 to radial_max (Å), and of the solid angle's, 0 to 2 pi (sr)."""
    last = (config.radial_max, 2 * np.pi)
    return [xp.linspace(0, end, config.n_radial).astype(dtype) for end in last]


def forward(params, shard, config, ops, dropout=None, embedding=None):
    """Predict the property of every structure of a shard.

    Parameters
    ----------
    params : Parameters
        Their type, float32 or float64, is the type of the computation; the shard's arrays have it too.
    shard : Shard
    config : ModelConfig
    ops : namespace of operations
    dropout : Dropout, optional
        The masks of a training step; None at inference.
    embedding : (N, embedding_width, or more with ring features) float, optional
        Taken in the place of what input_embedding makes of the sites.

    Returns
    -------
    Tape
    """
    tape = Tape(shard, {}, [])
    site = embed(params, shard, config, ops, dropout, tape, embedding)
    geo, mask = expand_geometry(params, shard, config, ops, tape), None
    for layer in range(config.n_layers):
        weights, saved = params.layer(layer), Saved()
        mask = edge_mask(shard, config, ops, dropout, layer, mask)
        products = own_products(weights, site, config, ops) + neighbour_products(weights, site, config, ops)
        context, q, geo = attend(weights, site, geo, products, shard, config, ops, mask, saved)
        site = update_sites(weights, context, q, config, ops, dropout, layer, saved)
        tape.saved[f"layer{layer}"] = saved
        tape.alpha.append(saved.alpha)
    saved = tape.saved["read_out"] = Saved()
    struct = read_out(*project(params, site, ops, saved), shard, config, ops, tape, saved)
    tape.prediction = head(params, struct, config, ops, tape)
    return tape


def backward(grad_prediction, tape, params, grads, config, ops, dropout=None, grad_inputs=None):
    """Gradients of the loss by every parameter, written into `grads`; the steps of forward in reverse.

    Parameters
    ----------
    grad_prediction : (S,) float
    tape : Tape           of forward, with the same params, config, ops and dropout
    grads : Parameters    overwritten
    grad_inputs : dict, optional
        Filled with the gradients by the network's inputs: `embedded` (N, embedding_width) by the row of the
        element table or `features` (N, 92), `ring` (N, 2), `rbf_r` and `rbf_omega` (E, G), `weight` (E,); and by
        what input_embedding makes of the first: `embedding`.
    """
    shard = tape.shard
    grad_struct = _head_backward(grad_prediction, params, grads, ops, tape)
    grad_site = _read_out_backward(grad_struct, params, grads, shard, config, ops, tape)
    grad_geo = None
    for layer in reversed(range(config.n_layers)):
        weights, grad_weights, saved = params.layer(layer), grads.layer(layer), tape.saved[f"layer{layer}"]
        grad_sum = _update_sites_backward(grad_site, weights, grad_weights, config, ops, saved)
        grad_site, grad_geo, grad_q = _attend_backward(
            grad_sum, grad_geo, weights, grad_weights, shard, config, ops, saved, grad_inputs
        )
        # forward: q = site w_q + b_q
        of_query = grad_weights["query_w"], grad_weights["query_b"]
        ops.dense_backward(grad_q.reshape(grad_sum.shape), saved.site_before, weights["query_w"], *of_query, grad_site)
    _geometry_backward(grad_geo, params, grads, config, ops, tape, grad_inputs)
    _embed_backward(grad_site, params, grads, shard, config, ops, dropout, tape, grad_inputs)


# ---- step 1: embedding -------------------------------------------------------------------------------------------


def input_embedding(params, shard, config, ops):
    """Where the network starts: c[i] = [embedded element | ring features], of each site alone.

    embedded = embed[z], or features w + b; ring features = ring w + b, appended where the network asks for them.

    Returns
    -------
    c : (N, embedding_width), or (N, embedding_width + 10) with ring features
    """
    if config.features == "cgcnn":
        c = ops.dense_forward(shard.features, params["embed_w"], params["embed_b"])
    else:
        c = ops.embedding_forward(params["embed"], shard.z)
    if config.ring:
        c = ops.xp.concatenate([c, ops.dense_forward(shard.ring, params["ring_w"], params["ring_b"])], axis=1)
    return c


def embed(params, shard, config, ops, dropout, tape, embedding):
    """1. site = drop(swish(c w + b)), c the input embedding."""
    c = input_embedding(params, shard, config, ops) if embedding is None else embedding
    site, v = ops.swish_forward(ops.dense_forward(c, params["site_w"]), params["site_b"])
    tape.saved["embed"] = Saved(c=c, v=v, site=site)
    return drop(site, config.dropout, ops, dropout, 0)


def _embed_backward(grad_site, params, grads, shard, config, ops, dropout, tape, grad_inputs):
    saved = tape.saved["embed"]
    grad_site = drop_backward(grad_site, config.dropout, ops, dropout, 0)
    grad_u, grads["site_b"][...] = ops.swish_backward(grad_site, saved.v)
    grad_c = ops.dense_backward(grad_u, saved.c, params["site_w"], grads["site_w"])
    # forward: c = [embedded | ring w + b]
    grad_embedded = ops.xp.ascontiguousarray(grad_c[:, : config.embedding_width])
    grad_ring = ops.xp.ascontiguousarray(grad_c[:, config.embedding_width :])
    if config.ring:
        grad_ring = ops.dense_backward(grad_ring, shard.ring, params["ring_w"], grads["ring_w"], grads["ring_b"])
    if config.features == "cgcnn":
        grad_features = ops.dense_backward(
            grad_embedded, shard.features, params["embed_w"], grads["embed_w"], grads["embed_b"]
        )
    else:
        grads["embed"][...] = ops.embedding_backward(grad_embedded, params["embed"], shard.z)
    if grad_inputs is not None:
        grad_inputs["embedding"] = grad_c
        if config.features == "cgcnn":
            grad_inputs["features"] = grad_features
        else:
            grad_inputs["embedded"] = grad_embedded
        if config.ring:
            grad_inputs["ring"] = grad_ring


# ---- step 2: geometry of the edges -------------------------------------------------------------------------------


def expand_geometry(params, shard, config, ops, tape):
    """2. Gaussian expansions; SCANN+: geo = swish(rbf(r) w_r + b_r) swish(rbf(omega) w_o + b_o)."""
    centres_r, centres_omega = radial_centres(config, params.vector.dtype, ops.xp)
    saved = tape.saved["geometry"] = Saved()
    saved.rbf_r = ops.gaussian_expand_forward(shard.r, centres_r, config.radial_width)
    if config.variant == "scann":
        return saved.rbf_r
    saved.rbf_omega = ops.gaussian_expand_forward(shard.omega, centres_omega, config.radial_width)
    u_r = ops.dense_forward(saved.rbf_r, params["distance_w"])
    u_omega = ops.dense_forward(saved.rbf_omega, params["angle_w"])
    geo, saved.v_r, saved.v_omega = ops.geometry_embed_forward(u_r, u_omega, params["distance_b"], params["angle_b"])
    return geo


def _geometry_backward(grad_geo, params, grads, config, ops, tape, grad_inputs):
    if config.variant == "scann":
        return
    saved = tape.saved["geometry"]
    grad_u_r, grad_u_omega, grads["distance_b"][...], grads["angle_b"][...] = ops.geometry_embed_backward(
        grad_geo, saved.v_r, saved.v_omega
    )
    ops.xp.matmul(saved.rbf_r.T, grad_u_r, out=grads["distance_w"])
    ops.xp.matmul(saved.rbf_omega.T, grad_u_omega, out=grads["angle_w"])
    if grad_inputs is not None:
        grad_inputs["rbf_r"] = grad_u_r @ params["distance_w"].T
        grad_inputs["rbf_omega"] = grad_u_omega @ params["angle_w"].T


# ---- steps 3, 4: geometry features and local attention of a layer ----------------------------------------------------


def own_products(weights, site, config, ops):
    """What a layer makes of each site for its own edges: [q = site w_q + b_q], SCANN+: [q, centre = site w_1 + b_f].

    w_1, w_2, w_3 are the parts of w_f for site_i, geo and site_j; the product of [site_i | geo | site_j] splits into
    one per edge and two per site, which are exact.
    """
    q = ops.dense_forward(site, weights["query_w"], weights["query_b"])
    if config.variant == "scann":
        return [q]
    return [q, ops.dense_forward(site, weights["filter_w"][: config.width], weights["filter_b"])]


def neighbour_products(weights, site, config, ops):
    """What a layer makes of each site for the edges that point at it: [], SCANN+: [neighbour = site w_3]."""
    return [] if config.variant == "scann" else [ops.dense_forward(site, weights["filter_w"][2 * config.width :])]


def attend(weights, site, geo, products, shard, config, ops, mask, saved, keep=True):
    """3. SCANN+: geo = LN(swish([site_i | geo | site_j] w_f + b_f) + geo); SCANN: swish(rbf(r) w_f + b_f) weight.
    4. x = site_j geo; q = site w_q + b_q; k = x w_k + b_k; alpha = softmax(C^-1/2 q k); context = sum alpha k.

    A key per edge, which is also the value. For SCANN `geo` is the distance expansion, the same in every layer.

    Parameters
    ----------
    site : (M, D) float
        Features of the sites that the shard's edges point at; in training its own N sites.
    products : q (N, D); SCANN+: q, centre (N, D), neighbour (M, D)     see own_products and neighbour_products
    keep : bool     whether there will be a backward

    Returns
    -------
    context, q : (N, D); geo : (E, D)
    """
    w, (q, *of_filter) = weights["filter_w"], products
    saved.site_before, saved.geo_before, saved.mask = site, geo, mask
    saved.q = q.reshape(-1, config.n_heads, config.width // config.n_heads)
    of_shard, of_key = (saved.q, shard.edge_ptr, shard.nbr, mask), (weights["key_w"], weights["key_b"])
    if config.variant == "scann":
        context, saved.alpha, saved.k = ops.filtered_attention_forward(
            site, geo, shard.weight, *of_shard, w, weights["filter_b"], *of_key, keep
        )
        saved.context = context.reshape(q.shape)
        return saved.context, q, geo
    w, norm = w[config.width : 2 * config.width], (weights["geometry_gain"], weights["geometry_offset"])
    context, saved.geo, saved.alpha, saved.v_filter, *saved.geo_norm, saved.k = ops.updated_attention_forward(
        site, geo, *of_filter, *of_shard, w, *norm, *of_key, keep
    )
    saved.context = context.reshape(q.shape)
    return saved.context, q, saved.geo


def _attend_backward(grad_context, grad_geo, weights, grads, shard, config, ops, saved, grad_inputs):
    """Gradients by site, all but what reaches it by way of q, and by the geometry features of the layer before; by q.

    grad_geo is None for SCANN, and in the last layer. grad_context is written over: q is the residual too, so that the
    gradient by it is added to that by context.
    """
    w, grad_w, width = weights["filter_w"], grads["filter_w"], config.width
    grad_context = grad_context.reshape(saved.q.shape)
    of_shard = saved.q, shard.edge_ptr, shard.nbr, saved.mask
    key, of_key = (weights["key_w"], weights["key_b"]), (grads["key_w"], grads["key_b"])
    if config.variant == "scann":
        into = grad_w, grads["filter_b"], *of_key
        grad_site, grad_rbf, grad_weight, grad_q, *_ = ops.filtered_attention_backward(
            grad_context, saved.site_before, saved.geo_before, shard.weight, *of_shard, w, weights["filter_b"], *key,
            saved.alpha, saved.k, grad_inputs is not None, grad_context, into,
        )  # fmt: skip
        if grad_inputs is not None:
            grad_inputs["rbf_r"] = grad_inputs.get("rbf_r", 0) + grad_rbf
            grad_inputs["weight"] = grad_inputs.get("weight", 0) + grad_weight
        return grad_site, None, grad_q
    if grad_geo is None:
        grad_geo = ops.xp.zeros_like(saved.geo)
    into = grad_w[width : 2 * width], grads["geometry_gain"], grads["geometry_offset"], *of_key
    grad_site, grad_before, grad_centre, grad_neighbour, grad_q, *_ = ops.updated_attention_backward(
        grad_context, grad_geo, saved.site_before, saved.geo_before, *of_shard, w[width : 2 * width],
        weights["geometry_gain"], *key, saved.geo, saved.alpha, saved.v_filter, *saved.geo_norm,
        saved.k, grad_context, into,
    )  # fmt: skip
    # forward: centre = site w_1 + b_f; neighbour = site w_3
    site, of_centre = saved.site_before, (grad_w[:width], grads["filter_b"])
    ops.dense_backward(grad_centre, site, w[:width], *of_centre, add_to=grad_site)
    ops.dense_backward(grad_neighbour, site, w[2 * width :], grad_w[2 * width :], add_to=grad_site)
    return grad_site, grad_before, grad_q


# ---- steps 5, 6: the query as residual, residual block -----------------------------------------------------------


def update_sites(weights, context, q, config, ops, dropout, layer, saved, keep=True):
    """5. x = LN(context + q). 6. site = LN(x + drop(w_2 swish(w_1 x + b_1) + b_2)); without the block, site = x."""
    norm = weights["context_gain"], weights["context_offset"]
    if not config.residual:
        site, *saved.norms = ops.residual_layernorm_forward(context, q, *norm)
        return site
    saved.key = dropout.site_keys(2 * layer + 2) if dropout and config.dropout else None
    names = "residual_w1", "residual_b1", "residual_w2", "residual_b2", "residual_gain", "residual_offset"
    of_block = norm + tuple(weights[name] for name in names)
    site, *saved.norms = ops.site_block_forward(context, q, saved.key, config.dropout, *of_block, keep)
    return site


def _update_sites_backward(grad_site, weights, grads, config, ops, saved):
    """The gradient by context, which is also one by q."""
    names = ["context_gain", "context_offset"]
    if not config.residual:
        grad_sum, *of_norm = ops.residual_layernorm_backward(grad_site, weights["context_gain"], *saved.norms)
        grads["context_gain"][...], grads["context_offset"][...] = of_norm
        return grad_sum
    of_block = [weights[name] for name in (*names, "residual_w1", "residual_w2", "residual_gain")]
    names += ["residual_w1", "residual_b1", "residual_w2", "residual_b2", "residual_gain", "residual_offset"]
    into = [grads[name] for name in names]
    return ops.site_block_backward(grad_site, saved.key, config.dropout, *of_block, *saved.norms, into)[0]


# ---- steps 7, 8: global attention --------------------------------------------------------------------------------


def project(params, site, ops, saved):
    """7. site = swish(site w_l + b_l), and q = site w_gq + b_gq, k = site w_gk + b_gk of the global attention."""
    saved.site_before = site
    saved.site, saved.v = ops.swish_forward(ops.dense_forward(site, params["after_w"]), params["after_b"])
    saved.q = ops.dense_forward(saved.site, params["global_query_w"], params["global_query_b"])
    saved.k = ops.dense_forward(saved.site, params["global_key_w"], params["global_key_b"])
    return saved.q, saved.k


def read_out(q, k, shard, config, ops, tape, saved):
    """8. struct = sum beta k, beta the global attention."""
    saved.options = config.readout == "intensive", config.normalise_attention
    struct, tape.beta, *saved.attention = ops.global_attention_forward(q, k, shard.site_ptr, *saved.options)
    return struct


def _read_out_backward(grad_struct, params, grads, shard, config, ops, tape):
    saved = tape.saved["read_out"]
    grad_q, grad_k = ops.global_attention_backward(
        grad_struct, saved.q, saved.k, shard.site_ptr, *saved.options, tape.beta, *saved.attention
    )
    # forward: q = site w_gq + b_gq; k = site w_gk + b_gk
    grad_site = ops.dense_backward(
        grad_q, saved.site, params["global_query_w"], grads["global_query_w"], grads["global_query_b"]
    )
    of_key = grads["global_key_w"], grads["global_key_b"]
    ops.dense_backward(grad_k, saved.site, params["global_key_w"], *of_key, add_to=grad_site)
    # forward: site = swish(site w_l + b_l)
    grad_u, grads["after_b"][...] = ops.swish_backward(grad_site, saved.v)
    return ops.dense_backward(grad_u, saved.site_before, params["after_w"], grads["after_w"])


# ---- step 9: the property ----------------------------------------------------------------------------------------


def head(params, struct, config, ops, tape):
    """9. y = swish(struct w_p + b_p) w_y + b_y; for non-negative targets max(0, y), with the identity as gradient."""
    hidden, v = ops.swish_forward(ops.dense_forward(struct, params["hidden_w"]), params["hidden_b"])
    tape.saved["head"] = Saved(struct=struct, hidden=hidden, v=v)
    prediction = ops.dense_forward(hidden, params["output_w"], params["output_b"])[:, 0]
    return ops.xp.maximum(prediction, 0) if config.non_negative else prediction


def _head_backward(grad_prediction, params, grads, ops, tape):
    saved = tape.saved["head"]
    grad_hidden = ops.dense_backward(
        grad_prediction[:, None], saved.hidden, params["output_w"], grads["output_w"], grads["output_b"]
    )
    grad_u, grads["hidden_b"][...] = ops.swish_backward(grad_hidden, saved.v)
    return ops.dense_backward(grad_u, saved.struct, params["hidden_w"], grads["hidden_w"])
