"""Small data sets and configurations for the tests of training, prediction and the command line."""

import multiprocessing

import numpy as np
from ase.build import molecule

from refattn.config import GraphConfig, config_from_dict
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.structures.batch import GraphBatch

MOLECULES = ("H2O", "CH4", "NH3", "C2H6", "CH3OH", "C2H4", "C6H6", "HCN", "C2H2", "CO2")


def molecules(n, seed=0):
    """`n` rattled molecules, with ids m0, m1, ..."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        atoms = molecule(MOLECULES[number % len(MOLECULES)])
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info["id"] = f"m{number}"
        found.append(atoms)
    return found


def label(atoms):
    """A property of the structure that can be learned: mean distance to the centre, plus a count of heavy atoms."""
    spread = np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0), axis=1).mean()
    return float(spread + 0.1 * (atoms.numbers > 1).sum())


def write_molecules(path, n=60, seed=0, labels=None, **rule):
    """A data set of `n` rattled molecules with the label `spread` in Å. Returns the path."""
    config = GraphConfig(**rule)
    with DatasetWriter(path, config, source="rattled molecules of ASE's g2 set") as writer:
        structures = molecules(n, seed)
        values = [label(atoms) for atoms in structures] if labels is None else labels
        records = [Record(atoms.info["id"], atoms, {"spread": y}, {}) for atoms, y in zip(structures, values)]
        writer.add(records, [GraphBatch.from_atoms(atoms, config) for atoms in structures])
    return path


def write_properties(path, n=60, seed=0):
    """The data set of write_molecules with `heavy`, the number of heavy atoms (unknown for every third), `none`, which
    is never known, and the per-site array `population`, which sums to 1 (absent for every fifth)."""
    with DatasetWriter(path, GraphConfig(), label_attrs={"heavy": {"unit": "atoms"}}) as writer:
        structures = molecules(n, seed)
        records = []
        for number, atoms in enumerate(structures):
            heavy = (atoms.numbers > 1).astype(float)
            labels = {"spread": label(atoms), "heavy": heavy.sum() if number % 3 else np.nan, "none": np.nan}
            population = heavy / heavy.sum() if number % 5 else np.full(len(atoms), np.nan)
            records.append(Record(atoms.info["id"], atoms, labels, {"population": population}))
        writer.add(records, [GraphBatch.from_atoms(atoms) for atoms in structures])
    return path


def small_config(path, **training):
    """Two layers of width 16 and a few epochs on the data set `path`."""
    settings = {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3, "learning_rate_min": 1e-4, "weight_decay": 1e-6}
    return config_from_dict(
        {
            "model": {
                "n_layers": 2, "width": 16, "n_heads": 4, "global_width": 16, "head_width": 16, "embedding_width": 8,
                "n_elements": 10, "attention_dropout": 0.05,
            },
            "data": {"path": str(path), "target": "spread"},
            "training": {**settings, **training},
        }
    )  # fmt: skip


def sent(thing: object) -> object:
    """A copy, as another process gets it."""
    queue = multiprocessing.Queue()
    queue.put(thing)
    return queue.get(timeout=60)
