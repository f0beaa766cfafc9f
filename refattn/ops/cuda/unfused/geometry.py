"""Geometry features of a layer as CUDA kernels; equations in reference/unfused/geometry.py."""

from refattn.ops.cuda.graph import neighbour_of, transposed
from refattn.ops.cuda.launch import block_sum, column_sums, launch, partial_sums
from refattn.ops.cuda.layers import normalise, normalise_gradient
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.sigmoid import sigmoid, swish_slope
from refattn.ops.cuda.toolchain import cuda, kernel


def geometry_filter_forward(u, b, weight):
    """See the reference.

    Memory    v is written over u
    Traffic   reads D + 1, writes 2 D floats an edge
    """
    geo = empty(u.shape, u.dtype)
    launch(_geometry_filter_forward_kernel, *u.shape, geo, u, b, weight)
    return geo, u


def geometry_filter_backward(grad_geo, weight, v):
    """See the reference.

    Traffic   reads 2 D + 1, writes D + 1 floats an edge
    """
    grad_u, grad_weight = empty(v.shape, v.dtype), empty(v.shape[:1], v.dtype)
    partial = partial_sums(1, *v.shape, v.dtype)
    launch(_geometry_filter_backward_kernel, *v.shape, grad_u, partial, grad_weight, grad_geo, weight, v)
    return grad_u, column_sums(partial)[0], grad_weight


@kernel
def _geometry_filter_forward_kernel(geo, u, b, weight):
    n_edges, width = geo.shape
    d = cuda.threadIdx.x
    if d < width:
        for e in range(cuda.blockIdx.x, n_edges, cuda.gridDim.x):
            v = u[e, d] + b[d]
            u[e, d] = v
            geo[e, d] = v * sigmoid(v) * weight[e]


@kernel
def _geometry_filter_backward_kernel(grad_u, partial, grad_weight, grad_geo, weight, v):
    n_edges, width = v.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, v.dtype)
    total = zero = v.dtype.type(0)
    for e in range(cuda.blockIdx.x, n_edges, cuda.gridDim.x):
        swish = zero
        if d < width:
            # forward: geo = swish(v) weight
            swish = v[e, d] * sigmoid(v[e, d]) * grad_geo[e, d]
            grad = grad_geo[e, d] * weight[e] * swish_slope(v[e, d])
            grad_u[e, d] = grad
            total += grad
        swish = block_sum(buffer, swish)
        if d == 0:
            grad_weight[e] = swish
    if d < width:
        partial[0, cuda.blockIdx.x, d] = total


def geometry_update_forward(edge, centre, neighbour, geo, edge_ptr, nbr, gain, offset):
    """See the reference. Gather, sum, swish, residual and layer norm of an edge in one kernel, a block for a site.

    Memory    v is written over edge
    Traffic   reads 3 D, writes 3 D + 1 floats an edge, and reads D a site
    """
    new_geo, x_hat = empty(edge.shape, edge.dtype), empty(edge.shape, edge.dtype)
    rstd = empty(edge.shape[:1], edge.dtype)
    arguments = new_geo, x_hat, rstd, edge, centre, neighbour, geo, edge_ptr, neighbour_of(nbr), gain, offset
    launch(_geometry_update_forward_kernel, *centre.shape, *arguments)
    return new_geo, edge, x_hat, rstd


def geometry_update_backward(grad_new_geo, edge_ptr, nbr, gain, v, x_hat, rstd):
    """See the reference. Two kernels: a block takes the edges of a site; then the edges that point at a site.

    Deterministic   both sums over edges run in the order of the edges
    Traffic         reads 4 D + 1, writes 2 D floats an edge, and writes 2 D a site
    """
    n_sites, width = len(edge_ptr) - 1, v.shape[1]
    grad_edge, grad_geo = empty(v.shape, v.dtype), empty(v.shape, v.dtype)
    grad_centre = empty((n_sites, width), v.dtype)
    partial = partial_sums(2, n_sites, width, v.dtype)
    outputs = grad_edge, grad_centre, grad_geo, partial
    arguments = grad_new_geo, edge_ptr, gain, v, x_hat, rstd
    launch(_geometry_update_backward_kernel, n_sites, width, *outputs, *arguments)
    grad_neighbour = sum_to_neighbours(grad_edge, nbr, n_sites)
    return grad_edge, grad_centre, grad_neighbour, grad_geo, *column_sums(partial)


@kernel
def _geometry_update_forward_kernel(new_geo, x_hat, rstd, edge, centre, neighbour, geo, edge_ptr, nbr, gain, offset):
    n_sites, width = centre.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, edge.dtype)
    zero, size = edge.dtype.type(0), edge.dtype.type(width)
    for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            u = zero
            if d < width:
                v = edge[e, d] + centre[i, d] + neighbour[nbr[e], d]
                edge[e, d] = v
                u = v * sigmoid(v) + geo[e, d]
            row, rstd_row = normalise(buffer, u, d < width, size)
            if d < width:
                x_hat[e, d] = row
                new_geo[e, d] = gain[d] * row + offset[d]
            if d == 0:
                rstd[e] = rstd_row


@kernel
def _geometry_update_backward_kernel(
    grad_edge, grad_centre, grad_geo, partial, grad_new_geo, edge_ptr, gain, v, x_hat, rstd
):
    n_sites, width = grad_centre.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, v.dtype)
    zero, size = v.dtype.type(0), v.dtype.type(width)
    total_gain = total_offset = zero
    for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
        total = zero
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            # forward: new_geo = LN(swish(v) + geo)
            grad = grad_new_geo[e, d] if d < width else zero
            row = x_hat[e, d] if d < width else zero
            g = grad * gain[d] if d < width else zero
            grad_row = normalise_gradient(buffer, g, row, rstd[e], size)
            if d < width:
                # forward: v = edge + centre_i + neighbour_j
                grad_v = grad_row * swish_slope(v[e, d])
                grad_geo[e, d] = grad_row
                grad_edge[e, d] = grad_v
                total += grad_v
                total_gain += grad * row
                total_offset += grad
        if d < width:
            grad_centre[i, d] = total
    if d < width:
        partial[0, cuda.blockIdx.x, d] = total_gain
        partial[1, cuda.blockIdx.x, d] = total_offset


def sum_to_neighbours(x, nbr, n_sites):
    """(N, D) sums of the rows (E, D) over the edges that point at each site, in the order of the edges."""
    found = empty((n_sites, x.shape[1]), x.dtype)
    _, ptr, edge = transposed(nbr, n_sites)
    launch(_sum_to_neighbours_kernel, *found.shape, found, x, ptr, edge)
    return found


@kernel
def _sum_to_neighbours_kernel(grad_neighbour, grad_edge, ptr, edge):
    n_sites, width = grad_neighbour.shape
    d, zero = cuda.threadIdx.x, grad_edge.dtype.type(0)
    if d < width:
        for j in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
            total = zero
            for place in range(ptr[j], ptr[j + 1]):
                total += grad_edge[edge[place], d]
            grad_neighbour[j, d] = total
