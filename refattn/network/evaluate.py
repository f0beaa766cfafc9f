"""Predictions and metrics of every part of the split."""

import csv
import itertools
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from refattn.common.files import replacing
from refattn.common.metrics import (
    baselines,
    class_metrics,
    compositions,
    known_columns,
    means_of_groups,
    metrics,
)
from refattn.common.text import csv_cell
from refattn.data.groups import group_numbers
from refattn.data.splits import Split, labels_of_targets, resolve_split
from refattn.data.store import Dataset
from refattn.network.checkpoint import Checkpoint
from refattn.network.inference import predict_members
from refattn.ops import load_backend

MARK = re.compile(rb"id,split,[^\n]*prediction[^\n]*\r\n")  # how the file of write_predictions begins


class EvaluatedPart(typing.NamedTuple):
    """A part of the split and what a run says of it.

    rows : (S,) int                          of the data set
    composition : (S,) int                   the same number for structures with the same atoms
    attention : (N, K)                       global attention of all sites of these structures
    label, prediction : (S, K) float64       of K targets, in the labels' units; a label is NaN where it is unknown
    spread : (S, K) float64                  of the members of an ensemble; None for a single run
    predictions : (M, S, K) float64          of the M members, or of the one run
    structs : list of M (S, K G + 1)         representations in these, see MemberPredictions
    group : (S,) int                         the same number for structures of a group, by data.split_by; None without
    """

    rows: np.ndarray
    composition: np.ndarray
    attention: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    spread: np.ndarray | None
    predictions: np.ndarray
    structs: list[np.ndarray]
    group: np.ndarray | None = None


def predict_split(
    checkpoints: list[Checkpoint], dataset: Dataset, map_fn: Callable, device: str
) -> dict[str, EvaluatedPart]:
    """Labels and predictions, in the labels' units, of every part of the split.

    Parameters
    ----------
    checkpoints : list of Checkpoint     the members of an ensemble, or one

    Returns
    -------
    dict of "train", "valid", "test" -> EvaluatedPart

    Raises what GraphBatch.check and group_numbers do.
    """
    first = checkpoints[0]
    dataset.graphs.check(first.config.model, dataset.id)
    label = labels_of_targets(dataset, first.config.data.targets)
    ops = load_backend(device)
    composition = compositions(dataset.graphs.z, dataset.graphs.site_ptr)
    group = group_numbers(dataset, first.config.data) if first.split.train else None
    parts = {}
    for name, rows in zip(Split._fields, resolve_split(first.split, dataset), strict=True):
        found = predict_members(checkpoints, ops, dataset.graphs, rows, map_fn)
        attention = np.concatenate([np.zeros((0, label.shape[1])), *found.attention])
        known = rows, composition[rows], attention, label[rows]
        own_group = None if group is None else group[rows]
        parts[name] = EvaluatedPart(*known, found.value, found.spread, found.values, found.structs, own_group)
    return parts


def summarise(checkpoint: Checkpoint, parts: dict[str, EvaluatedPart]) -> dict:
    """Metrics of every part, and on the test set what is reached without a network, see metrics.baselines.

    Where data.split_by makes groups, `split_by` and `valid_by` of it too, and as `group_mae` of the validation set the
    error of the mean of the training structures of the same group. Of classes class_metrics of every part too, and the
    `composition_auc` of that mean.

    Of several targets, a dict of each under its name in `targets`.
    """
    names = checkpoint.config.data.targets
    n_parameters = len(checkpoint.params.vector)
    columns = {name: list(known_columns(part.label, part.prediction)) for name, part in parts.items()}
    each = {}
    for k, (target, unit) in enumerate(zip(names, checkpoint.units, strict=True)):
        each[target] = {"target": target, "unit": unit, "n_parameters": n_parameters}
        each[target] |= {name: metrics(*known[k]) for name, known in columns.items()}
        if checkpoint.config.of_class:
            for name, known in columns.items():
                each[target][name] |= class_metrics(*known[k])
        if all(each[target].get(name, {}).get("n") for name in ("train", "test")):
            groups = [part.composition[~np.isnan(part.label[:, k])] for part in (parts["train"], parts["test"])]
            each[target] |= baselines(groups, columns["train"][k][0], *columns["test"][k])
            if checkpoint.config.of_class:
                share = means_of_groups(groups[0], columns["train"][k][0], groups[1])
                each[target]["composition_auc"] = class_metrics(columns["test"][k][0], share)["auc"]
        if "valid" in parts and parts["valid"].group is not None:
            groups = [part.group[~np.isnan(part.label[:, k])] for part in (parts["train"], parts["valid"])]
            own_mean = means_of_groups(groups[0], columns["train"][k][0], groups[1])
            each[target]["valid"]["group_mae"] = metrics(columns["valid"][k][0], own_mean)["mae"]
            data = checkpoint.config.data
            each[target] |= {"split_by": data.split_by, "valid_by": data.valid_by}
    return each[names[0]] if len(names) == 1 else {"n_parameters": n_parameters, "targets": each}


def write_predictions(path: Path, dataset: Dataset, parts: dict[str, EvaluatedPart], targets: Sequence[str]) -> None:
    """Write a CSV row for every structure: id, part of the split, and label, prediction and, of an ensemble, spread of
    each target; empty where a label is unknown."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        with_spread = any(part.spread is not None for part in parts.values())
        fields = ["prediction"] + ["spread"] * with_spread
        heads = [
            [target, *(field if len(targets) == 1 else f"{field} {target}" for field in fields)] for target in targets
        ]
        writer.writerow(["id", "split", *map(csv_cell, itertools.chain(*heads))])
        for name, part in parts.items():
            columns = [map(csv_cell, dataset.id[part.rows].tolist()), [name] * len(part.rows)]
            for k in range(len(targets)):
                columns.append(["" if np.isnan(y) else y for y in part.label[:, k].tolist()])
                columns.append(part.prediction[:, k].tolist())
                if with_spread:
                    columns.append(part.spread[:, k].tolist())
            writer.writerows(zip(*columns, strict=True))
