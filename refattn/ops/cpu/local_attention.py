"""Local attention as Numba kernels; equations in reference/local_attention.py."""

import numpy as np

from refattn.jit import jit
from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.sigmoid import exponential
from refattn.ops.cpu.vector import add_scaled, dot, set_sum


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


@jit(fastmath=True)
def _edge_product_forward_kernel(x, site, geo, nbr):
    for e in range(x.shape[0]):
        j = nbr[e]
        for d in range(x.shape[1]):
            x[e, d] = site[j, d] * geo[e, d]


@jit(fastmath=True)
def _edge_product_backward_kernel(grad_site, grad_geo, grad_x, site, geo, nbr):
    grad_site[:] = 0
    for e in range(geo.shape[0]):
        j = nbr[e]
        for d in range(geo.shape[1]):
            grad_site[j, d] += grad_x[e, d] * geo[e, d]
            grad_geo[e, d] = grad_x[e, d] * site[j, d]


def local_attention_forward(q, k, edge_ptr, mask):
    """See the reference."""
    context, alpha, work = empty(q.shape, q.dtype), empty(mask.shape, q.dtype), empty((q.shape[1],), q.dtype)
    _local_attention_forward_kernel(context, alpha, work, q, k, edge_ptr, mask, *sizes_of(q))
    return context, alpha


def local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha):
    """See the reference.

    Memory   grad_score of a site stands in a row of alpha's shape, once a call
    """
    grad_q, grad_k, grad_score = empty(q.shape, q.dtype), empty(k.shape, k.dtype), empty(alpha.shape, q.dtype)
    work, inputs = empty((q.shape[1],), q.dtype), (grad_context, q, k, edge_ptr, mask, alpha)
    _local_attention_backward_kernel(grad_q, grad_k, grad_score, work, *inputs, *sizes_of(q))
    return grad_q, grad_k


def sizes_of(q):
    """Heads and channels of q (N, H, C) as two tuples of these lengths, which the compiler knows and unrolls by."""
    return (0,) * q.shape[1], (0,) * q.shape[2]


@jit(fastmath=True)
def _local_attention_forward_kernel(context, alpha, work, q, k, edge_ptr, mask, heads, channels):
    for i in range(len(q)):
        score_site(alpha, work, q[i], k, edge_ptr[i], edge_ptr[i + 1], 0, heads, channels)
    exponentiate(alpha.reshape(-1))
    for i in range(len(q)):
        weigh_site(context[i], alpha, work, k, mask, edge_ptr[i], edge_ptr[i + 1], 0, heads, channels)


@jit(fastmath=True)
def _local_attention_backward_kernel(
    grad_q, grad_k, grad_score, work, grad_context, q, k, edge_ptr, mask, alpha, heads, channels
):
    for i in range(len(q)):
        start, stop = edge_ptr[i], edge_ptr[i + 1]
        attend_site_gradient(
            grad_q[i], grad_k[start:stop], grad_score, work, grad_context[i], q[i], k, mask, alpha, start, stop,
            heads, channels,
        )  # fmt: skip


@jit(fastmath=True, inline=True)
def score_site(alpha, top, q, k, start, stop, shift, heads, channels):
    """Scores of the edges start:stop of a site, less their maximum, into alpha (E, H).

    q : (H, C); k : (E, H, C), edge e in row e - shift; top : (H,)   to work in
    """
    scale = q.dtype.type(1 / np.sqrt(len(channels)))
    for h in range(len(heads)):
        top[h] = -np.inf
    for e in range(start, stop):
        for h in range(len(heads)):
            alpha[e, h] = dot(q[h], k[e - shift, h], channels) * scale
        for h in range(len(heads)):
            top[h] = max(top[h], alpha[e, h])
    for e in range(start, stop):
        for h in range(len(heads)):
            alpha[e, h] -= top[h]


@jit(fastmath=True, inline=True)
def exponentiate(alpha):
    """alpha = exp(alpha), number by number: one loop over all edges and heads at once vectorises."""
    for n in range(len(alpha)):
        alpha[n] = exponential(alpha[n])


@jit(fastmath=True, inline=True)
def weigh_site(context, alpha, total, k, mask, start, stop, shift, heads, channels):
    """context (H, C) of a site from the exponentials of its scores in alpha (E, H), which become shares.

    k : (E, H, C), edge e in row e - shift; total : (H,)   to work in
    """
    zero, one = alpha.dtype.type(0), alpha.dtype.type(1)
    for h in range(len(heads)):
        total[h] = zero
        for c in range(len(channels)):
            context[h, c] = zero
    for e in range(start, stop):
        for h in range(len(heads)):
            total[h] += alpha[e, h]
    for h in range(len(heads)):
        total[h] = one / total[h]
    for e in range(start, stop):
        for h in range(len(heads)):
            alpha[e, h] *= total[h]
            add_scaled(context[h], alpha[e, h] * mask[e, h], k[e - shift, h], channels)


@jit(fastmath=True, inline=True)
def attend_site_gradient(
    grad_q, grad_k, grad_score, mean, grad_context, q, k, mask, alpha, start, stop, heads, channels
):
    """grad_q (H, C) of one site, and grad_k (stop - start, H, C) of its edges.

    grad_score : (stop - start or more, H), mean : (H,)   to work in
    """
    zero, scale = q.dtype.type(0), q.dtype.type(1 / np.sqrt(len(channels)))
    for h in range(len(heads)):
        mean[h] = zero
        for c in range(len(channels)):
            grad_q[h, c] = zero
    for e in range(start, stop):
        for h in range(len(heads)):
            # forward: context = sum alpha mask k
            grad_score[e - start, h] = dot(grad_context[h], k[e, h], channels) * mask[e, h]
        for h in range(len(heads)):
            mean[h] += alpha[e, h] * grad_score[e - start, h]
    for e in range(start, stop):
        for h in range(len(heads)):
            # forward: alpha = softmax(score), score = scale q k
            grad_s = scale * alpha[e, h] * (grad_score[e - start, h] - mean[h])
            add_scaled(grad_q[h], grad_s, k[e, h], channels)
            set_sum(grad_k[e - start, h], alpha[e, h] * mask[e, h], grad_context[h], grad_s, q[h], channels)
