"""Makes a model that ships with the package of a finished run, or its card again.

    python tools/make_model.py RUN NAME [--before RUN]... [--models refattn/models]
    python tools/make_model.py --card DATA NAME [--split SPLIT] [--before RUN]...

What the card says of NAME stands in tools/models.toml. The split is left out of model.h5, and calibration.h5 keeps the
representations of POINTS training structures, drawn at random: the distances to these take the place of those to all,
of the validation structures too, so that the intervals hold as before. --before names the runs, or models that ship,
which the run began with; their seconds are in the card too.

On the test structures the card has the errors, also without those of the formulas that are in `without`, and the share
of them that intervals of COVERAGE hold. --card measures these of the model that is there, on the data set that it was
trained on: its split is drawn again as its configuration says, or read from SPLIT. The errors of the same recipe on
what is new are those that benchmarks/new_materials.py left of the set `new_materials`.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import tomllib
from pathlib import Path

import numpy as np
from ase.formula import Formula
from ase.symbols import symbols2numbers

import refattn
from refattn.common.metrics import element_counts, metrics
from refattn.common.strict_json import to_json
from refattn.common.threads import workers
from refattn.config import to_toml
from refattn.data.builtin import data_of_run, open_data_for
from refattn.data.fingerprint import Extent
from refattn.data.splits import Split, choose_split, read_split, resolve_split
from refattn.data.store import Dataset
from refattn.errors import DataError
from refattn.models import CARD, KEYS, shipped
from refattn.network.checkpoint import load_checkpoint, save_checkpoint
from refattn.network.evaluate import predict_split
from refattn.prediction.calibration import calibrations_of, write_calibrations
from refattn.prediction.uncertainty import coverage_error, reliability

POINTS = 1000
PARTS = ("valid", "test")
FIGURES = ("unit", "split_by", "valid_by", "baseline_mae", "composition_mae", *PARTS, "attention")
COVERAGE = 0.9
SAME = 1e-4  # of a test error, between processors and versions
FACTS = Path(__file__).parent / "models.toml"
NEW = Path(__file__).parents[1] / "benchmarks" / "results" / "new_materials"
WORDS = {"composition": "new compositions", "size": "larger structures", "cluster": "new clusters"}


def errors_of(of_run: dict) -> dict:
    """{target: the figures of a metrics.json that a card shows}."""
    each = of_run.get("targets") or {of_run["target"]: of_run}
    return {target: {name: found[name] for name in FIGURES if name in found} for target, found in each.items()}


def pack(run: Path, out: Path, facts: dict, before: list[Path] | tuple = ()) -> None:
    """Write the model `out` of a run; its card has the facts, what metrics.json of the run says, and what is measured.

    before : runs that the run began with, one after the other
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(run / "model.h5")
    config = checkpoint.config
    dataset = open_data_for(config, data_of_run(config.data.path, run))
    extent = Extent.of(dataset, resolve_split(checkpoint.split, dataset)[0])
    chosen = np.random.default_rng(0).permutation(len(checkpoint.split.train))[:POINTS]
    kept = checkpoint.split._replace(train=[checkpoint.split.train[n] for n in np.sort(chosen)])
    with workers(2) as map_fn:
        parts = predict_split([dataclasses.replace(checkpoint, split=kept)], dataset, map_fn, "cpu")
        calibrations = calibrations_of(parts["train"], parts["valid"], 0, map_fn)
    data = dataclasses.replace(config.data, path=Path(config.data.path).name, split=Path(config.data.split).name)
    own = dataclasses.replace(config, data=data)
    save_checkpoint(
        out / "model.h5",
        dataclasses.replace(checkpoint, config=own, split=Split([], [], []), state={}, fingerprint=None, extent=extent),
    )
    write_calibrations(out / "calibration.h5", calibrations, load_checkpoint(out / "model.h5"))
    of_run = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (out / "metrics.json").write_text(to_json(of_run, indent=1) + "\n", encoding="utf-8")
    write_card(out, facts, f"refattn {refattn.__version__}", dataset, checkpoint.split, before)


