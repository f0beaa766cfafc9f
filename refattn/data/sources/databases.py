"""Structures from databases of ASE (SQLite or JSON), with what SchNetPack keeps there, and from prepared data sets."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import ase.db
import numpy as np
from ase.db.row import AtomsRow
from ase.units import Bohr

from refattn.data.sources.extxyz import Frame, frame_of
from refattn.data.sources.lmdb import read_rows
from refattn.data.store import check_layout, open_dataset, read_dataset
from refattn.errors import DataError, in_one_line

BLOCK = 1000  # structures of a data set that are read at once
LENGTHS = {"": 1.0, "ang": 1.0, "angstrom": 1.0, "a": 1.0, "bohr": Bohr, "a0": Bohr}


def read_database(path: Path, progress: Callable[[float], None]) -> Iterator[Frame | DataError]:
    """The Frame of every row of an ASE database; labels are its key-value pairs and the single numbers in its data.

    SchNetPack notes the units of lengths and labels beside the rows.
    """
    if path.suffix.lower() == ".json":
        _check_json(path)
    else:
        _check_sqlite(path)
    with ase.db.connect(path) as database:
        total = max(database.count(), 1)
        length = str(database.metadata.get("_distance_unit", ""))
        if length.lower() not in LENGTHS:
            raise DataError(f"its unit of length is {length!r}; convert it to Å")
        units = {name: str(unit) for name, unit in database.metadata.get("_property_unit_dict", {}).items()}
        for number, row in enumerate(database.select(), 1):
            progress(number / total)
            try:
                yield _frame_of_row(row, LENGTHS[length.lower()])._replace(units=units)
            except DataError as error:
                yield error


def _frame_of_row(row, length=1.0):
    """The Frame of a row of ASE's databases, whose lengths are in units of `length` Å."""
    atoms = row.toatoms()
    atoms.positions *= length
    atoms.cell *= length
    data = {
        name: value.item() if np.size(value) == 1 and isinstance(value, np.ndarray) else value
        for name, value in row.data.items()
    }
    atoms.info = {"id": row.get("unique_id", ""), **data, **row.key_value_pairs}
    return frame_of(atoms)


def read_lmdb(path: Path, progress: Callable[[float], None]) -> Iterator[Frame | DataError]:
    """The Frame of every row of a database of ASE in LMDB; labels are as in other ones."""
    for fraction, row in read_rows(path):
        progress(fraction)
        try:
            yield row if isinstance(row, DataError) else _frame_of_row(AtomsRow(row))
        except DataError as error:
            yield error
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            yield DataError(f"a row of it holds no structure ({in_one_line(error)}); repair it")


def read_prepared(path: Path, progress: Callable[[float], None]) -> Iterator[Frame]:
    """The Frame of every structure of a prepared data set."""
    with open_dataset(path) as file:
        n_structures = check_layout(file)
    for start in range(0, n_structures, BLOCK):
        yield from frames_of_rows(path, slice(start, start + BLOCK))
        progress(min(start + BLOCK, n_structures) / n_structures)


def frames_of_rows(path: Path, rows: slice) -> Iterator[Frame]:
    """The Frame of some structures of a prepared data set."""
    dataset = read_dataset(path, rows)
    units = {name: attrs.get("unit", "") for name, attrs in dataset.label_attrs.items()}
    for row in range(len(dataset)):
        yield frame_of(dataset.atoms(row))._replace(units=units)


def _check_sqlite(path):
    """ase.db.connect would write its tables into any other SQLite file; look before, without the right to write."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as a database ({error}); check the path or restore it") from None
    if not found:
        raise DataError(f"{path}: is not a database of ASE; check the path")


def _check_json(path):
    """ASE's JSON has the rows under their numbers, and the numbers under `ids`."""
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    if not text.lstrip().startswith("{") or '"ids"' not in text or '"nextid"' not in text:
        raise DataError("it is no database of ASE in JSON; convert it, or choose its --format")
