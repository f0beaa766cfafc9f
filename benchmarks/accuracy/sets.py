"""The sets and splits of the comparison, the same for all methods.

    python benchmarks/accuracy/sets.py DATA WORK [--limit N] [SET ...]

DATA has qm9.extxyz.gz and materials_project.extxyz.gz. WORK/SET gets

    isolated.h5, upstream.h5   the data set with refattn's graphs and with the authors'
    split_N.json               for N = 1000, ..., all: who is trained on, validated on and tested on, by id
    structures.npz             the structures of the splits for the methods that do not know refattn's format
    set.json                   the target and the processor seconds that the graphs took

The structures are those that have the label and a graph by both rules. The test set and the validation set are the same
for every N, and every training set holds the smaller ones. A set that is there is not made again. --limit reads so many
structures only, for trials.
"""

import argparse
import json
import time
import typing
from pathlib import Path

import numpy as np

from refattn.common.files import write_text
from refattn.config import DataConfig, GraphConfig
from refattn.data.builtin import SETS as BUILTIN
from refattn.data.prepare import prepare
from refattn.data.sources.registry import open_source
from refattn.data.splits import Split, choose_split, write_split
from refattn.data.store import Dataset, Source, read_dataset
from refattn.structures.batch import GraphBatch

RULES = ("isolated", "upstream")


class Set(typing.NamedTuple):
    """A set of the comparison.

    source : file in the folder DATA, or the name of a built-in set
    unit : of the target
    r_max : float                  longest edge of refattn's graphs, Å
    split : fields of DataConfig   how the split is drawn
    sizes : of the training set -> minutes that it is trained for on two cores; "all" are `n_all`
    """

    source: str
    target: str
    unit: str
    r_max: float
    split: dict
    sizes: dict[str, tuple[int, ...]]
    n_all: int


MOLECULES = {"1000": (10,), "10000": (10,), "all": (1, 10, 60)}
CRYSTALS = {"1000": (10,), "10000": (10,), "all": (1, 10)}
SMALL = {"300": (10,), "1000": (10,), "all": (1, 10)}
AT_RANDOM = {"n_valid": 1000, "n_test": 2000}
BY_TRAJECTORY = {"split_by": "group", "valid_by": "group", "n_valid": 200, "n_test": 400}
SETS = {
    "qm9_gap": Set("qm9.extxyz.gz", "gap", "eV", 4.0, AT_RANDOM, MOLECULES, 36_452),
    "fullerene_homo": Set("fullerene", "homo", "eV", 4.0, BY_TRAJECTORY, SMALL, 1340),
    "mp_e_form": Set("materials_project.extxyz.gz", "e_form", "eV/atom", 6.0, AT_RANDOM, CRYSTALS, 97_725),
}


class Labelled:
    """The structures of a Source that have a label."""

    def __init__(self, source: Source, label: str):
        self.source = source
        self.label = label

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __iter__(self):
        return (record for record in self.source if not np.isnan(record.labels.get(self.label, np.nan)))


def draw(dataset: Dataset, chosen: Set) -> dict[str, Split]:
    """The Split of each size, "all" the last one: the training sets are beginnings of one shuffled list."""
    everything = choose_split(dataset, DataConfig(target=chosen.target, **chosen.split))
    sizes = {name: None if name == "all" else int(name) for name in chosen.sizes}
    return {name: everything._replace(train=everything.train[:size]) for name, size in sizes.items()}


def write_structures(path: Path, dataset: Dataset, target: str) -> None:
    """Write the structures of a Dataset as arrays: id, label, cell, pbc and n_atoms of each, z and position of all."""
    arrays = {"id": dataset.id.astype(str), "label": dataset.labels[target], "cell": dataset.cell, "pbc": dataset.pbc}
    sites = {"n_atoms": np.diff(dataset.graphs.site_ptr), "z": dataset.graphs.z, "position": dataset.position}
    np.savez(path, **arrays, **sites)


def graph_seconds(dataset: Dataset, n_timed: int = 300) -> float:
    """Processor seconds that the graph of a structure takes, the mean of some drawn at random."""
    rows = np.random.default_rng(0).permutation(len(dataset))[: n_timed + 1].tolist()
    GraphBatch.from_atoms(dataset.atoms(rows[0]), dataset.graph_config)  # compiles
    began = time.process_time()
    for row in rows[1:]:
        GraphBatch.from_atoms(dataset.atoms(row), dataset.graph_config)
    return (time.process_time() - began) / len(rows[1:])


def make_set(name: str, data: Path, work: Path, chosen: Set, limit: int | None = None) -> None:
    """Make the folder of a set, unless its set.json, the last file, is there."""
    folder = work / name
    if (folder / "set.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    source = BUILTIN[chosen.source].path if chosen.source in BUILTIN else data / chosen.source
    for rule in RULES:
        labelled = Labelled(open_source(source), chosen.target)
        graphs = GraphConfig(rule=rule, r_max=chosen.r_max)
        prepare(labelled, folder / f"{rule}.h5", graphs, limit=limit, overwrite=True)
    dataset, other = (read_dataset(folder / f"{rule}.h5") for rule in RULES)
    seconds = {rule: graph_seconds(each) for rule, each in zip(RULES, (dataset, other), strict=True)}
    splits = draw(dataset.select(np.isin(dataset.id, other.id)), chosen)
    for size, split in splits.items():
        write_split(folder / f"split_{size}.json", split)
    used = np.isin(dataset.id, np.concatenate(splits["all"]))
    write_structures(folder / "structures.npz", dataset.select(used), chosen.target)
    facts = {"target": chosen.target, "unit": chosen.unit, "graph_seconds_per_structure": seconds}
    write_text(folder / "set.json", json.dumps(facts, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--limit", type=int)
    asked = parser.parse_args()
    for name in asked.sets:
        make_set(name, asked.data, asked.work, SETS[name], asked.limit)


if __name__ == "__main__":
    main()
