"""A task of Matbench v0.1: a run on each of its five folds, and the predictions as its leaderboard takes them.

The folder of a task holds the data set, data.h5, the split and the run of each fold, split_0.json and fold_0 and so on,
and at the end results.json.gz. Everything that is there is used again, so that the same call goes on.

Source   Dunn et al., npj Comput. Mater. 6, 138 (2020); materialsproject/matbench 0.6: folds, scores, names and digest
         of the results
"""

import csv
import dataclasses
import datetime
import gzip
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np

import refattn
from refattn.common.files import make_directory, replacing
from refattn.common.metrics import class_metrics, metrics
from refattn.common.strict_json import to_json
from refattn.config import Config, DataConfig, load_config
from refattn.data.builtin import open_data_for
from refattn.data.groups import draw_parts
from refattn.data.prepare import prepare
from refattn.data.sources.matbench import MatbenchSource, Task
from refattn.data.splits import Split, labels_of_target, write_split
from refattn.data.store import Dataset
from refattn.errors import ConfigError, DataError, RunError, in_one_line
from refattn.prediction.run_directory import continued_config
from refattn.training.train import train
from refattn.training.train_ensemble import is_finished, read_metrics
from refattn.training.train_folds import KEPT, summary_of_folds

N_FOLDS = 5
SEED = 18012019
BENCHMARK = "matbench_v0.1"
DATA, SPLIT, RUN, RESULTS = "data.h5", "split_{}.json", "fold_{}", "results.json.gz"
MARK = re.compile(rb'\{"@class": "MatbenchBenchmark"')  # how RESULTS begins
SMALLEST = 1e-5  # labels that are nearer to 0 do not count in the relative error


def rows_of_folds(task: Task) -> list[np.ndarray]:
    """For each fold the numbers of its test part.

    As KFold(5, shuffle=True, random_state=SEED) of scikit-learn, of a class StratifiedKFold.
    """
    n = len(task.ids)
    random = np.random.RandomState(SEED)
    if not task.of_class:
        order = np.arange(n)
        random.shuffle(order)
        return [np.sort(rows) for rows in np.array_split(order, N_FOLDS)]
    fold = np.zeros(n, int)
    turns = np.arange(n) % N_FOLDS  # of all structures, those of one class behind each other
    for label in dict.fromkeys(task.label.tolist()):  # in the order in which they appear
        own = task.label == label
        turn, turns = np.split(turns, [own.sum()])
        turn.sort()
        random.shuffle(turn)
        fold[own] = turn
    return [np.flatnonzero(fold == number) for number in range(N_FOLDS)]


def split_of_fold(task: Task, dataset: Dataset, fold: int, data: DataConfig) -> Split:
    """The Split of a fold: its test part, and of all others those to validate on as [data] says, a tenth by default.

    Structures without a graph are in no part.
    """
    tested = {task.ids[row] for row in rows_of_folds(task)[fold]}
    is_test = np.array([id in tested for id in dataset.id.tolist()], dtype=bool)
    others = dataclasses.replace(data, split="", n_folds=0, test_part=False)
    train_rows, valid_rows, _ = draw_parts(dataset, np.flatnonzero(~is_test), others)
    parts = train_rows, valid_rows, np.flatnonzero(is_test)
    return Split(*(dataset.id[rows].tolist() for rows in parts))


