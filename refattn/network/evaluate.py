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
from refattn.common.threads import mapped_to
from refattn.data.groups import group_numbers
from refattn.data.splits import Split, labels_of_targets, resolve_split
from refattn.data.store import Dataset
from refattn.network.checkpoint import Checkpoint
from refattn.network.inference import MemberPredictions, predict_members, predict_rows, to_labels
from refattn.ops import load_backend
from refattn.ops.types import Ops
from refattn.structures.batch import GraphBatch

MANY = 400_000  # structures of a part of which more than predictions is kept
MOST_BYTES = 200_000_000  # of their representations, which are there three times for a moment
BLOCK = 1 << 14  # structures whose rows are written at once
MARK = re.compile(rb"id,split,[^\n]*prediction[^\n]*\r\n")  # how the file of write_predictions begins


class EvaluatedPart(typing.NamedTuple):
    """A part of the split and what a run says of it.

    rows : (S,) int                          of the data set
    composition : (S,) int                   the same number for structures with the same atoms
    attention : (N, K)                       global attention of all sites of these structures; None where a large
                                             part need not have it
    label, prediction : (S, K) float64       of K targets, in the labels' units; a label is NaN where it is unknown
    spread : (S, K) float64                  of the members of an ensemble; None for a single run
    predictions : (M, S, K) float64          of the M members, or of the one run
    structs : list of M (S, K G + 1)         representations in these, see MemberPredictions; of a large part
                                             LaterStructs
    group : (S,) int                         the same number for structures of a group, by data.split_by; None without
    """

    rows: np.ndarray
    composition: np.ndarray
    attention: np.ndarray | None
    label: np.ndarray
    prediction: np.ndarray
    spread: np.ndarray | None
    predictions: np.ndarray
    structs: "list[np.ndarray] | list[LaterStructs]"
    group: np.ndarray | None = None


class LaterStructs(typing.NamedTuple):
    """Representations of the structures `rows` of a data set in a network, computed for those that are asked for."""

    checkpoint: Checkpoint
    ops: Ops
    graphs: GraphBatch
    rows: np.ndarray
    map_fn: Callable

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        return predict_members([self.checkpoint], self.ops, self.graphs, self.rows[chosen], self.map_fn).structs[0]


def predict_split(
    checkpoints: list[Checkpoint], dataset: Dataset, map_fn: Callable, device: str, with_attention: bool | None = None
) -> dict[str, EvaluatedPart]:
    """Labels and predictions, in the labels' units, of every part of the split.

    Parameters
    ----------
    checkpoints : list of Checkpoint     the members of an ensemble, or one
    with_attention : bool     of parts of more than MANY structures or MOST_BYTES too; by default where it was taught

    Returns
    -------
    dict of "train", "valid", "test" -> EvaluatedPart

    Raises what GraphBatch.check and group_numbers do.
    """
    first = checkpoints[0]
    chosen = resolve_split(first.split, dataset)
    dataset.graphs.check(first.config.model, dataset.id, np.concatenate(chosen))
    label = labels_of_targets(dataset, first.config.data.targets)
    ops = load_backend(device)
    composition = compositions(dataset.graphs.z, dataset.graphs.site_ptr)
    group = group_numbers(dataset, first.config.data, chosen) if first.split.train else None
    wanted = bool(first.config.training.attention) if with_attention is None else with_attention
    parts = {}
    for name, rows in zip(Split._fields, chosen, strict=True):
        width = first.config.model.n_targets * first.config.model.global_width + 1
        few = len(rows) <= MANY and 4 * width * len(rows) <= MOST_BYTES
        predict = _predict_few if few else _predict_many
        found, attention = predict(checkpoints, ops, dataset.graphs, rows, map_fn, wanted)
        known = rows, composition[rows], attention, label[rows]
        own_group = None if group is None else group[rows]
        parts[name] = EvaluatedPart(*known, found.value, found.spread, found.values, found.structs, own_group)
    return parts


def _predict_few(checkpoints, ops, graphs, rows, map_fn, with_attention):
    """MemberPredictions, and the attention of all sites."""
    found = predict_members(checkpoints, ops, graphs, rows, map_fn)
    n_targets = checkpoints[0].config.model.n_targets
    return found, np.concatenate([np.zeros((0, n_targets)), *found.attention])


def _predict_many(checkpoints, ops, graphs, rows, map_fn, with_attention):
    """The same in bounded memory for each structure: attention only where it is asked for, LaterStructs."""
    found = [predict_labels(checkpoint, ops, graphs, rows, map_fn, with_attention) for checkpoint in checkpoints]
    structs = [LaterStructs(checkpoint, ops, graphs, rows, map_fn) for checkpoint in checkpoints]
    attention = None
    if with_attention:
        attention = found[0][1] if len(found) == 1 else np.mean([beta for _, beta in found], axis=0)
    if len(found) == 1:
        value = found[0][0]
        return MemberPredictions(value, [], None, value[None], structs), attention
    values = np.array([value for value, _ in found])
    return MemberPredictions(values.mean(axis=0), [], values.std(axis=0, ddof=1), values, structs), attention


def predict_labels(
    checkpoint: Checkpoint,
    ops: Ops,
    graphs: GraphBatch,
    rows: np.ndarray,
    map_fn: Callable = map,
    with_attention: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (S, K) of the structures `rows`, in the labels' units, and their attention (N, K) where it is asked
    for; no more than that is kept of what the network makes of them."""

    def kept(output):
        beta = output.beta if with_attention else output.beta[:0].copy()  # not a view, which would keep all of it
        return output._replace(beta=beta, struct=output.struct[:0].copy())

    output = predict_rows(checkpoint.params, checkpoint.config.model, ops, graphs, rows, mapped_to(map_fn, kept))
    blocks = [slice(first, first + BLOCK) for first in range(0, max(len(rows), 1), BLOCK)]
    values = [to_labels(checkpoint, output.prediction[block], graphs, rows[block]) for block in blocks]
    return np.concatenate(values), output.beta


def summarise(checkpoint: Checkpoint, parts: dict[str, EvaluatedPart]) -> dict:
    """Metrics of every part, and on the test set what is reached without a network, see metrics.baselines.

    Where data.split_by makes groups, `split_by` and `valid_by` of it too, and as `group_mae` of the validation set the
    error of the mean of the training structures of the same group. Of classes class_metrics of every part too, and the
    `composition_auc` of that mean.

    Of several targets, a dict of each under its name in `targets`.
    """
    data = checkpoint.config.data
    n_parameters = len(checkpoint.params.vector)
    columns = {name: list(known_columns(part.label, part.prediction)) for name, part in parts.items()}
    each = {}
    for k, (target, unit) in enumerate(zip(data.targets, checkpoint.units, strict=True)):
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
            each[target] |= {"split_by": data.split_by, "valid_by": data.valid_by}
    return each[data.targets[0]] if len(data.targets) == 1 else {"n_parameters": n_parameters, "targets": each}


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
            for first in range(0, len(part.rows), BLOCK):
                rows = slice(first, first + BLOCK)
                columns = [map(csv_cell, dataset.id[part.rows[rows]].tolist()), itertools.repeat(name)]
                for k in range(len(targets)):
                    columns.append(["" if np.isnan(y) else y for y in part.label[rows, k].tolist()])
                    columns.append(part.prediction[rows, k].tolist())
                    if with_spread:
                        columns.append(part.spread[rows, k].tolist())
                writer.writerows(zip(*columns))
