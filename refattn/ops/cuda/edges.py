"""A layer's work on the edges, composed of kernels and products; equations in reference/edges.py.

Between the products one kernel makes all that is made of an edge: gather, sum, swish, layer norm and the key's x. What
a backward needs of an edge and can be made again, x and the normalised geometry features, is not kept.
"""

from refattn.ops.cuda.geometry import geometry_filter_backward, geometry_filter_forward, sum_to_neighbours
from refattn.ops.cuda.graph import neighbour_of
from refattn.ops.cuda.launch import block_sum, column_sums, launch, partial_sums
from refattn.ops.cuda.local_attention import (
    edge_product_backward,
    edge_product_forward,
    local_attention_backward,
    local_attention_forward,
)
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.norm import normalise, normalise_gradient
from refattn.ops.cuda.products import column_total, dense, dense_gradients
from refattn.ops.cuda.sigmoid import sigmoid, swish_slope
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.into import add, fill


def updated_attention_forward(
    site, geo, centre, neighbour, q, edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep=True
):
    """See the reference.

    Traffic   of the kernel between the products: reads 4 D, writes 3 D + 2 floats an edge, and reads D a site
    """
    v, new_geo, x = dense(geo, w), empty(geo.shape, geo.dtype), empty(geo.shape, geo.dtype)
    mean, rstd = empty(geo.shape[:1], geo.dtype), empty(geo.shape[:1], geo.dtype)
    inputs = site, geo, centre, neighbour, edge_ptr, neighbour_of(nbr), gain, offset
    launch(_updated_geometry_kernel, *centre.shape, v, new_geo, x, mean, rstd, *inputs)
    k = dense(x, w_k, b_k).reshape(len(geo), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edge_ptr, mask)
    return (context, new_geo, alpha, v, mean, rstd, k) if keep else (context, new_geo, alpha, *[None] * 4)


def updated_attention_backward(
    grad_context, grad_new_geo, site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, b_k, new_geo, alpha, v, mean, rstd,
    k, add_to=None, into=None,
):  # fmt: skip
    """See the reference.

    Deterministic   sums over edges run in the order of the edges
    """
    x = edge_product_forward(site, new_geo, nbr)
    k = dense(x, w_k, b_k).reshape(len(geo), *q.shape[1:]) if k is None else k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha)
    grad_k = grad_k.reshape(geo.shape)
    grad_w_k, grad_w = empty(w_k.shape, w.dtype), empty(w.shape, w.dtype)
    # forward: k = x w_k + b_k, x = site_j new_geo
    grad_x, grad_b_k = dense_gradients(grad_k, x, w_k, grad_w_k), column_total(grad_k)
    grad_site, grad_from_x = edge_product_backward(grad_x, site, new_geo, nbr)
    # forward: new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
    grad_v, grad_geo = empty(v.shape, v.dtype), empty(v.shape, v.dtype)
    grad_centre, partial = empty(site.shape, v.dtype), partial_sums(2, *site.shape, v.dtype)
    inputs = grad_new_geo, grad_from_x, geo, edge_ptr, gain, v, mean, rstd
    launch(_updated_geometry_backward_kernel, *site.shape, grad_v, grad_geo, grad_centre, partial, *inputs)
    norm, grad_neighbour = column_sums(partial), sum_to_neighbours(grad_v, nbr, len(site))
    dense_gradients(grad_v, geo, w, grad_w, add_to=grad_geo)
    of_weights = grad_w, *norm, grad_w_k, grad_b_k
    return grad_site, grad_geo, grad_centre, grad_neighbour, add(add_to, grad_q), *fill(into, of_weights)


@kernel
def _updated_geometry_kernel(v, new_geo, x, mean, rstd, site, geo, centre, neighbour, edge_ptr, nbr, gain, offset):
    n_sites, width = centre.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, v.dtype)
    zero, size = v.dtype.type(0), v.dtype.type(width)
    for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            u = zero
            if d < width:
                v_e = v[e, d] + centre[i, d] + neighbour[nbr[e], d]
                v[e, d] = v_e
                u = v_e * sigmoid(v_e) + geo[e, d]
            mean_row = block_sum(buffer, u) / size
            row, rstd_row = normalise(buffer, u, d < width, size)
            if d < width:
                geo_e = gain[d] * row + offset[d]
                new_geo[e, d] = geo_e
                x[e, d] = geo_e * site[nbr[e], d]
            if d == 0:
                mean[e] = mean_row
                rstd[e] = rstd_row


@kernel
def _updated_geometry_backward_kernel(
    grad_v, grad_geo, grad_centre, partial, grad_new_geo, grad_from_x, geo, edge_ptr, gain, v, mean, rstd
):
    n_sites, width = grad_centre.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, v.dtype)
    zero, size = v.dtype.type(0), v.dtype.type(width)
    total_gain = total_offset = zero
    for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
        total = zero
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            grad = row = g = zero
            if d < width:
                # forward: new_geo = LN(swish(v) + geo)
                grad = grad_new_geo[e, d] + grad_from_x[e, d]
                row = (v[e, d] * sigmoid(v[e, d]) + geo[e, d] - mean[e]) * rstd[e]
                g = grad * gain[d]
            grad_row = normalise_gradient(buffer, g, row, rstd[e], size)
            if d < width:
                # forward: v = geo w + centre_i + neighbour_j
                grad_v_e = grad_row * swish_slope(v[e, d])
                grad_geo[e, d] = grad_row
                grad_v[e, d] = grad_v_e
                total += grad_v_e
                total_gain += grad * row
                total_offset += grad
        if d < width:
            grad_centre[i, d] = total
    if d < width:
        partial[0, cuda.blockIdx.x, d] = total_gain
        partial[1, cuda.blockIdx.x, d] = total_offset


def filtered_attention_forward(site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, keep=True):
    """See the reference."""
    geo, _ = geometry_filter_forward(dense(rbf, w), b, weight)
    k = dense(edge_product_forward(site, geo, nbr), w_k, b_k).reshape(len(rbf), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edge_ptr, mask)
    return context, alpha, k if keep else None


def filtered_attention_backward(
    grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, alpha, k, of_inputs=True, add_to=None,
    into=None,
):  # fmt: skip
    """See the reference.

    Deterministic   sums over edges run in the order of the edges
    """
    geo, v = geometry_filter_forward(dense(rbf, w), b, weight)
    x = edge_product_forward(site, geo, nbr)
    k = dense(x, w_k, b_k).reshape(len(rbf), *q.shape[1:]) if k is None else k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha)
    grad_k = grad_k.reshape(len(rbf), site.shape[1])
    grad_w_k, grad_w = empty(w_k.shape, w.dtype), empty(w.shape, w.dtype)
    # forward: k = x w_k + b_k, x = site_j geo
    grad_x, grad_b_k = dense_gradients(grad_k, x, w_k, grad_w_k), column_total(grad_k)
    grad_site, grad_geo = edge_product_backward(grad_x, site, geo, nbr)
    # forward: geo = swish(v) weight, v = rbf w + b
    grad_v, grad_b, grad_weight = geometry_filter_backward(grad_geo, weight, v)
    grad_rbf = dense_gradients(grad_v, rbf, w, grad_w)
    by_inputs = (grad_rbf, grad_weight) if of_inputs else (None, None)
    return grad_site, *by_inputs, add(add_to, grad_q), *fill(into, (grad_w, grad_b, grad_w_k, grad_b_k))
