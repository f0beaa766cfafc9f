"""Predictions and metrics of every part of the split."""

import csv
import re
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refattn.common.files import replacing
from refattn.common.metrics import metrics
from refattn.common.text import csv_cell
from refattn.data.splits import Split, resolve_split
from refattn.data.store import Dataset
from refattn.network.checkpoint import Checkpoint
from refattn.network.inference import predict_members
from refattn.ops import load_backend

MARK = re.compile(rb"id,split,[^\n]*,prediction(,spread)?\r\n")  # how the file of write_predictions begins


class EvaluatedPart(typing.NamedTuple):
    """A part of the split and what a run says of it.

    rows : (S,) int                       of the data set
    label, prediction : (S,) float64      in the label's unit
    spread : (S,) float64                 of the members of an ensemble; None for a single run
    predictions : (K, S) float64          of the K members, or of the one run
    structs : list of K (S, G + 1)        representations in these, see MemberPredictions
    """

    rows: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    spread: np.ndarray | None
    predictions: np.ndarray
    structs: list[np.ndarray]


def predict_split(
    checkpoints: list[Checkpoint], dataset: Dataset, map_fn: Callable, device: str
) -> dict[str, EvaluatedPart]:
    """Labels and predictions, in the label's unit, of every part of the split.

    Parameters
    ----------
    checkpoints : list of Checkpoint     the members of an ensemble, or one

    Returns
    -------
    dict of "train", "valid", "test" -> EvaluatedPart

    Raises what GraphBatch.check does.
    """
    first = checkpoints[0]
    dataset.graphs.check(first.config.model, dataset.id)
    label = dataset.labels[first.config.data.target]
    ops = load_backend(device)
    parts = {}
    for name, rows in zip(Split._fields, resolve_split(first.split, dataset), strict=True):
        found = predict_members(checkpoints, ops, dataset.graphs, rows, map_fn)
        parts[name] = EvaluatedPart(rows, label[rows], found.value, found.spread, found.values, found.structs)
    return parts


def summarise(checkpoint: Checkpoint, parts: dict[str, EvaluatedPart]) -> dict:
    """Metrics of every part, and the error on the test set of always predicting the mean of the training labels."""
    summary = {"target": checkpoint.config.data.target, "unit": checkpoint.unit}
    summary["n_parameters"] = len(checkpoint.params.vector)
    summary.update({name: metrics(part.label, part.prediction) for name, part in parts.items()})
    if all(summary.get(name, {}).get("n") for name in ("train", "test")):
        summary["baseline_mae"] = float(np.abs(parts["test"].label - parts["train"].label.mean()).mean())
    return summary


def write_predictions(path: Path, dataset: Dataset, parts: dict[str, EvaluatedPart], target: str) -> None:
    """Write a CSV row for every structure: id, part of the split, label, prediction and, of an ensemble, spread."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        with_spread = any(part.spread is not None for part in parts.values())
        writer.writerow(["id", "split", csv_cell(target), "prediction"] + ["spread"] * with_spread)
        for name, part in parts.items():
            ids = map(csv_cell, dataset.id[part.rows].tolist())
            columns = [ids, [name] * len(part.rows), part.label.tolist(), part.prediction.tolist()]
            if with_spread:
                columns.append(part.spread.tolist())
            writer.writerows(zip(*columns, strict=True))
