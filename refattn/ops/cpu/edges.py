"""A layer's work on the edges, fused; equations in reference/edges.py.

The kernels walk over tiles: runs of whole sites with about TILE edges. What a product makes of a tile's edges is used
while it is in the cache, and only what backward needs is written to memory: two (E, D) arrays a layer instead of
six. The row-wise steps are those of layers.py, local attention is that of heads.py.
"""

import numpy as np

from refattn.ops.cpu.heads import (
    absorb_key_projection,
    add_values,
    attend_site,
    attend_site_gradient,
    key_projection_gradient,
    pack_heads,
    transpose,
)
from refattn.ops.cpu.layers import inverse_deviation
from refattn.ops.cpu.memory import empties, empty, plain, zeros_like
from refattn.ops.cpu.simd.gemm import multiply, pack
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import sigmoid
from refattn.ops.cpu.simd.vector import load, number_of, row_view, store, sum_of, zeros
from refattn.ops.cpu.work import (
    SITES,
    AttentionInputs,
    BackwardWork,
    ForwardWork,
    RowGradients,
    Static,
    backward_work,
    empty_like,
    forward_work,
    static_sizes,
)
from refattn.ops.types import (
    Array,
    EdgeList,
    FilteredAttentionCache,
    FilteredAttentionWeights,
    UpdatedAttentionCache,
    UpdatedAttentionWeights,
)

TILE = 192  # edges: what a tile takes comes from the second-level cache and the third
MIN_DEGREE = 16  # edges of a site that work arrays have room for at least: the same arrays for most molecules


def flat(array: Array) -> Array:
    """(N, H, C) as (N, H C), the same memory."""
    return array.reshape(len(array), array.shape[1] * array.shape[2])


def updated_attention_forward(
    site: Array, geo: Array, centre: Array, neighbour: Array, q: Array, edges: EdgeList,
    weights: UpdatedAttentionWeights, save_for_backward: bool = True,
) -> tuple[Array, Array, UpdatedAttentionCache]:  # fmt: skip
    """See the reference.

    Memory   an (H, D) array a site of a tile; without save_for_backward new_geo is written over geo
    """
    dtype, width = geo.dtype, geo.shape[1]
    capacity = tile_capacity(edges.edge_ptr)
    kept = len(geo) if save_for_backward else capacity[0]  # else a tile of v is enough, and stays in the cache
    new_geo = empty(geo.shape, dtype) if save_for_backward else geo
    shapes = q.shape, edges.mask.shape, (kept, width), (kept,), (kept,)
    context, alpha, v, mean, rstd = empties(dtype, *shapes)
    cache = UpdatedAttentionCache(alpha, new_geo, v, mean, rstd)
    work = forward_work(weights.w.shape, q.shape[1], capacity, dtype, True)
    inputs = AttentionInputs(site, flat(q), geo, centre, neighbour)
    structs = plain(inputs, edges, weights, static_sizes(*q.shape[1:], dtype))
    _updated_attention_forward_kernel(flat(context), cache, save_for_backward, work, *structs)
    return context, new_geo, cache if save_for_backward else UpdatedAttentionCache(alpha)


