"""Global attention as Numba kernels; equations in reference/global_attention.py."""

import numpy as np

from refattn.ops.cpu.memory import empties, empty, zeros_like
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.types import Array, GlobalAttentionCache


def global_attention_forward(
    q: Array, k: Array, site_ptr: Array, intensive: bool, normalise: bool
) -> tuple[Array, GlobalAttentionCache]:
    """See the reference."""
    n_structures = len(site_ptr) - 1
    structs = (n_structures, q.shape[1])
    struct, *arrays = empties(q.dtype, structs, q.shape[:1], q.shape[:1], (n_structures,), structs)
    cache = GlobalAttentionCache(*arrays)
    _global_attention_forward_kernel(struct, cache, q, k, site_ptr, intensive, normalise)
    return struct, cache


def global_attention_backward(
    grad_struct: Array,
    q: Array,
    k: Array,
    site_ptr: Array,
    intensive: bool,
    normalise: bool,
    cache: GlobalAttentionCache,
    grad_beta: Array | None = None,
    grad_score: Array | None = None,
) -> tuple[Array, Array]:
    """See the reference."""
    grad_q, grad_k, grad_s, weighted = empties(q.dtype, q.shape, k.shape, q.shape[:1], q.shape[1:])
    known = None
    if not (grad_beta is None and grad_score is None):
        known = [zeros_like(cache.beta) if grad is None else grad for grad in (grad_beta, grad_score)]
        known = tuple(known)  # a kernel without what it does not need, and one with both
    _grad_score_kernel(grad_s, grad_struct, k, site_ptr, intensive, normalise, cache, known)
    _global_attention_backward_kernel(grad_q, grad_k, weighted, grad_struct, grad_s, q, k, site_ptr, intensive, cache)
    return grad_q, grad_k


@kernel(fastmath=True)
def _global_attention_forward_kernel(struct, cache, q, k, site_ptr, intensive, normalise):
    beta, score, norm, q_sum = cache
    zero = q.dtype.type(0)
    one = q.dtype.type(1)
    struct[:] = 0
    q_sum[:] = 0
    for s in range(len(site_ptr) - 1):
        start, stop = site_ptr[s], site_ptr[s + 1]
        n_sites = q.dtype.type(stop - start)
        for i in range(start, stop):
            for g in range(q.shape[1]):
                q_sum[s, g] += q[i, g]
        square = zero
        for i in range(start, stop):
            total = zero
            for g in range(q.shape[1]):
                total += k[i, g] * (q_sum[s, g] if intensive else q_sum[s, g] - q[i, g])
            score[i] = total / n_sites if intensive else total
            square += score[i] * score[i]
        size = np.sqrt(square / n_sites) if intensive else np.sqrt(square)
        norm[s] = size if normalise and size > zero else one
        total = zero
        top = q.dtype.type(-np.inf)
        for i in range(start, stop):
            score[i] /= norm[s]
            top = max(top, score[i])
        for i in range(start, stop):
            beta[i] = np.exp(score[i] - top)
            total += beta[i]
        for i in range(start, stop):
            beta[i] /= total
            for g in range(q.shape[1]):
                struct[s, g] += beta[i] * k[i, g]


@kernel(fastmath=True)
def _grad_score_kernel(grad_s, grad_struct, k, site_ptr, intensive, normalise, cache, known):
    """Gradient by the scores before the normalisation: the softmax and the norm differentiated.

    known : (grad_beta, grad_score), or None
    """
    beta, score, norm, _ = cache
    zero = k.dtype.type(0)
    for s in range(len(site_ptr) - 1):
        start, stop = site_ptr[s], site_ptr[s + 1]
        mean = zero
        for i in range(start, stop):
            # forward: struct = sum beta k
            grad_beta = zero
            for g in range(k.shape[1]):
                grad_beta += k[i, g] * grad_struct[s, g]
            if known is not None:
                grad_beta += known[0][i]
            grad_s[i] = grad_beta
            mean += beta[i] * grad_beta
        projection = zero
        for i in range(start, stop):
            grad_s[i] = beta[i] * (grad_s[i] - mean)
            if known is not None:
                grad_s[i] += known[1][i]
            projection += score[i] * grad_s[i]
        if normalise:  # forward: score = s / norm
            if intensive:
                projection /= k.dtype.type(stop - start)
            for i in range(start, stop):
                grad_s[i] = (grad_s[i] - score[i] * projection) / norm[s]


@kernel(fastmath=True)
def _global_attention_backward_kernel(grad_q, grad_k, weighted, grad_struct, grad_s, q, k, site_ptr, intensive, cache):
    beta, _, _, q_sum = cache
    for s in range(len(site_ptr) - 1):
        start, stop = site_ptr[s], site_ptr[s + 1]
        inverse = q.dtype.type(1) / q.dtype.type(stop - start)
        zero = q.dtype.type(0)
        for i in range(start, stop):
            for g in range(q.shape[1]):
                weighted[g] = grad_s[i] * k[i, g] + (weighted[g] if i > start else zero)
        for i in range(start, stop):
            # forward: s = k . Q / N, or k . (Q - q)
            for g in range(q.shape[1]):
                if intensive:
                    grad_q[i, g] = weighted[g] * inverse
                    others = q_sum[s, g] * inverse
                else:
                    grad_q[i, g] = weighted[g] - grad_s[i] * k[i, g]
                    others = q_sum[s, g] - q[i, g]
                grad_k[i, g] = beta[i] * grad_struct[s, g] + grad_s[i] * others


def site_sum_forward(f: Array, weight: Array, site_ptr: Array) -> Array:
    """See the reference."""
    y = empty((len(site_ptr) - 1,), f.dtype)
    _site_sum_forward_kernel(y, f, weight, site_ptr)
    return y


def site_sum_backward(grad_y: Array, f: Array, weight: Array, site_ptr: Array) -> tuple[Array, Array]:
    """See the reference."""
    grad_f, grad_weight = empties(f.dtype, f.shape, f.shape)
    _site_sum_backward_kernel(grad_f, grad_weight, grad_y, f, weight, site_ptr)
    return grad_f, grad_weight


@kernel
def _site_sum_forward_kernel(y, f, weight, site_ptr):
    y[:] = 0
    for s in range(len(y)):
        for i in range(site_ptr[s], site_ptr[s + 1]):
            y[s] += weight[i] * f[i]


@kernel
def _site_sum_backward_kernel(grad_f, grad_weight, grad_y, f, weight, site_ptr):
    for s in range(len(grad_y)):
        for i in range(site_ptr[s], site_ptr[s + 1]):
            grad_f[i] = grad_y[s] * weight[i]
            grad_weight[i] = grad_y[s] * f[i]
