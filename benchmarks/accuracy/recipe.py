"""One change of refattn's recipe at a time, for the same processor time: what each setting is worth.

    python benchmarks/accuracy/recipe.py WORK [SET ...] [--only NAME ...] [--seeds 3] [--peers PEERS/bin/python]
                                            [--slowdown 1.5] [--table]

WORK is what sets.py made; the folders of the sets that are not its own are made here. Each run has the processor time
in which the recipe does a number of epochs. A processor second gives more on one day than on another, so some
batches of the variant and of the recipe are timed in turns, and the variant has so many fewer or more epochs, over
which its rate falls. Each run is a process of its own, and only its validation part is looked at: 1,000 structures at
random, or whole trajectories that are not trained on. Beside the energies of trajectories stands what is told the
temperature: least squares on the number of atoms of each element, and on that times the temperature, of which
equipartition makes most. With --peers kernel ridge regression on SOAP is measured on the orbitals. A run whose JSON is
in benchmarks/results/recipe is not repeated. At the end, or with --table at once, README.md of that folder gets the
tables of what is there.
"""

import argparse
import json
import statistics
import typing
from pathlib import Path

import numpy as np
from run import (
    ANGLES,
    HOUR,
    MOLECULES_BEFORE,
    NARROW,
    PUBLISHED_DROPOUT,
    PUBLISHED_GAUSSIANS,
    RECOMMENDED,
    RESULTS,
    SHALLOW,
    Run,
    execute,
)
from sets import BY_TRAJECTORY, SETS, Set, make_set

from refattn.common.files import write_text
from refattn.common.metrics import element_counts
from refattn.config import override
from refattn.data.prepare import prepare
from refattn.data.sources.registry import open_source
from refattn.data.splits import read_split, resolve_split
from refattn.data.store import read_dataset
from refattn.experiments import load_experiment

FOLDER = RESULTS.parent / "recipe"
ROUNDS = 9  # in which a variant and the recipe are timed
# Rows without seeds and budget
KERNEL = "kernel ridge regression on SOAP"
TEMPERATURE = "least squares on the atoms and the temperature"


class Table(typing.NamedTuple):
    """What is tried on a set.

    name : of the set
    set : the Set
    experiment : that of the recipe
    n_train : of the set's sizes
    epochs : of the recipe, whose processor time every variant has
    minutes : of two cores, which every variant has in the place of those epochs; 0: none
    variants : name -> what is changed, TABLE.KEY=VALUE; the order is that of the table
    base : what is changed for all of them, of an experiment that learned from this table
    """

    name: str
    set: Set
    experiment: str
    n_train: str
    epochs: int
    variants: dict[str, tuple[str, ...]]
    minutes: int = 0
    base: tuple[str, ...] = ()


