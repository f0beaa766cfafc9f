"""Orbital populations of the sites, to be laid beside the attention, and the correlation of their ranks."""

import ase
import numpy as np

from refattn.errors import DataError, in_one_line
from refattn.generate.orbitals import METHOD, xtb_labels

POPULATIONS = {
    "homo_population": "population of the highest occupied orbital",
    "lumo_population": "population of the lowest unoccupied orbital",
}
FEWEST = 3  # sites: two always correlate perfectly
TIED = 1e-9  # of the largest magnitude; scores of equivalent atoms of C60 differ by 4e-13 (refattn.explain, dtype)


def populations(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    """Populations of the frontier orbitals: the structure's own arrays if it has both, else GFN2-xTB's.

    Where an orbital is degenerate, as in benzene or C60, xTB gives one member of the set, and which one is arbitrary.

    Parameters
    ----------
    atoms : ase.Atoms      perhaps with `homo_population` and `lumo_population` (N,) in `arrays`

    Returns
    -------
    dict     name of POPULATIONS -> (N,) float64; each sums to 1

    Raises DataError for arrays that are no populations, a periodic structure without them, and where xTB fails;
    MissingExtra where it is not installed.
    """
    id = atoms.info.get("id", "structure")
    if all(name in atoms.arrays for name in POPULATIONS):
        found = {name: np.asarray(atoms.arrays[name], dtype=float) for name in POPULATIONS}
        for name, values in found.items():
            if values.shape != (len(atoms),) or not np.isfinite(values).all():
                raise DataError(f"structure {id}: {name} must be a finite number for every site; repair the file")
        return found
    if atoms.pbc.any():
        raise DataError(
            f"structure {id} is periodic and has no {' and '.join(POPULATIONS)}; add these arrays, or leave it out"
        )
    try:
        _, arrays = xtb_labels(atoms)
    except (RuntimeError, ValueError, IndexError) as error:  # what tblite raises, and a system without an orbital
        reason = in_one_line(error)
        raise DataError(f"structure {id}: {METHOD} fails ({reason}); leave it out, or give populations") from None
    return {name: np.asarray(arrays[name], dtype=float) for name in POPULATIONS}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of two scores.

    rho = Pearson correlation of the ranks; ties, up to rounding, share the mean of their ranks

    Parameters
    ----------
    x, y : (N,) float

    Returns
    -------
    float in -1 to 1; NaN for fewer than three sites, a score that is the same everywhere, or NaN among them

    Source   Spearman, Am. J. Psychol. 15, 72 (1904)
    """
    if len(x) < FEWEST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    x, y = (ranks - ranks.mean() for ranks in (_ranks(x), _ranks(y)))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def _ranks(x):
    """(N,) float64: ranks from 0; neighbours in the order that differ by less than TIED share theirs."""
    order = np.argsort(x, kind="stable")
    group = np.cumsum(np.diff(x[order], prepend=x[order[0]]) > TIED * np.abs(x).max())
    mean = np.bincount(group, weights=np.arange(len(x))) / np.bincount(group)
    ranks = np.empty(len(x))
    ranks[order] = mean[group]
    return ranks
