"""Element features of the crystal graph convolutional network (CGCNN): 92 zeros and ones for an element.

Nine properties are cut into categories, and each contributes a one at the category of the element, or
nothing where the property is unknown. `data/cgcnn_elements.csv` holds the category of every property and element.

Source   Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018), supplement, and its table `atom_init.json`
         (MIT licence), which the authors of SCANN took over unchanged (scann/utils/dataset/atomic_data.py, MIT)
"""

import csv
import functools
from pathlib import Path

import numpy as np

from refattn.errors import DataError

TABLE = Path(__file__).parent / "cgcnn_elements.csv"

# Property: number of categories. Where a range is given, it is cut into bins of equal width, the first one is 0.
CATEGORIES = {
    "group": 19,  # 1 to 18; 0 for the f-block elements outside the groups
    "period": 7,  # 1 to 7, counted from 0
    "electronegativity": 10,  # Pauling, 0.5 to 4.0
    "covalent_radius": 10,  # 25 to 250 pm
    "valence_electrons": 12,  # 1 to 12, counted from 0
    "ionisation_energy": 10,  # first; natural logarithm of eV, 1.3 to 3.3
    "electron_affinity": 10,  # -3 to 3.7 eV
    "block": 4,  # s, p, d, f
    "atomic_volume": 10,  # natural logarithm of cm^3/mol, 1.5 to 4.3
}
N_CGCNN = 101  # rows of the table, from 0, no atom, to fermium
N_FEATURES = sum(CATEGORIES.values())


def cgcnn_features(z: np.ndarray) -> np.ndarray:
    """The CGCNN features of atoms.

    Parameters
    ----------
    z : (N,) int
        Atomic numbers; 0 stands for no atom.

    Returns
    -------
    (N, 92) float64, of zeros and ones; a row of zeros for z = 0

    Raises DataError for an element outside the table, which ends at fermium (Z = 100).

    Source   Xie & Grossman 2018, see the head of this file
    """
    z = np.asarray(z)
    table = _table()
    outside = (z < 0) | (z >= len(table))
    if outside.any():
        raise DataError(
            f"the element with Z = {z[outside][0]} has no CGCNN features, which end at Z = {len(table) - 1}; "
            'use model.features = "atomic" or leave its structures out'
        )
    return table[z.astype(np.intp)]


@functools.lru_cache(maxsize=1)
def _table():
    """(101, 92) features, row z for atomic number z."""
    with open(TABLE, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = np.zeros((len(rows) + 1, N_FEATURES))
    for row in rows:
        start = 0
        for name, n_categories in CATEGORIES.items():
            if row[name]:
                table[int(row["z"]), start + int(row[name])] = 1
            start += n_categories
    table.flags.writeable = False
    return table
