"""Makes a model that ships with the package of a finished run.

    python tools/make_model.py RUN NAME [refattn/models]

What the card says of NAME stands in tools/models.toml. The split is left out of model.h5, and calibration.h5 keeps the
representations of POINTS training structures, drawn at random: the distances to these take the place of those to all,
of the validation structures too, so that the intervals hold as before.
"""

import argparse
import dataclasses
import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np

import refattn
from refattn.common.strict_json import to_json
from refattn.common.threads import workers
from refattn.config import to_toml
from refattn.data.builtin import data_of_run, open_data
from refattn.data.fingerprint import Extent
from refattn.data.splits import Split, resolve_split
from refattn.models import CARD, KEYS
from refattn.network.checkpoint import load_checkpoint, save_checkpoint
from refattn.network.evaluate import predict_split
from refattn.prediction.calibration import calibrations_of, write_calibrations

POINTS = 1000
PARTS = ("valid", "test")
FIGURES = ("unit", "split_by", "valid_by", "baseline_mae", "composition_mae", *PARTS, "attention")


def errors_of(metrics: dict) -> dict:
    """{target: the figures of a metrics.json that a card shows}."""
    each = metrics.get("targets") or {metrics["target"]: metrics}
    return {target: {name: found[name] for name in FIGURES if name in found} for target, found in each.items()}


def pack(run: Path, out: Path, facts: dict) -> None:
    """Write the model `out` of a run; its card has the facts and what the run's metrics.json says."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(run / "model.h5")
    config = checkpoint.config
    dataset = open_data(data_of_run(config.data.path, run), config.graph)
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
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    (out / "metrics.json").write_text(to_json(metrics, indent=1) + "\n", encoding="utf-8")
    card = {"name": out.name, **facts, "config": to_toml(own), "made_with": f"refattn {refattn.__version__}"}
    card |= {"seconds": metrics["seconds"], "peak_memory_mb": metrics["peak_memory_mb"]}
    card["sha256"] = hashlib.sha256((out / "model.h5").read_bytes()).hexdigest()
    card["errors"] = errors_of(metrics)
    (out / CARD).write_text(to_json({key: card[key] for key in KEYS}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("models", type=Path, nargs="?", default=Path("refattn/models"))
    asked = parser.parse_args()
    facts = tomllib.loads((Path(__file__).parent / "models.toml").read_text(encoding="utf-8"))
    pack(asked.run, asked.models / asked.name, facts[asked.name])


if __name__ == "__main__":
    main()
