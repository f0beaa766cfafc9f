"""Errors and attention of kinds of runs on their test sets, as tables: means over seeds, and their spread.

    python benchmarks/compare_runs.py taught=RUN_0,RUN_1,RUN_2 untaught=HOMO_0,HOMO_1,LUMO_0,LUMO_1 --json OUT

Runs of a kind differ in their seed, or in their target. OUT has what the tables are made of: of every run the parts of
metrics.json that say how well it learned, and the settings in which it differs from the first run of all.
"""

import argparse
import json
import statistics
import tomllib
from pathlib import Path

from report_tables import grid

from refattn.common.attention_metrics import MEASURES
from refattn.common.files import write_text
from refattn.common.strict_json import to_json
from refattn.training.results import targets_of

ERRORS = (("test", "mae"), ("test", "rmse"), ("train", "mae"))
BASELINES = {"composition_mae": "mean of the same composition", "baseline_mae": "mean"}
SIMPLE = {"element": "element alone", "even": "even"}  # attention without a network


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="+", metavar="NAME=RUN,RUN,...")
    parser.add_argument("--json", type=Path, help="Write the numbers of every run here.")
    arguments = parser.parse_args()
    kinds = {}
    for kind in arguments.kinds:
        name, _, runs = kind.partition("=")
        kinds[name] = [read(Path(run)) for run in runs.split(",")]
    first = next(iter(kinds.values()))[0]["settings"]
    record = {
        name: [run | {"settings": differences(run["settings"], first)} for run in runs] for name, runs in kinds.items()
    }
    if arguments.json:
        write_text(arguments.json, to_json(record))
    for target in dict.fromkeys(target for runs in kinds.values() for run in runs for target in run["targets"]):
        print("\n".join(lines(target, kinds)), end="\n\n")


def read(run):
    """Settings and numbers of a run: of every target the errors of each part, the baselines, attention on the test."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    settings = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    targets = {}
    for target, found in targets_of(metrics).items():
        kept = {name: value for name, value in found.items() if name in ("unit", "train", "valid", "test")}
        kept |= {name: value for name, value in found.items() if name.startswith(("baseline", "composition"))}
        attention = found.get("attention", {})
        targets[target] = kept | {"attention": attention.get("test", {}), "attention_train": attention.get("train", {})}
    return {
        "epochs": metrics["epochs"],
        "n_parameters": metrics["n_parameters"],
        "settings": settings,
        "targets": targets,
    }


def differences(settings, first):
    """Settings, by section and name, that are others than those of `first`."""
    return {
        f"{section}.{name}": value
        for section, values in settings.items()
        for name, value in values.items()
        if value != first.get(section, {}).get(name)
    }


def lines(target, kinds):
    """Lines of Markdown of one target: a table of errors, and one of its attention."""
    found = {name: [run["targets"][target] for run in runs if target in run["targets"]] for name, runs in kinds.items()}
    found = {name: runs for name, runs in found.items() if runs}
    any_run = next(iter(found.values()))[0]
    unit = any_run["unit"]
    yield f"{target}, {any_run['train']['n']} structures to train, {any_run['test']['n']} to test"
    rows = [
        [name, len(runs), *(spread([run[part][which] for run in runs], 4) for part, which in ERRORS)]
        for name, runs in found.items()
    ]
    rows += [[name, "", f"{any_run[baseline]:.3f}", "", ""] for baseline, name in BASELINES.items()]
    yield from grid(["", "runs", f"test MAE ({unit})", f"test RMSE ({unit})", f"train MAE ({unit})"], rows)
    taught = {name: runs for name, runs in found.items() if all(run["attention"] for run in runs)}
    if not taught:
        return
    yield ""
    rows = [
        [name, *(spread([run["attention"]["network"][which] for run in runs], 3) for which in MEASURES)]
        for name, runs in taught.items()
    ]
    shown = next(iter(taught.values()))[0]["attention"]
    rows += [[name, *(f"{shown[one][which]:.3f}" for which in MEASURES)] for one, name in SIMPLE.items()]
    yield from grid(["attention on the test set", *(which.replace("_", " ") for which in MEASURES)], rows)


def spread(values, digits):
    """Mean of the runs, and their standard deviation where there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
