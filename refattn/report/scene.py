"""What is drawn of a structure: atoms, bonds, the box of the cell, and the directions from which to look at it.

Of a periodic structure the atoms inside the closed cell are drawn, so that one on a face, edge or corner appears on
the others too. Where a gap of more than 7 Å is left along a cell vector, as in a slab or a molecule in a box, the
piece is kept whole instead.
"""

import dataclasses
import functools
import itertools

import ase
import numpy as np
from ase.data import covalent_radii
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

BOND = 0.4  # Å beyond the sum of the covalent radii; Open Babel's rule has 0.45
VACUUM = 7.0  # Å
ON_FACE = 0.1  # Å
ALIKE = 0.02  # relative; principal moments that differ by less give no direction
TILTS = np.deg2rad([0, 6, -6, 12, -12, 18, -18, 24, -24, 30, -30])  # about the horizontal and the vertical axis
CELL_TILTS = np.deg2rad([[14, -11], [10, -16], [18, -8], [18, -18], [22, -12], [14, -22]])  # from above
TURNING = 0.3  # Å² hidden that a tilt by one radian must save
MANY = 150  # drawn atoms; with more the first of CELL_TILTS does
NONMETALS = np.isin(
    np.arange(len(covalent_radii)), [1, 2, *range(5, 11), *range(14, 19), *range(32, 37), 52, 53, 54, 86]
)
ANIONS = np.isin(np.arange(len(covalent_radii)), [7, 8, 9, 15, 16, 17, 33, 34, 35, 52, 53])


