"""The table of the elements as a CUDA kernel and a product; equations in reference/embedding.py."""

from refattn.ops.cuda.launch import launch, launch_flat
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import cuda, kernel, multiply


def embedding_forward(table, z):
    """See the reference.

    Traffic   reads W + 1, writes W floats a site
    """
    c = empty((len(z), table.shape[1]), table.dtype)
    launch(_embedding_forward_kernel, *c.shape, c, table, z)
    return c


def embedding_backward(grad_c, table, z):
    """See the reference. A sum over few elements with many sites each: the product with the matrix a = z[i].

    Memory    that matrix, (N, A)
    Traffic   writes A, reads W + A floats a site, and writes A W
    """
    of_element = empty((len(z), len(table)), table.dtype)
    launch_flat(_of_element_kernel, of_element.size, of_element, z)
    return multiply(of_element.T, grad_c, empty(table.shape, table.dtype))


@kernel
def _embedding_forward_kernel(c, table, z):
    n_sites, width = c.shape
    w = cuda.threadIdx.x
    if w < width:
        for i in range(cuda.blockIdx.x, n_sites, cuda.gridDim.x):
            c[i, w] = table[z[i], w]


@kernel
def _of_element_kernel(of_element, z):
    n_sites, n_elements = of_element.shape
    one, zero = of_element.dtype.type(1), of_element.dtype.type(0)
    for n in range(cuda.grid(1), n_sites * n_elements, cuda.gridsize(1)):
        i = n // n_elements
        of_element[i, n - i * n_elements] = one if z[i] == n - i * n_elements else zero
