"""Predictions to files, structure by structure, so that any number of them fits: .csv, .json, .xyz, .extxyz and .h5."""

import contextlib
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from ase.io.extxyz import write_xyz

from refattn.common.files import replacing
from refattn.common.hdf5 import NewFile, append
from refattn.common.outputs import Mark
from refattn.common.strict_json import to_json
from refattn.common.text import csv_cell
from refattn.errors import DataError
from refattn.prediction.predictor import Prediction

# How the files begin, so that they are replaced and others are not. No other program quotes the names of a table alone.
_CSV = re.compile(rb'"id","(?:[^"\r\n]|"")*"(?:,"(?:spread|distance|lower|upper)")*\r\n')
_XYZ = re.compile(rb"\d+\n[^\n]*:attention:R:1[^\n]* predicted_")
_JSON = re.compile(rb'\[\n\{"id": "(?:[^"\\]|\\.)*", "(?:[^"\\]|\\.)*": [^ ]+, "unit": "|\[\]\n')
MARKS = {".csv": _CSV, ".json": _JSON, ".xyz": _XYZ, ".extxyz": _XYZ, ".h5": "refattn-predictions"}


@contextlib.contextmanager
def prediction_writer(path: Path | str, target: str, unit: str, extra: Sequence[str] = ()) -> Iterator[Callable]:
    """A function (list of ase.Atoms, Prediction) that adds to the file `path`; its suffix chooses the format.

    `extra` names the fields of Prediction.uncertainty that there will be: further columns of .csv, values in the
    comment line of .xyz, datasets (S,) of .h5, and a dict "uncertainty" in .json.

    .csv    id, prediction
    .json   a list of {"id", target, "unit", "attention"}
    .xyz, .extxyz
            extended XYZ with the prediction in the comment line and `attention` as a column of the atoms
    .h5     id (S,), value (S,), site_ptr (S + 1,), attention (N,)

    The file appears complete when the block ends, or not at all. Raises DataError for another suffix.
    """
    suffix = Path(path).suffix.lower()
    mark_of(path)
    with replacing(path) as part, WRITERS[suffix](part, target, unit, extra) as add:
        yield add


def mark_of(path: Path | str) -> Mark:
    """How a file of predictions of that suffix begins. Raises DataError for another suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in MARKS:
        raise DataError(f"{path}: predictions are written to {', '.join(MARKS)}; choose one of these suffixes")
    return MARKS[suffix]


@contextlib.contextmanager
def _csv(path, target, unit, extra):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        names = csv.writer(stream, quoting=csv.QUOTE_ALL)  # see MARKS
        names.writerow(map(csv_cell, ["id", f"{target} ({unit})" if unit else target, *extra]))

        def add(structures, result):
            columns = [result.value, *result.uncertainty().values()]
            writer.writerows(zip(map(csv_cell, result.id), *(column.tolist() for column in columns), strict=True))

        yield add


def json_records(result: Prediction) -> Iterator[dict]:
    """The structures of a Prediction as dicts: id, value under the target's name, unit, attention, and uncertainty."""
    found = result.uncertainty()
    for n, (id, value, attention) in enumerate(zip(result.id, result.value.tolist(), result.attention, strict=True)):
        record = {"id": id, result.target: value, "unit": result.unit, "attention": attention.astype(float).tolist()}
        if found:
            record["uncertainty"] = {name: float(values[n]) for name, values in found.items()}
        yield record


@contextlib.contextmanager
def _json(path, target, unit, extra):
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
def _xyz(path, target, unit, extra):
    with open(path, "w", encoding="utf-8") as stream:

        def add(structures, result):
            found, columns = result.uncertainty(), (structures, result.id, result.value, result.attention)
            for n, (atoms, id, value, attention) in enumerate(zip(*columns, strict=True)):
                frame = atoms.copy()
                frame.info = {"id": id, f"predicted_{target}": float(value)}
                frame.info |= {name: float(values[n]) for name, values in found.items()}
                frame.set_array("attention", attention.astype(float))
                write_xyz(stream, [frame], columns=["symbols", "positions", "attention"], write_results=False)

        yield add


@contextlib.contextmanager
def _h5(path, target, unit, extra):
    with NewFile(path) as file:
        file.attrs.update(format=MARKS[".h5"], version=1, target=target, unit=unit)
        shapes = {"id": h5py.string_dtype(), "value": "f8", "site_ptr": "i8", "attention": "f8"}
        shapes |= dict.fromkeys(extra, "f8")
        for name, dtype in shapes.items():
            file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(4096,), dtype=dtype)
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
