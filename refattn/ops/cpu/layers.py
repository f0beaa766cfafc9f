"""Dense layer, swish, layer normalisation and dropout as Numba kernels; equations in reference/layers.py."""

import functools
import math
from collections.abc import Callable

import numpy as np

from refattn.ops.cpu.memory import empties, empty, scratch
from refattn.ops.cpu.simd.dropout import drop
from refattn.ops.cpu.simd.gemm import add_transposed_product, multiply, pack, panels_of
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import sigmoid
from refattn.ops.cpu.simd.vector import lanes_for, load, number_of, row_view, store, sum_of, zeros
from refattn.ops.reference.layers import EPSILON
from refattn.ops.types import Array, DenseWeights

DEPTH = 192  # rows of x that are summed up at once for grad_w: their panel of grad_y stays in the first-level cache


def dense_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """See the reference."""
    y = empty((x.shape[0], w.shape[1]), x.dtype)
    _dense_forward_kernel(y, *_panels(x.dtype, w.shape), x, w, b)
    return y


def dense_backward(
    grad_y: Array,
    x: Array,
    w: Array,
    accumulate_into: Array | None = None,
    out: DenseWeights | None = None,
    input_gradients: bool = True,
) -> tuple[Array | None, Array, Array | None]:
    """See the reference.

    Deterministic   rows are added to grad_w in blocks of DEPTH, in order
    """
    dtype = x.dtype
    grad_x = accumulate_into
    if input_gradients and grad_x is None:
        grad_x = empty((grad_y.shape[0], w.shape[0]), dtype)
    out = out or DenseWeights(*empties(dtype, w.shape, w.shape[1:]))
    grad_b = _no_numbers(dtype) if out.b is None else out.b
    panels = _panels(dtype, w.shape[::-1], (DEPTH, w.shape[1]))
    _dense_backward_kernel(grad_x, out.w, grad_b, *panels, accumulate_into, grad_y, x, w)
    return grad_x, *out


@scratch
def _panels(cut: Callable, dtype: np.dtype, *shapes: tuple) -> tuple:
    """Work arrays for the panels of factors of these shapes."""
    return cut(dtype, *((panels_of(*shape, dtype),) for shape in shapes))


@functools.cache
def _no_numbers(dtype):
    return np.empty(0, dtype)


@kernel
def _dense_forward_kernel(y, panels, x, w, b):
    pack(panels, w)
    multiply(y, b, x, panels)


@kernel(fastmath=True)
def _dense_backward_kernel(grad_x, grad_w, grad_b, panels_w, panels, start, grad_y, x, w):
    """grad_b has no numbers, and grad_x is None, where it is not asked for."""
    if grad_x is not None:
        pack(panels_w, w.T)
        multiply(grad_x, start, grad_y, panels_w)
    grad_w[:] = 0
    for first in range(0, len(x), DEPTH):
        last = min(first + DEPTH, len(x))
        add_transposed_product(grad_w, x[first:last], grad_y[first:last], panels)
    if len(grad_b):
        grad_b[:] = 0
        for n in range(len(grad_y)):
            for d in range(len(grad_b)):
                grad_b[d] += grad_y[n, d]


def swish_forward(u: Array, b: Array) -> tuple[Array, Array]:
    """See the reference.

    Memory   v is written over u
    """
    y = empty(u.shape, u.dtype)
    _swish_forward_kernel(y, u, b)
    return y, u


def swish_backward(grad_y: Array, v: Array) -> tuple[Array, Array]:
    """See the reference.

    Accumulator   grad_b in the type of v, row by row
    """
    grad_u, grad_b = empties(v.dtype, v.shape, v.shape[1:])
    _swish_backward_kernel(grad_u, grad_b, grad_y, v)
    return grad_u, grad_b


@kernel(fastmath=True)
def _swish_forward_kernel(y, u, b):
    for n in range(u.shape[0]):
        for d in range(u.shape[1]):
            v = u[n, d] + b[d]
            u[n, d] = v
            y[n, d] = v * sigmoid(v)


@kernel(fastmath=True)
def _swish_backward_kernel(grad_u, grad_b, grad_y, v):
    one = v.dtype.type(1)
    grad_b[:] = 0
    for n in range(v.shape[0]):
        for d in range(v.shape[1]):
            s = sigmoid(v[n, d])
            grad = grad_y[n, d] * s * (one + v[n, d] * (one - s))
            grad_u[n, d] = grad
            grad_b[d] += grad


def residual_layernorm_forward(x: Array, residual: Array, gain: Array, offset: Array) -> tuple[Array, Array, Array]:
    """See the reference."""
    y, x_hat, rstd = empties(x.dtype, x.shape, x.shape, x.shape[:1])
    _residual_layernorm_forward_kernel(y, x_hat, rstd, x, residual, gain, offset, lanes_for(x.shape[1], x.dtype))
    return y, x_hat, rstd


