"""Local attention as CUDA kernels; equations in reference/unfused/local_attention.py."""

import numpy as np

from refattn.ops.cuda.graph import neighbour_of, transposed
from refattn.ops.cuda.launch import head_sum, launch
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import cuda, exp, kernel
from refattn.ops.types import Array


def edge_product_forward(site: Array, geo: Array, nbr: Array) -> Array:
    """See the reference.

    Traffic   reads 2 D, writes D floats an edge
    """
    x = empty(geo.shape, geo.dtype)
    launch(_edge_product_forward_kernel, *geo.shape, x, site, geo, neighbour_of(nbr))
    return x


def edge_product_backward(grad_x: Array, site: Array, geo: Array, nbr: Array) -> tuple[Array, Array]:
    """See the reference. A block takes the edges that point at a site, so that site_j is read once.

    Deterministic   edges are added to their sites in order
    Traffic         reads 2 D, writes D floats an edge, and reads and writes D a site
    """
    grad_site, grad_geo = empty(site.shape, site.dtype), empty(geo.shape, geo.dtype)
    _, ptr, edge = transposed(nbr, len(site))
    launch(_edge_product_backward_kernel, *site.shape, grad_site, grad_geo, grad_x, site, geo, ptr, edge)
    return grad_site, grad_geo


@kernel
def _edge_product_forward_kernel(x, site, geo, nbr):
    n_edges, width = geo.shape
    d = cuda.threadIdx.x
    if d < width:
        for e in range(cuda.blockIdx.x, n_edges, cuda.gridDim.x):
            x[e, d] = site[nbr[e], d] * geo[e, d]


@kernel
def _edge_product_backward_kernel(grad_site, grad_geo, grad_x, site, geo, ptr, edge):
    n_sites, width = site.shape
    d, zero = cuda.threadIdx.x, site.dtype.type(0)
    if d < width:
        for j in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
            total = zero
            for place in range(ptr[j], ptr[j + 1]):
                e = edge[place]
                total += grad_x[e, d] * geo[e, d]
                grad_geo[e, d] = grad_x[e, d] * site[j, d]
            grad_site[j, d] = total


def local_attention_forward(q: Array, k: Array, edge_ptr: Array, mask: Array) -> tuple[Array, Array]:
    """See the reference. A block takes a site, a thread a channel; the softmax is made in one pass over the keys.

    With each edge the largest score so far may grow; what was summed is then scaled down to it:
    total <- total exp(old - new) + exp(score - new), and the context alike. A last pass turns scores into alpha.

    Traffic   reads D + H, writes 2 H floats an edge, and reads and writes D a site
    Source    Milakov & Gimelshein, arXiv 1805.02867 (2018), algorithm 3
    """
    n_sites, n_heads, channels = q.shape
    context, alpha = empty(q.shape, q.dtype), empty(mask.shape, q.dtype)
    context_rows, q_rows, k_rows = (a.reshape(len(a), n_heads * channels) for a in (context, q, k))
    scale = q.dtype.type(1 / np.sqrt(channels))
    arguments = context_rows, alpha, q_rows, k_rows, edge_ptr, mask, channels, scale
    launch(_local_attention_forward_kernel, n_sites, n_heads * channels, *arguments)
    return context, alpha


def local_attention_backward(
    grad_context: Array, q: Array, k: Array, edge_ptr: Array, mask: Array, alpha: Array
) -> tuple[Array, Array]:
    """See the reference. A block takes a site, a thread a channel; the second pass finds the keys in the cache.

    Memory    the gradients by alpha stand in an array of alpha's shape
    Traffic   reads D + 5 H (and D from the cache), writes D + H floats an edge, and reads 2 D, writes D a site
    """
    n_sites, n_heads, channels = q.shape
    grad_q, grad_k, grad_alpha = empty(q.shape, q.dtype), empty(k.shape, k.dtype), empty(alpha.shape, q.dtype)
    arrays = (a.reshape(len(a), n_heads * channels) for a in (grad_q, grad_k, grad_context, q, k))
    grad_q_rows, grad_k_rows, *inputs = arrays
    scale = q.dtype.type(1 / np.sqrt(channels))
    arguments = grad_q_rows, grad_k_rows, grad_alpha, *inputs, edge_ptr, mask, alpha, channels, scale
    launch(_local_attention_backward_kernel, n_sites, n_heads * channels, *arguments)
    return grad_q, grad_k


@kernel
def _local_attention_forward_kernel(context, alpha, q, k, edge_ptr, mask, channels, scale):
    n_sites, width = q.shape
    d = cuda.threadIdx.x
    inside, h = d < width, d // channels
    first, last = h * channels, (h + 1) * channels if inside else h * channels
    buffer = cuda.shared.array(0, q.dtype)
    zero, minus_infinity = q.dtype.type(0), q.dtype.type(-np.inf)
    for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
        start, stop = edge_ptr[i], edge_ptr[i + 1]
        top, total, value = minus_infinity, zero, zero
        query = q[i, d] * scale if inside else zero
        for e in range(start, stop):
            key = k[e, d] if inside else zero
            score = head_sum(buffer, query * key, channels, first, last)
            new_top = max(top, score)
            shrink, share = exp(top - new_top), exp(score - new_top)
            top, total = new_top, total * shrink + share
            if inside:
                value = value * shrink + share * mask[e, h] * key
            if inside and d == first:
                alpha[e, h] = score
        if inside:
            context[i, d] = value / total if start < stop else zero
        if inside and d == first:
            for e in range(start, stop):
                alpha[e, h] = exp(alpha[e, h] - top) / total


@kernel
def _local_attention_backward_kernel(
    grad_q, grad_k, grad_alpha, grad_context, q, k, edge_ptr, mask, alpha, channels, scale
):
    n_sites, width = q.shape
    d = cuda.threadIdx.x
    inside, h = d < width, d // channels
    first, last = h * channels, (h + 1) * channels if inside else h * channels
    buffer = cuda.shared.array(0, q.dtype)
    zero = q.dtype.type(0)
    for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
        start, stop = edge_ptr[i], edge_ptr[i + 1]
        grad, query = (grad_context[i, d], q[i, d]) if inside else (zero, zero)
        mean = total = zero
        for e in range(start, stop):
            # forward: context = sum alpha mask k
            product = head_sum(buffer, grad * k[e, d] if inside else zero, channels, first, last)
            if inside:
                product *= mask[e, h]
                mean += alpha[e, h] * product
            if inside and d == first:
                grad_alpha[e, h] = product
        cuda.syncthreads()
        if inside:
            for e in range(start, stop):
                # forward: alpha = softmax(score), score = scale q k
                grad_score = scale * alpha[e, h] * (grad_alpha[e, h] - mean)
                total += grad_score * k[e, d]
                grad_k[e, d] = alpha[e, h] * mask[e, h] * grad + grad_score * query
            grad_q[i, d] = total
