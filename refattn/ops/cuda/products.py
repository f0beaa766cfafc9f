"""Dense layers on the device: products by cuBLAS, biases and their gradients by kernels; as refattn/ops/dense.py."""

from refattn.ops.cuda import toolchain
from refattn.ops.cuda.launch import column_sums, launch, partial_sums
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import cuda, kernel


class Arrays:
    """The library of the arrays, with the products of this project: cuBLAS inside a captured graph."""

    def __init__(self, matmul):
        self.matmul = matmul

    def ones(self, shape, dtype):
        """See numpy.ones."""
        array = empty(shape, dtype)
        array[...] = 1
        return array

    def __getattr__(self, name):
        return getattr(toolchain.xp, name)


def with_products(functions, tf32):
    """The operations of the backend and `xp`, by name, whose products are cuBLAS's; in TF32 if wanted."""
    functions = functions | {"xp": Arrays(toolchain.in_tf32(toolchain.multiply) if tf32 else toolchain.multiply)}
    if not tf32:
        return functions
    names = [name for name in functions if name.endswith(("_forward", "_backward"))]
    return functions | {name: toolchain.in_tf32(functions[name]) for name in names}


def dense(x, w, b=None):
    """See dense_forward of refattn/ops/dense.py.

    Traffic   reads I, writes O floats a row; with b reads and writes O once more
    """
    y = toolchain.multiply(x, w, empty((x.shape[0], w.shape[1]), x.dtype))
    if b is not None:
        launch(_add_bias_kernel, *y.shape, y, b)
    return y


def dense_gradients(grad_y, x, w, grad_w=None, grad_b=None, add_to=None):
    """See dense_backward of refattn/ops/dense.py. Adding to an array is part of the product.

    Traffic   reads 2 O + I, writes I floats a row; for grad_b reads O once more, for add_to I
    """
    if grad_w is not None:
        toolchain.multiply(x.T, grad_y, grad_w)
    if grad_b is not None:
        grad_b[...] = column_total(grad_y)
    grad_x = empty((grad_y.shape[0], w.shape[0]), grad_y.dtype) if add_to is None else add_to
    return toolchain.multiply(grad_y, w.T, grad_x, add_to is not None)


def column_total(x):
    """(D,) sum over the rows of (N, D), in an order that depends on N alone."""
    partial = partial_sums(1, *x.shape, x.dtype)
    launch(_column_total_kernel, *x.shape, partial, x)
    return column_sums(partial)[0]


@kernel
def _add_bias_kernel(y, b):
    n_rows, width = y.shape
    d = cuda.threadIdx.x
    if d < width:
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            y[n, d] += b[d]


@kernel
def _column_total_kernel(partial, x):
    n_rows, width = x.shape
    d = cuda.threadIdx.x
    if d < width:
        total = x.dtype.type(0)
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            total += x[n, d]
        partial[0, cuda.blockIdx.x, d] = total
