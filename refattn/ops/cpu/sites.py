"""A layer's work on the sites, fused; equations in reference/sites.py.

The kernels walk over tiles of TILE sites. What lies between the layer norms and products of a tile stays in the cache;
memory sees what comes in, what goes out, and four (N, D) arrays that backward needs.
"""

from refattn.ops.cpu.memory import empty, scratch
from refattn.ops.cpu.norm import add_and_normalise_row, add_row_gradient, drop_row, threshold_of
from refattn.ops.cpu.simd.gemm import BLOCK, multiply, pack, padded, panels_of
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import sigmoid
from refattn.ops.cpu.simd.vector import lanes_for, load, row_of, store

TILE = BLOCK  # sites: four tiles, two kernels and their gradients fill a core's second-level cache


def site_block_forward(context, q, key, rate, gain, offset, w_1, b_1, w_2, b_2, gain_2, offset_2, keep=True):
    """See the reference.

    Memory   three tiles
    """
    number, rows = context.dtype, min(TILE, len(context))
    kept = len(context) if keep else rows  # without backward a tile of what it needs is enough
    site = empty(context.shape, number)
    context_hat, v, site_hat = empty((3, kept, context.shape[1]), number)
    context_rstd, site_rstd = empty((2, kept), number)
    width, of_kernel = context.shape[1], (panels_of(*w_1.shape, number),)
    tiles, *panels = scratch(number, (3, TILE, padded(width, number)), of_kernel, of_kernel)
    _site_block_forward_kernel(
        site, context_hat, context_rstd, v, site_hat, site_rstd, *tiles[:, :, :width], *panels, context, q, key,
        *threshold_of(rate, number), gain, offset, w_1, b_1, w_2, b_2, gain_2, offset_2, keep,
        lanes_for(width, number),
    )  # fmt: skip
    return (site, context_hat, context_rstd, v, site_hat, site_rstd) if keep else (site, *[None] * 5)


def site_block_backward(
    grad_site, key, rate, gain, offset, w_1, w_2, gain_2, context_hat, context_rstd, v, site_hat, site_rstd, into=None
):
    """See the reference.

    Memory          five tiles
    Deterministic   rows are added in order, tiles to the gradients of the kernels in order
    """
    number, width = v.dtype, v.shape[1]
    grad_context, of_kernel = empty(v.shape, number), (panels_of(*w_1.shape, number),)
    into = into or [empty(array.shape, number) for array in (gain, offset, w_1, gain, w_2, gain, gain_2, gain)]
    tiles, *panels = scratch(number, (5, TILE, padded(width, number)), of_kernel, of_kernel)
    _site_block_backward_kernel(
        grad_context, *into, *tiles[:, :, :width], *panels, grad_site, key, *threshold_of(rate, number), gain, offset,
        w_1, w_2, gain_2, context_hat, context_rstd, v, site_hat, site_rstd, lanes_for(width, number),
    )  # fmt: skip
    return grad_context, *into


@kernel(fastmath=True)
def _site_block_forward_kernel(
    site, context_hat, context_rstd, v, site_hat, site_rstd, x, hidden, update, panels_1, panels_2, context, q, key,
    threshold, scale, gain, offset, w_1, b_1, w_2, b_2, gain_2, offset_2, keep, lanes,
):  # fmt: skip
    gain, offset, gain_2, offset_2 = row_of(gain, ()), row_of(offset, ()), row_of(gain_2, ()), row_of(offset_2, ())
    pack(panels_1, w_1)
    pack(panels_2, w_2)
    for first in range(0, len(site), TILE):
        rows = min(TILE, len(site) - first)
        shift = first if keep else 0  # row of the tile's first site in what may be kept
        for n in range(rows):
            context_rstd[shift + n] = add_and_normalise_row(
                row_of(x, n), row_of(context_hat, shift + n), row_of(context, first + n), row_of(q, first + n), gain,
                offset, lanes,
            )  # fmt: skip
        multiply(v[shift : shift + rows], b_1, x[:rows], panels_1)
        for n in range(rows):
            swish_row(row_of(hidden, n), row_of(update, n), row_of(v, shift + n), lanes)
        multiply(update[:rows], b_2, hidden[:rows], panels_2)
        for n in range(rows):
            if key is not None:
                drop_row(row_of(update, n), row_of(update, n), key[first + n], threshold, scale, lanes)
            site_rstd[shift + n] = add_and_normalise_row(
                row_of(site, first + n), row_of(site_hat, shift + n), row_of(update, n), row_of(x, n), gain_2,
                offset_2, lanes,
            )  # fmt: skip


