"""Global attention as CUDA kernels; equations in reference/global_attention.py."""

import math

import numpy as np

from refattn.ops.cuda.launch import block_sum, launch
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import cuda, exp, kernel
from refattn.ops.types import Array, GlobalAttentionCache


def global_attention_forward(
    q: Array, k: Array, site_ptr: Array, intensive: bool, normalise: bool
) -> tuple[Array, GlobalAttentionCache]:
    """See the reference. A block takes a structure, a thread a column; q and k are read twice, from the cache.

    Traffic   reads 2 G, writes 2 floats a site, and writes 2 G + 1 a structure
    """
    shape = len(site_ptr) - 1, q.shape[1]
    struct, q_sum = (empty(shape, q.dtype) for _ in range(2))
    beta, score = (empty(q.shape[:1], q.dtype) for _ in range(2))
    cache = GlobalAttentionCache(beta, score, empty(shape[:1], q.dtype), q_sum)
    launch(_global_attention_forward_kernel, *shape, struct, *cache, q, k, site_ptr, intensive, normalise)
    return struct, cache


def global_attention_backward(
    grad_struct: Array,
    q: Array,
    k: Array,
    site_ptr: Array,
    intensive: bool,
    normalise: bool,
    cache: GlobalAttentionCache,
) -> tuple[Array, Array]:
    """See the reference. A block takes a structure, a thread a column; k is read three times, from the cache.

    Memory    the gradients by beta stand in an array of beta's shape
    Traffic   reads 2 G + 2, writes 2 G + 1 floats a site, and reads 2 G + 1 a structure
    """
    beta, *saved = cache
    grads = empty((2, *q.shape), q.dtype)
    grad_beta = empty(beta.shape, q.dtype)
    arguments = grad_struct, q, k, site_ptr, intensive, normalise, beta, *saved
    launch(_global_attention_backward_kernel, *grad_struct.shape, grads, grad_beta, *arguments)
    return grads[0], grads[1]


@kernel
def _global_attention_forward_kernel(struct, beta, score, norm, q_sum, q, k, site_ptr, intensive, normalise):
    n_structures, width = struct.shape
    g = cuda.threadIdx.x
    inside = g < width
    buffer = cuda.shared.array(0, q.dtype)
    zero, one, minus_infinity = q.dtype.type(0), q.dtype.type(1), q.dtype.type(-np.inf)
    for s in range(cuda.blockIdx.x, n_structures, cuda.gridDim.x):
        start, stop = site_ptr[s], site_ptr[s + 1]
        n_sites = q.dtype.type(stop - start)
        q_total, square, top, total, value = zero, zero, minus_infinity, zero, zero
        if inside:
            for i in range(start, stop):
                q_total += q[i, g]
            q_sum[s, g] = q_total
        for i in range(start, stop):
            product = k[i, g] * (q_total if intensive else q_total - q[i, g]) if inside else zero
            s_i = block_sum(buffer, product)
            if intensive:
                s_i /= n_sites
            square += s_i * s_i
            if g == 0:
                score[i] = s_i
        if intensive:
            square /= n_sites
        size = math.sqrt(square) if normalise and square > zero else one
        cuda.syncthreads()
        for i in range(start, stop):
            top = max(top, score[i] / size)
        for i in range(start, stop):
            share = exp(score[i] / size - top)
            total += share
            if inside:
                value += share * k[i, g]
        if inside:
            struct[s, g] = value / total
        cuda.syncthreads()
        for i in range(start + g, stop, cuda.blockDim.x):
            score[i] /= size
            beta[i] = exp(score[i] - top) / total
        if g == 0:
            norm[s] = size


@kernel
def _global_attention_backward_kernel(
    grads, grad_beta, grad_struct, q, k, site_ptr, intensive, normalise, beta, score, norm, q_sum
):
    n_structures, width = grad_struct.shape
    g = cuda.threadIdx.x
    inside = g < width
    buffer = cuda.shared.array(0, q.dtype)
    zero, one = q.dtype.type(0), q.dtype.type(1)
    for s in range(cuda.blockIdx.x, n_structures, cuda.gridDim.x):
        start, stop = site_ptr[s], site_ptr[s + 1]
        share = one / q.dtype.type(stop - start) if intensive else one
        mean = projection = weighted = zero
        for i in range(start, stop):
            # forward: struct = sum beta k
            product = block_sum(buffer, k[i, g] * grad_struct[s, g] if inside else zero)
            mean += beta[i] * product
            if g == 0:
                grad_beta[i] = product
        cuda.syncthreads()
        if normalise:  # forward: score = s / norm
            for i in range(start, stop):
                projection += score[i] * beta[i] * (grad_beta[i] - mean)
        projection *= share
        if inside:
            for i in range(start, stop):
                weighted += (beta[i] * (grad_beta[i] - mean) - score[i] * projection) / norm[s] * k[i, g]
            for i in range(start, stop):
                # forward: s = k . Q / N, or k . (Q - q)
                grad_s = (beta[i] * (grad_beta[i] - mean) - score[i] * projection) / norm[s]
                if intensive:
                    grads[0, i, g] = weighted * share
                    others = q_sum[s, g] * share
                else:
                    grads[0, i, g] = weighted - grad_s * k[i, g]
                    others = q_sum[s, g] - q[i, g]
                grads[1, i, g] = beta[i] * grad_struct[s, g] + grad_s * others
