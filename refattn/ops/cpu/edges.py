"""A layer's work on the edges, fused; equations in reference/edges.py.

The kernels walk over tiles: runs of whole sites with about TILE edges. What a product makes of a tile's edges is used
while it is in the cache, and only what backward needs is written to memory: three (E, D) arrays a layer instead of
six. The row-wise steps are those of norm.py and local_attention.py.
"""

import numpy as np

from refattn.jit import jit
from refattn.ops.cpu.blas import add_product, add_product_transposed, add_transposed_product, gemm_of
from refattn.ops.cpu.local_attention import attend_site_gradient, exponentiate, score_site, sizes_of, weigh_site
from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.norm import add_row_gradient
from refattn.ops.cpu.sigmoid import sigmoid
from refattn.ops.reference.norm import EPSILON

TILE = 128  # edges: a tile's five arrays of 64 kB and two kernels stay in a core's second-level cache


def updated_attention_forward(
    site, geo, centre, neighbour, q, edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep=True
):
    """See the reference.

    Memory   a tile of x; without `keep` new_geo is written over geo
    """
    number, rows = geo.dtype, tile_rows(edge_ptr)
    kept = len(geo) if keep else rows  # without backward a tile of v, k and the rest is enough, and stays in the cache
    new_geo = empty(geo.shape, number) if keep else geo
    v, keys = empty((kept, geo.shape[1]), number), empty((kept, *q.shape[1:]), number)
    mean, rstd = empty((kept,), number), empty((kept,), number)
    context, alpha = empty(q.shape, number), empty(mask.shape, number)
    tile = empty((rows, geo.shape[1]), number), empty((q.shape[1],), number)
    _updated_attention_forward_kernel(
        context, new_geo, alpha, v, mean, rstd, keys, keys.reshape(v.shape), *tile, site, geo, centre, neighbour, q,
        edge_ptr, nbr, mask, w, gain, offset, w_k, b_k, keep, gemm_of(number), *sizes_of(q),
    )  # fmt: skip
    return (context, new_geo, alpha, v, mean, rstd, keys) if keep else (context, new_geo, alpha, *[None] * 4)


def updated_attention_backward(
    grad_context, grad_new_geo, site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, new_geo, alpha, v, mean, rstd, k
):
    """See the reference.

    Memory          three tiles
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    number, rows = geo.dtype, tile_rows(edge_ptr)
    grad_site, grad_centre, grad_neighbour = (empty(site.shape, number) for _ in range(3))
    grad_geo, grad_q = empty(geo.shape, number), empty(q.shape, number)
    grad_w, grad_w_k = empty(w.shape, number), empty(w_k.shape, number)
    grad_gain, grad_offset, grad_b_k = (empty(gain.shape, number) for _ in range(3))
    grads = grad_site, grad_geo, grad_centre, grad_neighbour, grad_q, grad_w, grad_gain, grad_offset, grad_w_k, grad_b_k
    grad_k = empty((rows, q.shape[1], q.shape[2]), number)
    tiles = grad_k, grad_k.reshape(rows, -1), empty((rows, v.shape[1]), number), empty((rows, v.shape[1]), number)
    work = empty((rows, q.shape[1]), number), empty((q.shape[1],), number)
    work += empty(gain.shape, number), empty(gain.shape, number)
    _updated_attention_backward_kernel(
        *grads, *tiles, *work, grad_context, grad_new_geo, site, geo, q, edge_ptr, nbr, mask, w, gain, w_k, new_geo,
        alpha, v, mean, rstd, k, gemm_of(number), *sizes_of(q),
    )  # fmt: skip
    return grads


def filtered_attention_forward(site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, keep=True):
    """See the reference.

    Memory   a tile of x
    """
    number, rows = site.dtype, tile_rows(edge_ptr)
    kept = len(rbf) if keep else rows
    v, keys = empty((kept, site.shape[1]), number), empty((kept, *q.shape[1:]), number)
    context, alpha = empty(q.shape, number), empty(mask.shape, number)
    tile = empty((rows, site.shape[1]), number), empty((q.shape[1],), number)
    _filtered_attention_forward_kernel(
        context, alpha, v, keys, keys.reshape(v.shape), *tile, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k,
        b_k, keep, gemm_of(number), *sizes_of(q),
    )  # fmt: skip
    return (context, alpha, v, keys) if keep else (context, alpha, None, None)


def filtered_attention_backward(grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, w_k, alpha, v, k):
    """See the reference.

    Memory          three tiles
    Deterministic   edges are added to their sites, tiles to the gradients of the weights, in order
    """
    number, rows = site.dtype, tile_rows(edge_ptr)
    grad_site, grad_rbf, grad_weight = empty(site.shape, number), empty(rbf.shape, number), empty(weight.shape, number)
    grad_q, grad_w, grad_w_k = empty(q.shape, number), empty(w.shape, number), empty(w_k.shape, number)
    grad_b, grad_b_k = empty(w.shape[1:], number), empty(w.shape[1:], number)
    grads = grad_site, grad_rbf, grad_weight, grad_q, grad_w, grad_b, grad_w_k, grad_b_k
    grad_k = empty((rows, q.shape[1], q.shape[2]), number)
    tiles = grad_k, grad_k.reshape(rows, -1), empty((rows, v.shape[1]), number), empty((rows, v.shape[1]), number)
    work = empty((rows, q.shape[1]), number), empty((q.shape[1],), number)
    _filtered_attention_backward_kernel(
        *grads, *tiles, *work, grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, w_k, alpha, v, k,
        gemm_of(number), *sizes_of(q),
    )  # fmt: skip
    return grads


@jit
def tile_rows(edge_ptr):
    """Rows of a tile's work arrays: TILE, or the edges of the site that has more."""
    rows = TILE
    for i in range(len(edge_ptr) - 1):
        rows = max(rows, edge_ptr[i + 1] - edge_ptr[i])
    return rows


