"""A layer's work on the edges, fused; equations in reference/edges.py.

The kernels walk over tiles: runs of whole sites with about TILE edges. What a product makes of a tile's edges is used
while it is in the cache, and only what backward needs is written to memory: two (E, D) arrays a layer instead of
six. The row-wise steps are those of norm.py, local attention is that of heads.py.
"""

import functools

from refattn.ops.cpu.heads import (
    add_values,
    attend_site,
    attend_site_gradient,
    fold_key,
    fold_key_gradient,
    pack_heads,
    panels_of_heads,
    transpose,
)
from refattn.ops.cpu.local_attention import flat, sizes_of
from refattn.ops.cpu.memory import empty, scratch, zeros_like
from refattn.ops.cpu.norm import inverse_deviation
from refattn.ops.cpu.simd.gemm import multiply, pack, padded, panels_of
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import sigmoid
from refattn.ops.cpu.simd.vector import lanes_for, load, number_of, row_of, store, sum_of, zeros

TILE = 192  # edges: what a tile takes comes from the second-level cache and the third
SITES = 49  # of a tile, at most; an odd number, because rows 4096 bytes apart share a place in the first-level cache
MOST = 16  # edges of a site, or more where there are sites with more: the same work arrays for most molecules


def updated_attention_forward(
    site, geo, centre, neighbour, q, edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep=True
):
    """See the reference.

    Memory   an (H, D) array a site of a tile; without `keep` new_geo is written over geo
    """
    number, width, (rows, most) = geo.dtype, geo.shape[1], rows_of(edge_ptr)
    kept = len(geo) if keep else rows  # without backward a tile of v and the rest is enough, and stays in the cache
    new_geo = empty(geo.shape, number) if keep else geo
    v, (mean, rstd) = empty((kept, width), number), empty((2, kept), number)
    context, alpha = empty(q.shape, number), empty(mask.shape, number)
    work = scratch(number, *shapes_of_work(width, width, q.shape[1], most, number))
    _updated_attention_forward_kernel(
        flat(context), new_geo, alpha, v, mean, rstd, *work, site, geo, centre, neighbour, flat(q), edge_ptr, nbr,
        mask, w, gain, offset, w_k, b_k, keep, lanes_for(width, number), *sizes_of(q),
    )  # fmt: skip
    return (context, new_geo, alpha, v, mean, rstd, None) if keep else (context, new_geo, alpha, *[None] * 4)


def updated_attention_backward(
    grad_context, grad_new_geo, site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, b_k, new_geo, alpha, v, mean, rstd,
    k, add_to=None, into=None,
):  # fmt: skip
    """See the reference.

    Memory          a tile of grad_v, and two (H, D) arrays a site of a tile; grad_geo is written over new_geo, which is
                    in the cache where it was needed last
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    number, width, (rows, most) = geo.dtype, geo.shape[1], rows_of(edge_ptr)
    grad_site, *of_sites = empty((3, *site.shape), number)
    grad_q = zeros_like(q) if add_to is None else add_to
    into = into or [empty(array.shape, number) for array in (w, gain, gain, w_k, b_k)]
    work = scratch(number, *shapes_of_gradient_work(width, width, q.shape[1], rows, most, number), (2, width))
    _updated_attention_backward_kernel(
        grad_site, new_geo, *of_sites, flat(grad_q), *into, *work, flat(grad_context), grad_new_geo, site, geo,
        flat(q), edge_ptr, nbr, mask, w, gain, w_k, b_k, alpha, v, mean, rstd, lanes_for(width, number), *sizes_of(q),
    )  # fmt: skip
    return grad_site, new_geo, *of_sites, grad_q, *into


def filtered_attention_forward(site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, keep=True):
    """See the reference.

    Memory   a tile of v, and an (H, D) array a site of a tile
    """
    number, width, (rows, most) = site.dtype, site.shape[1], rows_of(edge_ptr)
    context, alpha = empty(q.shape, number), empty(mask.shape, number)
    work = scratch(number, *shapes_of_work(len(w), width, q.shape[1], most, number), (rows, width))
    _filtered_attention_forward_kernel(
        flat(context), alpha, *work, site, rbf, weight, flat(q), edge_ptr, nbr, mask, w, b, w_k, b_k,
        lanes_for(width, number), *sizes_of(q),
    )  # fmt: skip
    return context, alpha, None


def filtered_attention_backward(
    grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, alpha, k, of_inputs=True, add_to=None,
    into=None,
):  # fmt: skip
    """See the reference.

    Memory          two tiles, and two (H, D) arrays a site of a tile
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    number, width, (rows, most) = site.dtype, site.shape[1], rows_of(edge_ptr)
    by_inputs = (empty(rbf.shape, number), empty(weight.shape, number)) if of_inputs else (None, None)
    grad_site, grad_q = empty(site.shape, number), zeros_like(q) if add_to is None else add_to
    into = into or [empty(array.shape, number) for array in (w, b, w_k, b_k)]
    work = scratch(
        number,
        *shapes_of_gradient_work(len(w), width, q.shape[1], rows, most, number),
        (rows, width),
        (panels_of(*w.shape, number),),
    )
    _filtered_attention_backward_kernel(
        grad_site, *by_inputs, flat(grad_q), *into, *work, flat(grad_context), site, rbf,
        weight, flat(q), edge_ptr, nbr, mask, w, b, w_k, b_k, alpha, lanes_for(width, number), *sizes_of(q),
    )  # fmt: skip
    return grad_site, *by_inputs, grad_q, *into


