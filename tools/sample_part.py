"""Write structures of one part of a split, drawn at random with seed 0, as extended XYZ with their ids.

    python tools/sample_part.py SPLIT SOURCE OUT N [--part test]

They come in the order in which they were drawn: the first of them are a sample too.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np

from refattn.common.files import replacing
from refattn.data.sources.registry import open_source
from refattn.data.splits import PARTS, read_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("split", "source", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("n", type=int)
    parser.add_argument("--part", choices=PARTS, default="test")
    asked = parser.parse_args()
    ids = getattr(read_split(asked.split), asked.part)
    chosen = [ids[row] for row in np.random.default_rng(0).permutation(len(ids))[: asked.n]]
    found = dict.fromkeys(chosen)
    for record in open_source(asked.source):
        if record.id in found:
            record.atoms.info = {"id": record.id}
            found[record.id] = record.atoms
    missing = [name for name, atoms in found.items() if atoms is None]
    if missing:
        parser.error(f"{asked.source} lacks {len(missing)} of the structures drawn, such as {missing[0]}")
    with replacing(asked.out) as part:
        ase.io.write(part, [*found.values()], format="extxyz", columns=["symbols", "positions"], write_results=False)
    print(f"{asked.out}: {len(found)} of {len(ids)} structures")


if __name__ == "__main__":
    main()
