"""What the network starts from, as Numba kernels; equations in reference/inputs.py."""

from refattn.ops.cpu.memory import empties, empty
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import exponential, sigmoid
from refattn.ops.types import Array


def embedding_forward(table: Array, z: Array) -> Array:
    """See the reference."""
    c = empty((len(z), table.shape[1]), table.dtype)
    _embedding_forward_kernel(c, table, z)
    return c


def embedding_backward(grad_c: Array, table: Array, z: Array) -> Array:
    """See the reference.

    Deterministic   sites are added to their elements in order
    """
    grad_table = empty(table.shape, table.dtype)
    _embedding_backward_kernel(grad_table, grad_c, z)
    return grad_table


@kernel
def _embedding_forward_kernel(c, table, z):
    for i in range(c.shape[0]):
        for w in range(c.shape[1]):
            c[i, w] = table[z[i], w]


@kernel
def _embedding_backward_kernel(grad_table, grad_c, z):
    grad_table[:] = 0
    for i in range(grad_c.shape[0]):
        for w in range(grad_c.shape[1]):
            grad_table[z[i], w] += grad_c[i, w]


def gaussian_expand_forward(x: Array, centres: Array, width: float) -> Array:
    """See the reference."""
    rbf = empty((len(x), len(centres)), x.dtype)
    _gaussian_expand_forward_kernel(rbf, x, centres, x.dtype.type(1 / width))
    return rbf


@kernel(fastmath=True)
def _gaussian_expand_forward_kernel(rbf, x, centres, inverse_width):
    for e in range(rbf.shape[0]):
        for g in range(rbf.shape[1]):
            u = (x[e] - centres[g]) * inverse_width
            rbf[e, g] = exponential(-u * u)


def angular_expand_forward(direction: Array, weight: Array, edge_ptr: Array, centres: Array, width: float) -> Array:
    """See the reference."""
    rbf = empty((len(direction), weight.shape[1] * len(centres)), direction.dtype)
    _angular_expand_forward_kernel(rbf, direction, weight, edge_ptr, centres, direction.dtype.type(1 / width))
    return rbf


@kernel(fastmath=True)
def _angular_expand_forward_kernel(rbf, direction, weight, edge_ptr, centres, inverse_width):
    n = len(centres)
    rbf[:] = 0
    for i in range(len(edge_ptr) - 1):
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            for f in range(edge_ptr[i], edge_ptr[i + 1]):
                if f != e:
                    cos = (
                        direction[e, 0] * direction[f, 0]
                        + direction[e, 1] * direction[f, 1]
                        + direction[e, 2] * direction[f, 2]
                    )
                    for g in range(n):
                        u = (cos - centres[g]) * inverse_width
                        gaussian = exponential(-u * u)
                        for m in range(weight.shape[1]):
                            rbf[e, m * n + g] += weight[f, m] * gaussian


def geometry_embed_forward(u_r: Array, u_omega: Array, b_r: Array, b_omega: Array) -> tuple[Array, Array, Array]:
    """See the reference.

    Memory   v_r and v_omega are written over u_r and u_omega
    """
    geo = empty(u_r.shape, u_r.dtype)
    _geometry_embed_forward_kernel(geo, u_r, u_omega, b_r, b_omega)
    return geo, u_r, u_omega


def geometry_embed_backward(grad_geo: Array, v_r: Array, v_omega: Array) -> tuple[Array, Array, Array, Array]:
    """See the reference."""
    grads = empties(v_r.dtype, v_r.shape, v_r.shape, v_r.shape[1:], v_r.shape[1:])
    _geometry_embed_backward_kernel(*grads, grad_geo, v_r, v_omega)
    return tuple(grads)


@kernel(fastmath=True)
def _geometry_embed_forward_kernel(geo, u_r, u_omega, b_r, b_omega):
    for e in range(geo.shape[0]):
        for d in range(geo.shape[1]):
            v_r = u_r[e, d] + b_r[d]
            v_omega = u_omega[e, d] + b_omega[d]
            u_r[e, d] = v_r
            u_omega[e, d] = v_omega
            geo[e, d] = v_r * sigmoid(v_r) * v_omega * sigmoid(v_omega)


@kernel(fastmath=True)
def _geometry_embed_backward_kernel(grad_u_r, grad_u_omega, grad_b_r, grad_b_omega, grad_geo, v_r, v_omega):
    one = v_r.dtype.type(1)
    grad_b_r[:] = 0
    grad_b_omega[:] = 0
    for e in range(v_r.shape[0]):
        for d in range(v_r.shape[1]):
            s_r = sigmoid(v_r[e, d])
            s_omega = sigmoid(v_omega[e, d])
            # forward: geo = swish(v_r) swish(v_omega)
            grad_r = grad_geo[e, d] * v_omega[e, d] * s_omega * s_r * (one + v_r[e, d] * (one - s_r))
            grad_omega = grad_geo[e, d] * v_r[e, d] * s_r * s_omega * (one + v_omega[e, d] * (one - s_omega))
            grad_u_r[e, d] = grad_r
            grad_u_omega[e, d] = grad_omega
            grad_b_r[d] += grad_r
            grad_b_omega[d] += grad_omega
