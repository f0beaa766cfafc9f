"""Dense layers in one kernel each: bias before, sums beside the product; as refattn/ops/dense.py."""

import numpy as np

from refattn.jit import jit
from refattn.ops.cpu.blas import add_product, add_product_transposed, add_transposed_product, gemm_of
from refattn.ops.cpu.memory import empty


def dense(x, w, b=None):
    """See dense_forward of refattn/ops/dense.py."""
    y = empty((x.shape[0], w.shape[1]), x.dtype)
    _dense_kernel(y, x, w, np.empty(0, x.dtype) if b is None else b, gemm_of(x.dtype))
    return y


def dense_gradients(grad_y, x, w, grad_w=None, grad_b=None, add_to=None):
    """See dense_backward of refattn/ops/dense.py."""
    grad_x = empty((grad_y.shape[0], w.shape[0]), grad_y.dtype) if add_to is None else add_to
    grad_w = np.empty((0, 0), x.dtype) if grad_w is None else grad_w
    grad_b = np.empty(0, x.dtype) if grad_b is None else grad_b
    beta = x.dtype.type(add_to is not None)
    _dense_gradients_kernel(grad_x, grad_w, grad_b, grad_y, x, w, beta, gemm_of(x.dtype))
    return grad_x


@jit(fastmath=True)
def _dense_kernel(y, x, w, b, gemm):
    """An array without numbers stands for a bias that is missing."""
    for n in range(len(y)):
        for d in range(len(b)):
            y[n, d] = b[d]
    add_product(gemm, y, x, w, x.dtype.type(len(b) > 0))


@jit(fastmath=True)
def _dense_gradients_kernel(grad_x, grad_w, grad_b, grad_y, x, w, beta, gemm):
    """Arrays without numbers stand for gradients that are not asked for."""
    add_product_transposed(gemm, grad_x, grad_y, w, beta)
    if grad_w.size:
        add_transposed_product(gemm, grad_w, x, grad_y, grad_y.dtype.type(0))
    if len(grad_b):
        grad_b[:] = 0
        for n in range(len(grad_y)):
            for d in range(len(grad_b)):
                grad_b[d] += grad_y[n, d]
