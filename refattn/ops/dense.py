"""Dense layers, the same line for NumPy and CuPy arrays; inside a shard BLAS runs on one thread."""

import numpy as np

from refattn.ops.into import add


def dense_forward(x, w, b=None, empty=np.empty, xp=np):
    """y[n,o] = sum_i x[n,i] w[i,o] + b[o].

    Parameters
    ----------
    x : (N, I); w : (I, O); b : (O,), optional
    empty : callable (shape, dtype) -> array
        Where the result comes from: the backend's pool of work arrays.
    xp : module, numpy or cupy

    Returns
    -------
    y : (N, O)
    """
    y = xp.matmul(x, w, out=empty((x.shape[0], w.shape[1]), x.dtype))
    if b is not None:
        y += b
    return y


def dense_backward(grad_y, x, w, grad_w=None, grad_b=None, add_to=None, empty=np.empty, xp=np):
    """grad_x = grad_y w^T; grad_w = x^T grad_y; grad_b = sum_n grad_y[n].

    Parameters
    ----------
    grad_y : (N, O); x : (N, I); w : (I, O)
    grad_w : (I, O), grad_b : (O,), optional
        Where to write the two, overwriting what is there; a missing one is not computed.
    add_to : (N, I), optional
        A gradient by x that is known already: grad_x is added to it in place.

    Returns
    -------
    grad_x : (N, I)
    """
    if grad_w is not None:
        xp.matmul(x.T, grad_y, out=grad_w)
    if grad_b is not None:
        xp.sum(grad_y, axis=0, out=grad_b)
    grad_x = xp.matmul(grad_y, w.T, out=empty((grad_y.shape[0], w.shape[0]), grad_y.dtype))
    return add(add_to, grad_x)
