"""Geometry features of a layer: made anew (SCANN), or updated (SCANN+)."""

import numpy as np

from refattn.ops.reference.layers import (
    residual_layernorm_backward,
    residual_layernorm_forward,
    sigmoid,
    swish_backward,
)
from refattn.ops.types import Array


def geometry_filter_forward(u: Array, b: Array, weight: Array) -> tuple[Array, Array]:
    """Geometry features of SCANN, made anew in every layer.

    geo[e,d] = swish(v[e,d]) weight[e],  v = u + b

    Parameters
    ----------
    u : (E, D) float      the distance expansion times the layer's kernel
    b : (D,) float
    weight : (E,) float   solid angle over the largest of the site

    Returns
    -------
    geo, v : (E, D)

    Source   Vu et al. 2023; authors' code, filter_geo
    """
    v = u + b
    return v * sigmoid(v) * weight[:, None], v


def geometry_filter_backward(grad_geo: Array, weight: Array, v: Array) -> tuple[Array, Array, Array]:
    """Backward of geometry_filter_forward. Needs v, not u.

    grad_u = grad_geo weight swish'(v); grad_b = sum_e grad_u; grad_weight[e] = sum_d grad_geo[e,d] swish(v[e,d])

    Parameters
    ----------
    grad_geo : (E, D) float; weight : (E,) float; v : (E, D) float

    Returns
    -------
    grad_u : (E, D); grad_b : (D,); grad_weight : (E,)
    """
    # forward: geo = swish(v) weight
    grad_u, grad_b = swish_backward(grad_geo * weight[:, None], v)
    return grad_u, grad_b, (grad_geo * v * sigmoid(v)).sum(axis=1)


def geometry_update_forward(
    edge: Array, centre: Array, neighbour: Array, geo: Array, edge_ptr: Array, nbr: Array, gain: Array, offset: Array
) -> tuple[Array, Array, Array, Array]:
    """Update of the geometry features in a layer of SCANN+.

    v[e] = edge[e] + centre[i] + neighbour[j],  i the site of edge e and j = nbr[e]
    new_geo[e] = LN(swish(v[e]) + geo[e])

    The paper's [site_i | geo | site_j] w_f + b_f splits into three products, of which only one runs over edges:
    centre = site w_1 + b_f, edge = geo w_2, neighbour = site w_3. Exact.

    Parameters
    ----------
    edge, geo : (E, D) float
    centre, neighbour : (N, D) float
    edge_ptr : (N + 1,) int32; nbr : (E,) int32
    gain, offset : (D,) float

    Returns
    -------
    new_geo, v, x_hat : (E, D); rstd : (E,)

    Source   authors' code, LocalAttention with g_update
    """
    v = edge + np.repeat(centre, np.diff(edge_ptr), axis=0) + neighbour[nbr]
    new_geo, x_hat, rstd = residual_layernorm_forward(v * sigmoid(v), geo, gain, offset)
    return new_geo, v, x_hat, rstd


def geometry_update_backward(
    grad_new_geo: Array, edge_ptr: Array, nbr: Array, gain: Array, v: Array, x_hat: Array, rstd: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Backward of geometry_update_forward. Needs none of the four features that were added.

    grad_geo = LN'(grad_new_geo);  grad_edge = grad_geo swish'(v)
    grad_centre[i] = sum over the edges of i of grad_edge;  grad_neighbour[j] = sum over the edges to j

    Parameters
    ----------
    grad_new_geo : (E, D) float
    edge_ptr : (N + 1,) int32; nbr : (E,) int32; gain : (D,) float
    v, x_hat : (E, D) float; rstd : (E,) float

    Returns
    -------
    grad_edge : (E, D); grad_centre, grad_neighbour : (N, D); grad_geo : (E, D); grad_gain, grad_offset : (D,)
    """
    # forward: new_geo = LN(swish(v) + geo)
    grad_geo, grad_gain, grad_offset = residual_layernorm_backward(grad_new_geo, gain, x_hat, rstd)
    grad_edge, _ = swish_backward(grad_geo, v)
    # forward: v = edge + centre_i + neighbour_j
    grad_centre = np.zeros((len(edge_ptr) - 1, v.shape[1]), dtype=v.dtype)
    grad_neighbour = np.zeros_like(grad_centre)
    np.add.at(grad_centre, np.repeat(np.arange(len(grad_centre)), np.diff(edge_ptr)), grad_edge)
    np.add.at(grad_neighbour, nbr, grad_edge)
    return grad_edge, grad_centre, grad_neighbour, grad_geo, grad_gain, grad_offset