def updated_attention_backward(
    grad_context: Array, grad_new_geo: Array, site: Array, geo: Array, q: Array, edges: EdgeList,
    weights: UpdatedAttentionWeights, cache: UpdatedAttentionCache, accumulate_into: Array | None = None,
    out: UpdatedAttentionWeights | None = None,
) -> tuple[Array, Array, Array, Array, Array, UpdatedAttentionWeights]:  # fmt: skip
    """See the reference.

    Memory          a tile of grad_v, and two (H, D) arrays a site of a tile; grad_geo is written over cache.new_geo,
                    which is in the processor's cache where it was needed last
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    dtype = geo.dtype
    grad_q = zeros_like(q) if accumulate_into is None else accumulate_into
    grad_site, grad_centre, grad_neighbour = empty((3, *site.shape), dtype)
    grad_weights = out or empty_like(weights)
    work = backward_work(weights.w.shape, q.shape[1], tile_capacity(edges.edge_ptr), dtype, True)
    grads = AttentionInputs(grad_site, flat(grad_q), cache.new_geo, grad_centre, grad_neighbour)
    inputs = AttentionInputs(site, flat(q), geo)
    structs = plain(inputs, edges, weights, cache, static_sizes(*q.shape[1:], dtype))
    _updated_attention_backward_kernel(grads, grad_weights, flat(grad_context), grad_new_geo, work, *structs)
    return grad_site, cache.new_geo, grad_centre, grad_neighbour, grad_q, grad_weights


def filtered_attention_forward(
    site: Array, rbf: Array, q: Array, edges: EdgeList, weights: FilteredAttentionWeights,
    save_for_backward: bool = True,
) -> tuple[Array, FilteredAttentionCache]:  # fmt: skip
    """See the reference.

    Memory   a tile of v, and an (H, D) array a site of a tile
    """
    dtype = site.dtype
    context, alpha = empties(dtype, q.shape, edges.mask.shape)
    work = forward_work(weights.w.shape, q.shape[1], tile_capacity(edges.edge_ptr), dtype, False)
    inputs = AttentionInputs(site, flat(q), rbf)
    structs = plain(inputs, edges, weights, static_sizes(*q.shape[1:], dtype))
    _filtered_attention_forward_kernel(flat(context), alpha, work, *structs)
    return context, FilteredAttentionCache(alpha)


def filtered_attention_backward(
    grad_context: Array, site: Array, rbf: Array, q: Array, edges: EdgeList, weights: FilteredAttentionWeights,
    cache: FilteredAttentionCache, input_gradients: bool = True, accumulate_into: Array | None = None,
    out: FilteredAttentionWeights | None = None,
) -> tuple[Array, Array | None, Array | None, Array, FilteredAttentionWeights]:  # fmt: skip
    """See the reference.

    Memory          two tiles, and two (H, D) arrays a site of a tile
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    dtype = site.dtype
    grad_inputs = (empty(rbf.shape, dtype), empty(rbf.shape[:1], dtype)) if input_gradients else None
    grad_site = empty(site.shape, dtype)
    grad_q = zeros_like(q) if accumulate_into is None else accumulate_into
    grad_weights = out or empty_like(weights)
    work = backward_work(weights.w.shape, q.shape[1], tile_capacity(edges.edge_ptr), dtype, False)
    grads = AttentionInputs(grad_site, flat(grad_q))
    inputs = AttentionInputs(site, flat(q), rbf)
    structs = plain(inputs, edges, weights, static_sizes(*q.shape[1:], dtype))
    outputs = grads, grad_inputs, grad_weights
    _filtered_attention_backward_kernel(*outputs, flat(grad_context), cache.alpha, work, *structs)
    return grad_site, *(grad_inputs or (None, None)), grad_q, grad_weights


@kernel
def tile_capacity(edge_ptr):
    """Rows of a tile's work arrays, TILE or the edges of the site that has most, and these, or MIN_DEGREE if more."""
    max_degree = MIN_DEGREE
    for i in range(len(edge_ptr) - 1):
        max_degree = max(max_degree, edge_ptr[i + 1] - edge_ptr[i])
    return max(TILE, max_degree), max_degree


@kernel
def end_of_tile(edge_ptr, first, last):
    """The site after a tile that begins with `first`: as many as have TILE edges together, at most SITES, or one."""
    end = first + 1
    last = min(last, first + SITES)
    while end < last and edge_ptr[end + 1] - edge_ptr[first] <= TILE:
        end += 1
    return end


@kernel(fastmath=True, inline=True)
def update_row(new_geo, v, x, centre, neighbour, geo, site, gain, offset, lanes):
    """v += centre + neighbour; new_geo = LN(swish(v) + geo); x = site new_geo: one edge. Returns mean and rstd."""
    total = square = zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        u = load(v, d, lanes) + (load(centre, d, lanes) + load(neighbour, d, lanes))
        y = u * sigmoid(u) + load(geo, d, lanes)
        store(v, d, u)
        store(x, d, y)
        total = total + y
    mean = sum_of(total) / number_of(v, len(v))
    for d in range(0, len(v), len(lanes)):
        centred = load(x, d, lanes) - mean
        square = square + centred * centred
    rstd = inverse_deviation(sum_of(square), v)
    for d in range(0, len(v), len(lanes)):
        y = load(gain, d, lanes) * ((load(x, d, lanes) - mean) * rstd) + load(offset, d, lanes)
        store(new_geo, d, y)
        store(x, d, load(site, d, lanes) * y)
    return mean, rstd


