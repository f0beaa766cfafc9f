"""Write a split of the structures that have a label: what is left of each part of another split.

    python tools/restrict_split.py SPLIT DATA OUT LABEL...

A network that starts from another one (--init) is tested on what that one was not trained on. SPLIT is a file, or the
name of a model that ships: its split, which does not ship, is drawn again of DATA as its configuration says, and is the
same where DATA has the structures of its training in their order, and its labels.
"""

import argparse
from pathlib import Path

from refattn.data.splits import Split, choose_split, labelled_rows, read_split, write_split
from refattn.data.store import read_dataset
from refattn.models import model_names, shipped
from refattn.network.checkpoint import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("split", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("labels", nargs="+", metavar="LABEL")
    asked = parser.parse_args()
    dataset = read_dataset(asked.data, with_positions=False)
    if str(asked.split) in model_names():
        split = choose_split(dataset, load_checkpoint(shipped(asked.split) / "model.h5").config.data)
    else:
        split = read_split(asked.split)
    known = {dataset.id[row] for row in labelled_rows(dataset, asked.labels)}
    left = Split(*([name for name in part if name in known] for part in split))
    write_split(asked.out, left)
    for name, before, after in zip(Split._fields, split, left, strict=True):
        print(f"{name}: {len(after)} of {len(before)}")


if __name__ == "__main__":
    main()
