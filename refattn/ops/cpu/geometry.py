"""Geometry features of the edges as Numba kernels; equations in reference/geometry.py."""

from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.norm import add_row_gradient, normalise_row
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import exponential, sigmoid
from refattn.ops.cpu.simd.vector import lanes_for, load, row_of, store, sum_of, zeros


def gaussian_expand_forward(x, centres, width):
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


def geometry_embed_forward(u_r, u_omega, b_r, b_omega):
    """See the reference.

    Memory   v_r and v_omega are written over u_r and u_omega
    """
    geo = empty(u_r.shape, u_r.dtype)
    _geometry_embed_forward_kernel(geo, u_r, u_omega, b_r, b_omega)
    return geo, u_r, u_omega


def geometry_embed_backward(grad_geo, v_r, v_omega):
    """See the reference."""
    grad_u_r, grad_u_omega = empty(v_r.shape, v_r.dtype), empty(v_r.shape, v_r.dtype)
    grad_b_r, grad_b_omega = empty(v_r.shape[1:], v_r.dtype), empty(v_r.shape[1:], v_r.dtype)
    _geometry_embed_backward_kernel(grad_u_r, grad_u_omega, grad_b_r, grad_b_omega, grad_geo, v_r, v_omega)
    return grad_u_r, grad_u_omega, grad_b_r, grad_b_omega


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
            s_r, s_omega = sigmoid(v_r[e, d]), sigmoid(v_omega[e, d])
            # forward: geo = swish(v_r) swish(v_omega)
            grad_r = grad_geo[e, d] * v_omega[e, d] * s_omega * s_r * (one + v_r[e, d] * (one - s_r))
            grad_omega = grad_geo[e, d] * v_r[e, d] * s_r * s_omega * (one + v_omega[e, d] * (one - s_omega))
            grad_u_r[e, d] = grad_r
            grad_u_omega[e, d] = grad_omega
            grad_b_r[d] += grad_r
            grad_b_omega[d] += grad_omega


def geometry_filter_forward(u, b, weight):
    """See the reference.

    Memory   v is written over u
    """
    geo = empty(u.shape, u.dtype)
    _geometry_filter_forward_kernel(geo, u, b, weight)
    return geo, u


def geometry_filter_backward(grad_geo, weight, v):
    """See the reference."""
    grad_u, grad_b, grad_weight = empty(v.shape, v.dtype), empty(v.shape[1:], v.dtype), empty(v.shape[:1], v.dtype)
    _geometry_filter_backward_kernel(grad_u, grad_b, grad_weight, grad_geo, weight, v)
    return grad_u, grad_b, grad_weight


@kernel(fastmath=True)
def _geometry_filter_forward_kernel(geo, u, b, weight):
    for e in range(geo.shape[0]):
        for d in range(geo.shape[1]):
            v = u[e, d] + b[d]
            u[e, d] = v
            geo[e, d] = v * sigmoid(v) * weight[e]


@kernel(fastmath=True)
def _geometry_filter_backward_kernel(grad_u, grad_b, grad_weight, grad_geo, weight, v):
    one = v.dtype.type(1)
    grad_b[:] = 0
    for e in range(v.shape[0]):
        total = v.dtype.type(0)
        for d in range(v.shape[1]):
            s = sigmoid(v[e, d])
            # forward: geo = swish(v) weight
            total += grad_geo[e, d] * v[e, d] * s
            grad = grad_geo[e, d] * weight[e] * s * (one + v[e, d] * (one - s))
            grad_u[e, d] = grad
            grad_b[d] += grad
        grad_weight[e] = total


def geometry_update_forward(edge, centre, neighbour, geo, edge_ptr, nbr, gain, offset):
    """See the reference. Sum, swish, residual and layer norm of an edge in one pass.

    Memory   v is written over edge
    """
    new_geo, x_hat, rstd = (
        empty(edge.shape, edge.dtype),
        empty(edge.shape, edge.dtype),
        empty(edge.shape[:1], edge.dtype),
    )
    _geometry_update_forward_kernel(
        new_geo, x_hat, rstd, edge, centre, neighbour, geo, edge_ptr, nbr, gain, offset,
        lanes_for(edge.shape[1], edge.dtype),
    )  # fmt: skip
    return new_geo, edge, x_hat, rstd


def geometry_update_backward(grad_new_geo, edge_ptr, nbr, gain, v, x_hat, rstd):
    """See the reference.

    Deterministic   edges are added to their sites in order
    """
    sites = (len(edge_ptr) - 1, v.shape[1])
    grad_edge, grad_geo = empty(v.shape, v.dtype), empty(v.shape, v.dtype)
    grad_centre, grad_neighbour = empty(sites, v.dtype), empty(sites, v.dtype)
    grad_gain, grad_offset = empty(gain.shape, v.dtype), empty(gain.shape, v.dtype)
    grads = grad_edge, grad_centre, grad_neighbour, grad_geo, grad_gain, grad_offset
    lanes = lanes_for(v.shape[1], v.dtype)
    _geometry_update_backward_kernel(*grads, grad_new_geo, edge_ptr, nbr, gain, v, x_hat, rstd, lanes)
    return grads


@kernel(fastmath=True)
def _geometry_update_forward_kernel(
    new_geo, x_hat, rstd, edge, centre, neighbour, geo, edge_ptr, nbr, gain, offset, lanes
):
    gain, offset = row_of(gain, ()), row_of(offset, ())
    for i in range(len(edge_ptr) - 1):
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            j = nbr[e]
            of_edge, u = row_of(edge, e), row_of(x_hat, e)
            total = zeros(u, lanes)
            for d in range(0, len(u), len(lanes)):
                of_sites = load(row_of(centre, i), d, lanes) + load(row_of(neighbour, j), d, lanes)
                v = load(of_edge, d, lanes) + of_sites
                y = v * sigmoid(v) + load(row_of(geo, e), d, lanes)
                store(of_edge, d, v)
                store(u, d, y)
                total = total + y
            rstd[e] = normalise_row(row_of(new_geo, e), u, sum_of(total), gain, offset, lanes)


@kernel(fastmath=True)
def _geometry_update_backward_kernel(
    grad_edge, grad_centre, grad_neighbour, grad_geo, grad_gain, grad_offset, grad_new_geo, edge_ptr, nbr, gain, v,
    x_hat, rstd, lanes,
):  # fmt: skip
    one = v.dtype.type(1)
    grad_centre[:] = 0
    grad_neighbour[:] = 0
    grad_gain[:] = 0
    grad_offset[:] = 0
    gain, grad_gain, grad_offset = row_of(gain, ()), row_of(grad_gain, ()), row_of(grad_offset, ())
    for i in range(len(edge_ptr) - 1):
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            # forward: new_geo = LN(swish(v) + geo)
            grad_y, x_hat_e = row_of(grad_new_geo, e), row_of(x_hat, e)
            add_row_gradient(row_of(grad_geo, e), grad_gain, grad_offset, grad_y, gain, x_hat_e, rstd[e], lanes)
            # forward: v = edge + centre_i + neighbour_j
            j = nbr[e]
            for d in range(v.shape[1]):
                s = sigmoid(v[e, d])
                grad = grad_geo[e, d] * s * (one + v[e, d] * (one - s))
                grad_edge[e, d] = grad
                grad_centre[i, d] += grad
                grad_neighbour[j, d] += grad
