"""Local attention with the product of the keys moved from the edges to the sites.

x[e] is an edge's vector, k[e] = x[e] w_k + b_k its key and value. A score needs of w_k only what a site's query sees,
so the key projection is absorbed into the query:

score[e,h] = C^-1/2 x[e] . q_absorbed[h,i] + a number of the site, which cancels in the softmax
q_absorbed[h,i] = w_k[:,h] q[i,h]
context[i,h] = value_sum[h,i] w_k[:,h] + kept[i,h] b_k[h];  value_sum[h,i] = sum_e alpha mask x, kept = sum_e alpha mask

Two products of D x D a site, and 4 H D operations an edge, instead of a product an edge: with 4.3 edges a site and the
published sizes 1.7 times fewer operations. Backward has grad_absorbed[h,i] = w_k[:,h] grad_context[i,h], and

grad_alpha[e,h] = mask (x[e] . grad_absorbed[h,i] + b_k[h] . grad_context[i,h])
grad_x[e] = sum_h alpha mask grad_absorbed + grad_score q_absorbed
grad_w_k[:,h] = sum_i value_sum[h,i] grad_context[i,h] + score_sum[h,i] q[i,h];  grad_q[i,h] = score_sum[h,i] w_k[:,h]

with score_sum[h,i] = sum_e grad_score x, the gradient by q_absorbed. The kernels of edges.py call this for a tile of
sites, then for each of them.
"""

import numpy as np

from refattn.ops.cpu.simd.gemm import multiply, multiply_few, pack
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import exponential
from refattn.ops.cpu.simd.vector import (
    add_heads,
    head_sums,
    larger_of,
    load,
    number_of,
    products_with_rows,
    row_view,
    scale_heads,
    store,
    zeros,
)


@kernel
def pack_heads(panels, panels_t, w_k, channels):
    """Panels of each head's columns of w_k (D, H C), and of these transposed."""
    for h in range(len(panels)):
        w_head = w_k[:, h * len(channels) : (h + 1) * len(channels)]
        pack(panels[h], w_head)
        pack(panels_t[h], w_head.T)


@kernel
def absorb_key_projection(absorbed, q, first, last, panels_t, channels):
    """absorbed[h,i] = w_k[:,h] q[i,h] for the sites first:last, q (N, H C); that of site `first` in absorbed[:, 0]."""
    for h in range(len(panels_t)):
        q_head = q[first:last, h * len(channels) : (h + 1) * len(channels)]
        multiply(absorbed[h, : last - first], None, q_head, panels_t[h])


@kernel
def add_values(context, value_sum, first, last, panels, channels):
    """context[i,h] += value_sum[h,i] w_k[:,h] for the sites first:last, context (N, H C)."""
    for h in range(len(panels)):
        context_head = context[first:last, h * len(channels) : (h + 1) * len(channels)]
        multiply(context_head, context_head, value_sum[h, : last - first], panels[h])


@kernel
def key_projection_gradient(grad_q, grad_w_kt, sums, grad_context, q, first, last, panels_k, channels):
    """Backward of absorb_key_projection and add_values for the sites first:last.

    Adds to grad_q, which may be grad_context, and to grad_w_kt (H C, D), the gradient by w_k^T: products with D columns
    fill the registers, those with a head's C columns may not.

    sums : (2 H, sites, D), value_sum before score_sum
    """
    n_heads = len(panels_k)
    for h in range(n_heads):
        start, stop = h * len(channels), (h + 1) * len(channels)
        value_sum = sums[h, : last - first]
        score_sum = sums[n_heads + h, : last - first]
        grad_w_head = grad_w_kt[start:stop]
        grad_q_head = grad_q[first:last, start:stop]
        multiply(grad_w_head, grad_w_head, grad_context[first:last, start:stop].T, value_sum)
        multiply(grad_w_head, grad_w_head, q[first:last, start:stop].T, score_sum)
        multiply(grad_q_head, grad_q_head, score_sum, panels_k[h])