@jit
def end_of_tile(edge_ptr, first, last):
    """The site after a tile that begins with `first`: as many as have TILE edges together, but at least one."""
    end = first + 1
    while end < last and edge_ptr[end + 1] - edge_ptr[first] <= TILE:
        end += 1
    return end


@jit(fastmath=True, inline=True)
def update_row(new_geo, v, x, centre, neighbour, geo, site, gain, offset):
    """v += centre + neighbour; new_geo = LN(swish(v) + geo); x = site new_geo: one edge. Returns mean and rstd."""
    width = v.dtype.type(len(v))
    total = square = v.dtype.type(0)
    for d in range(len(v)):
        v[d] += centre[d] + neighbour[d]
    for d in range(len(v)):
        x[d] = v[d] * sigmoid(v[d]) + geo[d]
        total += x[d]
    mean = total / width
    for d in range(len(v)):
        square += (x[d] - mean) * (x[d] - mean)
    rstd = v.dtype.type(1) / np.sqrt(square / width + v.dtype.type(EPSILON))
    for d in range(len(v)):
        new_geo[d] = gain[d] * ((x[d] - mean) * rstd) + offset[d]
    for d in range(len(v)):
        x[d] = site[d] * new_geo[d]
    return mean, rstd


@jit(fastmath=True, inline=True)
def split_row(grad_site, grad_y, grad_x, grad_new_geo, site, new_geo):
    """Backward of x = site new_geo for one edge: adds to grad_site, writes grad_y, and x in the place of grad_x."""
    for d in range(len(site)):
        grad_site[d] += grad_x[d] * new_geo[d]
        grad_y[d] = grad_x[d] * site[d] + grad_new_geo[d]
        grad_x[d] = site[d] * new_geo[d]


@jit(fastmath=True, inline=True)
def update_row_gradient(
    grad_geo, grad_v, grad_centre, grad_neighbour, grad_gain, grad_offset, x_hat, grad_y, geo, gain, v, mean, rstd
):
    """Backward of LN(swish(v) + geo) and of v = edge + centre + neighbour, for one edge; x_hat is a row to work in.

    Writes grad_geo and grad_v, adds to the others.
    """
    one = v.dtype.type(1)
    for d in range(len(v)):
        s = sigmoid(v[d])
        grad_v[d] = s * (one + v[d] * (one - s))
        x_hat[d] = (v[d] * s + geo[d] - mean) * rstd
    add_row_gradient(grad_geo, grad_gain, grad_offset, grad_y, gain, x_hat, rstd)
    for d in range(len(v)):
        grad = grad_v[d] * grad_geo[d]
        grad_v[d] = grad
        grad_centre[d] += grad
        grad_neighbour[d] += grad


