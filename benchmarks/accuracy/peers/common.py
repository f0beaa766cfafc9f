"""What the methods share: the order of a run, the structures, the clock, and the result. Needs NumPy and ASE only.

An order is a JSON file: method, set, n_train (a text), minutes, seed, budget_s (0: none), threads, commit, date, and
the paths `structures`, `split`, `set_facts` (set.json) and `result`. The clock counts processor seconds; another
process beside it makes them longer, by a tenth (shared caches and memory), not by half.
"""

import importlib.metadata
import json
import math
import platform
import sys
import time
from pathlib import Path

import ase
import numpy as np

PARTS = ("train", "valid", "test")


def read_order():
    """The order of this process, whose path is its only argument."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


class Structures:
    """The structures of a set, and the row numbers `rows` of "train", "valid" and "test"."""

    def __init__(self, order):
        with np.load(order["structures"]) as file:
            arrays = {name: file[name] for name in file.files}
        self.id = arrays["id"]
        self.label = arrays["label"]
        self.cell = arrays["cell"]
        self.pbc = arrays["pbc"]
        self.z = arrays["z"]
        self.position = arrays["position"]
        self.first = np.concatenate([[0], np.cumsum(arrays["n_atoms"])])
        row = {name: number for number, name in enumerate(self.id.tolist())}
        split = json.loads(Path(order["split"]).read_text(encoding="utf-8"))
        self.rows = {part: np.array([row[name] for name in split[part]]) for part in PARTS}

    def labels(self):
        """{part: (S,)}."""
        return {part: self.label[rows] for part, rows in self.rows.items()}

    def numbers(self, row):
        """Atomic numbers of a structure."""
        return self.z[self.first[row] : self.first[row + 1]]

    def atoms(self, row):
        """A structure as ase.Atoms."""
        position = self.position[self.first[row] : self.first[row + 1]]
        return ase.Atoms(self.numbers(row), position, cell=self.cell[row], pbc=self.pbc[row])


class Clock:
    """Processor seconds of this process from now on; `budget` of them are allowed, 0: any number."""

    def __init__(self, budget=0.0):
        self.budget = budget or math.inf
        self.began = time.process_time()
        self.wall_began = time.perf_counter()

    def seconds(self):
        return time.process_time() - self.began

    def wall(self):
        return time.perf_counter() - self.wall_began

    def fraction(self):
        """The part of the budget that is used."""
        return self.seconds() / self.budget


def versions(*packages):
    return {name: importlib.metadata.version(name) for name in packages}


def processor():
    """What Linux calls the processor, whose seconds are counted."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def run_without_budget(features_of, fit, *packages):
    """Carry out the order of a method that takes the time it takes.

    features_of : callable (structures) -> {part: (S, F)}
    fit : callable (order, features, {part: (S,) labels}) -> its predict (S, F) -> (S,), and its settings
    """
    order = read_order()
    structures = Structures(order)
    prepared = Clock()
    features = features_of(structures)
    prepare_s = prepared.seconds()
    clock = Clock()
    predict, settings = fit(order, features, structures.labels())
    write_result(
        order,
        structures,
        {part: predict(features[part]) for part in PARTS[1:]},
        prepare_s=prepare_s,
        train_s=clock.seconds(),
        wall_s=prepared.wall(),
        recipe=settings | {"features": features["train"].shape[1]},
        versions=versions(*packages),
    )


def write_result(order, structures, predictions, **facts):
    """Write the result: errors of `predictions` {"valid", "test": (S,)}, what the method says of itself, the order."""
    label = structures.labels()
    mae = {part: float(np.abs(values - label[part]).mean()) for part, values in predictions.items()}
    names = "method", "set", "n_train", "minutes", "seed", "budget_s", "slowdown", "threads", "commit", "date"
    asked = {name: order[name] for name in names if name in order}
    sizes = {f"n_{part}": len(structures.rows[part]) for part in PARTS}
    result = {
        **asked,
        "processor": processor(),
        "sizes": sizes,
        "valid_mae": mae["valid"],
        "test_mae": mae["test"],
        **facts,
    }
    part = Path(order["result"] + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(order["result"])
