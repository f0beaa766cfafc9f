"""All facets of the Voronoi cells of a structure, by name."""

import dataclasses

import numpy as np

from refattn.config import GraphConfig
from refattn.structures.voronoi.neighbours import voronoi_facets


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


def facets_of(atoms, **rule):
    """The Facets of an ase.Atoms under the rule that GraphConfig takes."""
    return facets_by(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, GraphConfig(**{"min_distance": 0.0} | rule), "test"
    )


def facets_by(*arguments):
    """voronoi_facets as Facets."""
    ptr, where, size = voronoi_facets(*arguments)
    return Facets(ptr, where[:, 0], where[:, 1:], size[:, 0], size[:, 1])