def write_card(
    out: Path, facts: dict, made_with: str, dataset: Dataset, split: Split, before: list[Path] | tuple = ()
) -> None:
    """Write the card of the model `out`: the facts, its metrics.json, and what is measured on the test part of a split.

    Raises DataError where the test errors are not those of metrics.json.
    """
    of_run = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    starts = [json.loads((shipped(run) / "metrics.json").read_text(encoding="utf-8")) for run in before]
    card = {"name": out.name, **facts, "made_with": made_with}
    card["config"] = to_toml(load_checkpoint(out / "model.h5").config)
    card |= {"seconds": of_run["seconds"], "peak_memory_mb": of_run["peak_memory_mb"]}
    card["before"] = [{name: start[name] for name in ("seconds", "peak_memory_mb")} for start in starts]
    card["sha256"] = hashlib.sha256((out / "model.h5").read_bytes()).hexdigest()
    card["errors"] = errors_of(of_run)
    for target, found in measured(out, dataset, split, facts["without"]).items():
        shown = card["errors"][target]
        test = found.pop("test")
        if test["n"] != shown["test"]["n"] or not math.isclose(test["mae"], shown["test"]["mae"], rel_tol=SAME):
            raise DataError(
                f"{out}: the test error of {target} is {test['mae']:.4g} on {test['n']} structures, metrics.json has "
                f"{shown['test']['mae']:.4g} on {shown['test']['n']}; give the data set and the split of its training"
            )
        shown |= found
    card["on_new"] = errors_on_new(facts["new_materials"])
    (out / CARD).write_text(to_json({key: card[key] for key in KEYS}, indent=1) + "\n", encoding="utf-8")


def errors_on_new(name: str) -> list[dict]:
    """What the results of benchmarks/new_materials.py say of the set `name`, but for the test at random; [] of none."""
    found = []
    for path in sorted(NEW.glob(f"{name}_*.json")) if name else []:
        split = path.stem.removeprefix(f"{name}_")
        if split != "nothing" and not split.endswith("_features"):  # another network
            new = WORDS.get(split, f"structures with {split}, an element never seen")
            run = json.loads(path.read_text(encoding="utf-8"))
            of_run = {"target": run["target"], "unit": run["unit"], "n_train": run["train"]["n"]}
            found.append({"new": new, **of_run, "more_of_the_same": run["valid"]["mae"], "mae": run["test"]["mae"]})
    return found


def measured(model_folder: Path, dataset: Dataset, split: Split, without: list[str]) -> dict[str, dict]:
    """{target: test, without and intervals} of a model on the test part of a split.

    test : metrics in the label's unit; without : {formula: metrics of the others}; intervals : wanted coverage, share
    `held` of n labels, number n_valid of validation labels, and what coverage_error says
    """
    model = refattn.load(model_folder)
    checkpoint = dataclasses.replace(model.checkpoints[0], split=Split([], [], split.test))
    with workers(1) as map_fn:
        part = predict_split([checkpoint], dataset, map_fn, "cpu", with_attention=False)["test"]
        distances = model.distance([struct[:] for struct in part.structs], map_fn)
    found = {}
    for k, (target, conformal) in enumerate(zip(model.targets, model.conformals, strict=True)):
        known = ~np.isnan(part.label[:, k])
        label, prediction, distance = (array[known, k] for array in (part.label, part.prediction, distances))
        others = {formula: ~are_of(formula, dataset, part.rows[known]) for formula in without}
        held = reliability(conformal, COVERAGE, label, prediction, distance)["coverage"]
        found[target] = {
            "test": metrics(label, prediction),
            "without": {formula: metrics(label[rest], prediction[rest]) for formula, rest in others.items()},
            "intervals": {"wanted": COVERAGE, "held": held, "n": len(label), "n_valid": conformal.n_exchangeable}
            | coverage_error(conformal.n_exchangeable, len(label), COVERAGE),
        }
    return found


def are_of(formula: str, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Which of the structures `rows` have the atoms of a formula, such as C7H10O2: (R,) bool."""
    graphs, wanted = dataset.graphs, symbols2numbers(str(Formula(formula)))
    n_elements = max(*wanted, graphs.z.max()) + 1
    counts = element_counts(graphs.z, graphs.site_ptr, n_elements)[rows]
    return (counts == np.bincount(wanted, minlength=n_elements)).all(axis=1)


def pack_card(out: Path, facts: dict, data: Path, split: Path | None, before: list[Path]) -> None:
    """Write the card of the model `out` again; see write_card. `split` stands for the one that its configuration draws.

    Raises what read_split, choose_split and write_card do.
    """
    config = load_checkpoint(out / "model.h5").config
    dataset = open_data_for(config, data)
    parts = read_split(split) if split else choose_split(dataset, config.data)
    card = json.loads((out / CARD).read_text(encoding="utf-8"))
    write_card(out, facts, card["made_with"], dataset, parts, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN", help="a finished run; with --card the data set")
    parser.add_argument("name")
    parser.add_argument("--models", type=Path, default=Path("refattn/models"))
    parser.add_argument("--before", type=Path, action="append", default=[], metavar="RUN")
    parser.add_argument("--card", action="store_true", help="write the card alone, of the model that is there")
    parser.add_argument("--split", type=Path, help="with --card: the file of a split that was not drawn")
    asked = parser.parse_args()
    facts = tomllib.loads(FACTS.read_text(encoding="utf-8"))[asked.name]
    out = asked.models / asked.name
    if asked.card:
        pack_card(out, facts, asked.source, asked.split, asked.before)
    else:
        pack(asked.source, out, facts, asked.before)


if __name__ == "__main__":
    main()