@kernel(fastmath=True)
def _site_block_backward_kernel(
    grad_context, grad_gain, grad_offset, grad_w_1, grad_b_1, grad_w_2, grad_b_2, grad_gain_2, grad_offset_2,
    grad_sum, grad_update, grad_v, hidden, s, panels_1, panels_2, grad_site, key, threshold, scale, gain, offset,
    w_1, w_2, gain_2, context_hat, context_rstd, v, site_hat, site_rstd, lanes,
):  # fmt: skip
    zero = v.dtype.type(0)
    for total in (grad_gain, grad_offset, grad_b_1, grad_b_2, grad_gain_2, grad_offset_2):
        total[:] = zero
    for total in (grad_w_1, grad_w_2):
        total[:] = zero
    gain, offset, gain_2 = row_of(gain, ()), row_of(offset, ()), row_of(gain_2, ())
    grad_gain, grad_offset, grad_b_1 = row_of(grad_gain, ()), row_of(grad_offset, ()), row_of(grad_b_1, ())
    grad_gain_2, grad_offset_2, grad_b_2 = row_of(grad_gain_2, ()), row_of(grad_offset_2, ()), row_of(grad_b_2, ())
    pack(panels_1, w_1.T)
    pack(panels_2, w_2.T)
    for first in range(0, len(v), TILE):
        rows = min(TILE, len(v) - first)
        for n in range(rows):
            i = first + n
            add_row_gradient(
                row_of(grad_sum, n), grad_gain_2, grad_offset_2, row_of(grad_site, i), gain_2, row_of(site_hat, i),
                site_rstd[i], lanes,
            )  # fmt: skip
            if key is None:
                copy_row(row_of(grad_update, n), row_of(grad_sum, n), lanes)
            else:
                drop_row(row_of(grad_update, n), row_of(grad_sum, n), key[i], threshold, scale, lanes)
            add_row(grad_b_2, row_of(grad_update, n), lanes)
            swish_row(row_of(hidden, n), row_of(s, n), row_of(v, i), lanes)
        # forward: update = hidden w_2 + b_2
        multiply(grad_w_2, grad_w_2, hidden[:rows].T, grad_update[:rows])
        multiply(grad_v[:rows], None, grad_update[:rows], panels_2)
        x = hidden
        for n in range(rows):
            swish_row_gradient(row_of(grad_v, n), grad_b_1, row_of(v, first + n), row_of(s, n), lanes)
            scale_row(row_of(x, n), row_of(context_hat, first + n), gain, offset, lanes)
        # forward: v = x w_1 + b_1
        multiply(grad_w_1, grad_w_1, x[:rows].T, grad_v[:rows])
        multiply(grad_sum[:rows], grad_sum[:rows], grad_v[:rows], panels_1)
        for n in range(rows):
            i = first + n
            add_row_gradient(
                row_of(grad_context, i), grad_gain, grad_offset, row_of(grad_sum, n), gain, row_of(context_hat, i),
                context_rstd[i], lanes,
            )  # fmt: skip


@kernel(fastmath=True, inline=True)
def copy_row(y, x, lanes):
    """y = x."""
    for d in range(0, len(y), len(lanes)):
        store(y, d, load(x, d, lanes))


@kernel(fastmath=True, inline=True)
def add_row(total, y, lanes):
    """total += y."""
    for d in range(0, len(total), len(lanes)):
        store(total, d, load(total, d, lanes) + load(y, d, lanes))


@kernel(fastmath=True, inline=True)
def scale_row(y, x_hat, gain, offset, lanes):
    """y = gain x_hat + offset: one row."""
    for d in range(0, len(y), len(lanes)):
        store(y, d, load(gain, d, lanes) * load(x_hat, d, lanes) + load(offset, d, lanes))


@kernel(fastmath=True, inline=True)
def swish_row(y, s, v, lanes):
    """s = sigmoid(v), y = swish(v): one row."""
    for d in range(0, len(v), len(lanes)):
        u = load(v, d, lanes)
        share = sigmoid(u)
        store(s, d, share)
        store(y, d, u * share)


@kernel(fastmath=True, inline=True)
def swish_row_gradient(grad, grad_b, v, s, lanes):
    """grad becomes that of v, of which s is the sigmoid, and is added to grad_b: one row."""
    for d in range(0, len(v), len(lanes)):
        share = load(s, d, lanes)
        g = load(grad, d, lanes) * (share + load(v, d, lanes) * share * (1 - share))
        store(grad, d, g)
        store(grad_b, d, load(grad_b, d, lanes) + g)