@jit(fastmath=True, inline=True)
def attend_tile(context, alpha, work, q, keys, mask, edge_ptr, first, last, shift, heads, channels):
    """context and alpha of the sites first:last; the key of edge e is in row e - shift of `keys`."""
    for i in range(first, last):
        score_site(alpha, work, q[i], keys, edge_ptr[i], edge_ptr[i + 1], shift, heads, channels)
    exponentiate(alpha[edge_ptr[first] : edge_ptr[last]].reshape(-1))
    for i in range(first, last):
        weigh_site(context[i], alpha, work, keys, mask, edge_ptr[i], edge_ptr[i + 1], shift, heads, channels)


@jit(fastmath=True, inline=True)
def attend_tile_gradient(
    grad_q, grad_keys, grad_score, work, grad_context, q, k, mask, alpha, edge_ptr, first, last, heads, channels
):
    """Backward of attend_tile, for keys that were kept: grad_q of the sites first:last, grad_keys of their edges."""
    start = edge_ptr[first]
    for i in range(first, last):
        attend_site_gradient(
            grad_q[i], grad_keys[edge_ptr[i] - start : edge_ptr[i + 1] - start], grad_score, work, grad_context[i],
            q[i], k, mask, alpha, edge_ptr[i], edge_ptr[i + 1], heads, channels,
        )  # fmt: skip


@jit(fastmath=True)
def _updated_attention_forward_kernel(
    context, new_geo, alpha, v, mean, rstd, keys, k, x, work, site, geo, centre, neighbour, q, edge_ptr, nbr, mask,
    w, gain, offset, w_k, b_k, keep, gemm, heads, channels,
):  # fmt: skip
    zero, one, n_sites, first = v.dtype.type(0), v.dtype.type(1), len(edge_ptr) - 1, 0
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        shift = 0 if keep else start  # row of edge e in what may be kept: e - shift
        add_product(gemm, v[start - shift : stop - shift], geo[start:stop], w, zero)
        for i in range(first, last):
            for e in range(edge_ptr[i], edge_ptr[i + 1]):
                mean[e - shift], rstd[e - shift] = update_row(
                    new_geo[e], v[e - shift], x[e - start], centre[i], neighbour[nbr[e]], geo[e], site[nbr[e]], gain,
                    offset,
                )  # fmt: skip
        set_rows(k[start - shift : stop - shift], b_k)
        add_product(gemm, k[start - shift : stop - shift], x[: stop - start], w_k, one)
        attend_tile(context, alpha, work, q, keys, mask, edge_ptr, first, last, shift, heads, channels)
        first = last


@jit(fastmath=True)
def _updated_attention_backward_kernel(
    grad_site, grad_geo, grad_centre, grad_neighbour, grad_q, grad_w, grad_gain, grad_offset, grad_w_k, grad_b_k,
    grad_keys, grad_k, grad_x, grad_v, grad_score, work, x_hat, grad_y, grad_context, grad_new_geo, site, geo, q,
    edge_ptr, nbr, mask, w, gain, w_k, new_geo, alpha, v, mean, rstd, k, gemm, heads, channels,
):  # fmt: skip
    zero, one, n_sites, first = v.dtype.type(0), v.dtype.type(1), len(edge_ptr) - 1, 0
    for total in (grad_gain, grad_offset, grad_b_k):
        total[:] = zero
    for total in (grad_site, grad_centre, grad_neighbour, grad_w, grad_w_k):
        total[:] = zero
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        rows = stop - start
        attend_tile_gradient(
            grad_q, grad_keys, grad_score, work, grad_context, q, k, mask, alpha, edge_ptr, first, last, heads, channels
        )
        # forward: k = x w_k + b_k
        add_product_transposed(gemm, grad_x[:rows], grad_k[:rows], w_k, zero)
        add_rows(grad_b_k, grad_k[:rows])
        for i in range(first, last):
            for e in range(edge_ptr[i], edge_ptr[i + 1]):
                j, row = nbr[e], e - start
                # forward: x = site_j new_geo
                split_row(grad_site[j], grad_y, grad_x[row], grad_new_geo[e], site[j], new_geo[e])
                update_row_gradient(
                    grad_geo[e], grad_v[row], grad_centre[i], grad_neighbour[j], grad_gain, grad_offset, x_hat, grad_y,
                    geo[e], gain, v[e], mean[e], rstd[e],
                )  # fmt: skip
        # grad_x holds x now; forward: edge = geo w
        add_transposed_product(gemm, grad_w_k, grad_x[:rows], grad_k[:rows], one)
        add_transposed_product(gemm, grad_w, geo[start:stop], grad_v[:rows], one)
        add_product_transposed(gemm, grad_geo[start:stop], grad_v[:rows], w, one)
        first = last


