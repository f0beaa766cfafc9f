"""Adds where HOMO and LUMO are by Hückel's theory to cages of carbon, as per-site arrays for attention to be taught.

    python tools/huckel_populations.py fullerenes.extxyz.gz fullerenes_huckel.extxyz
    refattn prepare fullerenes_huckel.extxyz fullerenes.h5 --omega-min 0.1 --weight-min 0

One pi orbital an atom, electrons two by two; a bond (shorter than 1.75 Å) of length r has the integral
beta(r) = beta_0 exp(-(r - 1.40 Å) / 0.3106 Å). Populations are means over the levels within 0.05 beta_0 of HOMO or LUMO
on their side of the gap, so that equivalent atoms have equal ones; not in the few cages, small ones above all, whose
gap itself is smaller: there which of equal levels are occupied is arbitrary. Labels are kept as they are.

Source   Longuet-Higgins & Salem, Proc. R. Soc. Lond. A 251, 172 (1959), for beta(r)
"""

import argparse
from pathlib import Path

import ase
import ase.io
import numpy as np

from refattn.common.files import replacing
from refattn.data.sources.registry import open_source

BOND = 1.75  # Å
LENGTH = 1.40  # Å, of benzene
DECAY = 0.3106  # Å
DEGENERATE = 0.05  # beta_0


def levels_of(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Levels (N,) in units of |beta_0|, from below, and the coefficients (N, N) of the orbitals, one in a column."""
    r = atoms.get_all_distances()
    bonded = (r > 0) & (r < BOND)
    return np.linalg.eigh(-np.where(bonded, np.exp(-(r - LENGTH) / DECAY), 0.0))


def populations(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    """{"homo_population", "lumo_population"} (N,), each of sum 1."""
    levels, c = levels_of(atoms)
    n_occupied = len(atoms) // 2
    occupied = np.arange(len(atoms)) < n_occupied
    homo = occupied & (levels > levels[n_occupied - 1] - DEGENERATE)
    lumo = ~occupied & (levels < levels[n_occupied] + DEGENERATE)
    return {f"{name}_population": (c[:, near] ** 2).mean(axis=1) for name, near in (("homo", homo), ("lumo", lumo))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    with replacing(asked.out) as part, open(part, "w", encoding="utf-8") as stream:
        for record in open_source(asked.source):
            written = ase.Atoms(record.atoms.numbers, record.atoms.positions, info={"id": record.id, **record.labels})
            for name, values in populations(record.atoms).items():
                written.set_array(name, values)
            ase.io.write(stream, written, format="extxyz")


if __name__ == "__main__":
    main()
