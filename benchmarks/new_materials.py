"""How predictive the recipes of the shipped models are for new materials: one network for each way to split.

    refattn prepare qm9.extxyz.gz DATA/qm9.h5
    refattn prepare materials_project.extxyz.gz DATA/mp.h5 --r-max 6
    python benchmarks/new_materials.py DATA [--only SET [SPLIT]] [--table]

Each network has 10,000 structures to train on, 15 epochs and one thread. It is validated on 1,000 structures drawn at
random from the groups that it is trained on, and tested on groups that it is not: the two errors are those on more of
the same and on what is new. Beside the second stand those of the mean label of the training structures and of a
linear model: least squares on the shares of the elements and the number of sites. F and Fe are elements that no
training structure has; of F_features and Fe_features the network reads the features that CGCNN gives the elements
(`model.features`). The `metrics.json` of a run, with `linear_mae`, is kept in benchmarks/results/new_materials and not
made again; README.md there has the table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import typing
from pathlib import Path

import numpy as np

from refattn.common.files import write_text
from refattn.common.metrics import element_counts
from refattn.data.splits import read_split, resolve_split
from refattn.data.store import Dataset, read_dataset

FOLDER = Path(__file__).resolve().parent / "results" / "new_materials"
EPOCHS = 15
PARTS = ("data.n_train=10000", "data.n_valid=1000", "data.n_test=2000")


class Case(typing.NamedTuple):
    """A data set with the experiment that is trained on it.

    file : in DATA
    experiment : its name
    target, unit : of the label
    changes : of the experiment, TABLE.KEY=VALUE
    splits : what is new -> settings of the split
    """

    file: str
    experiment: str
    target: str
    unit: str
    changes: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]


SPLITS = {
    "composition": ("data.split_by=composition",),
    "size": ("data.split_by=size",),
    "cluster": ("data.split_by=cluster",),
}
ELEMENTS = {name: ("data.split_by=elements", f"data.split_group={name}") for name in ("F", "Fe")}
# Elements as features that others share, such as the group, and not as a learned vector each, which a new one lacks.
FEATURES = {f"{name}_features": (*settings, 'model.features="cgcnn"') for name, settings in ELEMENTS.items()}
CASES = {
    "qm9_gap": Case(
        "qm9.h5",
        "molecules_b3lyp",
        "gap",
        "eV",
        ("data.target_weight=[]",),
        {"nothing": (), **SPLITS},
    ),
    "mp_e_form": Case(
        "mp.h5",
        "crystals",
        "e_form",
        "eV/atom",
        ("data.target_weight=[]",),
        {"nothing": (), **SPLITS, **ELEMENTS, **FEATURES},
    ),
}


def linear_mae(dataset: Dataset, target: str, train: np.ndarray, test: np.ndarray) -> float:
    """MAE on the rows `test` of least squares on the shares of the elements and the number of sites, of rows `train`.

    An element that is not in `train` counts nothing (the solution of least norm).
    """
    graphs, label = dataset.graphs, dataset.labels[target]
    counts = element_counts(graphs.z, graphs.site_ptr, graphs.z.max() + 1)
    n_sites = counts.sum(axis=1, keepdims=True)
    features = np.hstack([counts / n_sites, n_sites])
    weights = np.linalg.lstsq(features[train], label[train], rcond=None)[0]
    return float(np.abs(features[test] @ weights - label[test]).mean())


def train(name: str, split: str, data: Path) -> None:
    """One run, unless its result is there. Raises CalledProcessError."""
    case, target = CASES[name], FOLDER / f"{name}_{split}.json"
    if target.exists():
        return
    settings = [f"--set={setting}" for setting in (*case.changes, *PARTS, *case.splits[split])]
    options = ["--data", str(data / case.file), "--target", case.target, "--epochs", str(EPOCHS), "--threads", "1"]
    with tempfile.TemporaryDirectory(prefix="new-materials-") as scratch:
        out = Path(scratch) / "run"
        program = str(Path(sys.executable).with_name("refattn"))
        subprocess.run([program, "train", case.experiment, *options, "--out", str(out), *settings], check=True)
        found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        dataset = read_dataset(data / case.file)
        rows = resolve_split(read_split(out / "split.json"), dataset)
        found["linear_mae"] = linear_mae(dataset, case.target, rows[0], rows[2])
        write_text(target, json.dumps(found, indent=1) + "\n")


def table(folder: Path = FOLDER) -> str:
    """The Markdown table of the results that are there."""
    heads = "new", "structures tested", "error on more of the same", "on what is new", "mean label", "linear model"
    lines = [f"| target | {' | '.join(heads)} |", "| --- | --- |" + " ---: |" * (len(heads) - 1)]
    for name, case in CASES.items():
        for split in case.splits:
            path = folder / f"{name}_{split}.json"
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                errors = [found["valid"]["mae"], found["test"]["mae"], found["baseline_mae"], found["linear_mae"]]
                cells = [f"`{name}`, {case.unit}", split, f"{found['test']['n']:,}", *(f"{e:.3f}" for e in errors)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", metavar=("SET", "SPLIT"), default=[])
    parser.add_argument("--table", action="store_true", help="write the table and train nothing")
    asked = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    runs = [(name, split) for name, case in CASES.items() for split in case.splits]
    for name, split in [] if asked.table else runs:
        if asked.only in ([], [name], [name, split]):
            train(name, split, asked.data)
    write_text(FOLDER / "README.md", f"# Errors on new materials\n\n{table()}")
    print(table())


if __name__ == "__main__":
    main()
