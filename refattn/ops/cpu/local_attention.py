"""Local attention as Numba kernels; equations in reference/local_attention.py."""

import numpy as np

from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import exponential
from refattn.ops.cpu.simd.vector import (
    add_heads,
    head_sums,
    larger_of,
    load,
    number_of,
    row_of,
    set_heads,
    store,
    zeros,
)


def edge_product_forward(site, geo, nbr):
    """See the reference."""
    x = empty(geo.shape, geo.dtype)
    _edge_product_forward_kernel(x, site, geo, nbr)
    return x


def edge_product_backward(grad_x, site, geo, nbr):
    """See the reference.

    Deterministic   edges are added to their sites in order
    """
    grad_site, grad_geo = empty(site.shape, site.dtype), empty(geo.shape, geo.dtype)
    _edge_product_backward_kernel(grad_site, grad_geo, grad_x, site, geo, nbr)
    return grad_site, grad_geo


@kernel(fastmath=True)
def _edge_product_forward_kernel(x, site, geo, nbr):
    for e in range(x.shape[0]):
        j = nbr[e]
        for d in range(x.shape[1]):
            x[e, d] = site[j, d] * geo[e, d]


@kernel(fastmath=True)
def _edge_product_backward_kernel(grad_site, grad_geo, grad_x, site, geo, nbr):
    grad_site[:] = 0
    for e in range(geo.shape[0]):
        j = nbr[e]
        for d in range(geo.shape[1]):
            grad_site[j, d] += grad_x[e, d] * geo[e, d]
            grad_geo[e, d] = grad_x[e, d] * site[j, d]


def local_attention_forward(q, k, edge_ptr, mask):
    """See the reference."""
    context, alpha = empty(q.shape, q.dtype), empty(mask.shape, q.dtype)
    _local_attention_forward_kernel(flat(context), alpha, flat(q), flat(k), edge_ptr, mask, *sizes_of(q))
    return context, alpha


def local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha):
    """See the reference.

    Memory   grad_score of a site stands in a row of alpha's shape, once a call
    """
    grad_q, grad_k, grad_score = empty(q.shape, q.dtype), empty(k.shape, k.dtype), empty(alpha.shape, q.dtype)
    inputs = flat(grad_context), flat(q), flat(k), edge_ptr, mask, alpha
    _local_attention_backward_kernel(flat(grad_q), flat(grad_k), grad_score, *inputs, *sizes_of(q))
    return grad_q, grad_k


def flat(array):
    """(N, H, C) as (N, H C), the same memory."""
    return array.reshape(len(array), array.shape[1] * array.shape[2])


def sizes_of(q):
    """Heads and channels of q (N, H, C) as two tuples of these lengths, which the compiler knows and unrolls by."""
    return (0,) * q.shape[1], (0,) * q.shape[2]


@kernel(fastmath=True)
def _local_attention_forward_kernel(context, alpha, q, k, edge_ptr, mask, heads, channels):
    for i in range(len(q)):
        score_site(alpha, q, k, i, edge_ptr[i], edge_ptr[i + 1], heads, channels)
    exponentiate(alpha.reshape(-1))
    for i in range(len(q)):
        weigh_site(context, alpha, k, mask, i, edge_ptr[i], edge_ptr[i + 1], heads, channels)


@kernel(fastmath=True)
def _local_attention_backward_kernel(
    grad_q, grad_k, grad_score, grad_context, q, k, edge_ptr, mask, alpha, heads, channels
):
    for i in range(len(q)):
        attend_site_gradient(
            grad_q, grad_k, grad_score, grad_context, q, k, mask, alpha, i, edge_ptr[i], edge_ptr[i + 1], heads,
            channels,
        )  # fmt: skip


@kernel(fastmath=True, inline=True)
def score_site(alpha, q, k, i, start, stop, heads, channels):
    """Scores of the edges start:stop of site i, less their maximum, into alpha (E, H).

    q : (N, H C); k : (E, H C)
    """
    of_site = row_of(q, i)
    scale = number_of(of_site, 1 / np.sqrt(len(channels)))
    top = zeros(of_site, heads) - np.inf
    for e in range(start, stop):
        score = scale * head_sums(of_site, row_of(k, e), heads, channels)
        store(row_of(alpha, e), 0, score)
        top = larger_of(top, score)
    for e in range(start, stop):
        store(row_of(alpha, e), 0, load(row_of(alpha, e), 0, heads) - top)


@kernel(fastmath=True, inline=True)
def exponentiate(alpha):
    """alpha = exp(alpha), number by number: one loop over all edges and heads at once vectorises."""
    for n in range(len(alpha)):
        alpha[n] = exponential(alpha[n])


@kernel(fastmath=True, inline=True)
def weigh_site(context, alpha, k, mask, i, start, stop, heads, channels):
    """context (N, H C) of site i from the exponentials of its scores in alpha (E, H), which become shares.

    k : (E, H C)
    """
    of_site = row_of(context, i)
    total = zeros(of_site, heads)
    for e in range(start, stop):
        total = total + load(row_of(alpha, e), 0, heads)
    inverse = 1 / total
    for d in range(0, len(of_site), len(channels)):
        store(of_site, d, zeros(of_site, channels))
    for e in range(start, stop):
        share = load(row_of(alpha, e), 0, heads) * inverse
        store(row_of(alpha, e), 0, share)
        add_heads(of_site, share * load(row_of(mask, e), 0, heads), row_of(k, e), heads, channels)


@kernel(fastmath=True, inline=True)
def attend_site_gradient(grad_q, grad_k, grad_score, grad_context, q, k, mask, alpha, i, start, stop, heads, channels):
    """grad_q (N, H C) of site i, and grad_k (E, H C) of its edges.

    grad_score : (as many rows as a site has edges, H)   to work in
    """
    of_context, of_q, total = row_of(grad_context, i), row_of(q, i), row_of(grad_q, i)
    scale, mean = number_of(of_q, 1 / np.sqrt(len(channels))), zeros(of_q, heads)
    for e in range(start, stop):
        # forward: context = sum alpha mask k
        grad = head_sums(of_context, row_of(k, e), heads, channels) * load(row_of(mask, e), 0, heads)
        store(row_of(grad_score, e - start), 0, grad)
        mean = mean + load(row_of(alpha, e), 0, heads) * grad
    for d in range(0, len(total), len(channels)):
        store(total, d, zeros(total, channels))
    for e in range(start, stop):
        # forward: alpha = softmax(score), score = scale q k
        share = load(row_of(alpha, e), 0, heads)
        grad = scale * share * (load(row_of(grad_score, e - start), 0, heads) - mean)
        add_heads(total, grad, row_of(k, e), heads, channels)
        by_share = share * load(row_of(mask, e), 0, heads)
        set_heads(row_of(grad_k, e), by_share, of_context, grad, of_q, heads, channels)