@functools.cache
def shapes_of_work(depth, width, n_heads, most, dtype):
    """Shapes of t, x, coefficient, and the panels of w (depth, width) and of each head."""
    of_site = (most, width), (most, n_heads)
    return (n_heads, SITES, width), *of_site, (panels_of(depth, width, dtype),), *panels_of_heads(width, n_heads, dtype)


@functools.cache
def shapes_of_gradient_work(depth, width, n_heads, rows, most, dtype):
    """Shapes of grad_v, grad_w_kt, gt, x, grad_x, coefficient, and panels of w^T (width, depth) and of each head."""
    of_site = (most, width), (most, width), (most, 2 * n_heads)
    panels = (panels_of(width, depth, dtype),), *panels_of_heads(width, n_heads, dtype)
    return (rows, padded(width, dtype)), (width, width), (2 * n_heads, SITES, width), *of_site, *panels


@kernel
def rows_of(edge_ptr):
    """Rows of a tile's work arrays, TILE or the edges of the site that has most, and these, or MOST if that is more."""
    most = MOST
    for i in range(len(edge_ptr) - 1):
        most = max(most, edge_ptr[i + 1] - edge_ptr[i])
    return max(TILE, most), most


@kernel
def end_of_tile(edge_ptr, first, last):
    """The site after a tile that begins with `first`: as many as have TILE edges together, at most SITES, or one."""
    end, last = first + 1, min(last, first + SITES)
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
def update_row_gradient(
    grad_site, new_geo, grad_centre, grad_neighbour, grad_gain, grad_offset, grad_x, grad_v, x_hat, g, grad_new_geo,
    site, geo, gain, v, mean, rstd, lanes,
):  # fmt: skip
    """Backward of v = edge + centre + neighbour, new_geo = LN(swish(v) + geo) and x = site new_geo, for one edge.

    Writes grad_v, and over new_geo the gradient by geo; adds to the gradients before grad_x. x_hat and g, the gradient
    by it, are rows to work in.
    """
    total, projection = zeros(v, lanes), zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        u = load(v, d, lanes)
        s = sigmoid(u)
        y = u * s
        row = (y + load(geo, d, lanes) - mean) * rstd
        # forward: x = site new_geo
        grad = load(grad_x, d, lanes)
        store(grad_site, d, load(grad_site, d, lanes) + grad * load(new_geo, d, lanes))
        grad = grad * load(site, d, lanes) + load(grad_new_geo, d, lanes)
        # forward: new_geo = gain x_hat + offset
        store(grad_gain, d, load(grad_gain, d, lanes) + grad * row)
        store(grad_offset, d, load(grad_offset, d, lanes) + grad)
        grad = grad * load(gain, d, lanes)
        total = total + grad
        projection = projection + grad * row
        store(g, d, grad)
        store(x_hat, d, row)
        store(grad_v, d, s + y * (1 - s))  # swish'(v)
    width = number_of(v, len(v))
    mean_g, slope = sum_of(total) / width, sum_of(projection) / width
    for d in range(0, len(v), len(lanes)):
        # forward: x_hat = (swish(v) + geo - mean) rstd
        grad = (load(g, d, lanes) - mean_g - load(x_hat, d, lanes) * slope) * rstd
        store(new_geo, d, grad)
        grad = load(grad_v, d, lanes) * grad
        store(grad_v, d, grad)
        store(grad_centre, d, load(grad_centre, d, lanes) + grad)
        store(grad_neighbour, d, load(grad_neighbour, d, lanes) + grad)


