"""The table of the elements: a row for each site."""

import numpy as np


def embedding_forward(table, z):
    """The row of each site's element.

    c[i,w] = table[z[i],w]

    Parameters
    ----------
    table : (A, W) float   a row for each atomic number below A
    z : (N,) int32         atomic numbers

    Returns
    -------
    c : (N, W)

    Source   Vu et al. 2023
    """
    return table[z]


def embedding_backward(grad_c, table, z):
    """Backward of embedding_forward. Needs the shape of the table, not its numbers.

    grad_table[a] = sum over the sites with z[i] = a of grad_c[i]

    Parameters
    ----------
    grad_c : (N, W) float; table : (A, W) float; z : (N,) int32

    Returns
    -------
    grad_table : (A, W)
    """
    grad_table = np.zeros_like(table)
    np.add.at(grad_table, z, grad_c)
    return grad_table
