"""Facets to files, structure by structure: .csv, a row for each, and .h5, arrays one after the other."""

import contextlib
import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from refattn.common.files import replacing
from refattn.common.hdf5 import NewFile, append
from refattn.common.outputs import Mark, mark_for
from refattn.common.text import csv_cell

COLUMNS = ("i", "j", "S1", "S2", "S3", "Dx", "Dy", "Dz", "r", "omega", "area", "volume")
FIELDS = {"i": "i8", "j": "i8", "image": "i8", "vector": "f8", "r": "f8", "omega": "f8", "area": "f8", "volume": "f8"}
MARKS = {".csv": re.compile(f"id,{','.join(COLUMNS)}\r\n".encode()), ".h5": "refattn-neighbours"}


def mark_of(path: Path | str) -> Mark:
    """How a file of that suffix begins. Raises DataError for another suffix."""
    return mark_for(path, MARKS, "neighbours")


@contextlib.contextmanager
def facets_writer(path: Path | str) -> Iterator[Callable]:
    """A function (list of ids, list of Facets) that adds to the file `path`, which appears complete or not at all.

    .csv    a row for every facet: id of the structure, and COLUMNS, the image S in cell vectors and the vector D in Å
    .h5     id (S,), site_ptr (S + 1,), facet_ptr (S + 1,), and FIELDS (F, ...), whose i and j count in their structure
    """
    mark_of(path)
    with replacing(path) as part, WRITERS[Path(path).suffix.lower()](part) as add:
        yield add


@contextlib.contextmanager
def _csv(path):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *COLUMNS])

        def add(ids, structures):
            for id, found in zip(ids, structures, strict=True):
                columns = [found.i, found.j, *found.image.T, *found.vector.T]
                columns += [found.r, found.omega, found.area, found.volume]
                writer.writerows(zip([csv_cell(id)] * len(found), *(column.tolist() for column in columns)))

        yield add


@contextlib.contextmanager
def _h5(path):
    with NewFile(path) as file:
        file.attrs.update(format=MARKS[".h5"], version=1)
        shapes = {"id": h5py.string_dtype(), "site_ptr": "i8", "facet_ptr": "i8", **FIELDS}
        for name, dtype in shapes.items():
            last = (3,) if name in ("image", "vector") else ()
            file.create_dataset(name, shape=(0, *last), maxshape=(None, *last), chunks=(4096, *last), dtype=dtype)
        append(file["site_ptr"], [0])
        append(file["facet_ptr"], [0])

        def add(ids, structures):
            append(file["id"], ids)
            for found in structures:
                append(file["site_ptr"], [file["site_ptr"][-1] + found.n_sites])
                append(file["facet_ptr"], [file["facet_ptr"][-1] + len(found)])
                for name in FIELDS:
                    append(file[name], getattr(found, name))
            file.check()

        yield add


WRITERS = {".csv": _csv, ".h5": _h5}
