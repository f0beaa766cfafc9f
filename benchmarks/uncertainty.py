"""How well 90 % intervals hold, on held-out molecules and on molecules larger than any that was trained on.

    python benchmarks/uncertainty.py DATA.h5 --ensemble RUN --work WORK --json benchmarks/results/uncertainty.json

RUN is an ensemble trained on a random split of DATA.h5, such as `refattn train --data DATA.h5 --target xtb_homo --out
RUN --ensemble 5`. For the shift, WORK/small gets an ensemble of five small networks (3 layers, width 64, 12 epochs)
trained on molecules of at most 16 atoms; given again, the command takes it as it is.

Every set is measured with the rule of prediction/uncertainty.py (distance) and with others that it was chosen from:
the same half-width for all, and u = spread, or spread + its median on the validation set.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

import refattn
from refattn.cli.options import note
from refattn.common.threads import workers
from refattn.config import Config, override
from refattn.data.splits import Split, resolve_split, write_split
from refattn.data.store import read_dataset
from refattn.network.inference import MemberPredictions, predict_members
from refattn.prediction.calibration import read_calibration
from refattn.prediction.predictor import Ensemble, Model
from refattn.prediction.uncertainty import conformal_quantile, rank_correlation, reliability
from refattn.training.train_ensemble import train_ensemble

COVERAGE, LARGEST = 0.9, 16
SMALL = ("n_layers=3", "width=64", "global_width=64", "head_width=64", "n_elements=10")
SIZES = {"up to 16 atoms": (0, 16), "17 and 18": (17, 18), "19 and 20": (19, 20), "21 and more": (21, 99)}


def size_split(dataset, path):
    """Write a Split: 1,000 small molecules to validate, 2,000 and 6,000 larger ones to test, the rest to train."""
    n_atoms, rng = np.diff(dataset.graphs.site_ptr), np.random.default_rng(0)
    small, large = (rng.permutation(np.flatnonzero(part)) for part in (n_atoms <= LARGEST, n_atoms > LARGEST))
    parts = small[3000:], small[2000:3000], np.concatenate([small[:2000], large[:6000]])
    write_split(path, Split(*(dataset.id[rows].tolist() for rows in parts)))


def train_small(dataset, data, target, work, threads):
    """The ensemble of small networks, trained or taken as it is."""
    out, split = work / "small", work / "split.json"
    size_split(dataset, split)
    config = override(Config(), [f"model.{setting}" for setting in SMALL])
    settings = dataclasses.replace(config.data, path=str(data), target=target, split=str(split))
    training = dataclasses.replace(config.training, epochs=12, learning_rate=1e-3, learning_rate_min=1e-6)
    config = dataclasses.replace(config, data=settings, training=training)
    if not (out / "metrics.json").exists():
        train_ensemble(config, 5, out, threads, resume=(out / "ensemble.json").exists())
    return out


def measure(run, dataset, groups, threads):
    """Figures of an ensemble and of its first member on groups of its test set: name -> function (n_atoms) -> mask."""
    model = refattn.load(run)
    rows = resolve_split(model.checkpoints[0].split, dataset)[2]
    n_atoms = np.diff(dataset.graphs.site_ptr)[rows]
    label = dataset.labels[model.target][rows]
    first = Model(model.checkpoints[0], calibration=model.calibrations[0])
    found = {}
    with workers(threads) as run_shards:
        together = predict_members(model.checkpoints, model.ops, dataset.graphs, rows, run_shards)
        alone = MemberPredictions(together.values[0], [], None, together.values[:1], together.structs[:1])
        for name, predictor, answer in (
            ("one network", first, alone),
            (f"{len(model.checkpoints)} networks", model, together),
        ):
            distance, rules = predictor.conformals[0].distance(answer.structs, run_shards), other_rules(predictor)
            found[name] = {
                group: figures(predictor, rules, label, answer, distance, mask(n_atoms))
                for group, mask in groups.items()
            }
    return found


def other_rules(predictor):
    """{rule: (quantile of its scores on the validation set, function (spread) -> u)}."""
    members = [read_calibration(*pair) for pair in zip(predictor.calibrations, predictor.checkpoints, strict=True)]
    predictions, label = np.array([member.prediction for member in members]), members[0].label
    spread = predictions.std(axis=0, ddof=1) if len(members) > 1 else np.ones(len(label))
    rules = {"constant": np.ones_like}
    if isinstance(predictor, Ensemble):
        middle = np.median(spread)
        rules |= {"spread": lambda s: s, "spread + median": lambda s: s + middle}
    error = np.abs(label - predictions.mean(axis=0))
    return {name: (conformal_quantile(error / rule(spread), COVERAGE), rule) for name, rule in rules.items()}


def figures(predictor, rules, label, answer, distance, chosen):
    """Figures of the structures `chosen` (S,) bool."""
    error = np.abs(label - answer.value)[chosen]
    found = reliability(predictor.conformals[0], COVERAGE, label[chosen], answer.value[chosen], distance[chosen])
    del found["curve"], found["wanted_coverage"]
    found["mae"] = float(error.mean())
    spread = np.ones(len(label)) if answer.spread is None else answer.spread
    if answer.spread is not None:
        found |= {"mean_spread": spread[chosen].mean(), "spearman_spread": rank_correlation(error, spread[chosen])}
    for name, (quantile, rule) in rules.items():
        half = quantile * rule(spread[chosen])
        found[f"rule {name}"] = {"coverage": (error <= half).mean(), "mean_width": 2 * half.mean()}
    return rounded(found)


def rounded(value):
    """Numbers with four digits, in dicts too."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return value if isinstance(value, int) or value is None else float(f"{value:.4g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ensemble", type=Path, required=True, help="trained on a random split of the data")
    parser.add_argument("--work", type=Path, required=True, help="folder for the ensemble on small molecules")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    dataset, target = read_dataset(arguments.data, with_positions=False), refattn.load(arguments.ensemble).target
    small = train_small(dataset, arguments.data, target, arguments.work, arguments.threads)
    note("the ensemble on small molecules is trained")
    by_size = {
        name: lambda n_atoms, low=low, high=high: (n_atoms >= low) & (n_atoms <= high)
        for name, (low, high) in SIZES.items()
    }
    facts = {
        "target": target,
        "unit": dataset.label_attrs[target].get("unit", ""),
        "wanted_coverage": COVERAGE,
        "shifted": measure(small, dataset, by_size, arguments.threads),
        "held_out": measure(arguments.ensemble, dataset, {"all": lambda n_atoms: n_atoms > 0}, arguments.threads),
    }
    arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    note(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
