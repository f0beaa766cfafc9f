"""Geometry features of SCANN as CUDA kernels; equations in reference/unfused/geometry.py."""

from refattn.ops.cuda.graph import transposed
from refattn.ops.cuda.launch import block_sum, column_sums, launch, partial_sums
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.sigmoid import sigmoid, swish_slope
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.types import Array


def geometry_filter_forward(u: Array, b: Array, weight: Array) -> tuple[Array, Array]:
    """See the reference.

    Memory    v is written over u
    Traffic   reads D + 1, writes 2 D floats an edge
    """
    geo = empty(u.shape, u.dtype)
    launch(_geometry_filter_forward_kernel, *u.shape, geo, u, b, weight)
    return geo, u


def geometry_filter_backward(grad_geo: Array, weight: Array, v: Array) -> tuple[Array, Array, Array]:
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


def sum_to_neighbours(x: Array, nbr: Array, n_sites: int) -> Array:
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
