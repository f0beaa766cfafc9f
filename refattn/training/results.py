"""Write metrics.json, predictions.csv, calibration.h5, the learning curve and the parity plot of a run."""

from collections.abc import Callable
from pathlib import Path

from refattn.common.environment import peak_memory_mb
from refattn.common.files import write_text
from refattn.common.metrics import known_columns
from refattn.common.mpi import ALONE, Ranks
from refattn.common.strict_json import to_json
from refattn.data.store import Dataset
from refattn.network.checkpoint import Checkpoint
from refattn.network.evaluate import predict_split, summarise, write_predictions
from refattn.prediction.attention_summary import attention_summary
from refattn.prediction.calibration import calibrations_of, write_calibrations
from refattn.report.plots import learning_curve, parity_plot, roc_plot, within_groups


def write_results(
    out: Path,
    checkpoint: Checkpoint,
    dataset: Dataset,
    history: list[dict],
    init: dict,
    n_threads: int,
    map_fn: Callable,
    device: str,
    ranks: Ranks = ALONE,
) -> dict:
    """Evaluate the best model and write everything that `out` still lacks. Returns the dict of metrics.json.

    All ranks evaluate, and the first one writes. `init` is what the run began with (run_directory.origin).
    """
    parts = predict_split([checkpoint], dataset, map_fn, device)
    calibrations = calibrations_of(parts["train"], parts["valid"], 0, map_fn)
    if not ranks.first:
        return {}
    write_calibrations(out / "calibration.h5", calibrations, checkpoint)
    summary = summarise(checkpoint, parts)
    seconds = sum(record["seconds"] for record in history)
    summary |= {
        "epochs": len(history),
        "best_epoch": min(history, key=lambda record: record["valid_mae"])["epoch"],
        "seconds": seconds,
        "structures_per_second": len(history) * len(parts["train"].rows) / seconds,
        "peak_memory_mb": peak_memory_mb(),
        "threads": n_threads,
        "dtype": checkpoint.config.training.dtype,
        "device": device,
    }
    summary |= ({"ranks": ranks.size} if ranks.size > 1 else {}) | ({"init": init} if init else {})
    learning_curve(out / "curve.png", history, summary.get("unit", "standard deviations"))
    _write_evaluated(out, summary, parts, dataset, checkpoint.config)
    return summary


def write_ensemble_results(
    out: Path, checkpoints: list[Checkpoint], members: list[dict], dataset: Dataset, map_fn: Callable, device: str
) -> dict:
    """Evaluate the mean of the members' predictions and write it beside them. Returns the dict of metrics.json.

    members : list of dict     metrics.json of each
    """
    parts = predict_split(checkpoints, dataset, map_fn, device)
    summary = summarise(checkpoints[0], parts)
    for target, found in targets_of(summary).items():
        found["member_test_mae"] = [targets_of(member)[target]["test"]["mae"] for member in members]
    summary |= {"n_members": len(members), "seconds": sum(member["seconds"] for member in members)}
    summary |= {"init": members[0]["init"]} if "init" in members[0] else {}
    _write_evaluated(out, summary, parts, dataset, checkpoints[0].config)
    return summary


def targets_of(summary: dict) -> dict[str, dict]:
    """The part of a summary that is of each target, by its name; see summarise."""
    return summary.get("targets") or {summary["target"]: summary}


def _write_evaluated(out, summary, parts, dataset, config):
    """predictions.csv, parity.png, or roc.png of classes, and, last, metrics.json, with how attention was learned."""
    each = targets_of(summary)
    for target, found in attention_summary(dataset, config, parts).items():
        each[target]["attention"] = found
    write_predictions(out / "predictions.csv", dataset, parts, list(each))
    columns = {name: list(known_columns(part.label, part.prediction)) for name, part in parts.items()}
    panels = []
    of_class = any("auc" in found["train"] for found in each.values())
    measure = "auc" if of_class else "mae"
    for k, (target, found) in enumerate(each.items()):
        shown = {n: (*known[k], found[n][measure]) for n, known in columns.items() if found[n][measure] is not None}
        panels.append((shown, target) if of_class else (shown, target, found["unit"]))
    if of_class:
        roc_plot(out / "roc.png", panels)
    else:
        parity_plot(out / "parity.png", panels, within_groups(parts, columns, each))
    write_text(out / "metrics.json", to_json(summary, indent=1) + "\n")
