"""refattn predict: structures in, properties and attention out."""

import contextlib
import itertools
import json

import click

from refattn.cli.options import StatusLine, as_json, device, threads
from refattn.data.files import FilesSource
from refattn.prediction import load
from refattn.prediction_files import prediction_writer


@click.command()
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--out", type=click.Path(), help="File of predictions: .csv, .json, .xyz (with attention) or .h5.")
@threads
@device
@as_json
def predict(run, files, out, threads, device, as_json):
    """Predict the property of every structure in FILES, and the attention of its atoms.

    FILES are read by ASE, a block of structures at a time: extended XYZ (may be gzipped), CIF, POSCAR, databases.
    """
    model, status, done = load(run, device), StatusLine(), 0
    structures = itertools.chain.from_iterable(read_structures(file) for file in files)
    with contextlib.ExitStack() as stack:
        add = stack.enter_context(prediction_writer(out, model.target, model.unit)) if out else print_result(as_json)
        for chunk, result in model.predict_stream(structures, n_threads=threads):
            add(chunk, result)
            done += len(chunk)
            status.update(f"{done} structures")
    status.line(f"{done} structures" + (f", written to {out}" if out else ""))


def read_structures(file):
    """The structures of a file as ase.Atoms with `id` in info and their per-site arrays."""
    for record in FilesSource(file):
        for name, values in record.arrays.items():
            record.atoms.set_array(name, values)
        yield record.atoms


def print_result(as_json):
    """A function (structures, Prediction) that prints a line for each structure: id, value and unit, or JSON."""

    def add(structures, result):
        for id, value, attention in zip(result.id, result.value.tolist(), result.attention, strict=True):
            if as_json:
                record = {
                    "id": id,
                    result.target: value,
                    "unit": result.unit,
                    "attention": attention.astype(float).tolist(),
                }
                click.echo(json.dumps(record))
            else:
                click.echo(f"{id}\t{value:.6g} {result.unit}".rstrip())

    return add
