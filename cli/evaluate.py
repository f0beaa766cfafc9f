"""refattn evaluate: the errors of a trained run."""

import dataclasses
from pathlib import Path

import click

from refattn.cli.options import as_json, device, note, print_metrics, refuse_input_as_output, threads
from refattn.data.builtin import open_data
from refattn.data.loader import Loader
from refattn.data.splits import Split, labelled_rows
from refattn.environment import available_cores
from refattn.errors import DataError
from refattn.prediction import check_elements, load
from refattn.training.checkpoint import model_file
from refattn.training.parallel import workers
from refattn.training.results import predict_split, summarise, write_predictions


@click.command()
@click.argument("run", type=click.Path())
@click.option("--data", type=click.Path(), help="Another data set: evaluate on all of its structures with the label.")
@click.option("--out", type=click.Path(), help="Write the predictions to this CSV file.")
@threads
@device
@as_json
def evaluate(run, data, out, threads, device, as_json):
    """Errors of the best model of RUN on its training, validation and test set, in the target's unit."""
    checkpoint = load(run).checkpoint
    settings = checkpoint.config
    if not data and not any(checkpoint.split):
        raise DataError(f"{run}: the model has no data of its own; give --data")
    path = data or settings.data.path
    if out:
        refuse_input_as_output([path, model_file(run)], out)
    dataset = open_data(path, settings.graph)
    known = labelled_rows(dataset, settings.data.target)
    if not len(known):
        raise DataError(f"{path}: no structure has a known {settings.data.target}; choose another set")
    if data:
        check_data_fit(checkpoint, dataset, known, data)
        checkpoint = dataclasses.replace(checkpoint, split=Split([], [], dataset.id[known].tolist()))
    loader = Loader(dataset, settings.model, settings.training.dtype)
    with workers(threads or available_cores()) as run_shards:
        parts = predict_split(checkpoint, loader, dataset, run_shards, device)
    summary = summarise(checkpoint, {name: part for name, part in parts.items() if len(part[0])})
    if out:
        write_predictions(Path(out), dataset, parts, settings.data.target)
    note_other_graphs(dataset.graph_config, settings.graph)
    print_metrics(summary, as_json)


def check_data_fit(checkpoint, dataset, rows, path):
    """Raise DataError when the label's unit is another one, or a structure has an element that the model never saw."""
    target = checkpoint.config.data.target
    unit = dataset.label_attrs[target].get("unit", "")
    if unit and checkpoint.unit and unit != checkpoint.unit:
        raise DataError(
            f"{path}: {target} is in {unit}, the model predicts it in {checkpoint.unit}; convert the labels and "
            "prepare the set again"
        )
    for row in rows:
        check_elements(checkpoint, dataset.id[row], dataset.z[dataset.site_ptr[row] : dataset.site_ptr[row + 1]])


def note_other_graphs(found, wanted):
    """Say on stderr where the neighbour rule of the data set is not the one that the model was trained with."""
    values = dataclasses.asdict(wanted)
    changed = {name: value for name, value in dataclasses.asdict(found).items() if value != values[name]}
    if changed:
        theirs = ", ".join(f"{name} {value}" for name, value in changed.items())
        ours = ", ".join(f"{name} {values[name]}" for name in changed)
        note(f"the data set was prepared with {theirs}, the model was trained with {ours}; the errors may differ")
