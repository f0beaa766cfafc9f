"""A layer's work on the sites, fused; equations in reference/sites.py.

The kernels walk over tiles of TILE sites. What lies between the layer norms and products of a tile stays in the cache;
memory sees what comes in, what goes out, and four (N, D) arrays that backward needs.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refattn.ops.cpu.layers import add_and_normalise_row, add_row_gradient, drop_row, threshold_of
from refattn.ops.cpu.memory import empties, empty, plain, scratch
from refattn.ops.cpu.simd.gemm import BLOCK, multiply, pack, padded, panels_of
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import sigmoid
from refattn.ops.cpu.simd.vector import lanes_for, load, row_view, store
from refattn.ops.cpu.work import empty_like
from refattn.ops.types import Array, RowDropout, SiteBlockCache, SiteBlockWeights

TILE = BLOCK  # sites: four tiles, two kernels and their gradients fill a core's second-level cache


class SiteWork(NamedTuple):
    """Tiles x, hidden, update : (TILE, D); panels_1, panels_2 of w_1 and w_2."""

    x: Array
    hidden: Array
    update: Array
    panels_1: Array
    panels_2: Array


class SiteGradientWork(NamedTuple):
    """Tiles grad_sum, grad_update, grad_v, hidden, s : (TILE, D); panels_1, panels_2 of w_1^T and w_2^T."""

    grad_sum: Array
    grad_update: Array
    grad_v: Array
    hidden: Array
    s: Array
    panels_1: Array
    panels_2: Array


def site_block_forward(
    context: Array, q: Array, dropout: RowDropout, weights: SiteBlockWeights, save_for_backward: bool = True
) -> tuple[Array, SiteBlockCache | None]:
    """See the reference.

    Memory   three tiles
    """
    dtype, (n_sites, width) = context.dtype, context.shape
    kept = n_sites if save_for_backward else min(TILE, n_sites)  # else a tile of the cache is enough
    rows = (kept, width)
    site, *arrays = empties(dtype, context.shape, rows, (kept,), rows, rows, (kept,))
    cache = SiteBlockCache(*arrays)
    structs = _tiles(3, weights.w_1.shape, dtype), *plain(weights)
    options = dropout.key, threshold_of(dropout.rate, dtype), save_for_backward, lanes_for(width, dtype)
    _site_block_forward_kernel(site, cache, *structs, context, q, *options)
    return site, cache if save_for_backward else None


def site_block_backward(
    grad_site: Array,
    dropout: RowDropout,
    weights: SiteBlockWeights,
    cache: SiteBlockCache,
    out: SiteBlockWeights | None = None,
) -> tuple[Array, SiteBlockWeights]:
    """See the reference.

    Memory          five tiles
    Deterministic   rows are added in order, tiles to the gradients of the kernels in order
    """
    dtype = cache.v.dtype
    grad_context = empty(cache.v.shape, dtype)
    grads = out or empty_like(weights)
    structs = _tiles(5, weights.w_1.shape, dtype), *plain(weights, cache)
    options = dropout.key, threshold_of(dropout.rate, dtype), lanes_for(cache.v.shape[1], dtype)
    _site_block_backward_kernel(grad_context, grads, *structs, grad_site, *options)
    return grad_context, grads


@scratch
def _tiles(cut: Callable, n_tiles: int, shape: tuple, dtype: np.dtype) -> tuple:
    """SiteWork or SiteGradientWork as a tuple: (TILE, D) tiles, and panels of two kernels of a `shape`."""
    panels = (panels_of(*shape, dtype),)
    tiles, *panels = cut(dtype, (n_tiles, TILE, padded(shape[1], dtype)), panels, panels)
    return *tiles[:, :, : shape[1]], *panels


@kernel(fastmath=True)
def _site_block_forward_kernel(site, cache, work, weights, context, q, key, threshold, save_for_backward, lanes):
    work = SiteWork(*work)
    weights = SiteBlockWeights(*weights)
    gain, offset = row_view(weights.gain, ()), row_view(weights.offset, ())
    gain_2, offset_2 = row_view(weights.gain_2, ()), row_view(weights.offset_2, ())
    x, hidden, update, v = work.x, work.hidden, work.update, cache.v
    pack(work.panels_1, weights.w_1)
    pack(work.panels_2, weights.w_2)
    for first in range(0, len(site), TILE):
        rows = min(TILE, len(site) - first)
        shift = first if save_for_backward else 0  # row of the tile's first site in what may be saved
        for n in range(rows):
            cache.context_rstd[shift + n] = add_and_normalise_row(
                row_view(x, n), row_view(cache.context_hat, shift + n), row_view(context, first + n),
                row_view(q, first + n), gain, offset, lanes,
            )  # fmt: skip
        multiply(v[shift : shift + rows], weights.b_1, x[:rows], work.panels_1)
        for n in range(rows):
            swish_row(row_view(hidden, n), row_view(update, n), row_view(v, shift + n), lanes)
        multiply(update[:rows], weights.b_2, hidden[:rows], work.panels_2)
        for n in range(rows):
            if key is not None:
                drop_row(row_view(update, n), row_view(update, n), key[first + n], threshold, lanes)
            cache.site_rstd[shift + n] = add_and_normalise_row(
                row_view(site, first + n), row_view(cache.site_hat, shift + n), row_view(update, n), row_view(x, n),
                gain_2, offset_2, lanes,
            )  # fmt: skip


@kernel(fastmath=True)
def _site_block_backward_kernel(grad_context, grads, work, weights, cache, grad_site, key, threshold, lanes):
    work = SiteGradientWork(*work)
    weights = SiteBlockWeights(*weights)
    cache = SiteBlockCache(*cache)
    v, grad_sum, grad_update, grad_v, hidden = cache.v, work.grad_sum, work.grad_update, work.grad_v, work.hidden
    for total in (grads.gain, grads.offset, grads.b_1, grads.b_2, grads.gain_2, grads.offset_2):
        total[:] = v.dtype.type(0)
    for total in (grads.w_1, grads.w_2):
        total[:] = v.dtype.type(0)
    gain, offset, gain_2 = row_view(weights.gain, ()), row_view(weights.offset, ()), row_view(weights.gain_2, ())
    grad_gain, grad_offset, grad_b_1 = row_view(grads.gain, ()), row_view(grads.offset, ()), row_view(grads.b_1, ())
    grad_gain_2, grad_offset_2, grad_b_2 = (
        row_view(grads.gain_2, ()),
        row_view(grads.offset_2, ()),
        row_view(grads.b_2, ()),
    )
    pack(work.panels_1, weights.w_1.T)
    pack(work.panels_2, weights.w_2.T)
    for first in range(0, len(v), TILE):
        rows = min(TILE, len(v) - first)
        for n in range(rows):
            i = first + n
            add_row_gradient(
                row_view(grad_sum, n), grad_gain_2, grad_offset_2, row_view(grad_site, i), gain_2,
                row_view(cache.site_hat, i), cache.site_rstd[i], lanes,
            )  # fmt: skip
            if key is None:
                copy_row(row_view(grad_update, n), row_view(grad_sum, n), lanes)
            else:
                drop_row(row_view(grad_update, n), row_view(grad_sum, n), key[i], threshold, lanes)
            add_row(grad_b_2, row_view(grad_update, n), lanes)
            swish_row(row_view(hidden, n), row_view(work.s, n), row_view(v, i), lanes)
        # forward: update = hidden w_2 + b_2
        multiply(grads.w_2, grads.w_2, hidden[:rows].T, grad_update[:rows])
        multiply(grad_v[:rows], None, grad_update[:rows], work.panels_2)
        x = hidden
        for n in range(rows):
            swish_row_gradient(row_view(grad_v, n), grad_b_1, row_view(v, first + n), row_view(work.s, n), lanes)
            scale_row(row_view(x, n), row_view(cache.context_hat, first + n), gain, offset, lanes)
        # forward: v = x w_1 + b_1
        multiply(grads.w_1, grads.w_1, x[:rows].T, grad_v[:rows])
        multiply(grad_sum[:rows], grad_sum[:rows], grad_v[:rows], work.panels_1)
        for n in range(rows):
            i = first + n
            add_row_gradient(
                row_view(grad_context, i), grad_gain, grad_offset, row_view(grad_sum, n), gain,
                row_view(cache.context_hat, i), cache.context_rstd[i], lanes,
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
        sigma = sigmoid(u)
        store(s, d, sigma)
        store(y, d, u * sigma)


@kernel(fastmath=True, inline=True)
def swish_row_gradient(grad, grad_b, v, s, lanes):
    """grad becomes that of v, of which s is the sigmoid, and is added to grad_b: one row."""
    for d in range(0, len(v), len(lanes)):
        sigma = load(s, d, lanes)
        g = load(grad, d, lanes) * (sigma + load(v, d, lanes) * sigma * (1 - sigma))
        store(grad, d, g)
        store(grad_b, d, load(grad_b, d, lanes) + g)