FINE = ("model.n_radial=80", "model.radial_width=0.1")
TO_5 = ("graph.r_max=5", "model.radial_max=5")
SMALL_FACES = ("graph.omega_min=0.1", "graph.weight_min=0")
MORE_EDGES = ("graph.omega_min=0.2", "graph.weight_min=0.05")
WIDE = ("model.width=128", "model.global_width=128", "model.head_width=128")
FAR = ("model.n_elements=119", "model.radial_max=6")  # as far as any data set reaches
AVERAGED = ("training.ema=0.999",)
BEFORE = "no angles, no dropout, 40 Gaussians of 0.15 Å: the recipe before"
MOLECULES = {
    BEFORE: (),
    "learning rate 2.5e-4": ("training.learning_rate=2.5e-4",),
    "learning rate 1e-3": ("training.learning_rate=1e-3",),
    "warm-up of one epoch": ("training.warmup_epochs=1",),
    "no moving average": ("training.ema=0",),
    "loss: mae": ('training.loss="mae"',),
    "loss: huber": ('training.loss="huber"',),
    "loss: mse": ('training.loss="mse"',),
    "no weight decay": ("training.weight_decay=0",),
    "dropout 0.05": ("model.dropout=0.05",),
    "dropout 0.1, of attention 0.05, as published": PUBLISHED_DROPOUT,
    "batches of 8": ("training.batch_size=8",),
    "batches of 32": ("training.batch_size=32",),
    "20 Gaussians of 0.5 Å, as published": PUBLISHED_GAUSSIANS,
    "80 Gaussians of 0.1 Å": FINE,
    "8 Gaussians of angles": ANGLES,
    "edges to 5 Å": TO_5,
    "edges of 0.2 sr": MORE_EDGES,
    "edges of 0.2 sr, to 5 Å": (*MORE_EDGES, *TO_5),
    "8 Gaussians of angles, 20 of 0.5 Å, dropout as published, batches of 32: the recipe": (
        *ANGLES,
        *PUBLISHED_GAUSSIANS,
        *PUBLISHED_DROPOUT,
        "training.batch_size=32",
    ),
    "width 64": NARROW,
    "width 64, 8 Gaussians of angles": (*NARROW, *ANGLES),
    "width 192": ("model.width=192", "model.global_width=192", "model.head_width=192"),
    "4 layers": ("model.n_layers=4",),
    "9 layers": ("model.n_layers=9",),
    "head as published": ('model.head="published"',),
}
LONGER = {
    BEFORE: (),
    "8 Gaussians of angles": ANGLES,
    "width 64, 8 Gaussians of angles": (*NARROW, *ANGLES),
    "width 64, 4 layers, 8 Gaussians of angles": SHALLOW,
    "width 64, 8 Gaussians of angles, dropout as published": RECOMMENDED,
    "width 64, 4 layers, 8 Gaussians of angles, dropout as published, Gaussians of 0.2 Å to 6 Å": (
        *SHALLOW,
        *PUBLISHED_DROPOUT,
        *FAR,
        "model.radial_width=0.2",
    ),
    "width 64, 8 Gaussians of angles, dropout as published, 20 Gaussians of 0.5 Å to 6 Å": (
        *RECOMMENDED,
        *PUBLISHED_GAUSSIANS,
        *FAR,
    ),
    "width 64, 8 Gaussians of angles, the others as published": (*NARROW, *HOUR),
}
ENERGIES = {
    "the experiment": (),
    "20 Gaussians of 0.5 Å, as published": PUBLISHED_GAUSSIANS,
    "edges of 0.4 sr, as published": ("graph.omega_min=0.4", "graph.weight_min=0.2"),
    "8 Gaussians of angles": ANGLES,
    "`intensive` readout": ('model.readout="intensive"',),
}
ORBITALS = {
    "the experiment": (),
    "80 Gaussians of 0.1 Å": FINE,
    "edges of 0.1 sr": SMALL_FACES,
    "both": (*FINE, *SMALL_FACES),
    "8 Gaussians of angles": ANGLES,
    "moving average": AVERAGED,
    "additive head": ('model.head="additive"',),
    "no dropout": ("model.dropout=0",),
    "2 layers": ("model.n_layers=2",),
}
CRYSTALS = {
    "width 128, 40 Gaussians of 0.2 Å: the recipe before": (),
    "8 Gaussians of angles": ANGLES,
    "width 64": NARROW,
    "width 64, 8 Gaussians of angles": (*NARROW, *ANGLES),
    "20 Gaussians of 0.5 Å, as published": PUBLISHED_GAUSSIANS,
    "width 64, 20 Gaussians of 0.5 Å: the recipe": (*NARROW, *PUBLISHED_GAUSSIANS),
    "width 64, 20 Gaussians of 0.5 Å, 8 of angles": (*NARROW, *PUBLISHED_GAUSSIANS, *ANGLES),
    "dropout 0.1, as published": ("model.dropout=0.1",),
    "no moving average": ("training.ema=0",),
    "batches of 32": ("training.batch_size=32",),
    "6 layers": ("model.n_layers=6",),
    "head as published": ('model.head="published"',),
}
CRYSTALS_BEFORE = (*WIDE, "model.n_radial=40", "model.radial_width=0.2")
ENERGY = SETS["fullerene_homo"]._replace(target="deformation_energy")
PT_GRAPHENE = ENERGY._replace(source="pt-graphene", split={**BY_TRAJECTORY, "n_valid": 100, "n_test": 100})
TABLES = {
    "qm9_gap": Table("qm9_gap", SETS["qm9_gap"], "molecules_b3lyp", "10000", 8, MOLECULES, base=MOLECULES_BEFORE),
    "qm9_gap_10min": Table("qm9_gap", SETS["qm9_gap"], "molecules_b3lyp", "all", 0, LONGER, 10, MOLECULES_BEFORE),
    "mp_e_form": Table("mp_e_form", SETS["mp_e_form"], "crystals", "10000", 8, CRYSTALS, base=CRYSTALS_BEFORE),
    "fullerene_energy": Table("fullerene_energy", ENERGY, "builtin_fullerene", "all", 15, ENERGIES),
    "pt_graphene": Table("pt_graphene", PT_GRAPHENE, "builtin_pt_graphene", "all", 30, ENERGIES),
    "fullerene_homo": Table("fullerene_homo", SETS["fullerene_homo"], "fullerene_homo", "all", 60, ORBITALS),
}


def result_of(name: str, variant: str, seed: int | str, folder: Path = FOLDER) -> Path:
    """The JSON of a run."""
    return folder / f"{name}_{''.join(c if c.isascii() and c.isalnum() else '_' for c in variant)}_{seed}.json"


def graphs_of(table: Table, changes: tuple[str, ...], folder: Path) -> Path:
    """The data set in `folder` with the graphs of a variant, made of that of the recipe where it has others."""
    graph = override(load_experiment(table.experiment), (*table.base, *changes)).graph
    path = folder / f"{graph.rule}.h5"
    if read_dataset(path).graph_config == graph:
        return path
    target = path.with_name(f"{graph.rule}_{graph.r_max:g}_{graph.omega_min:g}_{graph.weight_min:g}.h5")
    if not target.exists():
        prepare(open_source(path), target, graph)
    return target


