"""Joins molecules with and without orbital populations to one set: attention is taught on those that have them.

    python tools/join_orbitals.py qm9.extxyz.gz qm9_orbitals.extxyz.gz qm9_all.extxyz.gz

Frames of the second file, extended XYZ, take the place of those of the first with the same id.
"""

import argparse
import gzip
import re
from pathlib import Path

from make_molecules import frames


def id_of(comment: str) -> str:
    """The id in a comment line."""
    return re.search(r"(?:^|\s)id=(\S+)", comment)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("all", type=Path)
    parser.add_argument("with_populations", type=Path)
    parser.add_argument("out", type=Path)
    paths = parser.parse_args()
    known = {id_of(comment): (comment, atoms) for comment, atoms in frames(paths.with_populations)}
    with gzip.open(paths.out, "wt", encoding="utf-8", compresslevel=6) as stream:
        for comment, atoms in frames(paths.all):
            comment, atoms = known.get(id_of(comment), (comment, atoms))
            stream.write(f"{len(atoms)}\n{comment}{''.join(atoms)}")


if __name__ == "__main__":
    main()
