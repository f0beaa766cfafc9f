"""Draws the built-in set `molecules` from QM9 molecules with orbital populations.

    python tools/make_molecules.py qm9_orbitals.extxyz.gz refattn/data/sets/molecules.extxyz.gz

The input is extended XYZ whose frames have an id gdb_NUMBER, xtb_homo and xtb_lumo, homo and lumo where B3LYP's are
known (eV), and on every atom homo_population and lumo_population. The output has N molecules drawn at random, in their
order, and licence and citation in the comment line of the first one. The same input gives the same bytes.
"""

import argparse
import gzip
import io
import re
from pathlib import Path

import numpy as np

N = 6000
LABELS = ("homo", "lumo", "xtb_homo", "xtb_lumo")
LICENCE = "CC0-1.0"
CITATION = (
    "Ramakrishnan, Dral, Rupp, von Lilienfeld, Sci. Data 1, 140022 (2014): geometries, homo and lumo by B3LYP/"
    "6-31G(2df,p); xtb_homo, xtb_lumo and populations by GFN2-xTB (Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. "
    "15, 1652 (2019))"
)


def frames(path: Path) -> list[tuple[str, list[str]]]:
    """Comment line and lines of the atoms of every frame."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        found = []
        while count := stream.readline():
            found.append((stream.readline(), [stream.readline() for _ in range(int(count))]))
    return found


def shortened(comment: str, atoms: list[str], origin: str) -> str:
    """A frame with the labels LABELS, positions in 1e-4 Å and populations in 1e-4."""
    known = dict(re.findall(r"(\S+?)=([^\s\"]+)", comment))
    labels = " ".join(f"{name}={float(known[name]):.4f}" for name in LABELS if name in known)
    columns = "Properties=species:S:1:pos:R:3:homo_population:R:1:lumo_population:R:1"
    lines = [str(len(atoms)), f'{columns} id={known["id"]} {labels}{origin} pbc="F F F"']
    for atom in atoms:
        symbol, *numbers = atom.split()
        lines.append(" ".join([symbol, *(f"{float(number):.4f}" for number in numbers)]))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    paths = parser.parse_args()
    known = frames(paths.source)
    chosen = np.sort(np.random.default_rng(0).choice(len(known), N, replace=False))
    origins = [f' licence="{LICENCE}" citation="{CITATION}"', *[""] * (N - 1)]
    text = "".join(shortened(*known[n], origin) for n, origin in zip(chosen, origins))
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as stream:
        stream.write(text.encode())
    paths.out.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main()
