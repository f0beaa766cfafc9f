"""The table of the elements as Numba kernels; equations in reference/embedding.py."""

from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.simd.kernel import kernel


def embedding_forward(table, z):
    """See the reference."""
    c = empty((len(z), table.shape[1]), table.dtype)
    _embedding_forward_kernel(c, table, z)
    return c


def embedding_backward(grad_c, table, z):
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
