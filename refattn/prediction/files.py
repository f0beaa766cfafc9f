"""Predictions to files, structure by structure, so that any number of them fits: .csv, .json, .xyz, .extxyz and .h5."""

import contextlib
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from ase.io.extxyz import write_xyz

from refattn.common.files import replacing
from refattn.common.hdf5 import NewFile, append, chunk_rows
from refattn.common.outputs import Mark, mark_for
from refattn.common.strict_json import to_json
from refattn.common.text import column_name, csv_cell, told_apart
from refattn.errors import DataError
from refattn.prediction.predictor import Prediction

# How the files begin, so that they are replaced and others are not. No other program quotes the names of a table alone.
_FIELD = rb"(?:spread|distance|lower|upper)"
_OF_ONE = rb'"(?:[^"\r\n]|"")*"(?:,"' + _FIELD + rb'")*'
_OF_SEVERAL = rb'"predicted (?:[^"\r\n]|"")*"(?:,"(?:predicted|' + _FIELD + rb') (?:[^"\r\n]|"")*")+'
_CSV = re.compile(rb'"id",(?:' + _OF_ONE + rb"|" + _OF_SEVERAL + rb")\r\n")
_XYZ = re.compile(rb"\d+\n[^\n]*:attention[^\s:]*:R:\d+[^\n]* \"?predicted_")
_JSON = re.compile(rb'\[\n\{"id": "(?:[^"\\]|\\.)*", (?:"(?:[^"\\]|\\.)*": [^ ]+, )+"unit": ["{]|\[\]\n')
MARKS = {".csv": _CSV, ".json": _JSON, ".xyz": _XYZ, ".extxyz": _XYZ, ".h5": "refattn-predictions"}


@contextlib.contextmanager
def prediction_writer(
    path: Path | str, targets: Sequence[str], units: Sequence[str], extra: Sequence[str] = ()
) -> Iterator[Callable]:
    """A function (list of ase.Atoms, Prediction) that adds to the file `path`; its suffix chooses the format.

    `extra` names the fields of Prediction.uncertainty that there will be: further columns of .csv, values in the
    comment line of .xyz, datasets (S,) of .h5, and a dict "uncertainty" in .json.

    .csv    id, prediction
    .json   a list of {"id", target, "unit", "attention"}
    .xyz, .extxyz
            extended XYZ with the prediction in the comment line and `attention` as a column of the atoms
    .h5     id (S,), value (S,), site_ptr (S + 1,), attention (N,)

    Of K > 1 targets .csv has a column `predicted TARGET` of each, followed by its own fields such as `spread TARGET`;
    .json has the units, attention and uncertainty of each by its name; .xyz has `predicted_TARGET`, `spread_TARGET` and
    so on, and a column `attention_TARGET` of each; the arrays of .h5 have a last axis K.

    The file appears complete when the block ends, or not at all. Raises DataError for another suffix.
    """
    suffix = Path(path).suffix.lower()
    mark_of(path)
    with replacing(path) as part, WRITERS[suffix](part, targets, units, extra) as add:
        yield add


def mark_of(path: Path | str) -> Mark:
    """How a file of predictions of that suffix begins. Raises DataError for another suffix."""
    return mark_for(path, MARKS, "predictions")


@contextlib.contextmanager
def _csv(path, targets, units, extra):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = csv.writer(stream, quoting=csv.QUOTE_ALL)  # see MARKS
        heads = ["id"]
        for target, unit in zip(targets, units, strict=True):
            name = f"{target} ({unit})" if unit else target
            several = len(targets) > 1
            heads += [f"predicted {name}" if several else name]
            heads += [f"{field} {target}" if several else field for field in extra]
        names.writerow(map(csv_cell, heads))

        def add(structures, result):
            columns = []
            for found in result.of_targets():
                columns += [found.value, *found.uncertainty().values()]
            writer.writerows(zip(map(csv_cell, result.id), *(column.tolist() for column in columns), strict=True))

        yield add


