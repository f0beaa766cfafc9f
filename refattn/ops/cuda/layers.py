"""Dense layer, swish, layer normalisation and dropout on the device; equations in reference/layers.py.

Products are cuBLAS's, the rest kernels.
"""

import math

import numpy as np

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.launch import ZERO, block_sum, column_sums, launch, partial_sums
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.random import scramble
from refattn.ops.cuda.sigmoid import sigmoid, swish_slope
from refattn.ops.cuda.toolchain import cuda, device, kernel
from refattn.ops.reference.layers import EPSILON
from refattn.ops.types import Array, DenseWeights


def dense_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """See the reference.

    Traffic   reads I, writes O floats a row; with b reads and writes O once more
    """
    y = toolchain.multiply(x, w, empty((x.shape[0], w.shape[1]), x.dtype))
    if b is not None:
        launch(_add_bias_kernel, *y.shape, y, b)
    return y


def dense_backward(
    grad_y: Array,
    x: Array,
    w: Array,
    accumulate_into: Array | None = None,
    out: DenseWeights | None = None,
    input_gradients: bool = True,
) -> tuple[Array | None, Array, Array | None]:
    """See the reference. Adding to an array is part of the product.

    Traffic   reads 2 O + I, writes I floats a row; for grad_b reads O once more, for accumulate_into I
    """
    if out is None:
        out = DenseWeights(empty(w.shape, w.dtype), column_total(grad_y))
    elif out.b is not None:
        out.b[...] = column_total(grad_y)
    toolchain.multiply(x.T, grad_y, out.w)
    if not input_gradients:
        return None, *out
    grad_x = empty((grad_y.shape[0], w.shape[0]), grad_y.dtype) if accumulate_into is None else accumulate_into
    return toolchain.multiply(grad_y, w.T, grad_x, accumulate_into is not None), *out


@kernel
def _add_bias_kernel(y, b):
    n_rows, width = y.shape
    d = cuda.threadIdx.x
    if d < width:
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            y[n, d] += b[d]


def column_total(x: Array) -> Array:
    """(D,) sum over the rows of (N, D), in an order that depends on N alone."""
    partial = partial_sums(1, *x.shape, x.dtype)
    launch(_column_total_kernel, *x.shape, partial, x)
    return column_sums(partial)[0]


@kernel
def _column_total_kernel(partial, x):
    n_rows, width = x.shape
    d = cuda.threadIdx.x
    if d < width:
        total = x.dtype.type(0)
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            total += x[n, d]
        partial[0, cuda.blockIdx.x, d] = total


def swish_forward(u: Array, b: Array) -> tuple[Array, Array]:
    """See the reference.

    Memory    v is written over u
    Traffic   reads D, writes 2 D floats a row
    """
    y = empty(u.shape, u.dtype)
    launch(_swish_forward_kernel, *u.shape, y, u, b)
    return y, u


def swish_backward(grad_y: Array, v: Array) -> tuple[Array, Array]:
    """See the reference.

    Traffic   reads 2 D, writes D floats a row
    """
    grad_u = empty(v.shape, v.dtype)
    partial = partial_sums(1, *v.shape, v.dtype)
    launch(_swish_backward_kernel, *v.shape, grad_u, partial, grad_y, v)
    return grad_u, column_sums(partial)[0]


@kernel
def _swish_forward_kernel(y, u, b):
    n_rows, width = u.shape
    d = cuda.threadIdx.x
    if d < width:
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            v = u[n, d] + b[d]
            u[n, d] = v
            y[n, d] = v * sigmoid(v)


@kernel
def _swish_backward_kernel(grad_u, partial, grad_y, v):
    n_rows, width = v.shape
    d = cuda.threadIdx.x
    if d < width:
        total = v.dtype.type(0)
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            grad = grad_y[n, d] * swish_slope(v[n, d])
            grad_u[n, d] = grad
            total += grad
        partial[0, cuda.blockIdx.x, d] = total


