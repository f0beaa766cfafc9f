"""From trajectories to a published set: one extended XYZ file, rounded to what its labels can tell."""

import gzip
import io
import itertools
import re
from pathlib import Path

import ase.io
import numpy as np
from ase.io.extxyz import write_xyz

from refattn.common.files import replacing

MARK = re.compile(rb"\d+\n[^\n]* deformation_energy=")  # how a merged file begins
DECIMALS = {"positions": 5, "forces": 4, "homo_population": 5, "lumo_population": 5}  # Å, eV/Å, 1, 1


def merge_trajectories(files: list[Path], out: Path | str, n_snapshots: int) -> int:
    """Put the first `n_snapshots` of every trajectory into one extended XYZ file, gzipped if its name ends so.

    Momenta are left out and arrays rounded to DECIMALS, below what the labels can tell. The same trajectories give
    the same bytes. Returns the number of snapshots; raises OutputError when `out` cannot be written.
    """
    count = 0
    packed = str(out).endswith(".gz")
    with replacing(out) as part, open(part, "wb") as raw:
        target = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if packed else raw
        with io.TextIOWrapper(target, encoding="utf-8", newline="\n") as stream:
            for file in files:
                for atoms in itertools.islice(ase.io.iread(file, format="extxyz"), n_snapshots):
                    write_xyz(stream, [_rounded(atoms)], write_results=False)
                    count += 1
    return count


def _rounded(atoms):
    """A snapshot as it is published: results as labels and arrays, without momenta."""
    snapshot = ase.Atoms(
        atoms.numbers, np.round(atoms.positions, DECIMALS["positions"]), cell=atoms.cell, pbc=atoms.pbc
    )
    results = atoms.calc.results if atoms.calc else {}
    snapshot.info = {**atoms.info, **{name: float(value) for name, value in results.items() if np.ndim(value) == 0}}
    per_site = {**atoms.arrays, **{name: value for name, value in results.items() if np.ndim(value) > 0}}
    for name, decimals in DECIMALS.items():
        if name in per_site and name != "positions":
            snapshot.set_array(name, np.round(per_site[name], decimals))
    return snapshot