@kernel
def transpose(w, w_t):
    """w = w_t^T, a cache line of float32 after the other."""
    for start in range(0, w.shape[1], 16):
        for d in range(len(w)):
            for n in range(start, min(start + 16, w.shape[1])):
                w[d, n] = w_t[n, d]


@kernel(fastmath=True, inline=True)
def attend_site(absorbed, context, alpha, work, edges, b_k, i, static):
    """alpha (E, H) of the edges of site i, and kept b_k in its context (N, H C).

    absorbed : (H, D)     q_absorbed of the site, whose place value_sum takes
    work : ForwardWork    x has the vectors of the site's edges
    """
    heads, channels, lanes = static.heads, static.channels, static.lanes
    x, coefficient, mask = work.x, work.coefficient, edges.mask
    start, stop = edges.edge_ptr[i], edges.edge_ptr[i + 1]
    context_row = row_view(context, i)
    scale = number_of(context_row, 1 / np.sqrt(len(channels)))
    total = zeros(context_row, heads)
    largest = total - np.inf
    for e in range(start, stop):
        score = scale * products_with_rows(absorbed, row_view(x, e - start), heads, lanes)
        store(row_view(alpha, e), 0, score)
        largest = larger_of(largest, score)
    for e in range(start, stop):
        numerator = exponential(load(row_view(alpha, e), 0, heads) - largest)
        store(row_view(alpha, e), 0, numerator)
        total = total + numerator
    inverse = 1 / total
    kept = zeros(context_row, heads)
    for e in range(start, stop):
        attention = load(row_view(alpha, e), 0, heads) * inverse
        store(row_view(alpha, e), 0, attention)
        masked = attention * load(row_view(mask, e), 0, heads)
        store(row_view(coefficient, e - start), 0, masked)
        kept = kept + masked
    scale_heads(context_row, kept, row_view(b_k, ()), heads, channels)
    multiply_few(absorbed, coefficient[: stop - start].T, x[: stop - start])


@kernel(fastmath=True, inline=True)
def attend_site_gradient(absorbed, grad_b_k, grad_context, alpha, work, edges, b_k, i, static):
    """grad_x, in `work`, of the edges of site i; adds to grad_b_k.

    absorbed : (2 H, D)     grad_absorbed of the site, whose place value_sum takes, and q_absorbed, whose place
                            score_sum takes
    work : BackwardWork     x has the vectors of the site's edges
    """
    heads, channels, lanes = static.heads, static.channels, static.lanes
    x, grad_x, coefficient, mask = work.x, work.grad_x, work.coefficient, edges.mask
    start, stop = edges.edge_ptr[i], edges.edge_ptr[i + 1]
    context_row = row_view(grad_context, i)
    scale = number_of(context_row, 1 / np.sqrt(len(channels)))
    mean = kept = zeros(context_row, heads)
    bias = head_sums(context_row, row_view(b_k, ()), heads, channels)
    for e in range(start, stop):
        # forward: context = sum alpha mask (x w_k + b_k)
        grad = products_with_rows(absorbed, row_view(x, e - start), heads, lanes) + bias
        grad = grad * load(row_view(mask, e), 0, heads)
        store(row_view(coefficient, e - start), len(heads), grad)
        mean = mean + load(row_view(alpha, e), 0, heads) * grad
    for e in range(start, stop):
        # forward: alpha = softmax(score), score = scale x q_absorbed
        attention = load(row_view(alpha, e), 0, heads)
        row = row_view(coefficient, e - start)
        store(row, len(heads), scale * attention * (load(row, len(heads), heads) - mean))
        masked = attention * load(row_view(mask, e), 0, heads)
        store(row, 0, masked)
        kept = kept + masked
    add_heads(row_view(grad_b_k, ()), kept, context_row, heads, channels)
    multiply_few(grad_x[: stop - start], coefficient[: stop - start], absorbed)
    multiply_few(absorbed, coefficient[: stop - start].T, x[: stop - start])