def residual_layernorm_forward(x: Array, residual: Array, gain: Array, offset: Array) -> tuple[Array, Array, Array]:
    """See the reference.

    Traffic   reads 2 D, writes 2 D + 1 floats a row
    """
    y, x_hat, rstd = empty(x.shape, x.dtype), empty(x.shape, x.dtype), empty(x.shape[:1], x.dtype)
    launch(_residual_layernorm_forward_kernel, *x.shape, y, x_hat, rstd, x, residual, gain, offset)
    return y, x_hat, rstd


def residual_layernorm_backward(grad_y: Array, gain: Array, x_hat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """See the reference.

    Traffic   reads 2 D + 1, writes D floats a row
    """
    grad_x = empty(x_hat.shape, x_hat.dtype)
    partial = partial_sums(2, *x_hat.shape, x_hat.dtype)
    launch(_residual_layernorm_backward_kernel, *x_hat.shape, grad_x, partial, grad_y, gain, x_hat, rstd)
    return grad_x, *column_sums(partial)


@device
def normalise(buffer, u, inside, size):
    """x_hat of the thread's column, and rstd of the row, from u = x + residual: two sums over the row.

    inside : bool   whether the thread has a column; u is 0 where it has none
    size : float    the number of columns
    """
    centred = u - block_sum(buffer, u) / size
    if not inside:
        centred = u
    variance = block_sum(buffer, centred * centred) / size
    rstd = buffer.dtype.type(1) / math.sqrt(variance + buffer.dtype.type(EPSILON))
    return centred * rstd, rstd


@device
def normalise_gradient(buffer, g, x_hat, rstd, size):
    """grad_x of the thread's column from g = grad_y gain: two sums over the row."""
    mean = block_sum(buffer, g) / size
    projection = block_sum(buffer, g * x_hat) / size
    return rstd * (g - mean - x_hat * projection)


@kernel
def _residual_layernorm_forward_kernel(y, x_hat, rstd, x, residual, gain, offset):
    n_rows, width = x.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, x.dtype)
    zero, size = x.dtype.type(0), x.dtype.type(width)
    for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
        u = x[n, d] + residual[n, d] if d < width else zero
        row, rstd_row = normalise(buffer, u, d < width, size)
        if d < width:
            x_hat[n, d] = row
            y[n, d] = gain[d] * row + offset[d]
        if d == 0:
            rstd[n] = rstd_row


@kernel
def _residual_layernorm_backward_kernel(grad_x, partial, grad_y, gain, x_hat, rstd):
    n_rows, width = x_hat.shape
    d = cuda.threadIdx.x
    buffer = cuda.shared.array(0, x_hat.dtype)
    zero, size = x_hat.dtype.type(0), x_hat.dtype.type(width)
    total_gain = total_offset = zero
    for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
        grad = grad_y[n, d] if d < width else zero
        row = x_hat[n, d] if d < width else zero
        g = grad * gain[d] if d < width else zero
        grad_row = normalise_gradient(buffer, g, row, rstd[n], size)
        if d < width:
            grad_x[n, d] = grad_row
            total_gain += grad * row
            total_offset += grad
    if d < width:
        partial[0, cuda.blockIdx.x, d] = total_gain
        partial[1, cuda.blockIdx.x, d] = total_offset


def dropout_forward(x: Array, key: Array, rate: float) -> Array:
    """See the reference: the same bits.

    Traffic   reads D and a key of 8 bytes, writes D floats a row
    """
    y = empty(x.shape, x.dtype)
    threshold = np.uint32(np.ceil(rate * 2**24))
    launch(_dropout_kernel, *x.shape, y, x, key, threshold, x.dtype.type(1 / (1 - rate)))
    return y


def dropout_backward(grad_y: Array, key: Array, rate: float) -> Array:
    """See the reference: the same bits."""
    return dropout_forward(grad_y, key, rate)


@kernel
def _dropout_kernel(y, x, key, threshold, scale):
    n_rows, width = x.shape
    d = cuda.threadIdx.x
    if d < width:
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            y[n, d] = x[n, d] * scale if (scramble(key[n], d) >> np.uint32(8)) >= threshold else ZERO
