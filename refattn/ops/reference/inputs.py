"""What the network starts from: the table of the elements, Gaussian expansions, the first geometry features."""

import itertools

import numpy as np

from refattn.ops.reference.layers import sigmoid, swish_backward
from refattn.ops.types import Array


def embedding_forward(table: Array, z: Array) -> Array:
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


def embedding_backward(grad_c: Array, table: Array, z: Array) -> Array:
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


def gaussian_expand_forward(x: Array, centres: Array, width: float) -> Array:
    """Expand distances (or solid angles) in Gaussians. No backward: the graph, not the network, makes x.

    rbf[e,g] = exp(-(x[e] - centres[g])^2 / width^2)

    Parameters
    ----------
    x : (E,) float        distance in Å, or solid angle in sr
    centres : (G,) float  in the unit of x
    width : float         in the unit of x; there is no factor 2 in the exponent

    Returns
    -------
    rbf : (E, G)

    Source   Vu et al. 2023; width and its square from the authors' code
    """
    return np.exp(-(((x[:, None] - centres) / width) ** 2))


def angular_expand_forward(direction: Array, weight: Array, edge_ptr: Array, centres: Array, width: float) -> Array:
    """Expand the angles that each edge makes with the other edges of its site in Gaussians of their cosine.

    rbf[e,m,g] = sum over f of weight[f,m] exp(-(cos - centres[g])^2 / width^2),  cos = direction[e] . direction[f]

    f runs over the edges of the site of e but e itself. No backward: the graph, not the network, makes the directions.

    Parameters
    ----------
    direction : (E, 3) float   unit vectors from the site to its neighbours
    weight : (E, M) float      solid angle over the largest of the site, so that a facet that vanishes takes its edge
                               along; and the same times what the neighbours are
    edge_ptr : (N + 1,) int32
    centres : (G,) float       cosines
    width : float              of a cosine

    Returns
    -------
    rbf : (E, M G)

    Source   ours; the angular sum of Behler, J. Chem. Phys. 134, 074106 (2011), for a bond in the place of an atom
    """
    rbf = np.zeros((len(direction), weight.shape[1], len(centres)), direction.dtype)
    for start, stop in itertools.pairwise(edge_ptr):
        edges = slice(start, stop)
        cos = direction[edges] @ direction[edges].T
        gaussians = np.exp(-(((cos[:, :, None] - centres) / width) ** 2))
        gaussians[np.diag_indices(stop - start)] = 0
        rbf[edges] = np.einsum("fm,efg->emg", weight[edges], gaussians)
    return rbf.reshape(len(direction), weight.shape[1] * len(centres))


def geometry_embed_forward(u_r: Array, u_omega: Array, b_r: Array, b_omega: Array) -> tuple[Array, Array, Array]:
    """First geometry features of SCANN+: distance and solid angle, each through a dense layer and a swish.

    geo[e,d] = swish(v_r[e,d]) swish(v_omega[e,d]),  v_r = u_r + b_r,  v_omega = u_omega + b_omega

    Parameters
    ----------
    u_r, u_omega : (E, D) float   the expansions times their kernels
    b_r, b_omega : (D,) float

    Returns
    -------
    geo, v_r, v_omega : (E, D)

    Source   authors' code, geometry_features
    """
    v_r = u_r + b_r
    v_omega = u_omega + b_omega
    return v_r * sigmoid(v_r) * v_omega * sigmoid(v_omega), v_r, v_omega


def geometry_embed_backward(grad_geo: Array, v_r: Array, v_omega: Array) -> tuple[Array, Array, Array, Array]:
    """Backward of geometry_embed_forward. Needs the sums before the swishes only.

    grad_u_r = grad_geo swish(v_omega) swish'(v_r), and the same with r and omega exchanged; grad_b = sum_e grad_u

    Parameters
    ----------
    grad_geo, v_r, v_omega : (E, D) float

    Returns
    -------
    grad_u_r, grad_u_omega : (E, D); grad_b_r, grad_b_omega : (D,)
    """
    # forward: geo = swish(v_r) swish(v_omega)
    grad_u_r, grad_b_r = swish_backward(grad_geo * v_omega * sigmoid(v_omega), v_r)
    grad_u_omega, grad_b_omega = swish_backward(grad_geo * v_r * sigmoid(v_r), v_omega)
    return grad_u_r, grad_u_omega, grad_b_r, grad_b_omega
