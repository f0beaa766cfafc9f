"""Global attention as CUDA kernels; equations in reference/global_attention.py."""

import math

import numpy as np

from refattn.ops.cuda.launch import block_sum, launch
from refattn.ops.cuda.memory import empty, xp
from refattn.ops.cuda.toolchain import WARP, cuda, exp, kernel
from refattn.ops.types import Array, GlobalAttentionCache

SUM_THREADS = WARP  # of a block that sums over the sites of a structure


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
    grad_beta: Array | None = None,
    grad_score: Array | None = None,
) -> tuple[Array, Array]:
    """See the reference. A block takes a structure, a thread a column; k is read three times, from the cache.

    Memory    the gradients by beta, and then those by the scores, stand where the known ones were copied to
    Traffic   reads 2 G + 4, writes 2 G + 4 floats a site, and reads 2 G + 1 a structure
    """
    grads = empty((2, *q.shape), q.dtype)
    known = xp.zeros((2, len(q)), q.dtype)
    for row, grad in zip(known, (grad_beta, grad_score), strict=True):
        if grad is not None:
            row[...] = grad
    arguments = grads, known, grad_struct, q, k, site_ptr, intensive, normalise, *cache
    launch(_global_attention_backward_kernel, *grad_struct.shape, *arguments)
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
    grads, known, grad_struct, q, k, site_ptr, intensive, normalise, beta, score, norm, q_sum
):
    """known : (2, N), gradients by beta and by score; the first one becomes the whole gradient by score"""
    grad_score = known[0]
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
            grad_beta = known[0, i]  # read by all threads before the barriers of block_sum, and written after them
            grad_beta += block_sum(buffer, k[i, g] * grad_struct[s, g] if inside else zero)
            mean += beta[i] * grad_beta
            if g == 0:
                grad_score[i] = grad_beta
        cuda.syncthreads()
        for i in range(start + g, stop, cuda.blockDim.x):
            grad_score[i] = known[1, i] + beta[i] * (grad_score[i] - mean)
        cuda.syncthreads()
        if normalise:  # forward: score = s / norm
            for i in range(start, stop):
                projection += score[i] * grad_score[i]
        projection *= share
        if inside:
            for i in range(start, stop):
                weighted += (grad_score[i] - score[i] * projection) / norm[s] * k[i, g]
            for i in range(start, stop):
                # forward: s = k . Q / N, or k . (Q - q)
                grad_s = (grad_score[i] - score[i] * projection) / norm[s]
                if intensive:
                    grads[0, i, g] = weighted * share
                    others = q_sum[s, g] * share
                else:
                    grads[0, i, g] = weighted - grad_s * k[i, g]
                    others = q_sum[s, g] - q[i, g]
                grads[1, i, g] = beta[i] * grad_struct[s, g] + grad_s * others


def site_sum_forward(f: Array, weight: Array, site_ptr: Array) -> Array:
    """See the reference. A block takes a structure, a thread some of its sites.

    Traffic   reads 2 floats a site, and writes 1 a structure
    """
    y = empty((len(site_ptr) - 1,), f.dtype)
    launch(_site_sum_forward_kernel, len(y), SUM_THREADS, y, f, weight, site_ptr)
    return y


def site_sum_backward(grad_y: Array, f: Array, weight: Array, site_ptr: Array) -> tuple[Array, Array]:
    """See the reference. A block takes a structure, a thread some of its sites.

    Traffic   reads 2, writes 2 floats a site, and reads 1 a structure
    """
    grads = empty((2, len(f)), f.dtype)
    launch(_site_sum_backward_kernel, len(grad_y), SUM_THREADS, grads, grad_y, f, weight, site_ptr)
    return grads[0], grads[1]


@kernel
def _site_sum_forward_kernel(y, f, weight, site_ptr):
    buffer = cuda.shared.array(0, f.dtype)
    for s in range(cuda.blockIdx.x, len(y), cuda.gridDim.x):
        total = f.dtype.type(0)
        for i in range(site_ptr[s] + cuda.threadIdx.x, site_ptr[s + 1], cuda.blockDim.x):
            total += weight[i] * f[i]
        total = block_sum(buffer, total)
        if cuda.threadIdx.x == 0:
            y[s] = total


@kernel
def _site_sum_backward_kernel(grads, grad_y, f, weight, site_ptr):
    for s in range(cuda.blockIdx.x, len(grad_y), cuda.gridDim.x):
        for i in range(site_ptr[s] + cuda.threadIdx.x, site_ptr[s + 1], cuda.blockDim.x):
            grads[0, i] = grad_y[s] * weight[i]
            grads[1, i] = grad_y[s] * f[i]
