"""What the network starts from, as CUDA kernels and a product; equations in reference/inputs.py."""

from refattn.ops.cuda.launch import column_sums, launch, launch_flat, partial_sums
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.sigmoid import sigmoid, swish_slope
from refattn.ops.cuda.toolchain import cuda, exp, kernel, multiply
from refattn.ops.types import Array


def embedding_forward(table: Array, z: Array) -> Array:
    """See the reference.

    Traffic   reads W + 1, writes W floats a site
    """
    c = empty((len(z), table.shape[1]), table.dtype)
    launch(_embedding_forward_kernel, *c.shape, c, table, z)
    return c


def embedding_backward(grad_c: Array, table: Array, z: Array) -> Array:
    """See the reference. A sum over few elements with many sites each: the product with the matrix a = z[i].

    Memory    that matrix, (N, A)
    Traffic   writes A, reads W + A floats a site, and writes A W
    """
    of_element = empty((len(z), len(table)), table.dtype)
    launch_flat(_of_element_kernel, of_element.size, of_element, z)
    return multiply(of_element.T, grad_c, empty(table.shape, table.dtype))


@kernel
def _embedding_forward_kernel(c, table, z):
    n_sites, width = c.shape
    w = cuda.threadIdx.x
    if w < width:
        for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
            c[i, w] = table[z[i], w]


@kernel
def _of_element_kernel(of_element, z):
    n_sites, n_elements = of_element.shape
    one, zero = of_element.dtype.type(1), of_element.dtype.type(0)
    for n in range(cuda.grid(1), n_sites * n_elements, cuda.gridsize(1)):
        i = n // n_elements
        of_element[i, n - i * n_elements] = one if z[i] == n - i * n_elements else zero


def gaussian_expand_forward(x: Array, centres: Array, width: float) -> Array:
    """See the reference.

    Traffic   reads 1, writes G floats an edge
    """
    rbf = empty((len(x), len(centres)), x.dtype)
    launch(_gaussian_expand_forward_kernel, *rbf.shape, rbf, x, centres, x.dtype.type(1 / width))
    return rbf


@kernel
def _gaussian_expand_forward_kernel(rbf, x, centres, inverse_width):
    n_edges, n_radial = rbf.shape
    g = cuda.threadIdx.x
    if g < n_radial:
        for e in range(cuda.blockIdx.x, n_edges, cuda.gridDim.x):
            u = (x[e] - centres[g]) * inverse_width
            rbf[e, g] = exp(-u * u)


def angular_expand_forward(direction: Array, weight: Array, edge_ptr: Array, centres: Array, width: float) -> Array:
    """See the reference. A block for a site, a thread for a column.

    Traffic   reads 3 + M, writes M G floats an edge; the edges of a site are read from the cache for each of them
    """
    rbf = empty((len(direction), weight.shape[1] * len(centres)), direction.dtype)
    arguments = direction, weight, edge_ptr, centres, direction.dtype.type(1 / width)
    launch(_angular_expand_forward_kernel, len(edge_ptr) - 1, rbf.shape[1], rbf, *arguments)
    return rbf


@kernel
def _angular_expand_forward_kernel(rbf, direction, weight, edge_ptr, centres, inverse_width):
    column = cuda.threadIdx.x
    if column < rbf.shape[1]:
        m, g = column // len(centres), column % len(centres)
        for i in range(cuda.blockIdx.x, len(edge_ptr) - 1, cuda.gridDim.x):
            for e in range(edge_ptr[i], edge_ptr[i + 1]):
                total = rbf.dtype.type(0)
                for f in range(edge_ptr[i], edge_ptr[i + 1]):
                    if f != e:
                        cos = (
                            direction[e, 0] * direction[f, 0]
                            + direction[e, 1] * direction[f, 1]
                            + direction[e, 2] * direction[f, 2]
                        )
                        u = (cos - centres[g]) * inverse_width
                        total += weight[f, m] * exp(-u * u)
                rbf[e, column] = total


def geometry_embed_forward(u_r: Array, u_omega: Array, b_r: Array, b_omega: Array) -> tuple[Array, Array, Array]:
    """See the reference.

    Memory    v_r and v_omega are written over u_r and u_omega
    Traffic   reads 2 D, writes 3 D floats an edge
    """
    geo = empty(u_r.shape, u_r.dtype)
    launch(_geometry_embed_forward_kernel, *u_r.shape, geo, u_r, u_omega, b_r, b_omega)
    return geo, u_r, u_omega


def geometry_embed_backward(grad_geo: Array, v_r: Array, v_omega: Array) -> tuple[Array, Array, Array, Array]:
    """See the reference.

    Traffic   reads 3 D, writes 2 D floats an edge
    """
    grad_u_r, grad_u_omega = empty(v_r.shape, v_r.dtype), empty(v_r.shape, v_r.dtype)
    partial = partial_sums(2, *v_r.shape, v_r.dtype)
    launch(_geometry_embed_backward_kernel, *v_r.shape, grad_u_r, grad_u_omega, partial, grad_geo, v_r, v_omega)
    return grad_u_r, grad_u_omega, *column_sums(partial)


@kernel
def _geometry_embed_forward_kernel(geo, u_r, u_omega, b_r, b_omega):
    n_edges, width = geo.shape
    d = cuda.threadIdx.x
    if d < width:
        for e in range(cuda.blockIdx.x, n_edges, cuda.gridDim.x):
            v_r = u_r[e, d] + b_r[d]
            v_omega = u_omega[e, d] + b_omega[d]
            u_r[e, d] = v_r
            u_omega[e, d] = v_omega
            geo[e, d] = v_r * sigmoid(v_r) * v_omega * sigmoid(v_omega)


@kernel
def _geometry_embed_backward_kernel(grad_u_r, grad_u_omega, partial, grad_geo, v_r, v_omega):
    n_edges, width = v_r.shape
    d = cuda.threadIdx.x
    if d < width:
        total_r = total_omega = v_r.dtype.type(0)
        for e in range(cuda.blockIdx.x, n_edges, cuda.gridDim.x):
            grad, r, omega = grad_geo[e, d], v_r[e, d], v_omega[e, d]
            # forward: geo = swish(v_r) swish(v_omega)
            grad_r = grad * omega * sigmoid(omega) * swish_slope(r)
            grad_omega = grad * r * sigmoid(r) * swish_slope(omega)
            grad_u_r[e, d] = grad_r
            grad_u_omega[e, d] = grad_omega
            total_r += grad_r
            total_omega += grad_omega
        partial[0, cuda.blockIdx.x, d] = total_r
        partial[1, cuda.blockIdx.x, d] = total_omega
