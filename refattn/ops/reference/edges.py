"""A layer's work on the edges, from the features of its sites to their context, composed of the unfused operations."""

from refattn.ops.reference.layers import accumulated, sigmoid, written
from refattn.ops.reference.unfused.geometry import (
    geometry_filter_backward,
    geometry_filter_forward,
    geometry_update_backward,
    geometry_update_forward,
)
from refattn.ops.reference.unfused.local_attention import (
    edge_product_backward,
    edge_product_forward,
    local_attention_backward,
    local_attention_forward,
)
from refattn.ops.types import (
    Array,
    EdgeList,
    FilteredAttentionCache,
    FilteredAttentionWeights,
    UpdatedAttentionCache,
    UpdatedAttentionWeights,
)


def updated_attention_forward(
    site: Array, geo: Array, centre: Array, neighbour: Array, q: Array, edges: EdgeList,
    weights: UpdatedAttentionWeights, save_for_backward: bool = True,
) -> tuple[Array, Array, UpdatedAttentionCache]:  # fmt: skip
    """Local attention of SCANN+ with its update of the geometry features.

    v[e] = geo[e] w + centre[i] + neighbour[j],  i the site of edge e and j = nbr[e]
    new_geo[e] = LN(swish(v[e]) + geo[e]),  with the row's mean and rstd
    k[e] = (site[j] new_geo[e]) w_k + b_k;  context = local attention of q over k

    Parameters
    ----------
    site : (N, D) float       features of the sites
    geo : (E, D) float        geometry features
    centre, neighbour : (N, D) float
        The parts of the filter that are products of sites, see geometry_update_forward.
    q : (N, H, C) float       queries
    edges : EdgeList
    weights : UpdatedAttentionWeights
    save_for_backward : bool
        If not, only alpha of the cache is there, and new_geo may be written over geo.

    Returns
    -------
    context : (N, H, C); new_geo : (E, D); cache : UpdatedAttentionCache

    Source   Vu et al. 2023; authors' code, LocalAttention with g_update
    """
    new_geo, v, _, rstd = geometry_update_forward(
        geo @ weights.w, centre, neighbour, geo, edges.edge_ptr, edges.nbr, weights.gain, weights.offset
    )
    mean = (v * sigmoid(v) + geo).mean(axis=1)
    k = (edge_product_forward(site, new_geo, edges.nbr) @ weights.w_k + weights.b_k).reshape(len(geo), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edges.edge_ptr, edges.mask)
    saved = (new_geo, v, mean, rstd, k) if save_for_backward else ()
    return context, new_geo, UpdatedAttentionCache(alpha, *saved)


def updated_attention_backward(
    grad_context: Array, grad_new_geo: Array, site: Array, geo: Array, q: Array, edges: EdgeList,
    weights: UpdatedAttentionWeights, cache: UpdatedAttentionCache, accumulate_into: Array | None = None,
    out: UpdatedAttentionWeights | None = None,
) -> tuple[Array, Array, Array, Array, Array, UpdatedAttentionWeights]:  # fmt: skip
    """Backward of updated_attention_forward: those of its operations, last to first.

    x and x_hat are made again, x = site[j] new_geo and x_hat = (swish(v) + geo - mean) rstd, rather than saved.
    grad_x = grad_k w_k^T;  grad_w_k = x^T grad_k;  grad_b_k = sum_e grad_k
    grad_geo = LN'(grad_new_geo + grad_x site[j]) + grad_v w^T;  grad_w = geo^T grad_v

    Parameters
    ----------
    grad_context, q : (N, H, C) float; grad_new_geo, geo : (E, D) float; site : (N, D) float
    edges, weights, cache     as of updated_attention_forward; where cache.k is None, k is made again
    accumulate_into : (N, H, C) float, optional
        A gradient by q that is known already: grad_q is added to it in place. It may be grad_context.
    out : UpdatedAttentionWeights, optional
        Where to write grad_weights, overwriting what is there.

    Returns
    -------
    grad_site : (N, D); grad_geo : (E, D); grad_centre, grad_neighbour : (N, D); grad_q : (N, H, C)
    grad_weights : UpdatedAttentionWeights
    """
    x = edge_product_forward(site, cache.new_geo, edges.nbr)
    k = (x @ weights.w_k + weights.b_k).reshape(len(geo), *q.shape[1:]) if cache.k is None else cache.k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edges.edge_ptr, edges.mask, cache.alpha)
    grad_k = grad_k.reshape(geo.shape)
    # forward: k = x w_k + b_k, x = site_j new_geo
    grad_site, grad_geo = edge_product_backward(grad_k @ weights.w_k.T, site, cache.new_geo, edges.nbr)
    # forward: new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
    x_hat = (cache.v * sigmoid(cache.v) + geo - cache.mean[:, None]) * cache.rstd[:, None]
    grad_v, grad_centre, grad_neighbour, grad_geo, grad_gain, grad_offset = geometry_update_backward(
        grad_geo + grad_new_geo, edges.edge_ptr, edges.nbr, weights.gain, cache.v, x_hat, cache.rstd
    )
    grad_geo += grad_v @ weights.w.T
    grad_weights = UpdatedAttentionWeights(geo.T @ grad_v, grad_gain, grad_offset, x.T @ grad_k, grad_k.sum(axis=0))
    grad_q = accumulated(accumulate_into, grad_q)
    return grad_site, grad_geo, grad_centre, grad_neighbour, grad_q, written(out, grad_weights)


