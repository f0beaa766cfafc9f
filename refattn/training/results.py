"""What a run leaves for people: metrics.json, predictions.csv, the learning curve and the parity plot."""

import csv

import numpy as np

from refattn.atomic import replacing, write_text
from refattn.data.splits import Split, resolve_split
from refattn.environment import peak_memory_mb
from refattn.ops import load_backend
from refattn.strict_json import to_json
from refattn.training.metrics import metrics
from refattn.training.plots import learning_curve, parity_plot
from refattn.training.step import predict_rows


def predict_split(checkpoint, loader, dataset, run, device):
    """Labels and predictions, in the label's unit, of every part of the split.

    Returns
    -------
    dict of "train", "valid", "test" -> (rows, label (S,), prediction (S,))
    """
    ops, label = load_backend(device), dataset.labels[checkpoint.config.data.target]
    parts = {}
    for name, rows in zip(Split._fields, resolve_split(checkpoint.split, dataset), strict=True):
        output, _ = predict_rows(checkpoint.params, checkpoint.config.model, ops, loader, rows, run)
        parts[name] = rows, label[rows], checkpoint.mean + checkpoint.std * output.astype(float)
    return parts


def summarise(checkpoint, parts):
    """Metrics of every part, and the error on the test set of always predicting the mean of the training labels."""
    summary = {"target": checkpoint.config.data.target, "unit": checkpoint.unit}
    summary["n_parameters"] = len(checkpoint.params.vector)
    summary.update({name: metrics(label, prediction) for name, (_, label, prediction) in parts.items()})
    if all(summary.get(name, {}).get("n") for name in ("train", "test")):
        summary["baseline_mae"] = float(np.abs(parts["test"][1] - parts["train"][1].mean()).mean())
    return summary


def write_results(out, checkpoint, loader, dataset, history, n_threads, run, device):
    """Evaluate the best model and write everything that `out` still lacks. Returns the dict of metrics.json."""
    parts = predict_split(checkpoint, loader, dataset, run, device)
    summary = summarise(checkpoint, parts)
    seconds = sum(record["seconds"] for record in history)
    best = min(history, key=lambda record: record["valid_mae"])
    summary |= {
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": seconds,
        "structures_per_second": len(history) * len(parts["train"][0]) / seconds,
        "peak_memory_mb": peak_memory_mb(),
        "threads": n_threads,
        "dtype": checkpoint.config.training.dtype,
        "device": device,
    }
    target, unit = summary["target"], summary["unit"]
    write_predictions(out / "predictions.csv", dataset, parts, target)
    learning_curve(out / "curve.png", history, unit)
    shown = {
        name: (label, prediction, summary[name]["mae"])
        for name, (rows, label, prediction) in parts.items()
        if len(rows)
    }
    parity_plot(out / "parity.png", shown, target, unit)
    write_text(out / "metrics.json", to_json(summary, indent=1) + "\n")
    return summary


def write_predictions(path, dataset, parts, target):
    """A row for every structure of the split: id, part, label and prediction in the label's unit."""
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "split", target, "prediction"])
        for name, (rows, label, prediction) in parts.items():
            ids = dataset.id[rows].tolist()
            writer.writerows(zip(ids, [name] * len(ids), label.tolist(), prediction.tolist(), strict=True))
