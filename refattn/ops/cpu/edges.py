"""A layer's work on the edges, fused; equations in reference/edges.py.

The kernels walk over tiles: runs of whole sites with about TILE edges. What a product makes of a tile's edges is used
while it is in the cache, and only what backward needs is written to memory: three (E, D) arrays a layer instead of
six. The row-wise steps are those of norm.py and local_attention.py.
"""

from refattn.ops.cpu.gemm import add_transposed_product, multiply, pack, room_for
from refattn.ops.cpu.kernel import kernel
from refattn.ops.cpu.local_attention import (
    attend_site_gradient,
    exponentiate,
    flat,
    score_site,
    sizes_of,
    weigh_site,
)
from refattn.ops.cpu.memory import empty, work_arrays
from refattn.ops.cpu.norm import inverse_deviation
from refattn.ops.cpu.sigmoid import sigmoid
from refattn.ops.cpu.vector import lanes_for, load, number_of, row_of, store, sum_of, zeros

TILE = 192  # edges: what a tile takes comes from the second-level cache and the third


def updated_attention_forward(
    site, geo, centre, neighbour, q, edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep=True
):
    """See the reference.

    Memory   a tile of x; without `keep` new_geo is written over geo
    """
    number, rows, width = geo.dtype, tile_rows(edge_ptr), geo.shape[1]
    kept = len(geo) if keep else rows  # without backward a tile of v, k and the rest is enough, and stays in the cache
    new_geo = empty(geo.shape, number) if keep else geo
    v, k = empty((kept, width), number), empty((kept, *q.shape[1:]), number)
    mean, rstd = empty((2, kept), number)
    context, alpha = empty(q.shape, number), empty(mask.shape, number)
    with work_arrays():
        x, panels = empty((rows, width), number), (room_for(*w.shape, number), room_for(*w_k.shape, number))
        _updated_attention_forward_kernel(
            flat(context), new_geo, alpha, v, mean, rstd, flat(k), x, *panels, site, geo, centre, neighbour, flat(q),
            edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep, lanes_for(width, number), *sizes_of(q),
        )  # fmt: skip
    return (context, new_geo, alpha, v, mean, rstd, k) if keep else (context, new_geo, alpha, *[None] * 4)


def updated_attention_backward(
    grad_context, grad_new_geo, site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, new_geo, alpha, v, mean, rstd, k
):
    """See the reference.

    Memory          three tiles; grad_geo is written over new_geo, which is in the cache where it was needed last
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    number, rows, width = geo.dtype, tile_rows(edge_ptr), geo.shape[1]
    grad_site, grad_centre, grad_neighbour = empty((3, *site.shape), number)
    grad_q, grad_w, grad_w_k = empty(q.shape, number), empty(w.shape, number), empty(w_k.shape, number)
    grad_gain, grad_offset, grad_b_k = empty((3, width), number)
    of_sites, of_weights = (grad_centre, grad_neighbour), (grad_w, grad_gain, grad_offset, grad_w_k, grad_b_k)
    with work_arrays():
        work = *empty((3, rows, width), number), empty((rows, q.shape[1]), number), *empty((2, width), number)
        panels = [room_for(*shape, number) for shape in (w.shape[::-1], w_k.shape[::-1], (rows, width))]
        _updated_attention_backward_kernel(
            grad_site, new_geo, *of_sites, flat(grad_q), *of_weights, *work, *panels, flat(grad_context),
            grad_new_geo, site, geo, flat(q), edge_ptr, nbr, mask, w, gain, w_k, alpha, v, mean, rstd, flat(k),
            lanes_for(width, number), *sizes_of(q),
        )  # fmt: skip
    return grad_site, new_geo, *of_sites, grad_q, *of_weights


def filtered_attention_forward(site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, keep=True):
    """See the reference.

    Memory   a tile of v and x
    """
    number, rows, width = site.dtype, tile_rows(edge_ptr), site.shape[1]
    k = empty((len(rbf) if keep else rows, *q.shape[1:]), number)
    context, alpha = empty(q.shape, number), empty(mask.shape, number)
    with work_arrays():
        v, x = empty((2, rows, width), number)
        panels = room_for(*w.shape, number), room_for(*w_k.shape, number)
        _filtered_attention_forward_kernel(
            flat(context), alpha, flat(k), v, x, *panels, site, rbf, weight, flat(q), edge_ptr, nbr, mask, w, b, w_k,
            b_k, keep, lanes_for(width, number), *sizes_of(q),
        )  # fmt: skip
    return context, alpha, k if keep else None


def filtered_attention_backward(
    grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, alpha, k, of_inputs=True
):
    """See the reference.

    Memory          four tiles
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    number, rows, width = site.dtype, tile_rows(edge_ptr), site.shape[1]
    by_inputs = (empty(rbf.shape, number), empty(weight.shape, number)) if of_inputs else (None, None)
    grad_site, grad_q = empty(site.shape, number), empty(q.shape, number)
    grad_w, grad_b, grad_w_k, grad_b_k = (empty(array.shape, number) for array in (w, b, w_k, b))
    with work_arrays():
        work = *empty((4, rows, width), number), empty((rows, q.shape[1]), number)
        shapes = w.shape, w.shape[::-1], w_k.shape[::-1], (rows, width)
        panels = [room_for(*shape, number) for shape in shapes]
        _filtered_attention_backward_kernel(
            grad_site, *by_inputs, flat(grad_q), grad_w, grad_b, grad_w_k, grad_b_k, *work, *panels,
            flat(grad_context), site, rbf, weight, flat(q), edge_ptr, nbr, mask, w, b, w_k, alpha, flat(k),
            lanes_for(width, number), *sizes_of(q),
        )  # fmt: skip
    return grad_site, *by_inputs, grad_q, grad_w, grad_b, grad_w_k, grad_b_k


