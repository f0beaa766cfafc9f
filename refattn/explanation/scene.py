"""What is drawn of a structure: atoms, bonds, the box of the cell, and the directions from which to look at it.

Of a periodic structure the atoms inside the closed cell are drawn, so that one on a face, edge or corner appears on
the others too. Where a gap of more than 7 Å is left along a cell vector, as in a slab or a molecule in a box, the
piece is kept whole instead.
"""

import dataclasses
import itertools

import numpy as np
from ase.data import covalent_radii
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

BOND = 0.4  # Å beyond the sum of the covalent radii; Open Babel's rule has 0.45
VACUUM = 7.0  # Å
ON_FACE = 0.1  # Å
ALIKE = 0.02  # relative; principal moments that differ by less give no direction
TILT = np.deg2rad([14.0, -11.0])  # about the horizontal and the vertical axis
FLAT = 0.5  # Å; a molecule thinner than this is shown face on
NONMETALS = np.isin(
    np.arange(len(covalent_radii)), [1, 2, *range(5, 11), *range(14, 19), *range(32, 37), 52, 53, 54, 86]
)
ANIONS = np.isin(np.arange(len(covalent_radii)), [7, 8, 9, 15, 16, 17, 33, 34, 35, 52, 53])


@dataclasses.dataclass(frozen=True)
class Scene:
    """M drawn atoms; x points to the right, y up, z to the viewer of the front view.

    Attributes
    ----------
    site : (M,) int            the site that each drawn atom is, or is an image of
    position : (M, 3) float64  Å, around the origin
    z : (M,) int               atomic numbers
    radius : (M,) float64      Å, of the ball that is drawn
    bonds : (B, 2) int         pairs of drawn atoms
    box : (K, 2, 3) float64    Å, both ends of the edges of the cell; K = 0 without periods
    origin : (3,) Å            of the cell
    axes : dict                "a", "b", "c" -> (3,) Å, the ends of the periodic cell vectors
    """

    site: np.ndarray
    position: np.ndarray
    z: np.ndarray
    radius: np.ndarray
    bonds: np.ndarray
    box: np.ndarray
    origin: np.ndarray
    axes: dict

    @classmethod
    def of(cls, atoms):
        """The Scene of an ase.Atoms."""
        site, position, box, axes = np.arange(len(atoms)), np.array(atoms.positions, dtype=float), [], {}
        if atoms.pbc.any():
            cell = complete_cell(atoms.cell)
            site, position = _inside_cell(position, cell, atoms.pbc)
            box, axes = _box(cell, atoms.pbc)
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
            origin=-turn @ centre,
            axes={name: (end - centre) @ turn.T for name, end in axes.items()},
        )

    @property
    def views(self):
        """{name: (3, 3)}: rows point to the right, up and to the viewer.

        All but the front of a flat molecule are tilted a little, so that no atom hides exactly behind another.
        """
        front = np.eye(3)
        flat = not len(self.box) and np.ptp(self.position[:, 2]) < FLAT
        return {
            "front": front if flat else _tilted(front),
            "top": _tilted(np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])),
            "side": _tilted(np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])),
        }

    def extent(self, view):
        """(low, high), each (2,) Å: the rectangle that a view of the structure fills."""
        atoms, corners = self.position @ view[:2].T, self.box.reshape(-1, 3) @ view[:2].T
        reach = self.radius[:, None]
        low = np.concatenate([atoms - reach, corners]).min(axis=0)
        return low, np.concatenate([atoms + reach, corners]).max(axis=0)


def _tilted(view):
    (cos_x, cos_y), (sin_x, sin_y) = np.cos(TILT), np.sin(TILT)
    about_x = np.array([[1, 0, 0], [0, cos_x, -sin_x], [0, sin_x, cos_x]])
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    return about_x @ about_y @ view


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
    fractional, site = position @ inverse, np.arange(len(position))
    for axis in np.flatnonzero(pbc):
        spacing = 1 / np.linalg.norm(inverse[:, axis])  # of the lattice planes
        along, start = fractional[:, axis], _start_of_piece(fractional[:, axis], VACUUM / spacing)
        if start is not None:
            along = start + (along - start) % 1
            fractional[:, axis] = along - np.floor(along.mean())
            continue
        fractional[:, axis] = along - np.floor(along + ON_FACE / spacing)
        twins = fractional[:, axis] <= ON_FACE / spacing
        opposite = fractional[twins] + np.eye(3)[axis]
        fractional, site = np.concatenate([fractional, opposite]), np.concatenate([site, site[twins]])
    return site, fractional @ cell


def _start_of_piece(along, vacuum):
    """Fractional coordinate at which a piece begins behind a gap wider than `vacuum`, or None without one."""
    ordered = np.sort(along % 1)
    gaps = np.diff(ordered, prepend=ordered[-1] - 1)
    return ordered[gaps.argmax()] if gaps.max() > vacuum else None


def _box(cell, pbc):
    """Edges of the cell, a list of pairs of (3,) Å, and the ends of its periodic vectors by name."""
    periodic, edges = np.flatnonzero(pbc), []
    for axis in periodic:
        others = [other for other in periodic if other != axis]
        for corner in itertools.product((0, 1), repeat=len(others)):
            start = np.array(corner, dtype=float) @ cell[others] if others else np.zeros(3)
            edges.append((start, start + cell[axis]))
    return edges, {"abc"[axis]: cell[axis] for axis in periodic}


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
