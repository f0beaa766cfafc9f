"""Pieces of sources, for processes that read one each: some files, or a run of structures of one large file.

A large file of extended XYZ is cut here, which takes a twentieth of the time of reading it; a prepared data set has
rows. What is packed in an archive or kept in a database is not cut.
"""

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from refattn.data.sources.archives import ARCHIVES
from refattn.data.sources.extxyz import Frame
from refattn.data.sources.files import XYZ, FilesSource, n_bytes
from refattn.data.sources.readers import read_rows
from refattn.data.store import FIELDS, check_layout, open_dataset
from refattn.errors import DataError

LARGE = 1 << 20  # bytes of a file that is cut, of sources that are worth it
STRUCTURES = 256  # of a piece that is cut from a large file: under a second
SITES = 1 << 14  # about which it ends earlier
FILES = 64  # of a piece, and at most LARGE bytes
PREPARED = (".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class StoredRows:
    """Structures of a prepared data set, as FilesSource.cut; `name` begins the ids of those that have none."""

    path: Path
    name: str
    start: int
    stop: int

    def __iter__(self) -> Iterator[tuple[tuple[str, int], str, Frame]]:
        frames = read_rows(self.path, slice(self.start, self.stop))
        for row, frame in enumerate(frames, self.start):
            yield (str(self.path), row), f"{self.name}-{row}", frame


def can_be_cut(sources: Iterable[FilesSource]) -> bool:
    """Whether no source has a table, or a large file that only one process can read."""
    return not any(source.table or any(map(_is_whole, source.files)) for source in sources)


def _is_whole(file):
    is_cut = XYZ.search(file.name) or file.suffix.lower() in PREPARED
    return file.name.lower().endswith(ARCHIVES) or (not is_cut and n_bytes([file]) > LARGE)


def pieces(sources: Iterable[FilesSource]) -> Iterator[FilesSource]:
    """Sources that have together, in this order, the structures of `sources`; each may be sent to another process.

    Raises what reading a large file of extended XYZ raises, after the pieces before it; what else is wrong a piece says
    when it is read.
    """
    for source in sources:
        small = []
        size = 0
        for file in source.files:
            runs = _runs(source, file) if n_bytes([file]) > LARGE else None
            if runs is None:
                small.append(file)
                size += n_bytes([file])
            if small and (runs is not None or len(small) == FILES or size > LARGE):
                yield _piece_of(source, small)
                small = []
                size = 0
            for cut in runs or ():
                yield _piece_of(source, [file], cut)
        if small:
            yield _piece_of(source, small)


def _runs(source, file):
    """FilesSource.cut of one piece of a large file after the other; None where it is not to be cut."""
    if XYZ.search(file.name):
        return _runs_of_frames(_piece_of(source, [file]).structures(parse=False))
    try:
        with open_dataset(file) as opened:
            n = check_layout(opened)
    except DataError:  # who reads it says so, in its turn
        return None
    return None if n == 1 else _runs_of_rows(file, source.names[file], n)


def _runs_of_frames(structures):
    run = []
    n_sites = 0
    try:
        for found in structures:
            run.append(found)
            n_sites += len(getattr(found[2], "rows", ()))
            if len(run) == STRUCTURES or n_sites >= SITES:
                yield run
                run = []
                n_sites = 0
    except Exception:  # what comes before it is read first
        if run:
            yield run
        raise
    if run:
        yield run


def _runs_of_rows(file, name, n):
    with open_dataset(file) as opened:
        pointer = opened[FIELDS["site_ptr"].path]
        start = 0
        while start < n:
            ends = pointer[start + 1 : start + 1 + STRUCTURES]
            stop = start + max(1, int(np.searchsorted(ends, pointer[start] + SITES)))
            yield StoredRows(file, name, start, stop)
            start = stop


def _piece_of(source, files, cut=None):
    piece = copy.copy(source)
    piece.files = files
    piece.names = {file: source.names[file] for file in files}
    piece.passed_over = []
    piece.cut = cut
    return piece