def filtered_attention_forward(
    site: Array, rbf: Array, q: Array, edges: EdgeList, weights: FilteredAttentionWeights,
    save_for_backward: bool = True,
) -> tuple[Array, FilteredAttentionCache]:  # fmt: skip
    """Local attention of SCANN, whose geometry features are made anew in every layer.

    v = rbf w + b;  geo = swish(v) weight;  k[e] = (site[j] geo[e]) w_k + b_k;  context = local attention of q over k

    Parameters
    ----------
    site : (N, D) float; rbf : (E, G) float; q : (N, H, C) float
    edges : EdgeList, with weight
    weights : FilteredAttentionWeights
    save_for_backward : bool  if not, k is None

    Returns
    -------
    context : (N, H, C); cache : FilteredAttentionCache

    Source   Vu et al. 2023; authors' code, LocalAttention
    """
    geo, _ = geometry_filter_forward(rbf @ weights.w, weights.b, edges.weight)
    k = (edge_product_forward(site, geo, edges.nbr) @ weights.w_k + weights.b_k).reshape(len(rbf), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edges.edge_ptr, edges.mask)
    return context, FilteredAttentionCache(alpha, k if save_for_backward else None)


def filtered_attention_backward(
    grad_context: Array, site: Array, rbf: Array, q: Array, edges: EdgeList, weights: FilteredAttentionWeights,
    cache: FilteredAttentionCache, input_gradients: bool = True, accumulate_into: Array | None = None,
    out: FilteredAttentionWeights | None = None,
) -> tuple[Array, Array | None, Array | None, Array, FilteredAttentionWeights]:  # fmt: skip
    """Backward of filtered_attention_forward: those of its operations, last to first; v, geo and x are made again.

    grad_x = grad_k w_k^T;  grad_v = grad_x site[j] weight swish'(v);  grad_w = rbf^T grad_v;  grad_rbf = grad_v w^T

    Parameters
    ----------
    grad_context, q : (N, H, C) float; site : (N, D) float; rbf : (E, G) float
    edges, weights, cache      as of filtered_attention_forward; where cache.k is None, k is made again
    input_gradients : bool     whether grad_rbf and grad_weight are wanted, which training does not need
    accumulate_into, out       as of updated_attention_backward; out is a FilteredAttentionWeights

    Returns
    -------
    grad_site : (N, D); grad_rbf : (E, G), grad_weight : (E,), or None; grad_q : (N, H, C)
    grad_weights : FilteredAttentionWeights
    """
    v = rbf @ weights.w + weights.b
    geo = v * sigmoid(v) * edges.weight[:, None]
    x = edge_product_forward(site, geo, edges.nbr)
    k = (x @ weights.w_k + weights.b_k).reshape(len(rbf), *q.shape[1:]) if cache.k is None else cache.k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edges.edge_ptr, edges.mask, cache.alpha)
    grad_k = grad_k.reshape(v.shape)
    # forward: k = x w_k + b_k, x = site_j geo
    grad_site, grad_geo = edge_product_backward(grad_k @ weights.w_k.T, site, geo, edges.nbr)
    # forward: geo = swish(v) weight, v = rbf w + b
    grad_v, grad_b, grad_weight = geometry_filter_backward(grad_geo, edges.weight, v)
    grad_weights = FilteredAttentionWeights(rbf.T @ grad_v, grad_b, x.T @ grad_k, grad_k.sum(axis=0))
    grad_inputs = (grad_v @ weights.w.T, grad_weight) if input_gradients else (None, None)
    return grad_site, *grad_inputs, accumulated(accumulate_into, grad_q), written(out, grad_weights)
