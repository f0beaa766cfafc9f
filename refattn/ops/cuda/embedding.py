"""The table of the elements as a CUDA kernel and a product; equations in reference/embedding.py."""

from refattn.ops.cuda.launch import launch
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import cuda, kernel, xp


def embedding_forward(table, z):
    """See the reference.

    Traffic   reads W + 1, writes W floats a site
    """
    c = empty((len(z), table.shape[1]), table.dtype)
    launch(_embedding_forward_kernel, *c.shape, c, table, z)
    return c


def embedding_backward(grad_c, table, z):
    """See the reference. A sum over few elements with many sites each: the product with the matrix a = z[i].

    Memory    that matrix, (A, N)
    Traffic   reads W + A floats a site, and writes A W
    """
    of_element = xp.arange(len(table), dtype=z.dtype)[:, None] == z
    return of_element.astype(table.dtype) @ grad_c


@kernel
def _embedding_forward_kernel(c, table, z):
    n_sites, width = c.shape
    w = cuda.threadIdx.x
    if w < width:
        for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
            c[i, w] = table[z[i], w]
