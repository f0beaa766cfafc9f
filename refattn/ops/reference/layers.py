"""Dense layer, swish, layer normalisation and dropout: what acts on one row at a time."""

import numpy as np

from refattn.ops.random import uniform
from refattn.ops.types import Array, DenseWeights

EPSILON = 1e-6  # authors' code; Keras's own default is 1e-3


def dense_forward(x: Array, w: Array, b: Array | None = None) -> Array:
    """Dense layer.

    y[n,o] = sum_i x[n,i] w[i,o] + b[o]

    Parameters
    ----------
    x : (N, I) float; w : (I, O) float; b : (O,) float, optional

    Returns
    -------
    y : (N, O)

    Source   Keras, Dense
    """
    y = x @ w
    if b is not None:
        y += b
    return y


def dense_backward(
    grad_y: Array,
    x: Array,
    w: Array,
    accumulate_into: Array | None = None,
    out: DenseWeights | None = None,
    input_gradients: bool = True,
) -> tuple[Array | None, Array, Array | None]:
    """Backward of dense_forward.

    grad_x = grad_y w^T;  grad_w = x^T grad_y;  grad_b = sum_n grad_y[n]

    Parameters
    ----------
    grad_y : (N, O) float; x : (N, I) float; w : (I, O) float
    accumulate_into : (N, I) float, optional
        A gradient by x that is known already: grad_x is added to it in place.
    out : DenseWeights, optional
        Where to write grad_w and grad_b, overwriting what is there. Where its b is None, grad_b is not computed.
    input_gradients : bool
        Whether grad_x is asked for.

    Returns
    -------
    grad_x : (N, I), or None; grad_w : (I, O); grad_b : (O,), or None
    """
    grads = DenseWeights(x.T @ grad_y, grad_y.sum(axis=0) if out is None or out.b is not None else None)
    grad_x = accumulated(accumulate_into, grad_y @ w.T) if input_gradients else None
    return grad_x, *written(out, grads)


def accumulated(accumulate_into: Array | None, array: Array) -> Array:
    """The array itself; or `accumulate_into`, to which it is added in place."""
    if accumulate_into is None:
        return array
    accumulate_into += array
    return accumulate_into


def written(out: tuple | None, arrays: tuple) -> tuple:
    """A named tuple of arrays itself; or `out`, overwritten with it where it has an array."""
    if out is None:
        return arrays
    for target, array in zip(out, arrays, strict=True):
        if array is not None:
            target[...] = array
    return out


def sigmoid(v: Array) -> Array:
    """1 / (1 + exp(-v)), without overflow for either sign. Shape and type of v."""
    small = np.exp(-np.abs(v))
    return np.where(v >= 0, 1 / (1 + small), small / (1 + small))


def swish_forward(u: Array, b: Array) -> tuple[Array, Array]:
    """Bias and swish of a dense layer.

    y[n,d] = v[n,d] sigmoid(v[n,d]),  v = u + b

    Parameters
    ----------
    u : (N, D) float; b : (D,) float

    Returns
    -------
    y, v : (N, D)

    Source   Ramachandran et al., arXiv 1710.05941 (2017), beta = 1
    """
    v = u + b
    return v * sigmoid(v), v


def swish_backward(grad_y: Array, v: Array) -> tuple[Array, Array]:
    """Backward of swish_forward. Needs v, neither u nor y.

    grad_u = grad_y s (1 + v (1 - s)),  s = sigmoid(v);  grad_b = sum_n grad_u[n]

    Parameters
    ----------
    grad_y, v : (N, D) float

    Returns
    -------
    grad_u : (N, D); grad_b : (D,)
    """
    s = sigmoid(v)
    grad_u = grad_y * s * (1 + v * (1 - s))
    return grad_u, grad_u.sum(axis=0)


def residual_layernorm_forward(x: Array, residual: Array, gain: Array, offset: Array) -> tuple[Array, Array, Array]:
    """Layer normalisation of a sum, over the last axis.

    y[n,d] = gain[d] x_hat[n,d] + offset[d],  x_hat = (u - mean_d u) rstd,  u = x + residual,
    rstd[n] = (mean_d (u - mean_d u)^2 + 1e-6)^-1/2

    Parameters
    ----------
    x, residual : (N, D) float; gain, offset : (D,) float

    Returns
    -------
    y, x_hat : (N, D); rstd : (N,)

    Source   Ba et al., arXiv 1607.06450 (2016), Eq. (3), (4)
    """
    u = x + residual
    centred = u - u.mean(axis=1, keepdims=True)
    rstd = 1 / np.sqrt((centred**2).mean(axis=1) + EPSILON)
    x_hat = centred * rstd[:, None]
    return gain * x_hat + offset, x_hat, rstd


def residual_layernorm_backward(grad_y: Array, gain: Array, x_hat: Array, rstd: Array) -> tuple[Array, Array, Array]:
    """Backward of residual_layernorm_forward. Needs the normalised x_hat, neither x nor residual.

    grad_x[n,d] = rstd[n] (g[n,d] - mean_d g[n,d] - x_hat[n,d] mean_d(g[n,d] x_hat[n,d])),  g = grad_y gain
    grad_gain = sum_n grad_y x_hat;  grad_offset = sum_n grad_y

    Parameters
    ----------
    grad_y, x_hat : (N, D) float; gain : (D,) float; rstd : (N,) float

    Returns
    -------
    grad_x : (N, D), the gradient by x and by residual alike; grad_gain, grad_offset : (D,)

    Source   Ba et al. 2016, Eq. (3), (4), differentiated
    """
    g = grad_y * gain
    projection = (g * x_hat).mean(axis=1, keepdims=True)
    grad_x = rstd[:, None] * (g - g.mean(axis=1, keepdims=True) - x_hat * projection)
    return grad_x, (grad_y * x_hat).sum(axis=0), grad_y.sum(axis=0)


def dropout_forward(x: Array, key: Array, rate: float) -> Array:
    """Dropout with a counter-based generator: the mask is a function of the row's key and the column.

    y[n,d] = x[n,d] / (1 - rate) where uniform(key[n], d) >= rate, else 0

    Parameters
    ----------
    x : (N, D) float
    key : (N,) uint64     of the row
    rate : float          in [0, 1)

    Returns
    -------
    y : (N, D)

    Source   Srivastava et al., JMLR 15, 1929 (2014); generator: refattn/ops/random.py
    """
    return np.where(uniform(key, x.shape[1]) >= rate, x * x.dtype.type(1 / (1 - rate)), x.dtype.type(0))


def dropout_backward(grad_y: Array, key: Array, rate: float) -> Array:
    """Backward of dropout_forward: the same mask, drawn again. Needs neither x nor a stored mask.

    grad_x[n,d] = grad_y[n,d] / (1 - rate) where uniform(key[n], d) >= rate, else 0

    Parameters
    ----------
    grad_y : (N, D) float; key : (N,) uint64; rate : float

    Returns
    -------
    grad_x : (N, D)
    """
    return dropout_forward(grad_y, key, rate)
