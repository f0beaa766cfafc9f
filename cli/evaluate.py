"""refattn evaluate: the errors of a trained run."""

import dataclasses
from pathlib import Path

import click

from refattn.cli.options import as_json, device, note, print_metrics, threads
from refattn.data.builtin import open_data
from refattn.data.loader import Loader
from refattn.data.splits import Split, labelled_rows
from refattn.environment import available_cores
from refattn.errors import DataError
from refattn.prediction import load
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
    dataset = open_data(data or settings.data.path, settings.graph)
    known = labelled_rows(dataset, settings.data.target)
    if not len(known):
        raise DataError(
            f"{data or settings.data.path}: no structure has a known {settings.data.target}; choose another set"
        )
    if data:
        checkpoint = dataclasses.replace(checkpoint, split=Split([], [], dataset.id[known].tolist()))
    loader = Loader(dataset, settings.model, settings.training.dtype)
    with workers(threads or available_cores()) as run_shards:
        parts = predict_split(checkpoint, loader, dataset, run_shards, device)
    summary = summarise(checkpoint, {name: part for name, part in parts.items() if len(part[0])})
    if out:
        write_predictions(Path(out), dataset, parts, settings.data.target)
    if dataset.graph_config != settings.graph:
        note(f"the data set was prepared with {dataset.graph_config}, the model was trained with {settings.graph}")
    print_metrics(summary, as_json)
