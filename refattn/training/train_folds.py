"""Training on the folds of a split: each is the test part of a run of its own, and errors have a mean and a spread."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refattn.common.files import make_directory, only_process, write_text
from refattn.common.strict_json import to_json
from refattn.config import Config
from refattn.errors import ConfigError
from refattn.prediction.ensemble import MAX_MEMBERS, Plan, is_of_folds, read_plan, write_plan
from refattn.prediction.run_directory import free_directory
from refattn.training.train import train
from refattn.training.train_ensemble import checked_plan, continued_plan, is_finished, read_metrics, train_runs

BASELINES = ("baseline_mae", "composition_mae")
NAMES = ("unit", "split_by", "valid_by")
KEPT = (*NAMES, *BASELINES)  # of the metrics of a fold


def train_folds(
    config: Config | None,
    n_folds: int | None,
    out: str | os.PathLike | None = None,
    n_threads: int | None = None,
    resume: bool = False,
    init: str | os.PathLike | None = None,
    progress: Callable[[dict], None] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str = "cpu",
    only: int | None = None,
) -> dict:
    """Train on every fold of a split and leave a folder: a complete run in each of fold_0, fold_1, ..., and metrics.

    Parameters
    ----------
    config, n_folds : Config, int        with `resume` they may be None: those of the folder's folds.json
    out, n_threads, init, stop, device   as of refattn.train
    resume : bool                        as of refattn.train; folds that are finished stay as they are
    progress : callable (dict), optional
        As of refattn.train; every dict has `member` and `n_members` too, unless `only` is given.
    only : int, optional
        Train this fold alone, from 0; other processes may train others in the same `out` at the same time.

    Returns
    -------
    dict, as written to metrics.json, see summary_of_folds; of the fold alone while others are not finished

    Raises what refattn.train raises.
    """
    out = Path(out) if out else free_directory("-".join(config.data.targets))
    if is_of_folds(out) and (resume or only is not None):
        first = config and Plan(config, n_folds or read_plan(out, True).n_members, of_folds=True).config_of(0)
        plan = continued_plan(out, first, n_folds, init, of_folds=True)
    else:
        plan = start_folds(config, n_folds, out, init) if config else read_plan(out, True)  # which is not there
    runs = [plan.run_of(out, fold) for fold in range(plan.n_members)]
    if only is None:
        with only_process(out):
            train_runs(plan, out, n_threads, progress, stop, device)
    elif 0 <= only < len(runs):
        init = plan.init_of(out, only)
        summary = train(plan.config_of(only), runs[only], n_threads, resume, init, progress, stop, device)
        if not all(is_finished(run, plan.config) for run in runs):
            return summary
    else:
        raise ConfigError(f"there is no fold {only} of {len(runs)}; they are counted from 0")
    summary = summary_of_folds([read_metrics(run / "metrics.json", ("valid", "test"), KEPT) for run in runs])
    write_text(out / "metrics.json", to_json(summary, indent=1) + "\n")
    return summary


def start_folds(config: Config, n_folds: int, out: Path, init: str | os.PathLike | None) -> Plan:
    """Check everything that can be checked before the first fold, and write the Plan."""
    if not 2 <= n_folds <= MAX_MEMBERS:
        raise ConfigError(f"{n_folds} folds make no split; ask for at least 2, at most {MAX_MEMBERS}")
    plan = checked_plan(Plan(config, n_folds, of_folds=True), out, init)
    make_directory(out)
    write_plan(out, plan)
    return plan


def summary_of_folds(folds: list[dict]) -> dict:
    """Mean and spread of the errors of folds, each as read_metrics returns it, with KEPT.

    Returns
    -------
    dict
        n_folds, seconds of all, and under `targets` by the name of each: unit, split_by and valid_by where there are
        groups, `valid` and `test` with n (of all folds), mae (mean over the folds), mae_std (its standard deviation,
        n_folds - 1 in the denominator) and mae_of_folds; baseline_mae and composition_mae, means over the folds; init
        where there was one, as of a run, of all test parts
    """
    summary = {"n_folds": len(folds), "seconds": sum(fold["seconds"] for fold in folds), "targets": {}}
    for target, first in folds[0]["targets"].items():
        of_folds = [fold["targets"][target] for fold in folds]
        found = {name: first[name] for name in NAMES if name in first}
        for part in ("valid", "test"):
            errors = [fold[part]["mae"] for fold in of_folds]
            known = np.array([error for error in errors if error is not None])
            n = sum(fold[part]["n"] for fold in of_folds)
            found[part] = {"n": n, "mae": float(known.mean()) if len(known) else None}
            found[part] |= {"mae_std": float(known.std(ddof=1)) if len(known) > 1 else None, "mae_of_folds": errors}
        for name in BASELINES:
            if all(name in fold for fold in of_folds):
                found[name] = float(np.mean([fold[name] for fold in of_folds]))
        summary["targets"][target] = {"target": target, **found}
    if all("init" in fold for fold in folds):
        seen = [fold["init"]["test_structures_seen"] for fold in folds]
        summary["init"] = folds[0]["init"] | {"test_structures_seen": None if None in seen else sum(seen)}
    return summary