def residual_layernorm_backward(grad_y: Array, gain: Array, x_hat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """See the reference.

    Accumulator   grad_gain and grad_offset in the type of x_hat, row by row
    """
    grad_x, grad_gain, grad_offset = empties(x_hat.dtype, x_hat.shape, gain.shape, gain.shape)
    lanes = lanes_for(x_hat.shape[1], x_hat.dtype)
    _residual_layernorm_backward_kernel(grad_x, grad_gain, grad_offset, grad_y, gain, x_hat, rstd, lanes)
    return grad_x, grad_gain, grad_offset


@kernel(fastmath=True, inline=True)
def add_and_normalise_row(y, x_hat, x, residual, gain, offset, lanes):
    """y = gain x_hat + offset, x_hat the normalised x + residual; returns rstd. One row."""
    total = zeros(x_hat, lanes)
    for d in range(0, len(x_hat), len(lanes)):
        u = load(x, d, lanes) + load(residual, d, lanes)
        store(x_hat, d, u)
        total = total + u
    return normalise_row(y, x_hat, sum_of(total), gain, offset, lanes)


@kernel(fastmath=True, inline=True)
def normalise_row(y, x_hat, total, gain, offset, lanes):
    """Normalise x_hat (D,), whose sum is `total`, in place; y = gain x_hat + offset; returns rstd. One row."""
    mean = total / number_of(x_hat, len(x_hat))
    square = zeros(x_hat, lanes)
    for d in range(0, len(x_hat), len(lanes)):
        centred = load(x_hat, d, lanes) - mean
        square = square + centred * centred
    rstd = inverse_deviation(sum_of(square), x_hat)
    for d in range(0, len(x_hat), len(lanes)):
        u = (load(x_hat, d, lanes) - mean) * rstd
        store(x_hat, d, u)
        store(y, d, load(gain, d, lanes) * u + load(offset, d, lanes))
    return rstd


@kernel(fastmath=True, inline=True)
def inverse_deviation(square, row):
    """rstd of a row from the sum of its centred numbers' squares."""
    return number_of(row, 1) / np.sqrt(square / number_of(row, len(row)) + number_of(row, EPSILON))


@kernel(fastmath=True, inline=True)
def add_row_gradient(grad_x, grad_gain, grad_offset, grad_y, gain, x_hat, rstd, lanes):
    """Gradient of one row; adds to grad_gain and grad_offset (D,). grad_x may be grad_y."""
    total = projection = zeros(x_hat, lanes)
    for d in range(0, len(x_hat), len(lanes)):
        grad = load(grad_y, d, lanes)
        row = load(x_hat, d, lanes)
        store(grad_gain, d, load(grad_gain, d, lanes) + grad * row)
        store(grad_offset, d, load(grad_offset, d, lanes) + grad)
        g = grad * load(gain, d, lanes)
        total = total + g
        projection = projection + g * row
    width = number_of(x_hat, len(x_hat))
    mean = sum_of(total) / width
    slope = sum_of(projection) / width
    for d in range(0, len(x_hat), len(lanes)):
        g = load(grad_y, d, lanes) * load(gain, d, lanes)
        store(grad_x, d, (g - mean - load(x_hat, d, lanes) * slope) * rstd)


@kernel(fastmath=True)
def _residual_layernorm_forward_kernel(y, x_hat, rstd, x, residual, gain, offset, lanes):
    gain, offset = row_view(gain, ()), row_view(offset, ())
    for n in range(x.shape[0]):
        rstd[n] = add_and_normalise_row(
            row_view(y, n), row_view(x_hat, n), row_view(x, n), row_view(residual, n), gain, offset, lanes
        )


@kernel(fastmath=True)
def _residual_layernorm_backward_kernel(grad_x, grad_gain, grad_offset, grad_y, gain, x_hat, rstd, lanes):
    grad_gain[:] = 0
    grad_offset[:] = 0
    gain, grad_gain, grad_offset = row_view(gain, ()), row_view(grad_gain, ()), row_view(grad_offset, ())
    for n in range(x_hat.shape[0]):
        add_row_gradient(
            row_view(grad_x, n), grad_gain, grad_offset, row_view(grad_y, n), gain, row_view(x_hat, n), rstd[n], lanes
        )


def dropout_forward(x: Array, key: Array, rate: float) -> Array:
    """See the reference: the same bits."""
    y = empty(x.shape, x.dtype)
    _dropout_kernel(y, x, key, threshold_of(rate, x.dtype), lanes_for(x.shape[1], x.dtype))
    return y


def dropout_backward(grad_y: Array, key: Array, rate: float) -> Array:
    """See the reference: the same bits."""
    return dropout_forward(grad_y, key, rate)


@functools.cache
def threshold_of(rate: float, dtype: np.dtype) -> tuple:
    """The 24-bit number from which on something is kept, and the factor of what is."""
    return np.uint32(math.ceil(rate * 2**24)), np.dtype(dtype).type(1 / (1 - rate))


@kernel(inline=True)
def drop_row(y, x, key, threshold, lanes):
    """y is x, which may be y, with a part of it dropped: one row. See threshold_of for `threshold`."""
    first_kept, scale = threshold
    for d in range(0, len(x), len(lanes)):
        store(y, d, drop(load(x, d, lanes), key, d, first_kept, scale))


@kernel
def _dropout_kernel(y, x, key, threshold, lanes):
    for n in range(x.shape[0]):
        drop_row(row_view(y, n), row_view(x, n), key[n], threshold, lanes)
