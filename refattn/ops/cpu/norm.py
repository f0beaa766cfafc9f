"""Swish, layer normalisation and dropout as Numba kernels; equations in reference/norm.py."""

import numpy as np

from refattn.jit import jit
from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.sigmoid import sigmoid
from refattn.ops.random import INCREMENT, MULTIPLIER_1, MULTIPLIER_2
from refattn.ops.reference.norm import EPSILON


def swish_forward(u, b):
    """See the reference.

    Memory   v is written over u
    """
    y = empty(u.shape, u.dtype)
    _swish_forward_kernel(y, u, b)
    return y, u


def swish_backward(grad_y, v):
    """See the reference.

    Accumulator   grad_b in the type of v, row by row
    """
    grad_u, grad_b = empty(v.shape, v.dtype), empty(v.shape[1:], v.dtype)
    _swish_backward_kernel(grad_u, grad_b, grad_y, v)
    return grad_u, grad_b


@jit(fastmath=True)
def _swish_forward_kernel(y, u, b):
    for n in range(u.shape[0]):
        for d in range(u.shape[1]):
            v = u[n, d] + b[d]
            u[n, d] = v
            y[n, d] = v * sigmoid(v)


@jit(fastmath=True)
def _swish_backward_kernel(grad_u, grad_b, grad_y, v):
    one = v.dtype.type(1)
    grad_b[:] = 0
    for n in range(v.shape[0]):
        for d in range(v.shape[1]):
            s = sigmoid(v[n, d])
            grad = grad_y[n, d] * s * (one + v[n, d] * (one - s))
            grad_u[n, d] = grad
            grad_b[d] += grad


def residual_layernorm_forward(x, residual, gain, offset):
    """See the reference."""
    y, x_hat, rstd = empty(x.shape, x.dtype), empty(x.shape, x.dtype), empty(x.shape[:1], x.dtype)
    _residual_layernorm_forward_kernel(y, x_hat, rstd, x, residual, gain, offset)
    return y, x_hat, rstd


def residual_layernorm_backward(grad_y, gain, x_hat, rstd):
    """See the reference.

    Accumulator   grad_gain and grad_offset in the type of x_hat, row by row
    """
    grad_x, grad_gain, grad_offset = (
        empty(x_hat.shape, x_hat.dtype),
        empty(gain.shape, gain.dtype),
        empty(gain.shape, gain.dtype),
    )
    _residual_layernorm_backward_kernel(grad_x, grad_gain, grad_offset, grad_y, gain, x_hat, rstd)
    return grad_x, grad_gain, grad_offset


@jit(fastmath=True, inline=True)
def normalise_row(y, x_hat, gain, offset):
    """Normalise x_hat (D,) in place, write y = gain x_hat + offset, and return rstd: one row of the layer norm."""
    width = x_hat.dtype.type(x_hat.shape[0])
    total = x_hat.dtype.type(0)
    for d in range(x_hat.shape[0]):
        total += x_hat[d]
    mean = total / width
    square = x_hat.dtype.type(0)
    for d in range(x_hat.shape[0]):
        x_hat[d] -= mean
        square += x_hat[d] * x_hat[d]
    rstd = x_hat.dtype.type(1) / np.sqrt(square / width + x_hat.dtype.type(EPSILON))
    for d in range(x_hat.shape[0]):
        x_hat[d] *= rstd
        y[d] = gain[d] * x_hat[d] + offset[d]
    return rstd


@jit(fastmath=True, inline=True)
def add_row_gradient(grad_x, grad_gain, grad_offset, grad_y, gain, x_hat, rstd):
    """Gradient of one row; adds to grad_gain and grad_offset (D,)."""
    width = x_hat.dtype.type(x_hat.shape[0])
    total = projection = x_hat.dtype.type(0)
    for d in range(x_hat.shape[0]):
        g = grad_y[d] * gain[d]
        total += g
        projection += g * x_hat[d]
        grad_gain[d] += grad_y[d] * x_hat[d]
        grad_offset[d] += grad_y[d]
    mean, projection = total / width, projection / width
    for d in range(x_hat.shape[0]):
        grad_x[d] = rstd * (grad_y[d] * gain[d] - mean - x_hat[d] * projection)


@jit(fastmath=True)
def _residual_layernorm_forward_kernel(y, x_hat, rstd, x, residual, gain, offset):
    for n in range(x.shape[0]):
        for d in range(x.shape[1]):
            x_hat[n, d] = x[n, d] + residual[n, d]
        rstd[n] = normalise_row(y[n], x_hat[n], gain, offset)


@jit(fastmath=True)
def _residual_layernorm_backward_kernel(grad_x, grad_gain, grad_offset, grad_y, gain, x_hat, rstd):
    grad_gain[:] = 0
    grad_offset[:] = 0
    for n in range(x_hat.shape[0]):
        add_row_gradient(grad_x[n], grad_gain, grad_offset, grad_y[n], gain, x_hat[n], rstd[n])


def dropout_forward(x, key, rate):
    """See the reference: the same bits."""
    y = empty(x.shape, x.dtype)
    _dropout_kernel(y, x, key, np.uint64(np.ceil(rate * 2**24)), x.dtype.type(1 / (1 - rate)))
    return y


def dropout_backward(grad_y, key, rate):
    """See the reference: the same bits."""
    return dropout_forward(grad_y, key, rate)


@jit
def _dropout_kernel(y, x, key, threshold, scale):
    zero = x.dtype.type(0)
    for n in range(x.shape[0]):
        for d in range(x.shape[1]):
            state = (key[n] + np.uint64(d)) * np.uint64(INCREMENT) + np.uint64(INCREMENT)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
            state ^= state >> np.uint64(31)
            y[n, d] = x[n, d] * scale if (state >> np.uint64(40)) >= threshold else zero