def train(name: str, variant: str, seed: int, work: Path, folder: Path = FOLDER, slowdown: float = 1.0) -> None:
    """One run, unless it is there. Raises CalledProcessError."""
    target, table = result_of(name, variant, seed, folder), TABLES[name]
    if target.exists():
        return
    changes = table.variants[variant]
    run = Run("refattn", table.name, table.n_train, table.minutes, seed)
    graphs, unchanged = (str(graphs_of(table, tried, work / table.name)) for tried in (changes, ()))
    more = {"base": table.base, "changes": changes, "graphs": graphs, "unchanged_graphs": unchanged}
    if table.minutes:
        more["slowdown"] = slowdown
    else:
        timed = result_of(name, variant, "cost", folder)
        if changes and not timed.exists():
            execute(run, work, "", folder, rounds=ROUNDS, result=str(timed), **more)
        more["epochs"] = max(round(table.epochs / cost_of(name, variant, folder)), 1)
    execute(run, work, "", folder, result=str(target), **more)


def cost_of(name: str, variant: str, folder: Path = FOLDER) -> float:
    """Processor time of a variant over that of the recipe, by structure: median of the rounds; 1 of the recipe."""
    if not TABLES[name].variants[variant]:
        return 1.0
    found = json.loads(result_of(name, variant, "cost", folder).read_text(encoding="utf-8"))
    return statistics.median(b / a for a, b in zip(found["unchanged"], found["changed"], strict=True))


def fit_temperature(name: str, work: Path, folder: Path = FOLDER) -> None:
    """Least squares on the trajectories of a set, which have the label `temperature`, unless it is there."""
    target = result_of(name, TEMPERATURE, 0, folder)
    if not target.exists():
        dataset = read_dataset(work / name / "isolated.h5")
        graphs, label = dataset.graphs, dataset.labels[TABLES[name].set.target]
        counts = element_counts(graphs.z, graphs.site_ptr, graphs.z.max() + 1)
        features = np.hstack([counts, counts * dataset.labels["temperature"][:, None]])
        train, valid, _ = resolve_split(read_split(work / name / "split_all.json"), dataset)
        weights = np.linalg.lstsq(features[train], label[train], rcond=None)[0]
        error = float(np.abs(features[valid] @ weights - label[valid]).mean())
        write_text(target, json.dumps({"valid_mae": error}, indent=1) + "\n")


def fit_kernel(name: str, work: Path, peers: str) -> None:
    """Kernel ridge regression on a set, unless it is there. Raises CalledProcessError."""
    target = result_of(name, KERNEL, 0)
    if not target.exists():
        execute(Run("soap-krr", name, "all", 0, 0), work, peers, FOLDER, budget_s=0.0, result=str(target))


def text_of(name: str, folder: Path = FOLDER) -> str:
    """Mean of the validation MAE of the seeds, their spread, and the epochs that the time was enough for."""
    lines = [f"| {name} | validation MAE, {TABLES[name].set.unit} | seeds | epochs |", "| --- | ---: | ---: | ---: |"]
    for variant in [*TABLES[name].variants, KERNEL, TEMPERATURE]:
        paths = sorted(folder.glob(result_of(name, variant, 0).name.replace("_0.json", "_[0-9].json")))
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        if runs:
            errors = [run["valid_mae"] for run in runs]
            spread = f" ± {statistics.stdev(errors):.4f}" if len(runs) > 1 else ""
            epochs = f"{statistics.mean(run['epochs'] for run in runs):.0f}" if "epochs" in runs[0] else "-"
            lines.append(f"| {variant} | {statistics.mean(errors):.4f}{spread} | {len(runs)} | {epochs} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("sets", nargs="*", default=list(TABLES), metavar="SET")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", help="the interpreter of the peers' environment")
    parser.add_argument("--slowdown", type=float, default=1.0, help="as run.py's, where a table has minutes")
    parser.add_argument("--table", action="store_true", help="write README.md of what is there and do nothing else")
    asked = parser.parse_args()
    for seed in range(0 if asked.table else asked.seeds):
        for name in asked.sets:
            make_set(TABLES[name].name, Path(), asked.work, TABLES[name].set)
            for variant in asked.only or TABLES[name].variants:
                train(name, variant, seed, asked.work, slowdown=asked.slowdown)
            if name in ("fullerene_energy", "pt_graphene"):
                fit_temperature(name, asked.work)
            if asked.peers and name == "fullerene_homo":
                fit_kernel(name, asked.work, asked.peers)
    texts = [text for name in TABLES if (text := text_of(name)).count("\n") > 2]
    write_text(FOLDER / "README.md", "\n".join(["# What each setting of the recipe is worth\n", *texts]))
    print("\n".join(texts))


if __name__ == "__main__":
    main()