def json_records(result: Prediction) -> Iterator[dict]:
    """The structures of a Prediction as dicts: id, value under the target's name, unit, attention, and uncertainty.

    Of several targets the last three are dicts of each by its name. Raises DataError for a target with the name of
    another field.
    """
    each = result.of_targets()
    for name in ("id", "unit", "attention", "uncertainty"):
        if any(found.target == name for found in each):
            raise DataError(f"the target {name} has the name of a field of JSON; write .csv, .xyz or .h5")
    for n, id in enumerate(result.id):
        record = {"id": id, **{found.target: float(found.value[n]) for found in each}}
        rest = {found.target: _rest_of_record(found, n) for found in each}
        if len(each) == 1:
            yield record | rest[result.target]
            continue
        for name in rest[each[0].target]:
            record[name] = {target: own[name] for target, own in rest.items()}
        yield record


def _rest_of_record(result, n):
    """What json_records say of structure n beside the value, of one target."""
    record = {"unit": result.unit, "attention": result.attention[n].astype(float).tolist()}
    uncertainty = {name: float(values[n]) for name, values in result.uncertainty().items()}
    return record | ({"uncertainty": uncertainty} if uncertainty else {})


@contextlib.contextmanager
def _json(path, targets, units, extra):
    with open(path, "w", encoding="utf-8") as stream:
        separator = "[\n"

        def add(structures, result):
            nonlocal separator
            for record in json_records(result):
                stream.write(separator + to_json(record, ensure_ascii=False))
                separator = ",\n"

        yield add
        stream.write("\n]\n" if separator == ",\n" else "[]\n")


@contextlib.contextmanager
def _xyz(path, targets, units, extra):
    ends = [f"_{target}" if len(targets) > 1 else "" for target in targets]
    columns = told_apart(column_name(f"attention{behind}") for behind in ends)
    with open(path, "w", encoding="utf-8") as stream:

        def add(structures, result):
            each = result.of_targets()
            for n, (atoms, id) in enumerate(zip(structures, result.id, strict=True)):
                frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
                frame.info = {"id": id, **{f"predicted_{found.target}": float(found.value[n]) for found in each}}
                for found, behind, column in zip(each, ends, columns, strict=True):
                    frame.info |= {name + behind: float(values[n]) for name, values in found.uncertainty().items()}
                    frame.set_array(column, found.attention[n].astype(float))
                write_xyz(stream, [frame], columns=["symbols", "positions", *columns], write_results=False)

        yield add


@contextlib.contextmanager
def _h5(path, targets, units, extra):
    several = len(targets) > 1
    with NewFile(path) as file:
        target, unit = (list(names) if several else names[0] for names in (targets, units))
        file.attrs.update(format=MARKS[".h5"], version=1, target=target, unit=unit)
        shapes = {"id": h5py.string_dtype(), "value": "f8", "site_ptr": "i8", "attention": "f8"}
        shapes |= dict.fromkeys(extra, "f8")
        for name, dtype in shapes.items():
            last = (len(targets),) if several and dtype == "f8" else ()
            chunks = (chunk_rows(last, dtype), *last)
            file.create_dataset(name, shape=(0, *last), maxshape=(None, *last), chunks=chunks, dtype=dtype)
        append(file["site_ptr"], [0])

        def add(structures, result):
            sizes = [len(attention) for attention in result.attention]
            append(file["id"], result.id)
            append(file["value"], result.value)
            append(file["site_ptr"], file["site_ptr"][-1] + np.cumsum(sizes))
            append(file["attention"], np.concatenate(result.attention))
            for name, values in result.uncertainty().items():
                append(file[name], values)
            file.check()

        yield add


WRITERS = {".csv": _csv, ".json": _json, ".xyz": _xyz, ".extxyz": _xyz, ".h5": _h5}
