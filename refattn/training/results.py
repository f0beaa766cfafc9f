"""What a run leaves for people: metrics.json, predictions.csv, the learning curve and the parity plot."""

import csv

from refattn.common.environment import peak_memory_mb
from refattn.common.files import replacing, write_text
from refattn.common.strict_json import to_json
from refattn.network.evaluate import predict_split, summarise
from refattn.prediction.calibration import Calibration, write_calibration
from refattn.report.plots import learning_curve, parity_plot


def write_results(out, checkpoint, loader, dataset, history, n_threads, run, device):
    """Evaluate the best model and write everything that `out` still lacks. Returns the dict of metrics.json."""
    parts = predict_split([checkpoint], loader, dataset, run, device)
    write_calibration(out / "calibration.h5", Calibration.of(parts["train"], parts["valid"], run=run), checkpoint)
    summary = summarise(checkpoint, parts)
    seconds = sum(record["seconds"] for record in history)
    best = min(history, key=lambda record: record["valid_mae"])
    summary |= {
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": seconds,
        "structures_per_second": len(history) * len(parts["train"].rows) / seconds,
        "peak_memory_mb": peak_memory_mb(),
        "threads": n_threads,
        "dtype": checkpoint.config.training.dtype,
        "device": device,
    }
    learning_curve(out / "curve.png", history, summary["unit"])
    _write_outcome(out, summary, parts, dataset)
    return summary


def write_ensemble_results(out, checkpoints, members, loader, dataset, run, device):
    """Evaluate the mean of the members' predictions and write it beside them. Returns the dict of metrics.json.

    Parameters
    ----------
    checkpoints : list of Checkpoint
    members : list of dict     metrics.json of each
    """
    parts = predict_split(checkpoints, loader, dataset, run, device)
    summary = summarise(checkpoints[0], parts)
    summary |= {
        "n_members": len(members),
        "member_test_mae": [member["test"]["mae"] for member in members],
        "seconds": sum(member["seconds"] for member in members),
    }
    _write_outcome(out, summary, parts, dataset)
    return summary


def _write_outcome(out, summary, parts, dataset):
    """predictions.csv, parity.png and, last, metrics.json."""
    target, unit = summary["target"], summary["unit"]
    write_predictions(out / "predictions.csv", dataset, parts, target)
    shown = {name: (p.label, p.prediction, summary[name]["mae"]) for name, p in parts.items() if len(p.rows)}
    parity_plot(out / "parity.png", shown, target, unit)
    write_text(out / "metrics.json", to_json(summary, indent=1) + "\n")


def write_predictions(path, dataset, parts, target):
    """A row for every structure: id, part of the split, label, prediction and, of an ensemble, spread."""
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        with_spread = any(p.spread is not None for p in parts.values())
        writer.writerow(["id", "split", target, "prediction"] + ["spread"] * with_spread)
        for name, p in parts.items():
            ids, spread = dataset.id[p.rows].tolist(), [p.spread.tolist()] if with_spread else []
            columns = [ids, [name] * len(ids), p.label.tolist(), p.prediction.tolist(), *spread]
            writer.writerows(zip(*columns, strict=True))
