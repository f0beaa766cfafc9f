"""Orbital populations of the sites, to be laid beside the attention."""

import ase
import numpy as np

from refattn.errors import DataError
from refattn.generate.orbitals import xtb_labels

POPULATIONS = {
    "homo_population": "population of the highest occupied orbital",
    "lumo_population": "population of the lowest unoccupied orbital",
}


def populations(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    """Populations of the frontier orbitals: the structure's own arrays if it has both, else GFN2-xTB's.

    Where an orbital is degenerate, as in benzene or C60, xTB gives one member of the set, and which one is arbitrary.

    Parameters
    ----------
    atoms : ase.Atoms      perhaps with `homo_population` and `lumo_population` (N,) in `arrays`

    Returns
    -------
    dict     name of POPULATIONS -> (N,) float64; computed ones sum to 1, those of the file are as they stand there

    Raises DataError for arrays that are no finite numbers, a structure without them that is periodic or has an odd
    number of electrons, and where xTB fails; MissingExtra where it is not installed.
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
    _, arrays = xtb_labels(atoms)
    return {name: np.asarray(arrays[name], dtype=float) for name in POPULATIONS}