@kernel(fastmath=True, inline=True)
def update_row_gradient(grads, grad_x, grad_new_geo, site, geo, gain, v, moments, pair, lanes):
    """Backward of v = edge + centre + neighbour, new_geo = LN(swish(v) + geo) and x = site new_geo, for one edge.

    grads : RowGradients     geo holds new_geo, and is overwritten with the gradient by geo
    moments : mean and rstd
    pair : rows to work in, for x_hat and the gradient by it
    """
    mean, rstd = moments
    x_hat, grad_x_hat = pair
    total = zeros(v, lanes)
    projection = zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        u = load(v, d, lanes)
        s = sigmoid(u)
        y = u * s
        row = (y + load(geo, d, lanes) - mean) * rstd
        # forward: x = site new_geo
        grad = load(grad_x, d, lanes)
        store(grads.site, d, load(grads.site, d, lanes) + grad * load(grads.geo, d, lanes))
        grad = grad * load(site, d, lanes) + load(grad_new_geo, d, lanes)
        # forward: new_geo = gain x_hat + offset
        store(grads.gain, d, load(grads.gain, d, lanes) + grad * row)
        store(grads.offset, d, load(grads.offset, d, lanes) + grad)
        grad = grad * load(gain, d, lanes)
        total = total + grad
        projection = projection + grad * row
        store(grad_x_hat, d, grad)
        store(x_hat, d, row)
        store(grads.v, d, s + y * (1 - s))  # swish'(v)
    width = number_of(v, len(v))
    mean_grad = sum_of(total) / width
    slope = sum_of(projection) / width
    for d in range(0, len(v), len(lanes)):
        # forward: x_hat = (swish(v) + geo - mean) rstd
        grad = (load(grad_x_hat, d, lanes) - mean_grad - load(x_hat, d, lanes) * slope) * rstd
        store(grads.geo, d, grad)
        grad = load(grads.v, d, lanes) * grad
        store(grads.v, d, grad)
        store(grads.centre, d, load(grads.centre, d, lanes) + grad)
        store(grads.neighbour, d, load(grads.neighbour, d, lanes) + grad)


@kernel(fastmath=True, inline=True)
def multiply_row(x, site, geo, lanes):
    """x = site geo: one edge."""
    for d in range(0, len(x), len(lanes)):
        store(x, d, load(site, d, lanes) * load(geo, d, lanes))


