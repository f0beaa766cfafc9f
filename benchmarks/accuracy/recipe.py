"""One change of refattn's recipe at a time, for the same processor time: what each setting is worth.

    python benchmarks/accuracy/recipe.py WORK [--only NAME ...] [--seeds 3] [--table]

WORK is what sets.py made. Each run trains on 10,000 molecules of QM9 for their gap, in 240 processor seconds (two
minutes of two cores), in a process of its own; only its validation part is looked at. A run whose JSON is in
benchmarks/results/recipe is not repeated. At the end, or with --table at once, README.md of that folder gets the table
of what is there.
"""

import argparse
import json
import statistics
from pathlib import Path

from run import RESULTS, Run, execute
from sets import SETS

from refattn.common.files import write_text
from refattn.config import override
from refattn.data.prepare import prepare
from refattn.data.store import Dataset, Record, read_dataset
from refattn.experiments import load_experiment

SET, N_TRAIN, SECONDS = "qm9_gap", "10000", 240.0
FOLDER = RESULTS.parent / "recipe"

# name -> what is changed; the order is that of the table
VARIANTS = {
    "the recipe": (),
    "learning rate 2.5e-4": ("training.learning_rate=2.5e-4",),
    "learning rate 1e-3": ("training.learning_rate=1e-3",),
    "warm-up of one epoch": ("training.warmup_epochs=1",),
    "no moving average": ("training.ema=0",),
    "loss: mae": ('training.loss="mae"',),
    "loss: huber": ('training.loss="huber"',),
    "loss: mse": ('training.loss="mse"',),
    "no weight decay": ("training.weight_decay=0",),
    "dropout 0.05": ("model.dropout=0.05",),
    "dropout 0.1, of attention 0.05, as published": ("model.dropout=0.1", "model.attention_dropout=0.05"),
    "batches of 8": ("training.batch_size=8",),
    "batches of 32": ("training.batch_size=32",),
    "20 Gaussians of 0.5 Å, as published": ("model.n_radial=20", "model.radial_width=0.5"),
    "80 Gaussians of 0.1 Å": ("model.n_radial=80", "model.radial_width=0.1"),
    "edges to 5 Å": ("graph.r_max=5", "model.radial_max=5"),
    "edges of 0.2 sr": ("graph.omega_min=0.2", "graph.weight_min=0.05"),
    "edges of 0.2 sr, to 5 Å": ("graph.omega_min=0.2", "graph.weight_min=0.05", "graph.r_max=5", "model.radial_max=5"),
    "width 64": ("model.width=64", "model.global_width=64", "model.head_width=64"),
    "width 192": ("model.width=192", "model.global_width=192", "model.head_width=192"),
    "4 layers": ("model.n_layers=4",),
    "9 layers": ("model.n_layers=9",),
    "head as published": ('model.head="published"',),
}


def result_of(name: str, seed: int, folder: Path = FOLDER) -> Path:
    """The JSON of a run."""
    return folder / f"{''.join(c if c.isalnum() else '_' for c in name)}_{seed}.json"


class Structures:
    """Those of a Dataset as a source, which get other graphs."""

    licence, citation, fraction = "", "", None

    def __init__(self, dataset: Dataset):
        self.name = SET
        self.dataset = dataset

    def __iter__(self):
        target = SETS[SET].target
        for row, name in enumerate(self.dataset.id.tolist()):
            yield Record(name, self.dataset.atoms(row), {target: float(self.dataset.labels[target][row])}, {})


def graphs_of(changes: tuple[str, ...], work: Path) -> Path:
    """The data set with the graphs of a variant, made of that of the recipe where it has others."""
    graph = override(load_experiment("molecules_b3lyp"), changes).graph
    path = work / SET / f"{graph.rule}.h5"
    dataset = read_dataset(path)
    if dataset.graph_config == graph:
        return path
    target = path.with_name(f"{graph.rule}_{graph.r_max:g}_{graph.omega_min:g}_{graph.weight_min:g}.h5")
    if not target.exists():
        prepare(Structures(dataset), target, graph)
    return target


def train(name: str, seed: int, work: Path) -> None:
    """One run, unless it is there. Raises CalledProcessError."""
    target = result_of(name, seed)
    if not target.exists():
        more = {"changes": VARIANTS[name], "graphs": str(graphs_of(VARIANTS[name], work)), "result": str(target)}
        execute(Run("refattn", SET, N_TRAIN, 2, seed), work, "", FOLDER, budget_s=SECONDS, **more)


def table(folder: Path = FOLDER) -> str:
    """Mean of the validation MAE of the seeds, their spread, and the epochs that the time was enough for."""
    lines = [f"| | validation MAE, {SETS[SET].unit} | seeds | epochs |", "| --- | ---: | ---: | ---: |"]
    for name in VARIANTS:
        paths = sorted(folder.glob(result_of(name, 0).name.replace("_0.json", "_*.json")))
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        if runs:
            errors = [run["valid_mae"] for run in runs]
            spread = f" ± {statistics.stdev(errors):.4f}" if len(runs) > 1 else ""
            epochs = statistics.mean(run["epochs"] for run in runs)
            lines.append(f"| {name} | {statistics.mean(errors):.4f}{spread} | {len(runs)} | {epochs:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="write README.md of what is there and do nothing else")
    asked = parser.parse_args()
    if not asked.table:
        for seed in range(asked.seeds):
            for name in asked.only:
                train(name, seed, asked.work)
    write_text(FOLDER / "README.md", table())
    print(table())


if __name__ == "__main__":
    main()
