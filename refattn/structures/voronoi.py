"""Voronoi neighbours: which sites share a facet of their Voronoi cells, and the solid angle of that facet.

A structure is checked, handed to one of two rules (isolated_rule.py, upstream_rule.py) for the facets of its cells, and
the facets that pass the thresholds become edges.
"""

import dataclasses

import numpy as np

from refattn.errors import ConfigError, StructureError
from refattn.jit import jit
from refattn.structures import isolated_rule, upstream_rule
from refattn.structures.sphere import reciprocal_vectors

Z_MAX = 118
# Thresholds of the isolated rule are passed by values this far below them. Facets that symmetry makes equal differ by
# 1e-13 sr from rounding, and a threshold that meets them exactly must keep all of them or none.
SLACK = 1e-9
FARTHEST = 1e8  # Å; float64 resolves 1e-8 Å there; far beyond it squares and numbers of periods overflow
MIN_SINE = 1e-6  # 1; periodic cell vectors that span less than this times the product of their lengths are dependent


@dataclasses.dataclass(frozen=True)
class Facets:
    """Facets of all Voronoi cells of a structure, before any threshold; those of site i are ptr[i]:ptr[i + 1].

    Attributes
    ----------
    ptr : (N + 1,) int64
    nbr : (F,) int64            the neighbour site
    image : (F, 3) int64        its periodic image, in cell vectors
    r : (F,) float64            distance to the neighbour, Å
    omega : (F,) float64        solid angle of the facet, sr
    """

    ptr: np.ndarray
    nbr: np.ndarray
    image: np.ndarray
    r: np.ndarray
    omega: np.ndarray

    @property
    def site(self):
        """(F,) the site that each facet belongs to."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))


def voronoi_neighbours(numbers, positions, cell, pbc, config, name):
    """Edges from every site to the neighbours that its Voronoi cell shares a large enough facet with.

    An edge is kept when omega >= omega_min, omega / omega_max >= weight_min and r <= r_max, all inclusive (isolated:
    with a slack of 1e-9). The neighbour stands at positions[nbr] + image @ cell, except that for a molecule under the
    upstream rule `image` counts sides of the rule's own box (upstream_rule.upstream_box).

    Parameters
    ----------
    numbers : (N,) int              atomic numbers, 1 to 118
    positions : (N, 3) float        Å, inside or outside the cell
    cell : (3, 3) float             cell vectors as rows, Å; rows without a period are not used
    pbc : (3,) bool                 upstream: any period makes all three directions periodic, as in the authors' code
    config : GraphConfig
    name : str                      of the structure, for error messages

    Returns
    -------
    edge_ptr : (N + 1,) int32       edges of site i are edge_ptr[i]:edge_ptr[i + 1], by distance (to 1e-6 Å), nbr, image
    nbr : (E,) int32
    image : (E, 3) int8
    r : (E,) float64, Å
    omega : (E,) float64, sr
    omega_max : (N,) float64, sr    largest facet that the rule counts, before the thresholds; 0 for a lone site

    Raises StructureError, naming the structure, for one that has no graph: empty, not finite, an impossible atomic
    number, coincident atoms (closer than 1e-3 Å, images included), a singular cell, an image beyond int8; ConfigError
    for an unknown rule.
    """
    facets = voronoi_facets(numbers, positions, cell, pbc, config, name)
    slack = SLACK if config.rule == "isolated" else 0.0
    edge_ptr, kept, omega_max = _select(
        facets.ptr, facets.nbr, facets.image, facets.r, facets.omega,
        config.omega_min - slack, config.weight_min - slack, config.r_max + slack,
    )  # fmt: skip
    image = facets.image[kept]
    if len(image) and np.abs(image).max() > 127:
        raise StructureError(
            f"{name}: a neighbour is {np.abs(image).max()} cells away, more than the 127 that a graph can hold; "
            "wrap the positions into the cell"
        )
    nbr = facets.nbr[kept].astype(np.int32)
    return edge_ptr, nbr, image.astype(np.int8), facets.r[kept], facets.omega[kept], omega_max


def voronoi_facets(numbers, positions, cell, pbc, config, name):
    """All facets that config.rule counts, before the thresholds; parameters and errors as in voronoi_neighbours.

    Under the isolated rule these are the facets of the true Voronoi cells, open ones included, down to 1e-10 sr. Those
    of a site sum to 4 pi, less the directions in which its cell has no end (none, if anything is periodic). Under the
    upstream rule they are the closed facets among the sites within its cutoff.

    Returns
    -------
    Facets
    """
    positions, cell, pbc = _checked(numbers, positions, cell, pbc, config, name)
    if config.rule == "isolated":
        reciprocal = _reciprocal(cell, pbc, isolated_rule.FIRST_RADIUS, name)
        # (cell^T reciprocal)_kl projects onto the span of the periodic vectors
        across = np.eye(3) - cell[pbc].T @ reciprocal[pbc]
        ptr, where, size, problem = isolated_rule.isolated_cells(positions, cell, reciprocal, across)
    else:
        if pbc.any():
            positions = upstream_rule.upstream_crystal(positions, cell)
        else:
            positions, cell = upstream_rule.upstream_box(positions)
        diagonal = upstream_rule.longest_diagonal(cell)
        reciprocal = _reciprocal(cell, np.ones(3, dtype=bool), max(upstream_rule.CUTOFF, diagonal), name)
        ptr, where, size, problem = upstream_rule.upstream_cells(positions, cell, reciprocal, diagonal)
    if problem[0] != isolated_rule.COMPLETE:
        raise StructureError(f"{name}: {_explain(*problem)}")
    return Facets(ptr, where[:, 0], where[:, 1:], size[:, 0], size[:, 1])


@jit
def _select(ptr, nbr, image, r, omega, omega_min, weight_min, r_max):
    """edge_ptr, the facets that become edges in their order, and omega_max; see voronoi_neighbours."""
    n_sites = len(ptr) - 1
    edge_ptr, omega_max = np.zeros(n_sites + 1, np.int32), np.zeros(n_sites)
    kept = np.empty(len(nbr), np.int64)
    n = 0
    for i in range(n_sites):
        for f in range(ptr[i], ptr[i + 1]):
            omega_max[i] = max(omega_max[i], omega[f])
        for f in range(ptr[i], ptr[i + 1]):
            if omega[f] >= omega_min and omega[f] >= weight_min * omega_max[i] and r[f] <= r_max:
                kept[n] = f
                n += 1
                # facets come by distance, so that this insertion only moves those of equal distance
                k = n - 1
                while k > edge_ptr[i] and _key(kept[k], nbr, image, r) < _key(kept[k - 1], nbr, image, r):
                    kept[k], kept[k - 1] = kept[k - 1], kept[k]
                    k -= 1
        edge_ptr[i + 1] = n
    return edge_ptr, kept[:n], omega_max


@jit
def _key(f, nbr, image, r):
    return np.rint(r[f] * 1e6), nbr[f], image[f, 0], image[f, 1], image[f, 2]


def _checked(numbers, positions, cell, pbc, config, name):
    """Contiguous float64 positions, cell with zeros where there is no period, and boolean pbc (3,); or an error."""
    if config.rule not in ("isolated", "upstream"):
        raise ConfigError(f"graph.rule is {config.rule!r}; choose one of isolated, upstream")
    numbers = np.asarray(numbers)
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    pbc = np.array(np.broadcast_to(pbc, 3), dtype=bool)
    if len(numbers) == 0:
        raise StructureError(f"{name}: the structure has no atoms; remove it from the input")
    if positions.shape != (len(numbers), 3):
        raise StructureError(
            f"{name}: {len(numbers)} atomic numbers but positions of shape {positions.shape}; give x, y, z of each"
        )
    impossible = (numbers < 1) | (numbers > Z_MAX)
    if impossible.any():
        i = impossible.argmax()
        raise StructureError(f"{name}: atom {i} has atomic number {numbers[i]}; use 1 to {Z_MAX}")
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        raise StructureError(f"{name}: the position of atom {finite.argmin()} is not finite; correct or remove it")
    far = np.abs(positions).max(axis=1) > FARTHEST
    if far.any():
        raise StructureError(f"{name}: atom {far.argmax()} is more than {FARTHEST:g} Å away; correct its position")
    if config.rule == "upstream" and pbc.any():
        pbc[:] = True
    cell = np.where(pbc[:, None], np.asarray(cell, dtype=np.float64), 0.0)
    vectors = cell[pbc]
    if not (np.abs(vectors) <= FARTHEST).all():  # NaN neither
        raise StructureError(
            f"{name}: the cell is not finite or longer than {FARTHEST:g} Å; correct it, or set pbc to false"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if pbc.any() and (lengths.min() == 0 or _spanned(vectors / lengths[:, None]) < MIN_SINE):
        raise StructureError(
            f"{name}: the cell is singular (a periodic cell vector is zero, or they are linearly dependent); "
            "give a proper cell, or set pbc to false where there is no period"
        )
    if pbc.any() and lengths.min() < isolated_rule.CLOSEST:
        raise StructureError(f"{name}: {_explain(isolated_rule.COINCIDENT, 0, 0)}")
    return positions, cell, pbc


def _reciprocal(cell, pbc, radius, name):
    """reciprocal_vectors; StructureError if the images within `radius` of a site would fill the memory."""
    reciprocal = reciprocal_vectors(cell, pbc)
    images = np.prod(1 + 2 * radius * np.linalg.norm(reciprocal, axis=1))
    if images > isolated_rule.MAX_SEEN:
        raise StructureError(
            f"{name}: about {images:.0e} periodic images lie within {radius:.3g} Å of a site, because the cell is too "
            "small or too thin; give it in Å, and set pbc to false across a vacuum"
        )
    return reciprocal


def _spanned(vectors):
    """Length, area or volume spanned by one to three vectors (rows)."""
    return np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))


def _explain(code, i, j):
    """What went wrong in the cells, and what to do, as the rest of a sentence."""
    if code == isolated_rule.COINCIDENT:
        if i == j:
            return f"atom {i} coincides with its own image (closer than {isolated_rule.CLOSEST} Å); correct the cell"
        return f"atoms {min(i, j)} and {max(i, j)} coincide (closer than {isolated_rule.CLOSEST} Å); remove one of them"
    if code == isolated_rule.TOO_MANY:
        return (
            f"the Voronoi cell of atom {i} needs more than {isolated_rule.MAX_SEEN} periodic images, because the cell "
            "vectors are too unequal; set pbc to false across the vacuum"
        )
    return (
        f"the authors' rule finds no neighbours of atom {i} within {upstream_rule.CUTOFF_MAX:.0f} Å; "
        'use the rule "isolated" for this structure'
    )
