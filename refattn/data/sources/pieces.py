"""Pieces of sources, for processes that read one each: some files, or a run of structures of one large file.

A large file of extended XYZ is cut here, which takes a twentieth of the time of reading it; a prepared data set has
rows. What is packed in an archive or kept in a database is not cut.
"""

import copy
import functools
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path

from refattn.data.sources.archives import ARCHIVES
from refattn.data.sources.databases import frames_of_rows
from refattn.data.sources.extxyz import Frame
from refattn.data.sources.files import XYZ, FilesSource
from refattn.data.store import check_layout, open_dataset
from refattn.errors import DataError

LARGE = 1 << 20  # bytes of a file that is cut, of sources that are worth it
STRUCTURES = 256  # of a piece that is cut from a large file: under a second
SITES = 1 << 14  # of large structures
FILES = 64  # of a piece, and at most LARGE bytes
PREPARED = (".h5", ".hdf5")


class StoredRow(typing.NamedTuple):
    """A structure of a prepared data set, in the rows `start` to `stop` of its file."""

    path: Path
    start: int
    stop: int
    row: int

    def frame(self) -> Frame | DataError:
        """The Frame, or why the rows cannot be read."""
        try:
            return _frames(self.path, self.start, self.stop)[self.row - self.start]
        except DataError as error:
            return error


@functools.lru_cache(maxsize=1)
def _frames(path, start, stop):
    return list(frames_of_rows(path, slice(start, stop)))


def can_be_cut(sources: Iterable[FilesSource]) -> bool:
    """Whether no source has a table, or a large file that only one process can read."""
    return not any(source.table or any(map(_is_whole, source.files)) for source in sources)


def _is_whole(file):
    is_cut = XYZ.search(file.name) or file.suffix.lower() in PREPARED
    return file.name.lower().endswith(ARCHIVES) or (not is_cut and file.stat().st_size > LARGE)


def pieces(sources: Iterable[FilesSource]) -> Iterator[FilesSource]:
    """Sources that have together, in this order, the structures of `sources`; each may be sent to another process.

    Raises DataError for a file that cannot be cut any more, after the pieces before it; what else is wrong a piece
    says when it is read.
    """
    for source in sources:
        small = []
        size = 0
        for file in source.files:
            n_bytes = file.stat().st_size
            cut = _cut(source, file) if n_bytes > LARGE else None
            small += [file] if cut is None else []
            size += n_bytes
            if small and (cut is not None or len(small) == FILES or size > LARGE):
                yield _piece_of(source, small)
                small = []
                size = 0
            if cut is not None:
                yield from _runs(source, file, cut)
        if small:
            yield _piece_of(source, small)


def _cut(source, file):
    """(location, fallback, unparsed) of the structures of a large file; None where there is one."""
    if XYZ.search(file.name):
        return _piece_of(source, [file]).structures(parse=False)
    with open_dataset(file) as opened:
        n = check_layout(opened)
    return None if n == 1 else _rows(file, source.names[file], n)


def _rows(file, name, n):
    for row in range(n):
        start = row - row % STRUCTURES
        yield (str(file), row), f"{name}-{row}", StoredRow(file, start, start + STRUCTURES, row)


def _runs(source, file, cut):
    """Pieces of STRUCTURES each, or of SITES."""
    run = []
    n_sites = 0
    try:
        for found in cut:
            run.append(found)
            n_sites += len(getattr(found[2], "rows", ()))
            if len(run) == STRUCTURES or n_sites >= SITES:
                yield _piece_of(source, [file], run)
                run = []
                n_sites = 0
    except DataError:
        if run:
            yield _piece_of(source, [file], run)
        raise
    if run:
        yield _piece_of(source, [file], run)


def _piece_of(source, files, cut=None):
    piece = copy.copy(source)
    piece.files = files
    piece.names = {file: source.names[file] for file in files}
    piece.passed_over = []
    piece.cut = cut
    return piece
