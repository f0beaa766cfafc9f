"""refattn predict: structures in, properties and attention out."""

import contextlib
import itertools

import click

from refattn.cli.options import StatusLine, as_json, device, refuse_input_as_output, threads
from refattn.data.files import open_files
from refattn.prediction import load
from refattn.prediction_files import json_records, prediction_writer
from refattn.strict_json import to_json
from refattn.training.checkpoint import model_file


@click.command()
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out", type=click.Path(), help="File of predictions: .csv, .json, .xyz or .extxyz (with attention), .h5."
)
@click.option("--skip-bad", is_flag=True, help="Leave out structures without a graph or with unknown elements.")
@threads
@device
@as_json
def predict(run, files, out, skip_bad, threads, device, as_json):
    """Predict the property of every structure in FILES, and the attention of its atoms.

    FILES are read by ASE, a block of structures at a time: extended XYZ (may be gzipped), CIF, POSCAR, databases.
    """
    model, sources, status, done = load(run, device), open_files(files), StatusLine(), 0
    if out:
        refuse_input_as_output([model_file(run), *(file for source in sources for file in source.files)], out)
    structures, bad = itertools.chain.from_iterable(map(read_structures, sources)), []

    def skip(id, error):
        bad.append(id)
        status.line(f"left out {id}: {str(error).removeprefix(f'{id}: ')}")

    with contextlib.ExitStack() as stack:
        add = stack.enter_context(prediction_writer(out, model.target, model.unit)) if out else print_result(as_json)
        for chunk, result in model.predict_stream(structures, n_threads=threads, skip=skip if skip_bad else None):
            add(chunk, result)
            done += len(chunk)
            status.update(f"{done} structures")
    left_out = f", {len(bad)} left out" if bad else ""
    status.line(f"{done} structures{left_out}" + (f", written to {out}" if out else ""))


def read_structures(source):
    """The structures of a FilesSource as ase.Atoms with `id` in info and their per-site arrays."""
    for record in source:
        for name, values in record.arrays.items():
            record.atoms.set_array(name, values)
        yield record.atoms


def print_result(as_json):
    """A function (structures, Prediction) that prints a line for each structure: id, value and unit, or JSON."""

    def add(structures, result):
        for record in json_records(result):
            text = f"{record['id']}\t{record[result.target]:.6g} {result.unit}".rstrip()
            click.echo(to_json(record) if as_json else text)

    return add
