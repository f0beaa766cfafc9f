"""A layer's work on the edges, composed of kernels and products; equations in reference/edges.py.

Between the products one kernel makes all that is made of an edge: gather, sum, swish, layer norm and the key's x. What
a backward needs of an edge and can be made again, x and the normalised geometry features, is not kept.
"""

from refattn.ops.cuda.graph import neighbour_of
from refattn.ops.cuda.launch import block_sum, column_sums, launch, partial_sums
from refattn.ops.cuda.layers import dense_backward, dense_forward, normalise, normalise_gradient
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.sigmoid import sigmoid, swish_slope
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.cuda.unfused.geometry import geometry_filter_backward, geometry_filter_forward, sum_to_neighbours
from refattn.ops.cuda.unfused.local_attention import (
    edge_product_backward,
    edge_product_forward,
    local_attention_backward,
    local_attention_forward,
)
from refattn.ops.reference.layers import accumulated, written
from refattn.ops.types import (
    Array,
    DenseWeights,
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
    """See the reference.

    Traffic   of the kernel between the products: reads 4 D, writes 3 D + 2 floats an edge, and reads D a site
    """
    v = dense_forward(geo, weights.w)
    new_geo, x = (empty(geo.shape, geo.dtype) for _ in range(2))
    moments = empty((2, len(geo)), geo.dtype)
    inputs = site, geo, centre, neighbour, edges.edge_ptr, neighbour_of(edges.nbr), weights.gain, weights.offset
    launch(_updated_geometry_kernel, *centre.shape, v, new_geo, x, moments, *inputs)
    k = dense_forward(x, weights.w_k, weights.b_k).reshape(len(geo), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edges.edge_ptr, edges.mask)
    saved = (new_geo, v, *moments, k) if save_for_backward else ()
    return context, new_geo, UpdatedAttentionCache(alpha, *saved)


def updated_attention_backward(
    grad_context: Array, grad_new_geo: Array, site: Array, geo: Array, q: Array, edges: EdgeList,
    weights: UpdatedAttentionWeights, cache: UpdatedAttentionCache, accumulate_into: Array | None = None,
    out: UpdatedAttentionWeights | None = None,
) -> tuple[Array, Array, Array, Array, Array, UpdatedAttentionWeights]:  # fmt: skip
    """See the reference.

    Deterministic   sums over edges run in the order of the edges
    """
    dtype, v = geo.dtype, cache.v
    x = edge_product_forward(site, cache.new_geo, edges.nbr)
    k = dense_forward(x, weights.w_k, weights.b_k).reshape(len(geo), *q.shape[1:]) if cache.k is None else cache.k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edges.edge_ptr, edges.mask, cache.alpha)
    # forward: k = x w_k + b_k, x = site_j new_geo
    grad_x, grad_w_k, grad_b_k = dense_backward(grad_k.reshape(geo.shape), x, weights.w_k)
    grad_site, grad_from_x = edge_product_backward(grad_x, site, cache.new_geo, edges.nbr)
    # forward: new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
    grad_v, grad_geo = grads = empty((2, *v.shape), dtype)
    grad_centre = empty(site.shape, dtype)
    partial = partial_sums(2, *site.shape, dtype)
    inputs = grad_new_geo, grad_from_x, geo, edges.edge_ptr, weights.gain, v, cache.mean, cache.rstd
    launch(_updated_geometry_backward_kernel, *site.shape, grads, grad_centre, partial, *inputs)
    grad_gain, grad_offset = column_sums(partial)
    grad_neighbour = sum_to_neighbours(grad_v, edges.nbr, len(site))
    _, grad_w, _ = dense_backward(grad_v, geo, weights.w, grad_geo, DenseWeights(empty(weights.w.shape, dtype)))
    grad_weights = UpdatedAttentionWeights(grad_w, grad_gain, grad_offset, grad_w_k, grad_b_k)
    grad_q = accumulated(accumulate_into, grad_q)
    return grad_site, grad_geo, grad_centre, grad_neighbour, grad_q, written(out, grad_weights)


@kernel
def _updated_geometry_kernel(v, new_geo, x, moments, site, geo, centre, neighbour, edge_ptr, nbr, gain, offset):
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
                moments[0, e] = mean_row
                moments[1, e] = rstd_row


@kernel
def _updated_geometry_backward_kernel(
    grads, grad_centre, partial, grad_new_geo, grad_from_x, geo, edge_ptr, gain, v, mean, rstd
):
    """grads : (2, E, D), of grad_v and of the part of grad_geo that comes through the norm."""
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
                grads[0, e, d] = grad_v_e
                grads[1, e, d] = grad_row
                total += grad_v_e
                total_gain += grad * row
                total_offset += grad
        if d < width:
            grad_centre[i, d] = total
    if d < width:
        partial[0, cuda.blockIdx.x, d] = total_gain
        partial[1, cuda.blockIdx.x, d] = total_offset


def filtered_attention_forward(
    site: Array, rbf: Array, q: Array, edges: EdgeList, weights: FilteredAttentionWeights,
    save_for_backward: bool = True,
) -> tuple[Array, FilteredAttentionCache]:  # fmt: skip
    """See the reference."""
    geo, _ = geometry_filter_forward(dense_forward(rbf, weights.w), weights.b, edges.weight)
    x = edge_product_forward(site, geo, edges.nbr)
    k = dense_forward(x, weights.w_k, weights.b_k).reshape(len(rbf), *q.shape[1:])
    context, alpha = local_attention_forward(q, k, edges.edge_ptr, edges.mask)
    return context, FilteredAttentionCache(alpha, k if save_for_backward else None)


def filtered_attention_backward(
    grad_context: Array, site: Array, rbf: Array, q: Array, edges: EdgeList, weights: FilteredAttentionWeights,
    cache: FilteredAttentionCache, input_gradients: bool = True, accumulate_into: Array | None = None,
    out: FilteredAttentionWeights | None = None,
) -> tuple[Array, Array | None, Array | None, Array, FilteredAttentionWeights]:  # fmt: skip
    """See the reference.

    Deterministic   sums over edges run in the order of the edges
    """
    geo, v = geometry_filter_forward(dense_forward(rbf, weights.w), weights.b, edges.weight)
    x = edge_product_forward(site, geo, edges.nbr)
    k = dense_forward(x, weights.w_k, weights.b_k).reshape(len(rbf), *q.shape[1:]) if cache.k is None else cache.k
    grad_q, grad_k = local_attention_backward(grad_context, q, k, edges.edge_ptr, edges.mask, cache.alpha)
    # forward: k = x w_k + b_k, x = site_j geo
    grad_x, grad_w_k, grad_b_k = dense_backward(grad_k.reshape(geo.shape), x, weights.w_k)
    grad_site, grad_geo = edge_product_backward(grad_x, site, geo, edges.nbr)
    # forward: geo = swish(v) weight, v = rbf w + b
    grad_v, grad_b, grad_weight = geometry_filter_backward(grad_geo, edges.weight, v)
    grad_rbf, grad_w, _ = dense_backward(grad_v, rbf, weights.w, out=DenseWeights(empty(weights.w.shape, rbf.dtype)))
    grad_weights = FilteredAttentionWeights(grad_w, grad_b, grad_w_k, grad_b_k)
    grad_inputs = (grad_rbf, grad_weight) if input_gradients else (None, None)
    return grad_site, *grad_inputs, accumulated(accumulate_into, grad_q), written(out, grad_weights)
