"""refattn predict: structures in, properties and attention out."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import click

from refattn.cli.options import (
    PART,
    LeftOut,
    StatusLine,
    as_json,
    claim_outputs,
    device,
    echo,
    note,
    note_of_few_scores,
    note_of_sources,
    overwrite,
    reading_options,
    row,
    threads,
)
from refattn.common.strict_json import to_json
from refattn.data.sources import pieces
from refattn.data.sources.files import n_bytes, open_files, read_structures
from refattn.prediction.files import json_records, mark_of, prediction_writer
from refattn.prediction.predictor import Outside, load
from refattn.prediction.processes import predict_sources

COVERAGE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command()
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out", type=click.Path(), help="File of predictions: .csv, .json, .xyz or .extxyz (with attention), .h5."
)
@click.option("--uncertainty", is_flag=True, help="Add the distance to the training set.")
@click.option(
    "--coverage", type=COVERAGE, metavar="SHARE", help="Add that distance and intervals of this coverage, such as 0.9."
)
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read, has no graph or unknown elements.")
@PART
@reading_options
@overwrite
@threads
@device
@as_json
def predict(
    run,
    files,
    out,
    uncertainty,
    coverage,
    skip_bad,
    part,
    min_distance,
    recursive,
    id_from,
    overwrite,
    threads,
    device,
    as_json,
):
    """Predict the properties of every structure in FILES, and the attention of its atoms.

    FILES are read as by `refattn prepare`, a block of structures at a time, and may be data sets that it made. RUN may
    be the folder of an ensemble: then the prediction is the mean of its members, and their spread is given.

    What takes longer than two seconds is computed by --threads processes, where the files can be read in pieces.

    With --part K/N the jobs of an array share FILES, or, where there are fewer than N, their structures in turn.

    An interval of --coverage 0.9 holds the true value in 90 % of structures like those of the validation set; see
    `refattn evaluate RUN --coverage 0.9`. The distance counts in standard deviations of the training set. A note says
    how many structures have elements, numbers of sites, edges or periods that no structure had in training.
    """
    model = load(run, device, min_distance)
    model.outside = Outside(model.checkpoints[0])
    sources = open_files(files, recursive=recursive, id_from=id_from)
    in_turn = part and not part.take_files(sources)
    status = StatusLine()
    done = 0
    structures_done = "0 structures"
    if out:
        claim_outputs({Path(out): mark_of(out)}, run, sources, (), overwrite)
    left_out = LeftOut(status)
    asked = {"uncertainty": uncertainty, "coverage": coverage, "skip": left_out if skip_bad else None}
    is_large = n_bytes(file for source in sources for file in source.files) > pieces.LARGE
    if device == "cpu" and not in_turn and is_large and pieces.can_be_cut(sources):
        stream = predict_sources(model, sources, threads, **asked)
    else:
        structures = read_structures(sources, skip=asked["skip"])
        structures = part.take_turns(structures) if in_turn else structures
        stream = model.predict_stream(structures, n_threads=threads, **asked)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(stream))
        if out:
            extra = model.fields(uncertainty, coverage)
            add = stack.enter_context(prediction_writer(out, model.targets, model.units, extra))
        else:
            add = print_result(as_json)
        for chunk, result in stream:
            add(chunk, result)
            done += len(chunk)
            structures_done = f"{done} structure{'s' * (done != 1)}"
            status.update(structures_done)
    note_of_sources(sources)
    for text in model.outside.notes():
        note(text)
    if coverage:
        note(f"note: the intervals assume that {model.conformals[0].assumption}")
        note_of_few_scores(model, coverage)
    status.line(f"{structures_done}{left_out.in_words()}" + (f", written to {out}" if out else ""))


def print_result(as_json: bool) -> Callable:
    """A function (structures, Prediction) that prints a line for each structure: id, value and unit, or JSON."""

    def add(structures, result):
        each = result.of_targets()
        for n, id in enumerate(result.id):
            cells = []
            for found in each:
                name = f"{found.target} " if len(each) > 1 else ""
                cells.append(f"{name}{found.value[n]:.6g} {found.unit}".rstrip())
                cells += [f"{field} {values[n]:.6g}" for field, values in found.uncertainty().items()]
            echo(row(id, *cells))

    def add_json(structures, result):
        for record in json_records(result):
            echo(to_json(record))

    return add_json if as_json else add