@kernel(fastmath=True, inline=True)
def multiply_row(x, site, geo, lanes):
    """x = site geo: one edge."""
    for d in range(0, len(x), len(lanes)):
        store(x, d, load(site, d, lanes) * load(geo, d, lanes))


@kernel(fastmath=True)
def _updated_attention_forward_kernel(
    context, new_geo, alpha, v, mean, rstd, t, x, coefficient, panels, panels_k, panels_kt, site, geo, centre,
    neighbour, q, edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep, lanes, heads, channels,
):  # fmt: skip
    n_sites, first = len(edge_ptr) - 1, 0
    gain, offset = row_of(gain, ()), row_of(offset, ())
    pack(panels, w)
    pack_heads(panels_k, panels_kt, w_k, channels)
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        shift = 0 if keep else start  # row of edge e in what may be kept: e - shift
        multiply(v[start - shift : stop - shift], None, geo[start:stop], panels)
        fold_key(t, q, first, last, panels_kt, channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                row, j = e - shift, nbr[e]
                mean[row], rstd[row] = update_row(
                    row_of(new_geo, e), row_of(v, row), row_of(x, e - begin), row_of(centre, i), row_of(neighbour, j),
                    row_of(geo, e), row_of(site, j), gain, offset, lanes,
                )  # fmt: skip
            attend_site(
                t[:, i - first], context, alpha, coefficient, x, mask, b_k, i, begin, end, heads, channels, lanes
            )
        add_values(context, t, first, last, panels_k, channels)
        first = last


@kernel(fastmath=True)
def _updated_attention_backward_kernel(
    grad_site, new_geo, grad_centre, grad_neighbour, grad_q, grad_w, grad_gain, grad_offset, grad_w_k, grad_b_k,
    grad_v, grad_w_kt, gt, x, grad_x, coefficient, panels_w, panels_k, panels_kt, pair, grad_context, grad_new_geo,
    site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, b_k, alpha, v, mean, rstd, lanes, heads, channels,
):  # fmt: skip
    zero, n_sites, n_heads, first = v.dtype.type(0), len(edge_ptr) - 1, len(heads), 0
    for total in (grad_gain, grad_offset, grad_b_k):
        total[:] = zero
    for total in (grad_site, grad_centre, grad_neighbour, grad_w, grad_w_kt):
        total[:] = zero
    gain, grad_gain, grad_offset = row_of(gain, ()), row_of(grad_gain, ()), row_of(grad_offset, ())
    x_hat, g, width = row_of(pair, 0), row_of(pair, 1), geo.shape[1]
    pack(panels_w, w.T)
    pack_heads(panels_k, panels_kt, w_k, channels)
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        fold_key(gt[:n_heads], grad_context, first, last, panels_kt, channels)
        fold_key(gt[n_heads:], q, first, last, panels_kt, channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                multiply_row(row_of(x, e - begin), row_of(site, nbr[e]), row_of(new_geo, e), lanes)
            attend_site_gradient(
                gt[:, i - first], grad_x, coefficient, grad_b_k, grad_context, x, mask, alpha, b_k, i, begin, end,
                heads, channels, lanes,
            )  # fmt: skip
            for e in range(begin, end):
                j = nbr[e]
                # forward: x = site_j new_geo, new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
                update_row_gradient(
                    row_of(grad_site, j), row_of(new_geo, e), row_of(grad_centre, i), row_of(grad_neighbour, j),
                    grad_gain, grad_offset, row_of(grad_x, e - begin), row_of(grad_v, e - start), x_hat, g,
                    row_of(grad_new_geo, e), row_of(site, j), row_of(geo, e), gain, row_of(v, e), mean[e], rstd[e],
                    lanes,
                )  # fmt: skip
        fold_key_gradient(grad_q, grad_w_kt, gt, grad_context, q, first, last, panels_k, channels)
        # new_geo holds the gradient of its norm; forward: edge = geo w
        of_tile = grad_v[: stop - start, :width]
        multiply(grad_w, grad_w, geo[start:stop].T, of_tile)
        multiply(new_geo[start:stop], new_geo[start:stop], of_tile, panels_w)
        first = last
    transpose(grad_w_k, grad_w_kt)


@kernel(fastmath=True)
def _filtered_attention_forward_kernel(
    context, alpha, t, x, coefficient, panels, panels_k, panels_kt, v, site, rbf, weight, q, edge_ptr, nbr, mask, w, b,
    w_k, b_k, lanes, heads, channels,
):  # fmt: skip
    n_sites, first = len(edge_ptr) - 1, 0
    pack(panels, w)
    pack_heads(panels_k, panels_kt, w_k, channels)
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        multiply(v[: stop - start], b, rbf[start:stop], panels)
        fold_key(t, q, first, last, panels_kt, channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                row = row_of(v, e - start)
                filter_row(row_of(x, e - begin), row, row, row_of(site, nbr[e]), weight[e], lanes)
            attend_site(
                t[:, i - first], context, alpha, coefficient, x, mask, b_k, i, begin, end, heads, channels, lanes
            )
        add_values(context, t, first, last, panels_k, channels)
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
    grad_site, grad_rbf, grad_weight, grad_q, grad_w, grad_b, grad_w_k, grad_b_k, grad_v, grad_w_kt, gt, x, grad_x,
    coefficient, panels_back, panels_k, panels_kt, v, panels, grad_context, site, rbf, weight, q, edge_ptr, nbr,
    mask, w, b, w_k, b_k, alpha, lanes, heads, channels,
):  # fmt: skip
    zero, n_sites, n_heads, first = v.dtype.type(0), len(edge_ptr) - 1, len(heads), 0
    pack(panels, w)
    pack_heads(panels_k, panels_kt, w_k, channels)
    if grad_rbf is not None:
        pack(panels_back, w.T)
    for total in (grad_b, grad_b_k):
        total[:] = zero
    for total in (grad_site, grad_w, grad_w_kt):
        total[:] = zero
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        multiply(v[: stop - start], b, rbf[start:stop], panels)
        fold_key(gt[:n_heads], grad_context, first, last, panels_kt, channels)
        fold_key(gt[n_heads:], q, first, last, panels_kt, channels)
        for i in range(first, last):
            begin, end = edge_ptr[i], edge_ptr[i + 1]
            for e in range(begin, end):
                s = row_of(grad_v, e - start)  # until the gradient takes its place
                filter_row(row_of(x, e - begin), s, row_of(v, e - start), row_of(site, nbr[e]), weight[e], lanes)
            attend_site_gradient(
                gt[:, i - first], grad_x, coefficient, grad_b_k, grad_context, x, mask, alpha, b_k, i, begin, end,
                heads, channels, lanes,
            )  # fmt: skip
            for e in range(begin, end):
                j = nbr[e]
                by_weight = filter_row_gradient(
                    row_of(grad_site, j), row_of(grad_v, e - start), row_of(grad_b, ()), row_of(grad_x, e - begin),
                    row_of(site, j), weight[e], row_of(v, e - start), lanes,
                )  # fmt: skip
                if grad_weight is not None:
                    grad_weight[e] = by_weight
        fold_key_gradient(grad_q, grad_w_kt, gt, grad_context, q, first, last, panels_k, channels)
        # forward: v = rbf w + b
        of_tile = grad_v[: stop - start, : w.shape[1]]
        multiply(grad_w, grad_w, rbf[start:stop].T, of_tile)
        if grad_rbf is not None:
            multiply(grad_rbf[start:stop], None, of_tile, panels_back)
        first = last
    transpose(grad_w_k, grad_w_kt)


@kernel(fastmath=True, inline=True)
def filter_row_gradient(grad_site, grad_v, grad_b, grad_x, site, weight, v, lanes):
    """Backward of x = site geo and geo = swish(v) weight, for one edge.

    Writes grad_v where sigmoid(v) stood, adds to grad_site and grad_b, returns grad_weight.
    """
    total = zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        s, grad = load(grad_v, d, lanes), load(grad_x, d, lanes)
        y = load(v, d, lanes) * s
        store(grad_site, d, load(grad_site, d, lanes) + weight * (grad * y))
        grad = grad * load(site, d, lanes)
        total = total + grad * y
        grad = weight * (grad * (s + y * (1 - s)))
        store(grad_v, d, grad)
        store(grad_b, d, load(grad_b, d, lanes) + grad)
    return sum_of(total)