@dataclasses.dataclass(frozen=True)
class Scene:
    """M drawn atoms; x points to the right, y up, z to the viewer of the first view.

    Attributes
    ----------
    site : (M,) int            the site that each drawn atom is, or is an image of
    position : (M, 3) float64  Å, around the origin
    z : (M,) int               atomic numbers
    radius : (M,) float64      Å, of the ball that is drawn
    bonds : (B, 2) int         pairs of drawn atoms
    box : (K, 2, 3) float64    Å, both ends of the edges of the cell, those along its first period first
    axes : str                 names of the periods, of "abc"; empty without, and K = 0
    centre : (3,) float64      Å, the origin in the structure's own coordinates
    turn : (3, 3) float64      rows are the directions of x, y and z there
    """

    site: np.ndarray
    position: np.ndarray
    z: np.ndarray
    radius: np.ndarray
    bonds: np.ndarray
    box: np.ndarray
    axes: str
    centre: np.ndarray
    turn: np.ndarray

    @classmethod
    def of(cls, atoms: ase.Atoms) -> "Scene":
        """The Scene of an ase.Atoms."""
        site = np.arange(len(atoms))
        position = np.array(atoms.positions, dtype=float)
        box = []
        axes = ""
        if atoms.pbc.any():
            cell = complete_cell(atoms.cell)
            site, position = _inside_cell(position, cell, atoms.pbc)
            box, axes = _box(cell, atoms.pbc, position.mean(axis=0))
            turn = _cell_frame(cell)
        else:
            turn = _principal_frame(position)
        box = np.array(box, dtype=float).reshape(-1, 2, 3)
        everything = np.concatenate([position, box.reshape(-1, 3)])
        centre = (everything.min(axis=0) + everything.max(axis=0)) / 2
        z = np.asarray(atoms.numbers)[site]
        return cls(
            site=site,
            position=(position - centre) @ turn.T,
            z=z,
            radius=0.2 + 0.3 * covalent_radii[z],
            bonds=_bonds(position, z),
            box=(box - centre) @ turn.T,
            axes=axes,
            centre=centre,
            turn=turn,
        )

    def in_structure(self, points: np.ndarray) -> np.ndarray:
        """(G, 3) Å: points (G, 3) of the scene in the structure's own coordinates."""
        return points @ self.turn + self.centre

    @functools.cached_property
    def views(self) -> dict[str, np.ndarray]:
        """{name: (3, 3)}: rows point to the right, up and to the viewer.

        Each is tilted by a little, so that as little as possible of the balls is hidden behind others. In the last two
        of a cell c points upwards, so that a surface is on top.
        """
        right, up, near = np.eye(3)
        straight = {"front": [right, up, near], "top": [right, -near, up], "side": [-near, up, right]}
        if self.axes:
            straight = {"along c": [right, up, near], "along b": [right, near, -up], "along a": [up, near, right]}
        straight = {name: np.array(view) for name, view in straight.items()}
        tilts = CELL_TILTS if self.axes else np.array(list(itertools.product(TILTS, TILTS)))
        if len(self.site) > MANY:
            tilts = CELL_TILTS[:1]
        tilted = {name: [_tilted(view, *tilt) for tilt in tilts] for name, view in straight.items()}
        return {name: min(tilted[name], key=self._cost(view)) for name, view in straight.items()}

    def _cost(self, straight):
        """A function of a tilted view (3, 3): hidden area, about, in Å², and the price of the tilt; see TURNING."""
        first, second = np.triu_indices(len(self.site), 1)
        reach = self.radius[first] + self.radius[second]
        smaller, larger = np.sort([self.radius[first], self.radius[second]], axis=0)

        def cost(view):
            points = self.position @ view[:2].T
            apart = np.linalg.norm(points[first] - points[second], axis=1)
            overlap = np.clip(reach - apart, 0, 2 * smaller)
            covered = (larger**2)[apart < larger].sum()  # a hidden middle counts for more
            area = (overlap**1.5 * smaller**0.5).sum() + covered
            return round(area + TURNING * np.arccos(np.clip(view[2] @ straight[2], -1, 1)), 6)

        return cost

    def extent(self, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), each (2,) Å: the rectangle that a view of the structure fills."""
        atoms = self.position @ view[:2].T
        corners = self.box.reshape(-1, 3) @ view[:2].T
        reach = self.radius[:, None]
        low = np.concatenate([atoms - reach, corners]).min(axis=0)
        return low, np.concatenate([atoms + reach, corners]).max(axis=0)


def _tilted(view, about_x, about_y):
    """A view (3, 3) turned about its horizontal axis and, before that, its vertical one; angles in radians."""
    cos_x, cos_y = np.cos([about_x, about_y])
    sin_x, sin_y = np.sin([about_x, about_y])
    turn_x = np.array([[1, 0, 0], [0, cos_x, -sin_x], [0, sin_x, cos_x]])
    turn_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    return turn_x @ turn_y @ view


def _principal_frame(position):
    """(3, 3): rows are the directions of largest, middle and smallest extent; a proper rotation, no mirror image.

    The structure's own axes where no direction is singled out, as for C60.
    """
    centred = position - position.mean(axis=0)
    moments, axes = np.linalg.eigh(centred.T @ centred)
    if moments[2] - moments[0] <= ALIKE * moments[2]:
        return np.eye(3)
    first, second = axes.T[2], axes.T[1]
    first, second = (axis * _sign(centred @ axis) for axis in (first, second))
    return np.array([first, second, np.cross(first, second)])


def _sign(along):
    """1 or -1, so that the longer tail points to the positive side."""
    return 1.0 if (along**3).sum() >= -1e-6 * (np.abs(along) ** 3).sum() else -1.0


def _cell_frame(cell):
    """(3, 3): the first cell vector to the right, the second upwards in the plane of the picture."""
    first = cell[0] / np.linalg.norm(cell[0])
    third = np.cross(cell[0], cell[1])
    third *= np.sign(third @ cell[2]) / np.linalg.norm(third)
    return np.array([first, np.cross(third, first), third])


def _inside_cell(position, cell, pbc):
    """Sites (M,) and positions (M, 3), Å, of all images in the closed cell; see the head of this file."""
    inverse = np.linalg.inv(cell)
    fractional = position @ inverse
    site = np.arange(len(position))
    for axis in np.flatnonzero(pbc):
        spacing = 1 / np.linalg.norm(inverse[:, axis])  # of the lattice planes
        along = fractional[:, axis]
        start = _start_of_piece(fractional[:, axis], VACUUM / spacing)
        if start is not None:
            along = start + (along - start) % 1
            fractional[:, axis] = along - np.floor(along.mean())
            continue
        fractional[:, axis] = along - np.floor(along + ON_FACE / spacing)
        twins = fractional[:, axis] <= ON_FACE / spacing
        opposite = fractional[twins] + np.eye(3)[axis]
        fractional = np.concatenate([fractional, opposite])
        site = np.concatenate([site, site[twins]])
    return site, fractional @ cell


def _start_of_piece(along, vacuum):
    """Fractional coordinate at which a piece begins behind a gap wider than `vacuum`, or None without one."""
    ordered = np.sort(along % 1)
    gaps = np.diff(ordered, prepend=ordered[-1] - 1)
    return ordered[gaps.argmax()] if gaps.max() > vacuum else None


def _box(cell, pbc, middle):
    """Edges of the cell, a list of pairs of (3,) Å, and the names of its periods; in other directions at `middle`."""
    periodic = np.flatnonzero(pbc)
    edges = []
    shift = (middle @ np.linalg.inv(cell))[~pbc] @ cell[~pbc]
    for axis in periodic:
        others = [other for other in periodic if other != axis]
        for corner in itertools.product((0, 1), repeat=len(others)):
            start = shift + np.array(corner, dtype=float) @ cell[others]
            edges.append((start, start + cell[axis]))
    return edges, "".join("abc"[axis] for axis in periodic)


def _bonds(position, z):
    """(B, 2) int: pairs closer than the sum of their covalent radii and BOND.

    Two metal atoms are not joined where one of them has an anion beside it: not Ti with Ti in rutile, but Pt with Pt.
    """
    radii = covalent_radii[z]
    pairs = cKDTree(position).query_pairs(2 * radii.max() + BOND, output_type="ndarray")
    distance = np.linalg.norm(position[pairs[:, 0]] - position[pairs[:, 1]], axis=1)
    pairs = pairs[distance <= radii[pairs].sum(axis=1) + BOND]
    salt = np.zeros(len(z), dtype=bool)
    for one, other in (pairs.T, pairs.T[::-1]):
        salt[one[ANIONS[z[other]]]] = True
    metals = ~NONMETALS[z[pairs]].any(axis=1)
    return pairs[~(metals & salt[pairs].any(axis=1))]