@jit(fastmath=True)
def _filtered_attention_forward_kernel(
    context, alpha, v, keys, k, x, work, site, rbf, weight, q, edge_ptr, nbr, mask, w, b, w_k, b_k, keep, gemm,
    heads, channels,
):  # fmt: skip
    one, n_sites, first = v.dtype.type(1), len(edge_ptr) - 1, 0
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        shift = 0 if keep else start
        set_rows(v[start - shift : stop - shift], b)
        add_product(gemm, v[start - shift : stop - shift], rbf[start:stop], w, one)
        for e in range(start, stop):
            filter_row(x[e - start], v[e - shift], site[nbr[e]], weight[e])
        set_rows(k[start - shift : stop - shift], b_k)
        add_product(gemm, k[start - shift : stop - shift], x[: stop - start], w_k, one)
        attend_tile(context, alpha, work, q, keys, mask, edge_ptr, first, last, shift, heads, channels)
        first = last


@jit(fastmath=True, inline=True)
def filter_row(x, v, site, weight):
    """x = site swish(v) weight: one edge."""
    for d in range(len(v)):
        x[d] = v[d] * sigmoid(v[d]) * weight
    for d in range(len(v)):
        x[d] *= site[d]


@jit(fastmath=True)
def _filtered_attention_backward_kernel(
    grad_site, grad_rbf, grad_weight, grad_q, grad_w, grad_b, grad_w_k, grad_b_k, grad_keys, grad_k, grad_x, geo,
    grad_score, work, grad_context, site, rbf, weight, q, edge_ptr, nbr, mask, w, w_k, alpha, v, k, gemm,
    heads, channels,
):  # fmt: skip
    zero, one, n_sites, first = v.dtype.type(0), v.dtype.type(1), len(edge_ptr) - 1, 0
    for total in (grad_b, grad_b_k):
        total[:] = zero
    for total in (grad_site, grad_w, grad_w_k):
        total[:] = zero
    while first < n_sites:
        last = end_of_tile(edge_ptr, first, n_sites)
        start, stop = edge_ptr[first], edge_ptr[last]
        rows = stop - start
        attend_tile_gradient(
            grad_q, grad_keys, grad_score, work, grad_context, q, k, mask, alpha, edge_ptr, first, last, heads, channels
        )
        # forward: k = x w_k + b_k
        add_product_transposed(gemm, grad_x[:rows], grad_k[:rows], w_k, zero)
        add_rows(grad_b_k, grad_k[:rows])
        for e in range(start, stop):
            grad_weight[e] = filter_row_gradient(
                grad_site[nbr[e]], grad_x[e - start], geo[e - start], site[nbr[e]], weight[e], v[e]
            )
        # geo holds x now, and grad_x holds grad_v; forward: v = rbf w + b
        add_transposed_product(gemm, grad_w_k, geo[:rows], grad_k[:rows], one)
        add_transposed_product(gemm, grad_w, rbf[start:stop], grad_x[:rows], one)
        add_product_transposed(gemm, grad_rbf[start:stop], grad_x[:rows], w, zero)
        add_rows(grad_b, grad_x[:rows])
        first = last


@jit(fastmath=True, inline=True)
def filter_row_gradient(grad_site, grad_x, x, site, weight, v):
    """Backward of x = site geo and geo = swish(v) weight, for one edge: grad_v takes the place of grad_x.

    Writes x, adds to grad_site, returns grad_weight.
    """
    zero, one = v.dtype.type(0), v.dtype.type(1)
    total = zero
    for d in range(len(v)):
        x[d] = v[d] * sigmoid(v[d])
    for d in range(len(v)):
        total += grad_x[d] * site[d] * x[d]
    for d in range(len(v)):
        grad_site[d] += grad_x[d] * x[d] * weight
    for d in range(len(v)):
        s = sigmoid(v[d])
        grad_x[d] = grad_x[d] * site[d] * weight * (s * (one + v[d] * (one - s)))
    for d in range(len(v)):
        x[d] *= site[d] * weight
    return total


@jit(fastmath=True, inline=True)
def set_rows(y, b):
    """y[n] = b."""
    for n in range(len(y)):
        for d in range(len(b)):
            y[n, d] = b[d]


@jit(fastmath=True, inline=True)
def add_rows(total, y):
    """total += sum_n y[n]."""
    for n in range(len(y)):
        for d in range(len(total)):
            total[d] += y[n, d]
