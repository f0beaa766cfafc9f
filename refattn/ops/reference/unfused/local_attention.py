"""Local attention: what each neighbour says, and how much of it a site takes over."""

import numpy as np

from refattn.ops.types import Array


def edge_product_forward(site: Array, geo: Array, nbr: Array) -> Array:
    """Neighbour's representation filtered by the geometry of the edge.

    x[e,d] = site[j,d] geo[e,d],  j = nbr[e]

    Parameters
    ----------
    site : (N, D) float; geo : (E, D) float; nbr : (E,) int32

    Returns
    -------
    x : (E, D)

    Source   Vu et al. 2023
    """
    return site[nbr] * geo


def edge_product_backward(grad_x: Array, site: Array, geo: Array, nbr: Array) -> tuple[Array, Array]:
    """Backward of edge_product_forward.

    grad_site[j] = sum over the edges to j of grad_x geo;  grad_geo = grad_x site_j

    Parameters
    ----------
    grad_x : (E, D) float; site : (N, D) float; geo : (E, D) float; nbr : (E,) int32

    Returns
    -------
    grad_site : (N, D); grad_geo : (E, D)
    """
    grad_site = np.zeros_like(site)
    np.add.at(grad_site, nbr, grad_x * geo)
    return grad_site, grad_x * site[nbr]


def local_attention_forward(q: Array, k: Array, edge_ptr: Array, mask: Array) -> tuple[Array, Array]:
    """Attention of a site over its edges, head by head; the values are the keys.

    score[e,h] = C^-1/2 sum_c q[i,h,c] k[e,h,c];  alpha = softmax of score over the edges of i
    context[i,h,c] = sum over the edges of i of alpha[e,h] mask[e,h] k[e,h,c];  0 for a site without edges

    Parameters
    ----------
    q : (N, H, C) float; k : (E, H, C) float
    edge_ptr : (N + 1,) int32
    mask : (E, H) float   dropout of the attention: 0 or 1 / (1 - rate); ones at inference

    Returns
    -------
    context : (N, H, C); alpha : (E, H)

    Source   Vaswani et al. 2017, Eq. (1); Vu et al. 2023; authors' code for values = keys
    """
    context, alpha = np.zeros_like(q), np.zeros_like(mask)
    for i in range(len(q)):
        edges = slice(edge_ptr[i], edge_ptr[i + 1])
        if edges.start == edges.stop:
            continue
        score = np.einsum("hc,ehc->eh", q[i], k[edges]) / np.sqrt(q.dtype.type(q.shape[2]))
        exponential = np.exp(score - score.max(axis=0))
        alpha[edges] = exponential / exponential.sum(axis=0)
        context[i] = np.einsum("eh,ehc->hc", alpha[edges] * mask[edges], k[edges])
    return context, alpha


def local_attention_backward(
    grad_context: Array, q: Array, k: Array, edge_ptr: Array, mask: Array, alpha: Array
) -> tuple[Array, Array]:
    """Backward of local_attention_forward. Needs alpha, not the scores.

    grad_alpha = mask sum_c grad_context[i] k;  grad_score = alpha (grad_alpha - sum over i's edges of alpha grad_alpha)
    grad_q[i] = C^-1/2 sum over the edges of i of grad_score k
    grad_k = alpha mask grad_context[i] + C^-1/2 grad_score q[i]

    Parameters
    ----------
    grad_context, q : (N, H, C) float; k : (E, H, C) float; edge_ptr : (N + 1,) int32
    mask, alpha : (E, H) float

    Returns
    -------
    grad_q : (N, H, C); grad_k : (E, H, C)
    """
    grad_q, grad_k = np.zeros_like(q), np.zeros_like(k)
    scale = 1 / np.sqrt(q.dtype.type(q.shape[2]))
    for i in range(len(q)):
        edges = slice(edge_ptr[i], edge_ptr[i + 1])
        # forward: context = sum alpha mask k
        grad_alpha = mask[edges] * np.einsum("hc,ehc->eh", grad_context[i], k[edges])
        # forward: alpha = softmax(score)
        grad_score = alpha[edges] * (grad_alpha - (alpha[edges] * grad_alpha).sum(axis=0))
        # forward: score = scale q k
        grad_q[i] = scale * np.einsum("eh,ehc->hc", grad_score, k[edges])
        passed_on = (alpha[edges] * mask[edges])[:, :, None] * grad_context[i]
        grad_k[edges] = passed_on + scale * grad_score[:, :, None] * q[i]
    return grad_q, grad_k
