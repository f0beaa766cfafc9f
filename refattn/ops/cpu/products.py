"""Dense layers in one kernel each: bias before, sums beside the product; as refattn/ops/dense.py."""

import numpy as np

from refattn.ops.cpu.memory import empty, scratch
from refattn.ops.cpu.simd.gemm import add_transposed_product, multiply, pack, panels_of
from refattn.ops.cpu.simd.kernel import kernel

DEPTH = 192  # rows of x that are summed up at once for grad_w: their panel of grad_y stays in the first-level cache


def dense(x, w, b=None):
    """See dense_forward of refattn/ops/dense.py."""
    y = empty((x.shape[0], w.shape[1]), x.dtype)
    _dense_kernel(y, *scratch(x.dtype, (panels_of(*w.shape, x.dtype),)), x, w, b)
    return y


def dense_gradients(grad_y, x, w, grad_w=None, grad_b=None, add_to=None):
    """See dense_backward of refattn/ops/dense.py."""
    grad_x = empty((grad_y.shape[0], w.shape[0]), grad_y.dtype) if add_to is None else add_to
    grad_w = np.empty((0, 0), x.dtype) if grad_w is None else grad_w
    grad_b = np.empty(0, x.dtype) if grad_b is None else grad_b
    panels = (panels_of(*w.shape[::-1], x.dtype),), (panels_of(DEPTH, w.shape[1], x.dtype),)
    _dense_gradients_kernel(grad_x, grad_w, grad_b, *scratch(x.dtype, *panels), add_to, grad_y, x, w)
    return grad_x


@kernel
def _dense_kernel(y, panels, x, w, b):
    pack(panels, w)
    multiply(y, b, x, panels)


@kernel(fastmath=True)
def _dense_gradients_kernel(grad_x, grad_w, grad_b, panels_w, panels, start, grad_y, x, w):
    """Arrays without numbers stand for gradients that are not asked for."""
    pack(panels_w, w.T)
    multiply(grad_x, start, grad_y, panels_w)
    if grad_w.size:
        grad_w[:] = 0
        for first in range(0, len(x), DEPTH):
            last = min(first + DEPTH, len(x))
            add_transposed_product(grad_w, x[first:last], grad_y[first:last], panels)
    if len(grad_b):
        grad_b[:] = 0
        for n in range(len(grad_y)):
            for d in range(len(grad_b)):
                grad_b[d] += grad_y[n, d]