@kernel(fastmath=True)
def _updated_attention_forward_kernel(context, cache, save_for_backward, work, inputs, edges, weights, static):
    work = ForwardWork(*work)
    inputs = AttentionInputs(*inputs)
    edges = EdgeList(*edges)
    weights = UpdatedAttentionWeights(*weights)
    static = Static(*static)
    edge_ptr, lanes, x, v = edges.edge_ptr, static.lanes, work.x, cache.v
    n_sites = len(edge_ptr) - 1
    gain, offset = row_view(weights.gain, ()), row_view(weights.offset, ())
    pack(work.panels_w, weights.w)
    pack_heads(work.panels_k, work.panels_kt, weights.w_k, static.channels)
    first = np.int64(0)  # no literal, or what takes it is compiled twice
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        shift = 0 if save_for_backward else start  # row of edge e in what may be saved: e - shift
        multiply(v[start - shift : stop - shift], None, inputs.geo[start:stop], work.panels_w)
        absorb_key_projection(work.absorbed, inputs.q, first, last, work.panels_kt, static.channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                row = e - shift
                j = edges.nbr[e]
                cache.mean[row], cache.rstd[row] = update_row(
                    row_view(cache.new_geo, e), row_view(v, row), row_view(x, e - begin), row_view(inputs.centre, i),
                    row_view(inputs.neighbour, j), row_view(inputs.geo, e), row_view(inputs.site, j), gain, offset,
                    lanes,
                )  # fmt: skip
            attend_site(work.absorbed[:, i - first], context, cache.alpha, work, edges, weights.b_k, i, static)
        add_values(context, work.absorbed, first, last, work.panels_k, static.channels)
        first = last


@kernel(fastmath=True)
def _updated_attention_backward_kernel(
    grads, grad_weights, grad_context, grad_new_geo, work, inputs, edges, weights, cache, static
):
    work = BackwardWork(*work)
    inputs = AttentionInputs(*inputs)
    edges = EdgeList(*edges)
    weights = UpdatedAttentionWeights(*weights)
    cache = UpdatedAttentionCache(*cache)
    static = Static(*static)
    edge_ptr, lanes = edges.edge_ptr, static.lanes
    site, geo, new_geo, v = inputs.site, inputs.geo, grads.geo, cache.v
    absorbed, x, grad_x, grad_v = work.absorbed, work.x, work.grad_x, work.grad_v
    n_sites, n_heads, width = len(edge_ptr) - 1, len(static.heads), geo.shape[1]
    for total in (grad_weights.gain, grad_weights.offset, grad_weights.b_k):
        total[:] = v.dtype.type(0)
    for total in (grads.site, grads.centre, grads.neighbour, grad_weights.w, work.grad_w_kt):
        total[:] = v.dtype.type(0)
    gain = row_view(weights.gain, ())
    grad_gain = row_view(grad_weights.gain, ())
    grad_offset = row_view(grad_weights.offset, ())
    pair = row_view(work.pair, 0), row_view(work.pair, 1)
    pack(work.panels_wt, weights.w.T)
    pack_heads(work.panels_k, work.panels_kt, weights.w_k, static.channels)
    first = np.int64(0)  # no literal, or what takes it is compiled twice
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        absorb_key_projection(absorbed[:n_heads], grad_context, first, last, work.panels_kt, static.channels)
        absorb_key_projection(absorbed[n_heads:], inputs.q, first, last, work.panels_kt, static.channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                multiply_row(row_view(x, e - begin), row_view(site, edges.nbr[e]), row_view(new_geo, e), lanes)
            attend_site_gradient(
                absorbed[:, i - first], grad_weights.b_k, grad_context, cache.alpha, work, edges, weights.b_k, i, static
            )
            for e in range(begin, end):
                j = edges.nbr[e]
                # forward: x = site_j new_geo, new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
                rows = RowGradients(
                    row_view(grads.site, j), row_view(new_geo, e), row_view(grads.centre, i),
                    row_view(grads.neighbour, j), grad_gain, grad_offset, row_view(grad_v, e - start),
                )  # fmt: skip
                update_row_gradient(
                    rows, row_view(grad_x, e - begin), row_view(grad_new_geo, e), row_view(site, j), row_view(geo, e),
                    gain, row_view(v, e), (cache.mean[e], cache.rstd[e]), pair, lanes,
                )  # fmt: skip
        key_projection_gradient(
            grads.q, work.grad_w_kt, absorbed, grad_context, inputs.q, first, last, work.panels_k, static.channels
        )
        # new_geo holds the gradient of its norm; forward: edge = geo w
        grad_tile = grad_v[: stop - start, :width]
        multiply(grad_weights.w, grad_weights.w, geo[start:stop].T, grad_tile)
        multiply(new_geo[start:stop], new_geo[start:stop], grad_tile, work.panels_wt)
        first = last
    transpose(grad_weights.w_k, work.grad_w_kt)


@kernel(fastmath=True)
def _filtered_attention_forward_kernel(context, alpha, work, inputs, edges, weights, static):
    work = ForwardWork(*work)
    inputs = AttentionInputs(*inputs)
    edges = EdgeList(*edges)
    weights = FilteredAttentionWeights(*weights)
    static = Static(*static)
    edge_ptr, v, x = edges.edge_ptr, work.v, work.x
    n_sites = len(edge_ptr) - 1
    pack(work.panels_w, weights.w)
    pack_heads(work.panels_k, work.panels_kt, weights.w_k, static.channels)
    first = np.int64(0)  # no literal, or what takes it is compiled twice
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        multiply(v[: stop - start], weights.b, inputs.geo[start:stop], work.panels_w)
        absorb_key_projection(work.absorbed, inputs.q, first, last, work.panels_kt, static.channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                row = row_view(v, e - start)
                site_row = row_view(inputs.site, edges.nbr[e])
                filter_row(row_view(x, e - begin), row, row, site_row, edges.weight[e], static.lanes)
            attend_site(work.absorbed[:, i - first], context, alpha, work, edges, weights.b_k, i, static)
        add_values(context, work.absorbed, first, last, work.panels_k, static.channels)
        first = last


@kernel(fastmath=True, inline=True)
def filter_row(x, s, v, site, weight, lanes):
    """s = sigmoid(v), which may be v itself; x = site v s weight: one edge."""
    for d in range(0, len(v), len(lanes)):
        u = load(v, d, lanes)
        y = sigmoid(u)
        store(s, d, y)
        store(x, d, u * y * (weight * load(site, d, lanes)))


@kernel(fastmath=True)
def _filtered_attention_backward_kernel(
    grads, grad_inputs, grad_weights, grad_context, alpha, work, inputs, edges, weights, static
):
    """grad_inputs : grad_rbf and grad_weight, or None, and the compiler leaves out what only they need."""
    work = BackwardWork(*work)
    inputs = AttentionInputs(*inputs)
    edges = EdgeList(*edges)
    weights = FilteredAttentionWeights(*weights)
    static = Static(*static)
    edge_ptr, lanes = edges.edge_ptr, static.lanes
    site, rbf = inputs.site, inputs.geo
    absorbed, v, x, grad_x, grad_v = work.absorbed, work.v, work.x, work.grad_x, work.grad_v
    n_sites, n_heads = len(edge_ptr) - 1, len(static.heads)
    pack(work.panels_w, weights.w)
    pack_heads(work.panels_k, work.panels_kt, weights.w_k, static.channels)
    if grad_inputs is not None:
        pack(work.panels_wt, weights.w.T)
    for total in (grad_weights.b, grad_weights.b_k):
        total[:] = v.dtype.type(0)
    for total in (grads.site, grad_weights.w, work.grad_w_kt):
        total[:] = v.dtype.type(0)
    first = np.int64(0)  # no literal, or what takes it is compiled twice
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        multiply(v[: stop - start], weights.b, rbf[start:stop], work.panels_w)
        absorb_key_projection(absorbed[:n_heads], grad_context, first, last, work.panels_kt, static.channels)
        absorb_key_projection(absorbed[n_heads:], inputs.q, first, last, work.panels_kt, static.channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                s = row_view(grad_v, e - start)  # until the gradient takes its place
                site_row = row_view(site, edges.nbr[e])
                filter_row(row_view(x, e - begin), s, row_view(v, e - start), site_row, edges.weight[e], lanes)
            attend_site_gradient(
                absorbed[:, i - first], grad_weights.b_k, grad_context, alpha, work, edges, weights.b_k, i, static
            )
            for e in range(begin, end):
                j = edges.nbr[e]
                grad = filter_row_gradient(
                    row_view(grads.site, j), row_view(grad_v, e - start), row_view(grad_weights.b, ()),
                    row_view(grad_x, e - begin), row_view(site, j), edges.weight[e], row_view(v, e - start), lanes,
                )  # fmt: skip
                if grad_inputs is not None:
                    grad_inputs[1][e] = grad
        key_projection_gradient(
            grads.q, work.grad_w_kt, absorbed, grad_context, inputs.q, first, last, work.panels_k, static.channels
        )
        # forward: v = rbf w + b
        grad_tile = grad_v[: stop - start, : weights.w.shape[1]]
        multiply(grad_weights.w, grad_weights.w, rbf[start:stop].T, grad_tile)
        if grad_inputs is not None:
            multiply(grad_inputs[0][start:stop], None, grad_tile, work.panels_wt)
        first = last
    transpose(grad_weights.w_k, work.grad_w_kt)


@kernel(fastmath=True, inline=True)
def filter_row_gradient(grad_site, grad_v, grad_b, grad_x, site, weight, v, lanes):
    """Backward of x = site geo and geo = swish(v) weight, for one edge.

    Writes grad_v where sigmoid(v) stood, adds to grad_site and grad_b, returns grad_weight.
    """
    total = zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        s = load(grad_v, d, lanes)
        grad = load(grad_x, d, lanes)
        y = load(v, d, lanes) * s
        store(grad_site, d, load(grad_site, d, lanes) + weight * (grad * y))
        grad = grad * load(site, d, lanes)
        total = total + grad * y
        grad = weight * (grad * (s + y * (1 - s)))
        store(grad_v, d, grad)
        store(grad_b, d, load(grad_b, d, lanes) + grad)
    return sum_of(total)
