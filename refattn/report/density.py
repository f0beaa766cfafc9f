"""Densities of orbitals as a picture shows them: the electrons of a line of sight, in Å² of the paper.

    p(x, y) = integral of rho(x, y, z) dz      x to the right, y up, z to the viewer

The integral is a sum over planes, which for a smooth function that vanishes at both ends is as good as any rule.
"""

import typing

import ase
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap, to_rgba

from refattn.generate.first_principles import FrontierOrbitals
from refattn.report.scene import Scene

STEP = 0.1  # Å, between the points of a map
DEPTH = 0.1  # Å, between the planes
MARGIN = 3.0  # Å around the atoms that maps reach; farther out is less than 1 % of an electron
ROOM = 1.3  # Å around the balls that a picture shows
LETTER = 0.25  # Å, half of the width of an atom's letters, about
N_BANDS = 5
FINEST = 0.01  # electrons/Å²; all contours are at powers of two of it
NAMES = {"homo": "highest occupied", "lumo": "lowest unoccupied"}


class DensityMap(typing.NamedTuple):
    """p at the points of a grid in the frame of a view.

    x : (X,) float        Å, to the right
    y : (Y,) float        Å, upwards
    p : (Y, X) float      electrons/Å²
    """

    x: np.ndarray
    y: np.ndarray
    p: np.ndarray


class Projection(typing.NamedTuple):
    """An orbital's density in the views of a Scene; like a Column of ExplainedStructure, but of points, not of sites.

    maps : list of DensityMap
    shared : (low, high)     the ends of the colours of a set; None where they are the structure's own
    """

    name: str
    text: str
    maps: list[DensityMap]
    shared: tuple[float, float] | None = None
    unit: str = "e/Å²"

    @property
    def title(self) -> str:
        """What it is, with its unit."""
        return f"{self.text} along the line of sight, electrons/Å²"

    @property
    def limits(self) -> tuple[float, float]:
        """(low, high): the ends of its colours."""
        return self.shared or (0.0, max(float(found.p.max()) for found in self.maps))

    @property
    def levels(self) -> np.ndarray:
        """(N_BANDS + 1,) float: the contours, electrons/Å²; each is twice the one before, and the largest value lies
        between the last two."""
        last = np.ceil(np.log2(max(self.limits[1], FINEST) / FINEST))
        return FINEST * 2 ** (last - np.arange(N_BANDS, -1, -1))


def projections(atoms: ase.Atoms, orbitals: FrontierOrbitals) -> dict[str, Projection]:
    """{"homo_density": Projection, "lumo_density": Projection} in all views of the structure's Scene.

    Raises MissingExtra without PySCF.
    """
    scene = Scene.of(atoms)
    maps = [density_maps(orbitals, scene, view) for view in scene.views.values()]
    found = {}
    for orbital, c in orbitals.coefficients.items():
        n = c.shape[1]
        name, which = f"{orbital}_density", NAMES[orbital]
        text = f"density of the {which} orbital" if n == 1 else f"mean density of {n} {which} orbitals"
        found[name] = Projection(name, text, [of_view[orbital] for of_view in maps])
    return found


def density_maps(orbitals: FrontierOrbitals, scene: Scene, view: np.ndarray) -> dict[str, DensityMap]:
    """{"homo": DensityMap, "lumo": DensityMap} in a view (3, 3) of the Scene of the same molecule.

    Raises MissingExtra without PySCF.
    """
    seen = scene.position @ view.T
    low, high = seen.min(axis=0) - MARGIN, seen.max(axis=0) + MARGIN
    x, y, z = (_points(a, b, h) for a, b, h in zip(low, high, (STEP, STEP, DEPTH), strict=True))
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    sums = {orbital: np.zeros(len(plane)) for orbital in orbitals.coefficients}
    for depth in z:
        points = np.column_stack([plane, np.full(len(plane), depth)])
        for orbital, rho in orbitals.densities(scene.in_structure(points @ view)).items():
            sums[orbital] += DEPTH * rho
    return {orbital: DensityMap(x, y, p.reshape(len(y), len(x))) for orbital, p in sums.items()}


def _points(low, high, step):
    """Points `step` apart from about `low` to about `high`, one of them in the middle: of what is symmetric too."""
    n = int(np.ceil((high - low) / 2 / step))
    return (low + high) / 2 + step * np.arange(-n, n + 1)


def density_colours(projection: Projection, shades: tuple[str, ...]) -> ScalarMappable:
    """The colours of the bands between the contours; `shades` are those from the lowest to the highest."""
    colours = LinearSegmentedColormap.from_list("density", shades)
    return ScalarMappable(BoundaryNorm(projection.levels, colours.N), colours)


def draw_density(axes: Axes, projection: Projection, number: int, shades: tuple[str, ...]) -> None:
    """Fill the contours of view `number` of a Projection; outside the first of them the background is left."""
    found = projection.maps[number]
    mapping = density_colours(projection, shades)
    levels = projection.levels
    axes.contourf(found.x, found.y, found.p, levels, cmap=mapping.cmap, norm=mapping.norm, extend="max", zorder=0)


def colours_at(
    projection: Projection, number: int, points: np.ndarray, shades: tuple[str, ...], background: str
) -> np.ndarray:
    """(G, 4) float: the colours of draw_density around points (G, 2), Å: of the median of what is as near as LETTER."""
    found = projection.maps[number]
    places = np.stack(np.meshgrid(found.x, found.y), axis=-1)
    near = [np.linalg.norm(places - point, axis=2) <= LETTER for point in points]
    p = np.array([np.median(found.p[disc]) for disc in near])
    colours = density_colours(projection, shades).to_rgba(p)
    colours[p < projection.levels[0]] = to_rgba(background)
    return colours
