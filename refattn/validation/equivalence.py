"""Equivalent sites must get equal scores: tested on structures of exact symmetry, and on those of the data."""

from collections.abc import Iterable

import ase
import numpy as np
from ase.build import bulk

from refattn.errors import DataError
from refattn.explanation.symmetry import class_spread, equivalent_sites
from refattn.prediction.predictor import Model, check_elements

EQUAL = 1e-6  # relative; float64 leaves 1e-11 (measured with networks of random parameters)


def exact_structures() -> list[ase.Atoms]:
    """Structures whose symmetry is exact but for rounding: ethene, benzene, C60 and diamond.

    Returns
    -------
    list of ase.Atoms

    Source   bond lengths: Herzberg, Electronic Spectra of Polyatomic Molecules (1966) for ethene and benzene
    """
    return [_ethene(), _benzene(), _c60(), _named(bulk("C", "diamond", a=3.567, cubic=True), "diamond")]


def _named(atoms, id):
    atoms.info["id"] = id
    return atoms


def _ethene():
    """D2h: C=C 1.339, C-H 1.086 Å, H-C-H 117.6 degrees."""
    half = np.deg2rad(117.6) / 2
    x, y = 1.339 / 2 + 1.086 * np.cos(half), 1.086 * np.sin(half)
    hydrogens = [[s * x, t * y, 0] for s in (1, -1) for t in (1, -1)]
    return _named(ase.Atoms("C2H4", [[1.339 / 2, 0, 0], [-1.339 / 2, 0, 0], *hydrogens]), "ethene")


def _benzene():
    """D6h: C-C 1.397, C-H 1.084 Å."""
    angle = np.arange(6) * np.pi / 3
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(6)], axis=1)
    return _named(ase.Atoms("C6H6", np.concatenate([1.397 * circle, (1.397 + 1.084) * circle])), "benzene")


def _c60():
    """Ih with all edges of 1.42 Å: the truncated icosahedron, cyclic permutations of three points with all signs."""
    golden = (1 + 5**0.5) / 2
    corners = [[0, 1, 3 * golden], [1, 2 + golden, 2 * golden], [golden, 2, golden**3]]
    signs = np.array(np.meshgrid([1, -1], [1, -1], [1, -1])).reshape(3, -1).T
    points = np.concatenate([np.roll(signs * corner, shift, axis=1) for corner in corners for shift in range(3)])
    return _named(ase.Atoms("C60", np.unique(points, axis=0) * 1.42 / 2), "C60")


def known_to(model: Model, structures: Iterable[ase.Atoms]) -> list[ase.Atoms]:
    """The structures whose elements the model was trained on."""

    def known(atoms):
        try:
            check_elements(model.checkpoint, atoms.info["id"], atoms.numbers)
        except DataError:
            return False
        return True

    return [atoms for atoms in structures if known(atoms)]


def spreads(atoms: ase.Atoms, scores: dict[str, np.ndarray], classes: np.ndarray | None = None) -> dict[str, float]:
    """Largest difference of every score between equivalent sites, relative to its largest magnitude.

    Parameters
    ----------
    scores : dict of name -> (N,) float
    classes : (N,) int, optional     of equivalent sites; found where not given

    Returns
    -------
    dict of name -> float
    """
    classes = equivalent_sites(atoms) if classes is None else classes
    return {name: class_spread(values, classes) for name, values in scores.items()}


def largest_spread(spreads: dict[int, float], structures: list[ase.Atoms]) -> dict:
    """Of spreads by the number of the structure: their median, the largest, and the id, or number, of its structure.

    Returns
    -------
    dict with median, largest, id
    """
    worst = max(spreads, key=lambda number: (spreads[number], number))
    id = str(structures[worst].info.get("id", worst))
    return {"median": float(np.median([*spreads.values()])), "largest": spreads[worst], "id": id}
