"""Local attention as Numba kernels; equations in reference/local_attention.py."""

import numpy as np

from refattn.jit import jit
from refattn.ops.cpu.memory import empty


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
    context, alpha = empty(q.shape, q.dtype), empty(mask.shape, q.dtype)
    _local_attention_forward_kernel(context, alpha, q, k, edge_ptr, mask)
    return context, alpha


def local_attention_backward(grad_context, q, k, edge_ptr, mask, alpha):
    """See the reference.

    Memory   grad_score of a site stands in a row of alpha's shape, once a call
    """
    grad_q, grad_k, grad_score = empty(q.shape, q.dtype), empty(k.shape, k.dtype), empty(alpha.shape, q.dtype)
    _local_attention_backward_kernel(grad_q, grad_k, grad_score, grad_context, q, k, edge_ptr, mask, alpha)
    return grad_q, grad_k


@jit(fastmath=True)
def _local_attention_forward_kernel(context, alpha, q, k, edge_ptr, mask):
    n_heads, width = q.shape[1], q.shape[2]
    zero = q.dtype.type(0)
    scale = q.dtype.type(1 / np.sqrt(width))
    context[:] = 0
    for i in range(q.shape[0]):
        start, stop = edge_ptr[i], edge_ptr[i + 1]
        for h in range(n_heads):
            top = q.dtype.type(-np.inf)
            for e in range(start, stop):
                score = zero
                for c in range(width):
                    score += q[i, h, c] * k[e, h, c]
                alpha[e, h] = score * scale
                top = max(top, alpha[e, h])
            total = zero
            for e in range(start, stop):
                alpha[e, h] = np.exp(alpha[e, h] - top)
                total += alpha[e, h]
            for e in range(start, stop):
                alpha[e, h] /= total
                share = alpha[e, h] * mask[e, h]
                for c in range(width):
                    context[i, h, c] += share * k[e, h, c]


@jit(fastmath=True)
def _local_attention_backward_kernel(grad_q, grad_k, grad_score, grad_context, q, k, edge_ptr, mask, alpha):
    n_heads, width = q.shape[1], q.shape[2]
    zero = q.dtype.type(0)
    scale = q.dtype.type(1 / np.sqrt(width))
    grad_q[:] = 0
    for i in range(q.shape[0]):
        start, stop = edge_ptr[i], edge_ptr[i + 1]
        for h in range(n_heads):
            mean = zero
            for e in range(start, stop):
                # forward: context = sum alpha mask k
                grad_alpha = zero
                for c in range(width):
                    grad_alpha += grad_context[i, h, c] * k[e, h, c]
                grad_score[e, h] = grad_alpha * mask[e, h]
                mean += alpha[e, h] * grad_score[e, h]
            for e in range(start, stop):
                # forward: alpha = softmax(score), score = scale q k
                grad_s = scale * alpha[e, h] * (grad_score[e, h] - mean)
                share = alpha[e, h] * mask[e, h]
                for c in range(width):
                    grad_q[i, h, c] += grad_s * k[e, h, c]
                    grad_k[e, h, c] = share * grad_context[i, h, c] + grad_s * q[i, h, c]