@kernel
def tile_rows(edge_ptr):
    """Rows of a tile's work arrays: TILE, or the edges of the site that has more."""
    rows = TILE
    for i in range(len(edge_ptr) - 1):
        rows = max(rows, edge_ptr[i + 1] - edge_ptr[i])
    return rows


@kernel
def end_of_tile(edge_ptr, first, last):
    """The site after a tile that begins with `first`: as many as have TILE edges together, but at least one."""
    end = first + 1
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

    Writes grad_v, and over new_geo the gradient by geo and over grad_x the x of forward; adds to the gradients before
    grad_x. x_hat and g, the gradient by it, are rows to work in.
    """
    total, projection = zeros(v, lanes), zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        u, of_site, new = load(v, d, lanes), load(site, d, lanes), load(new_geo, d, lanes)
        s = sigmoid(u)
        y = u * s
        row = (y + load(geo, d, lanes) - mean) * rstd
        # forward: x = site new_geo
        grad = load(grad_x, d, lanes)
        store(grad_site, d, load(grad_site, d, lanes) + grad * new)
        grad = grad * of_site + load(grad_new_geo, d, lanes)
        store(grad_x, d, of_site * new)
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
def attend_tile(context, alpha, q, k, mask, edge_ptr, first, last, shift, heads, channels):
    """context and alpha of the sites first:last; the key of edge e is in row e - shift of k."""
    for i in range(first, last):
        score_site(alpha, q, k, i, edge_ptr[i], edge_ptr[i + 1], shift, heads, channels)
    exponentiate(alpha[edge_ptr[first] : edge_ptr[last]].reshape(-1))
    for i in range(first, last):
        weigh_site(context, alpha, k, mask, i, edge_ptr[i], edge_ptr[i + 1], shift, heads, channels)


@kernel(fastmath=True, inline=True)
def attend_tile_gradient(
    grad_q, grad_k, grad_score, grad_context, q, k, mask, alpha, edge_ptr, first, last, heads, channels
):
    """Backward of attend_tile, for keys that were kept: grad_q of the sites first:last, grad_k of their edges."""
    for i in range(first, last):
        attend_site_gradient(
            grad_q, grad_k, grad_score, grad_context, q, k, mask, alpha, i, edge_ptr[i], edge_ptr[i + 1],
            edge_ptr[first], heads, channels,
        )  # fmt: skip


@kernel(fastmath=True)
def _updated_attention_forward_kernel(
    context, new_geo, alpha, v, mean, rstd, k, x, panels_w, panels_k, site, geo, centre, neighbour, q, edge_ptr, nbr,
    mask, w, gain, offset, w_k, b_k, keep, lanes, heads, channels,
):  # fmt: skip
    n_sites, first = len(edge_ptr) - 1, 0
    gain, offset = row_of(gain, ()), row_of(offset, ())
    pack(panels_w, w)
    pack(panels_k, w_k)
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        shift = 0 if keep else start  # row of edge e in what may be kept: e - shift
        multiply(v[start - shift : stop - shift], None, geo[start:stop], panels_w)
        for i in range(first, last):
            for e in range(edge_ptr[i], edge_ptr[i + 1]):
                row, j = e - shift, nbr[e]
                mean[row], rstd[row] = update_row(
                    row_of(new_geo, e), row_of(v, row), row_of(x, e - start), row_of(centre, i), row_of(neighbour, j),
                    row_of(geo, e), row_of(site, j), gain, offset, lanes,
                )  # fmt: skip
        multiply(k[start - shift : stop - shift], b_k, x[: stop - start], panels_k)
        attend_tile(context, alpha, q, k, mask, edge_ptr, first, last, shift, heads, channels)
        first = last


@kernel(fastmath=True)
def _updated_attention_backward_kernel(
    grad_site, new_geo, grad_centre, grad_neighbour, grad_q, grad_w, grad_gain, grad_offset, grad_w_k, grad_b_k,
    grad_k, grad_x, grad_v, grad_score, x_hat, g, panels_w, panels_k, panels, grad_context, grad_new_geo, site, geo, q,
    edge_ptr, nbr, mask, w, gain, w_k, alpha, v, mean, rstd, k, lanes, heads, channels,
):  # fmt: skip
    zero, n_sites, first = v.dtype.type(0), len(edge_ptr) - 1, 0
    for total in (grad_gain, grad_offset, grad_b_k):
        total[:] = zero
    for total in (grad_site, grad_centre, grad_neighbour, grad_w, grad_w_k):
        total[:] = zero
    gain, grad_gain, grad_offset = row_of(gain, ()), row_of(grad_gain, ()), row_of(grad_offset, ())
    x_hat, g = row_of(x_hat, ()), row_of(g, ())
    pack(panels_w, w.T)
    pack(panels_k, w_k.T)
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        rows = stop - start
        attend_tile_gradient(
            grad_q, grad_k, grad_score, grad_context, q, k, mask, alpha, edge_ptr, first, last, heads, channels
        )
        # forward: k = x w_k + b_k
        multiply(grad_x[:rows], None, grad_k[:rows], panels_k)
        add_rows(grad_b_k, grad_k[:rows], lanes)
        for i in range(first, last):
            for e in range(edge_ptr[i], edge_ptr[i + 1]):
                j, row = nbr[e], e - start
                # forward: x = site_j new_geo, new_geo = LN(swish(v) + geo), v = geo w + centre_i + neighbour_j
                update_row_gradient(
                    row_of(grad_site, j), row_of(new_geo, e), row_of(grad_centre, i), row_of(grad_neighbour, j),
                    grad_gain, grad_offset, row_of(grad_x, row), row_of(grad_v, row), x_hat, g,
                    row_of(grad_new_geo, e), row_of(site, j), row_of(geo, e), gain, row_of(v, e), mean[e], rstd[e],
                    lanes,
                )  # fmt: skip
        # grad_x holds x now, and new_geo the gradient of its norm; forward: edge = geo w
        add_transposed_product(grad_w_k, grad_x[:rows], grad_k[:rows], panels)
        add_transposed_product(grad_w, geo[start:stop], grad_v[:rows], panels)
        multiply(new_geo[start:stop], new_geo[start:stop], grad_v[:rows], panels_w)
        first = last


@kernel(fastmath=True)
def _filtered_attention_forward_kernel(
    context, alpha, k, v, x, panels_w, panels_k, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k,
    b_k, keep, lanes, heads, channels,
):  # fmt: skip
    n_sites, first = len(edge_ptr) - 1, 0
    pack(panels_w, w)
    pack(panels_k, w_k)
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        shift = 0 if keep else start
        multiply(v[: stop - start], b, rbf[start:stop], panels_w)
        for e in range(start, stop):
            filter_row(row_of(x, e - start), row_of(v, e - start), row_of(site, nbr[e]), weight[e], lanes)
        multiply(k[start - shift : stop - shift], b_k, x[: stop - start], panels_k)
        attend_tile(context, alpha, q, k, mask, edge_ptr, first, last, shift, heads, channels)
        first = last


@kernel(fastmath=True, inline=True)
def filter_row(x, v, site, weight, lanes):
    """x = site swish(v) weight: one edge."""
    for d in range(0, len(v), len(lanes)):
        u = load(v, d, lanes)
        store(x, d, u * sigmoid(u) * (weight * load(site, d, lanes)))


@kernel(fastmath=True)
def _filtered_attention_backward_kernel(
    grad_site, grad_rbf, grad_weight, grad_q, grad_w, grad_b, grad_w_k, grad_b_k, grad_k, grad_x, v, x,
    grad_score, panels_w, panels_back, panels_k, panels, grad_context, site, rbf, weight, q, edge_ptr, nbr,
    mask, w, b, w_k, alpha, k, lanes, heads, channels,
):  # fmt: skip
    zero, n_sites, first = v.dtype.type(0), len(edge_ptr) - 1, 0
    pack(panels_w, w)
    pack(panels_k, w_k.T)
    if grad_rbf is not None:
        pack(panels_back, w.T)
    for total in (grad_b, grad_b_k):
        total[:] = zero
    for total in (grad_site, grad_w, grad_w_k):
        total[:] = zero
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        rows = stop - start
        attend_tile_gradient(
            grad_q, grad_k, grad_score, grad_context, q, k, mask, alpha, edge_ptr, first, last, heads, channels
        )
        # forward: k = x w_k + b_k
        multiply(grad_x[:rows], None, grad_k[:rows], panels_k)
        add_rows(grad_b_k, grad_k[:rows], lanes)
        multiply(v[:rows], b, rbf[start:stop], panels_w)
        for e in range(start, stop):
            row, j = e - start, nbr[e]
            by_weight = filter_row_gradient(
                row_of(grad_site, j), row_of(grad_x, row), row_of(x, row), row_of(site, j), weight[e], row_of(v, row),
                lanes,
            )  # fmt: skip
            if grad_weight is not None:
                grad_weight[e] = by_weight
        add_transposed_product(grad_w_k, x[:rows], grad_k[:rows], panels)
        # grad_x holds grad_v now; forward: v = rbf w + b
        add_rows(grad_b, grad_x[:rows], lanes)
        add_transposed_product(grad_w, rbf[start:stop], grad_x[:rows], panels)
        if grad_rbf is not None:
            multiply(grad_rbf[start:stop], None, grad_x[:rows], panels_back)
        first = last


@kernel(fastmath=True, inline=True)
def filter_row_gradient(grad_site, grad_x, x, site, weight, v, lanes):
    """Backward of x = site geo and geo = swish(v) weight, for one edge: grad_v takes the place of grad_x.

    Writes x, adds to grad_site, returns grad_weight.
    """
    total = zeros(v, lanes)
    for d in range(0, len(v), len(lanes)):
        u, grad = load(v, d, lanes), load(grad_x, d, lanes)
        s = sigmoid(u)
        y, of_site = u * s, load(site, d, lanes)
        store(x, d, weight * (y * of_site))
        store(grad_site, d, load(grad_site, d, lanes) + weight * (grad * y))
        grad = grad * of_site
        store(grad_x, d, weight * (grad * (s + y * (1 - s))))
        total = total + grad * y
    return sum_of(total)


@kernel(fastmath=True, inline=True)
def add_rows(total, y, lanes):
    """total += sum_n y[n]."""
    total = row_of(total, ())
    for d in range(0, len(total), len(lanes)):
        added = load(total, d, lanes)
        for n in range(len(y)):
            added = added + load(row_of(y, n), d, lanes)
        store(total, d, added)