def prepare_folds(
    source: MatbenchSource,
    config: Config,
    out: Path,
    n_threads: int = 1,
    progress: Callable | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Prepare the data set in the folder `out` where it is not yet there, and the splits of folds that are not begun.

    Parameters
    ----------
    config : Config                        its [graph] is the neighbour rule, its [data] says what to validate on
    n_threads, progress, note : optional   as of refattn.data.prepare.prepare

    Returns
    -------
    dict, id -> reason, of the structures without a graph

    Raises DataError where there is the data set of something else.
    """
    task = source.task
    make_directory(out)
    if not (out / DATA).exists():
        prepare(source, out / DATA, config.graph, n_threads=n_threads, progress=progress, note=note)
    dataset = open_data_for(config, out / DATA)
    label = dict(zip(task.ids, task.label.tolist()))
    if [label.get(id) for id in dataset.id.tolist()] != labels_of_target(dataset, task.target).tolist():
        raise DataError(f"{out / DATA}: is not the data set of {task.name} with these labels; choose another --out")
    for fold in range(N_FOLDS):
        if not (out / RUN.format(fold) / "last.h5").exists():
            write_split(out / SPLIT.format(fold), split_of_fold(task, dataset, fold, config.data))
    reasons = dict(dataset.skipped)
    return {id: reasons.get(id, "left out") for id in label.keys() - {*dataset.id.tolist()}}


def train_matbench(
    task: Task,
    config: Config,
    out: Path,
    left_out: Collection[str] = (),
    folds: Iterable[int] = (),
    n_threads: int | None = None,
    progress: Callable[[dict], None] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str = "cpu",
) -> dict:
    """Train on folds of a task, and write the results where all of them are finished then.

    Parameters
    ----------
    config : Config             of all folds; its data.path is that of `prepare_folds`
    left_out : ids              what `prepare_folds` returned
    folds : iterable of int     those to train, from 0; by default all
    n_threads, progress, stop, device : optional   as of refattn.training.train_folds

    Returns
    -------
    dict, as of summary_of_folds, of the finished folds, whose numbers are in `folds`; `test` counts all structures, and
    `scores` has Matbench's of each fold, of a class also auc, the area under the ROC curve of the probabilities

    Raises ConfigError for another loss than that of a class, RunError where `out` has folds with other settings, and
    what refattn.train raises.
    """
    if task.of_class and not config.of_class:
        raise ConfigError(f"{task.name} has a class to predict; set training.loss=cross_entropy")
    runs = [out / RUN.format(fold) for fold in range(N_FOLDS)]
    configs = [_config_of_fold(config, run, out / SPLIT.format(fold)) for fold, run in enumerate(runs)]
    for fold in folds or range(N_FOLDS):
        if not is_finished(runs[fold], configs[fold]):

            def report(record, fold=fold):
                progress({**record, "member": fold, "n_members": N_FOLDS})

            train(configs[fold], runs[fold], n_threads, True, None, progress and report, stop, device)
    finished = [fold for fold in range(N_FOLDS) if is_finished(runs[fold], configs[fold])]
    results = {RUN.format(fold): results_of_fold(task, fold, runs[fold], left_out) for fold in finished}
    errors = [read_metrics(runs[fold] / "metrics.json", ("valid", "test"), KEPT) for fold in finished]
    tested = [_tested(task, fold["data"]) for fold in results.values()]
    for error, (label, prediction) in zip(errors, tested, strict=True):
        error["targets"][task.target]["test"] = {"n": len(label), "mae": metrics(label, prediction)["mae"]}
    if len(finished) == N_FOLDS:
        write_results(out / RESULTS, task, results)
    of_folds = [fold["scores"] for fold in results.values()]
    found = {name: [fold[name] for fold in of_folds] for name in of_folds[0]}
    if task.of_class:
        found["auc"] = [class_metrics(*pair)["auc"] for pair in tested]
    summary = {"task": task.name, "folds": finished, "n_left_out": len(left_out), "scores": found}
    return {**summary, **summary_of_folds(errors)}


def _tested(task, predictions):
    """Labels and predictions (n,) of a test part, from id -> prediction."""
    label = dict(zip(task.ids, task.label.tolist()))
    return np.array([label[id] for id in predictions]), np.array([*predictions.values()])


def _config_of_fold(config, run, split):
    """The Config of a fold. Raises RunError where its run was begun with another one."""
    own = load_config(run / "config.toml") if (run / "config.toml").exists() else None
    data = dataclasses.replace(config.data, split=own.data.split if own else os.path.abspath(split))
    config = dataclasses.replace(config, data=data)
    if own:
        continued_config(own, config, run)
    return config


def results_of_fold(task: Task, fold: int, run: Path, left_out: Collection[str]) -> dict:
    """What the leaderboard asks for of a finished fold: `data`, id -> prediction, `parameters` and `scores`.

    Structures that were left out have the mean label of those that the fold does not test on.

    Raises RunError where the run was tested on other structures, or its predictions cannot be read.
    """
    rows = rows_of_folds(task)[fold]
    try:
        with open(run / "predictions.csv", newline="", encoding="utf-8") as stream:
            found = {row["id"]: float(row["prediction"]) for row in csv.DictReader(stream) if row["split"] == "test"}
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise RunError(
            f"{run}: has no predictions.csv to read ({in_one_line(error)}); remove its metrics.json"
        ) from None
    ids = [task.ids[row] for row in rows]
    if {*found} != {*ids} - {*left_out}:
        raise RunError(f"{run}: was tested on other structures than fold {fold} of {task.name}; choose another --out")
    mean = float(np.delete(task.label, rows).mean())
    prediction = np.array([found.get(id, mean) for id in ids])
    config = load_config(run / "config.toml")
    parameters = {name: dataclasses.asdict(getattr(config, name)) for name in ("model", "graph", "training")}
    return {
        "data": dict(zip(ids, prediction.tolist())),
        "parameters": parameters,
        "scores": scores(task, task.label[rows], prediction),
    }


def scores(task: Task, label: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """Matbench's scores of predictions (S,): mae, rmse and max_error in the unit of the label, mape where it is not 0.

    Of a class those of whether the probability is above 1/2. As MatbenchTask.record computes it, rocauc is one of them,
    and equal to balanced_accuracy.
    """
    if task.of_class:
        return _class_scores(label == 1, prediction > 0.5)
    error = np.abs(prediction - label)
    counts = np.abs(label) > SMALLEST
    relative = error[counts] / np.abs(label[counts])
    return {
        "mae": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "mape": float(relative.mean()) if len(relative) else 0.0,
        "max_error": float(error.max()),
    }


def _class_scores(label, prediction):
    right = label == prediction
    balanced = float(np.mean([right[label == value].mean() for value in np.unique(label)]))
    n_either = int(label.sum()) + int(prediction.sum())
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": balanced,
        "f1": 2 * int((label & prediction).sum()) / n_either if n_either else 0.0,
        "rocauc": balanced,
    }


def write_results(path: Path, task: Task, folds: dict[str, dict]) -> None:
    """Write what MatbenchBenchmark.from_file reads; the file appears complete or not at all. Raises OutputError.

    folds : "fold_0" -> as of results_of_fold
    """
    of_task = {"@module": "matbench.task", "@class": "MatbenchTask", "dataset_name": task.name, "results": folds}
    content = {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": "0.6",
        "benchmark_name": BENCHMARK,
        "tasks": {task.name: {**of_task, "benchmark_name": BENCHMARK}},
        "user_metadata": {"algorithm": f"refattn {refattn.__version__}"},
        "datestamp": datetime.datetime.now(datetime.UTC).strftime("%Y.%m.%d %H:%M.%S"),
    }
    content["hash"] = hashlib.sha256(to_json(content, sort_keys=True).encode()).hexdigest()
    with replacing(path) as part:
        part.write_bytes(gzip.compress(to_json(content, sort_keys=True).encode(), mtime=0))
