"""refattn evaluate: the errors of a trained run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from refattn.cli.options import (
    LeftOut,
    StatusLine,
    as_json,
    claim_outputs,
    device,
    note,
    note_of_edits,
    note_of_few_scores,
    overwrite,
    print_metrics,
    refuse_idle,
    threads,
)
from refattn.common.environment import available_cores
from refattn.common.files import only_process
from refattn.common.hdf5 import Strings
from refattn.common.threads import workers
from refattn.config import Config, GraphConfig
from refattn.data.builtin import data_of_run, open_data_for
from refattn.data.fingerprint import graph_digests
from refattn.data.splits import Split, check_classes, labelled_rows
from refattn.data.store import Dataset
from refattn.errors import ConfigError, DataError
from refattn.network.checkpoint import Checkpoint, check_data
from refattn.network.evaluate import MARK, EvaluatedPart, predict_split, summarise, write_predictions
from refattn.prediction.attention_summary import attention_summary
from refattn.prediction.calibration import calibrations_of, write_calibrations
from refattn.prediction.predictor import Predictor, Skip, check_elements, load
from refattn.prediction.uncertainty import rank_correlation, reliability
from refattn.report import png
from refattn.report.plots import uncertainty_plot
from refattn.training.results import targets_of

COVERAGE = click.FloatRange(0, 1, min_open=True, max_open=True)


def parse_attention(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple:
    """Pairs of a target and an array."""
    pairs = tuple(tuple(text.split("=", 1)) for text in texts)
    if any(len(pair) < 2 or not all(pair) for pair in pairs):
        raise click.BadParameter("write TARGET=ARRAY")
    return pairs


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", type=click.Path(), help="Another data set: evaluate on all of its structures with the label.")
@click.option("--out", type=click.Path(), help="Write the predictions to this CSV file.")
@click.option("--coverage", type=COVERAGE, metavar="SHARE", help="Say how well intervals of this coverage hold.")
@click.option(
    "--attention",
    multiple=True,
    metavar="TARGET=ARRAY",
    callback=parse_attention,
    help="Compare a target's attention with this per-site array; by default with those that it was taught.",
)
@click.option("--plot", type=click.Path(), help="Draw error against uncertainty, and coverage, as this PNG.")
@click.option("--calibrate", is_flag=True, help="Make calibration.h5, where the run has none, from its data.")
@click.option("--skip-bad", is_flag=True, help="Leave out structures of --data with elements never seen in training.")
@click.option("--keep-seen", is_flag=True, help="Keep structures of --data that RUN was trained or validated on.")
@overwrite
@threads
@device
@as_json
def evaluate(run, data, out, coverage, attention, plot, calibrate, skip_bad, keep_seen, threads, device, **how):
    """Errors of the best model of RUN on its training, validation and test set, in the target's unit.

    With --coverage or --plot also how well the intervals of `refattn predict RUN --coverage` hold on the test set, or
    on --data: the share of labels within them, their mean width, the mean distance of found from wanted coverage, and
    the rank correlation of error and uncertainty. RUN may be the folder of an ensemble.

    Structures of --data whose graphs are those of structures that RUN was trained or validated on are counted and left
    out, whatever their ids, unless --keep-seen is given.

    Where the attention was taught, or with --attention: how it agrees with the array, in the mean over the structures,
    beside what the element alone says (by the training set) and what an attention does that is the same for all sites.
    """
    overwrite, as_json = how["overwrite"], how["as_json"]
    if calibrate and data:
        raise click.UsageError("--calibrate takes the run's own data; leave --data out")
    if not data:
        refuse_idle(("skip_bad", "keep_seen"), "without --data")
    model = load(run, device)
    checkpoints = model.checkpoints
    settings = model.config
    if coverage is not None or plot:
        model.check_intervals(calibrated=not calibrate)
    if not data and not any(checkpoints[0].split):
        raise DataError(f"{run}: the model has no data of its own; give --data")
    path = data or data_of_run(settings.data.path, run)
    written = {Path(file): mark for file, mark in ((out, MARK), (plot, png.MARK)) if file}
    claim_outputs(written, run, (), [path], overwrite)
    dataset = open_data_for(settings, path)
    known = labelled_rows(dataset, settings.data.targets)
    if not len(known):
        raise DataError(f"{path}: no structure has a known {' or '.join(settings.data.targets)}; choose another set")
    if data:
        left_out = LeftOut(StatusLine())
        known = check_data_fit(checkpoints[0], dataset, known, data, left_out if skip_bad else None)
        known = not_seen(checkpoints[0], dataset, known, data, keep_seen)
        if settings.of_class:
            check_classes(dataset, settings, known)
        everything = Split([], [], Strings(dataset.id, known))
        checkpoints = [dataclasses.replace(checkpoint, split=everything) for checkpoint in checkpoints]
    else:
        check_data(checkpoints[0], dataset)
    with workers(threads or available_cores()) as map_fn:
        parts = predict_split(checkpoints, dataset, map_fn, device, True if attention else None)
        if calibrate:
            calibrate_run(model, parts, map_fn)
        summary = summarise(checkpoints[0], {name: part for name, part in parts.items() if len(part.rows)})
        for target, found in compare_attention(dataset, settings, parts, attention).items():
            targets_of(summary)[target]["attention"] = found
        if coverage is not None or plot:
            reports = report(model, parts["test"], coverage or 0.9, plot, map_fn)
            for target, found in targets_of(summary).items():
                found["uncertainty"] = reports[target]
    if out:
        write_predictions(Path(out), dataset, parts, settings.data.targets)
    note_other_graphs(dataset.graph_config, settings.graph)
    note_of_edits(run, model.checkpoints)
    print_metrics(summary, as_json)
    if coverage is not None or plot:
        note_of_few_scores(model, coverage or 0.9)


def compare_attention(
    dataset: Dataset, settings: Config, parts: dict[str, EvaluatedPart], wanted: tuple[tuple[str, str], ...]
) -> dict[str, dict]:
    """The attention_summary of the wanted pairs, or of what was taught as far as the data set has the arrays."""
    for target, array in wanted:
        if target not in settings.data.targets:
            names = ", ".join(settings.data.targets)
            raise ConfigError(f"--attention {target}={array}: the model has no such target; choose one of {names}")
    taught = tuple(pair for pair in settings.training.attention if pair[1] in dataset.arrays)
    training = dataclasses.replace(settings.training, attention=wanted or taught)
    return attention_summary(dataset, dataclasses.replace(settings, training=training), parts)


def calibrate_run(model: Predictor, parts: dict[str, EvaluatedPart], map_fn: Callable) -> None:
    """Write calibration.h5 of a run, or of every member of an ensemble, from the parts of its split."""
    for k, (path, checkpoint) in enumerate(zip(model.calibrations, model.checkpoints, strict=True)):
        with only_process(path.parent):
            write_calibrations(path, calibrations_of(parts["train"], parts["valid"], k, map_fn), checkpoint)


def report(
    model: Predictor, part: EvaluatedPart, coverage: float, plot: str | None, map_fn: Callable
) -> dict[str, dict]:
    """How well the intervals of each target hold on a part, as dicts; as a picture too where `plot` is its path."""
    reports = {}
    panels = []
    distances = model.distance([struct[:] for struct in part.structs], map_fn)
    for k, (target, conformal) in enumerate(zip(model.targets, model.conformals, strict=True)):
        known = ~np.isnan(part.label[:, k])
        label, prediction, distance = (array[known, k] for array in (part.label, part.prediction, distances))
        found = reports[target] = reliability(conformal, coverage, label, prediction, distance)
        error = np.abs(label - prediction)
        if part.spread is not None:
            spread = part.spread[known, k]
            found |= {"mean_spread": float(spread.mean()), "spearman_spread": rank_correlation(error, spread)}
        name = f"{target}, " if len(model.targets) > 1 else ""
        panels.append((error, conformal.uncertainty(distance), found["curve"], model.units[k], name))
    if plot:
        uncertainty_plot(Path(plot), panels)
    return reports


def check_data_fit(
    checkpoint: Checkpoint, dataset: Dataset, rows: np.ndarray, path: Path | str, skip: Skip | None = None
) -> np.ndarray:
    """The rows whose elements the model has seen; where `skip` is given it is told of others, else they are an error.

    Raises DataError for those, when no row is left, and when the label's unit is another one.
    """
    for target, ours in zip(checkpoint.config.data.targets, checkpoint.units, strict=True):
        unit = dataset.label_attrs[target].get("unit", "")
        if unit and ours and unit != ours:
            raise DataError(
                f"{path}: {target} is in {unit}, the model predicts it in {ours}; convert the labels and prepare the "
                "set again"
            )
    graphs = dataset.graphs
    kept = []
    for row in rows.tolist():
        try:
            check_elements(checkpoint, dataset.id[row], graphs.z[graphs.site_ptr[row] : graphs.site_ptr[row + 1]])
            kept.append(row)
        except DataError as error:
            if skip is None:
                raise
            skip(str(dataset.id[row]), error)
    if not kept:
        raise DataError(f"{path}: every structure has an element that the model never saw; choose another set")
    return np.array(kept)


def not_seen(checkpoint: Checkpoint, dataset: Dataset, rows: np.ndarray, path: str, keep: bool) -> np.ndarray:
    """The rows whose graphs are none that the run was trained or validated on, all where they are to be kept; says how
    many of each there are. Raises DataError when no row is left."""
    if checkpoint.fingerprint is None:
        if any(checkpoint.split):
            note(f"note: the run keeps no digests of its data; structures of {path} may be those it was trained on")
        return rows
    trained, validated = checkpoint.fingerprint.seen(checkpoint.split, graph_digests(dataset.graphs, rows))
    seen = trained | validated
    if not seen.any():
        return rows
    what = "kept, as --keep-seen asks" if keep else "left out; --keep-seen keeps them"
    counts = f"trained on {trained.sum()} of these {len(rows)} structures, and validated on {validated.sum()}"
    note(f"note: the run was {counts}: {what}")
    if not keep and seen.all():
        raise DataError(f"{path}: the run has seen every structure; choose another set, or give --keep-seen")
    return rows if keep else rows[~seen]


def note_other_graphs(found: GraphConfig, wanted: GraphConfig) -> None:
    """Say on stderr where the neighbour rule of the data set is not the one that the model was trained with."""
    values = dataclasses.asdict(wanted)
    changed = {name: value for name, value in dataclasses.asdict(found).items() if value != values[name]}
    if changed:
        theirs = ", ".join(f"{name} {value}" for name, value in changed.items())
        ours = ", ".join(f"{name} {values[name]}" for name in changed)
        note(f"the data set was prepared with {theirs}, the model was trained with {ours}; the errors may differ")
