"""A layer's work on the edges, from the features of its sites to their context, composed of the operations.

The forward passes also give what lies in between, new_geo, alpha and k, in the order in which it is made.
"""

from refattn.ops.into import add, fill
from refattn.ops.reference.geometry import (
    geometry_filter_backward,
    geometry_filter_forward,
    geometry_update_backward,
    geometry_update_forward,
)
from refattn.ops.reference.local_attention import (
    edge_product_backward,
    edge_product_forward,
    local_attention_backward,
    local_attention_forward,
)
from refattn.ops.reference.norm import sigmoid


def updated_attention_forward(
    site, geo, centre, neighbour, q, edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep=True
):
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
    edge_ptr : (N + 1,) int32; nbr : (E,) int32; mask : (E, H) float
    w, w_k : (D, D) float     kernels of the filter's edge part and of the key
    gain, offset, b_k : (D,) float
    keep : bool
        Whether there will be a backward. If not, what only backward needs, v, mean, rstd and k, is None, and new_geo
        may be written over geo.

    Returns
    -------
    context : (N, H, C); new_geo : (E, D); alpha : (E, H); v : (E, D); mean, rstd : (E,)
    k : (E, H, C), or None from a backend whose backward does without

    Source   Vu et al. 2023; authors' code, LocalAttention with g_update
    """
    new_geo, v, _, rstd = geometry_update_forward(geo @ w, centre, neighbour, geo, edge_ptr, nbr, gain, offset)
    mean = (v * sigmoid(v) + geo).mean(axis=1)
    k = (edge_product_forward(site, new_geo, nbr) @ w_k + b_k).reshape(len(geo), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edge_ptr, mask)
    return (context, new_geo, alpha, v, mean, rstd, k) if keep else (context, new_geo, alpha, *[None] * 4)


def updated_attention_backward(
    grad_context, grad_new_geo, site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, b_k, new_geo, alpha, v, mean, rstd,
    k, add_to=None, into=None,
):  # fmt: skip
    """Backward of updated_attention_forward: those of its operations, last to first.

    x and x_hat are made again, x = site[j] new_geo and x_hat = (swish(v) + geo - mean) rstd, rather than kept.
    grad_x = grad_k w_k^T;  grad_w_k = x^T grad_k;  grad_b_k = sum_e grad_k
    grad_geo = LN'(grad_new_geo + grad_x site[j]) + grad_v w^T;  grad_w = geo^T grad_v

    Parameters
    ----------
    grad_context, q : (N, H, C) float; grad_new_geo, geo, new_geo, v : (E, D) float; site : (N, D) float
    edge_ptr : (N + 1,) int32; nbr : (E,) int32; mask, alpha : (E, H) float
    w, w_k : (D, D) float; gain, b_k : (D,) float; mean, rstd : (E,) float
    k : (E, H, C) float, or None, and it is made again
    add_to : (N, H, C) float, optional
        A gradient by q that is known already: grad_q is added to it in place. It may be grad_context.
    into : arrays, optional
        Where to write grad_w and what follows it, overwriting what is there.

    Returns
    -------
    grad_site : (N, D); grad_geo : (E, D); grad_centre, grad_neighbour : (N, D); grad_q : (N, H, C)
    grad_w : (D, D); grad_gain, grad_offset : (D,); grad_w_k : (D, D); grad_b_k : (D,)
    """
    x = edge_product_forward(site, new_geo, nbr)
    k = (x @ w_k + b_k).reshape(len(geo), *q.shape[1:]) if k is None else k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha)
    grad_k = grad_k.reshape(geo.shape)
    # forward: k = x w_k + b_k, x = site_j new_geo
    grad_site, grad_geo = edge_product_backward(grad_k @ w_k.T, site, new_geo, nbr)
    # forward: new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
    x_hat = (v * sigmoid(v) + geo - mean[:, None]) * rstd[:, None]
    grad_v, grad_centre, grad_neighbour, grad_geo, grad_gain, grad_offset = geometry_update_backward(
        grad_geo + grad_new_geo, edge_ptr, nbr, gain, v, x_hat, rstd
    )
    grad_geo += grad_v @ w.T
    of_weights = geo.T @ grad_v, grad_gain, grad_offset, x.T @ grad_k, grad_k.sum(axis=0)
    return grad_site, grad_geo, grad_centre, grad_neighbour, add(add_to, grad_q), *fill(into, of_weights)


def filtered_attention_forward(site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, keep=True):
    """Local attention of SCANN, whose geometry features are made anew in every layer.

    v = rbf w + b;  geo = swish(v) weight;  k[e] = (site[j] geo[e]) w_k + b_k;  context = local attention of q over k

    Parameters
    ----------
    site : (N, D) float; rbf : (E, G) float; weight : (E,) float
    q : (N, H, C) float; edge_ptr : (N + 1,) int32; nbr : (E,) int32; mask : (E, H) float
    w : (G, D) float; w_k : (D, D) float; b, b_k : (D,) float
    keep : bool   whether there will be a backward; if not, k is None

    Returns
    -------
    context : (N, H, C); alpha : (E, H); k : (E, H, C), or None from a backend whose backward does without

    Source   Vu et al. 2023; authors' code, LocalAttention
    """
    geo, _ = geometry_filter_forward(rbf @ w, b, weight)
    k = (edge_product_forward(site, geo, nbr) @ w_k + b_k).reshape(len(rbf), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edge_ptr, mask)
    return context, alpha, k if keep else None


def filtered_attention_backward(
    grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, alpha, k, of_inputs=True, add_to=None,
    into=None,
):  # fmt: skip
    """Backward of filtered_attention_forward: those of its operations, last to first; v, geo and x are made again.

    grad_x = grad_k w_k^T;  grad_v = grad_x site[j] weight swish'(v);  grad_w = rbf^T grad_v;  grad_rbf = grad_v w^T

    Parameters
    ----------
    grad_context, q : (N, H, C) float; site : (N, D) float; rbf : (E, G) float; weight : (E,) float
    edge_ptr : (N + 1,) int32; nbr : (E,) int32; mask, alpha : (E, H) float
    w : (G, D) float; w_k : (D, D) float; b, b_k : (D,) float; k : (E, H, C) float, or None, and it is made again
    of_inputs : bool   whether the gradients by rbf and weight are wanted, which training does not need
    add_to, into       as of updated_attention_backward

    Returns
    -------
    grad_site : (N, D); grad_rbf : (E, G), grad_weight : (E,), or None; grad_q : (N, H, C)
    grad_w : (G, D); grad_b : (D,); grad_w_k : (D, D); grad_b_k : (D,)
    """
    v = rbf @ w + b
    geo = v * sigmoid(v) * weight[:, None]
    x = edge_product_forward(site, geo, nbr)
    k = (x @ w_k + b_k).reshape(len(rbf), *q.shape[1:]) if k is None else k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha)
    grad_k = grad_k.reshape(v.shape)
    # forward: k = x w_k + b_k, x = site_j geo
    grad_site, grad_geo = edge_product_backward(grad_k @ w_k.T, site, geo, nbr)
    # forward: geo = swish(v) weight, v = rbf w + b
    grad_v, grad_b, grad_weight = geometry_filter_backward(grad_geo, weight, v)
    of_weights = rbf.T @ grad_v, grad_b, x.T @ grad_k, grad_k.sum(axis=0)
    by_inputs = (grad_v @ w.T, grad_weight) if of_inputs else (None, None)
    return grad_site, *by_inputs, add(add_to, grad_q), *fill(into, of_weights)
