"""Structures to the facets of their Voronoi cells."""

import dataclasses
import functools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import ase
import numpy as np

from refattn.common.environment import available_cores
from refattn.config import GraphConfig
from refattn.errors import ConfigError
from refattn.neighbours.polygons import facet_polygons
from refattn.structures.voronoi.neighbours import voronoi_facets

# Only atoms on the same place are an error: who asks for neighbours may want those of any arrangement.
RULE = GraphConfig(rule="isolated", min_distance=0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Facets:
    """The F facets of the Voronoi cells of a structure of N sites; those of a site by distance.

    Attributes
    ----------
    n_sites : int
    i, j : (F,) int64           the site, and the neighbour behind the facet
    image : (F, 3) int64        periodic image of the neighbour, in cell vectors
    vector : (F, 3) float64     from the site to the neighbour, Å: positions[j] + image @ cell - positions[i]
    r : (F,) float64            its length, Å
    omega : (F,) float64        solid angle that the facet subtends, sr; those of a closed cell sum to 4 pi
    area : (F,) float64         of the facet, Å^2; infinite where it is open
    volume : (F,) float64       of the pyramid from the site to the facet, Å^3; area r / 6
    corner_ptr : (F + 1,) int64     corners of facet f are corner_ptr[f]:corner_ptr[f + 1]; an open facet has none
    corner : (C, 3) float64         Å from the site, in their order around the facet
    beside : (C,) int64             facet behind the edge from a corner to the next; -1 where that is left out
    """

    n_sites: int
    i: np.ndarray
    j: np.ndarray
    image: np.ndarray
    vector: np.ndarray
    r: np.ndarray
    omega: np.ndarray
    area: np.ndarray
    volume: np.ndarray
    corner_ptr: np.ndarray
    corner: np.ndarray
    beside: np.ndarray

    def __len__(self) -> int:
        return len(self.i)

    @property
    def ptr(self) -> np.ndarray:
        """(N + 1,) int64; the facets of site i are ptr[i]:ptr[i + 1]."""
        return np.searchsorted(self.i, np.arange(self.n_sites + 1))

    @property
    def cell_volume(self) -> np.ndarray:
        """(N,) float64, Å^3, of the Voronoi cells, if no facet was left out; infinite where a cell is open."""
        return np.bincount(self.i, self.volume, self.n_sites)

    def take(self, kept: np.ndarray) -> "Facets":
        """The facets where `kept` (F,) bool is true."""
        n_corners = np.diff(self.corner_ptr)
        corners = np.repeat(kept, n_corners)
        number = np.where(kept, np.cumsum(kept) - 1, -1)
        names = ("i", "j", "image", "vector", "r", "omega", "area", "volume")
        return Facets(
            self.n_sites,
            **{name: getattr(self, name)[kept] for name in names},
            corner_ptr=np.concatenate([[0], np.cumsum(n_corners[kept])]),
            corner=self.corner[corners],
            beside=number[self.beside[corners]],
        )


def voronoi(
    atoms: ase.Atoms, r_max: float = np.inf, omega_min: float = 0.0, weight_min: float = 0.0, name: str | None = None
) -> Facets:
    """The facets of all Voronoi cells of a structure, down to 1e-10 sr, or those of them that pass the thresholds.

    Parameters
    ----------
    atoms : ase.Atoms       periodic in all, some or no directions
    r_max : float           Å, farthest neighbour
    omega_min : float       sr, smallest solid angle
    weight_min : float      1, smallest solid angle over the site's largest
    name : str, optional    what errors call the structure; by default `id` of its info, or its formula

    Returns
    -------
    Facets

    Raises StructureError, naming the structure, for one without Voronoi cells: empty, not finite, two atoms on one
    place, a singular cell; ConfigError for other thresholds.
    """
    if not (r_max > 0 and omega_min >= 0 and 0 <= weight_min <= 1):  # NaN neither
        found = f"r_max is {r_max:g}, omega_min {omega_min:g} and weight_min {weight_min:g}"
        raise ConfigError(f"{found}; they must be above 0, at least 0, and from 0 to 1")
    name = name or atoms.info.get("id") or str(atoms.symbols) or "structure"
    pbc = atoms.pbc
    cell = np.where(pbc[:, None], atoms.cell.array, 0.0)  # without a period a cell vector may hold anything
    ptr, where, size = voronoi_facets(atoms.numbers, atoms.positions, cell, pbc, RULE, name)
    i = np.repeat(np.arange(len(atoms)), np.diff(ptr))
    j, image = where[:, 0].copy(), where[:, 1:].copy()
    r, omega = size[:, 0].copy(), size[:, 1].copy()
    vector = atoms.positions[j] - atoms.positions[i] + image @ cell
    area, *corners = facet_polygons(ptr, vector)
    found = Facets(len(atoms), i, j, image, vector, r, omega, area, area * r / 6, *corners)
    kept = (r <= r_max) & (omega >= omega_min)
    if weight_min > 0 and len(found):
        kept &= omega >= weight_min * np.maximum.reduceat(omega, ptr[:-1])[i]  # every site has a facet where one has
    return found if kept.all() else found.take(kept)


def voronoi_many(
    structures: Iterable[ase.Atoms],
    r_max: float = np.inf,
    omega_min: float = 0.0,
    weight_min: float = 0.0,
    n_threads: int | None = None,
) -> list[Facets]:
    """The Facets of many structures, on threads; by default one for each core. Parameters and errors as of voronoi."""
    task = functools.partial(voronoi, r_max=r_max, omega_min=omega_min, weight_min=weight_min)
    with ThreadPoolExecutor(n_threads or available_cores()) as pool:
        return list(pool.map(task, structures))
