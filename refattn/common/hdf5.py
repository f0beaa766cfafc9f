"""HDF5 files: written so that a full disk is an error and no crash, read only after their sizes have been looked at.

They are written in the format of HDF5 1.10, whose metadata have checksums. A file without these may send the library
into an endless loop where it is damaged, so that another process opens it first.
"""

import contextlib
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import DTypeLike

from refattn.common.limits import HDF5_EXPANSION, HDF5_OBJECTS, HDF5_SECONDS, SMALL
from refattn.errors import DataError

# What h5py raises for damaged files, and NumPy for what they hold.
UNREADABLE = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError, MemoryError)
BLOCK = 1 << 14  # strings that are str at once
SIGNATURE = b"\x89HDF\r\n\x1a\n"
CHECKED = (SIGNATURE + b"\x02", SIGNATURE + b"\x03")  # beginnings of files whose metadata have checksums
# Meets all that is in a file, but for the numbers.
LOOK = """
import sys, h5py
def look(name, item):
    dict(item.attrs)
    if isinstance(item, h5py.Dataset):
        item.chunks is None or item.id.get_num_chunks()
        item.dtype.kind == "O" and item.size <= int(sys.argv[2]) and item[()]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
except ImportError:
    pass
with h5py.File(sys.argv[1], "r", locking="best-effort") as file:
    dict(file.attrs)
    file.visititems(look)
"""


class NewFile(h5py.File):
    """An HDF5 file to be written, or to be added to with mode "r+", in a file that exists.

    HDF5 may crash the process where a write of its own fails, as on a full disk. So it never sees one fail: `check`
    and `close` raise the OSError instead.
    """

    def __init__(self, path: Path | str, mode: str = "w"):
        self._disk = _Disk(path)
        if mode == "w":
            self._disk.truncate(0)
        try:
            super().__init__(path, mode, "fileobj", fileobj=self._disk, libver=("v110", "v110"))
            self.check()
        except BaseException:
            self._disk.stream.close()
            raise

    def check(self) -> None:
        """Raise the OSError of a write that failed, once; to be called after every block: the rest is in memory."""
        if self._disk.error and not self._disk.told:
            self._disk.told = True
            raise self._disk.error

    def close(self) -> None:
        """Finish the file. Raises OSError where not all of it was written."""
        if self._disk.stream.closed:
            return
        try:
            super().close()
        finally:
            self._disk.stream.close()
        self.check()


class _Disk:
    """The file below a NewFile. What the system refuses to write is kept in memory, so that it can be read back."""

    def __init__(self, path):
        self.stream = open(path, "rb+", buffering=0)  # noqa: SIM115  NewFile closes it
        self.at = 0
        self.error = None
        self.told = False
        self.refused = []  # (offset, bytes) of the writes since the first that failed

    def seek(self, offset, whence=os.SEEK_SET):
        if whence == os.SEEK_END:
            ends = (first + len(data) for first, data in self.refused)
            offset += max(os.fstat(self.stream.fileno()).st_size, *ends, 0)
        self.at = offset
        return offset

    def tell(self):
        return self.at

    def write(self, data):
        done = 0
        try:
            self.stream.seek(self.at)
            while done < len(data) and not self.error:
                done += self.stream.write(data[done:])
        except OSError as error:
            self.error = error
        if done < len(data):
            self.refused.append((self.at + done, bytes(data[done:])))
        self.at += len(data)
        return len(data)

    def readinto(self, buffer):
        start = self.at
        done = 0
        self.stream.seek(start)
        while done < len(buffer) and (n := self.stream.readinto(buffer[done:])):
            done += n
        for offset, data in self.refused:
            first = max(offset, start)
            last = min(offset + len(data), start + len(buffer))
            if first < last:
                buffer[first - start : last - start] = data[first - offset : last - offset]
                done = max(done, last - start)
        self.at += done
        return done

    def truncate(self, size):
        try:
            self.stream.truncate(size)
        except OSError as error:
            self.error = self.error or error

    def flush(self):
        """NewFile.close and the caller's fsync do it."""


@contextlib.contextmanager
def reading_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """The open HDF5 file, after a look at the sizes that it declares. Raises what is in UNREADABLE."""
    size = os.stat(path).st_size
    with open(path, "rb") as stream:
        if stream.read(9) not in CHECKED and _has_signature(stream):
            facts = os.fstat(stream.fileno())
            _look_from_outside(os.fspath(path), facts.st_ino, facts.st_mtime_ns, size)
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except BlockingIOError:
        raise OSError("another program has it open for writing") from None
    with file:
        _check_sizes(file, SMALL + HDF5_EXPANSION * size)
        yield file


def _has_signature(stream):
    """Whether HDF5 would take the file for one: the signature is at 0, 512, 1024 and so on."""
    at = 0
    while True:
        stream.seek(at)
        found = stream.read(len(SIGNATURE))
        if found == SIGNATURE or len(found) < len(SIGNATURE):
            return found == SIGNATURE
        at = max(512, 2 * at)


@functools.lru_cache
def _look_from_outside(path, inode, changed, size):
    """Raise OSError where another process cannot open the file, or takes too long."""
    command = [sys.executable, "-P", "-c", LOOK, path, str(SMALL)]
    try:
        result = subprocess.run(command, capture_output=True, timeout=HDF5_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise OSError("its metadata are damaged: the HDF5 library finds no end") from None
    if result.returncode < 0:
        raise OSError("its metadata are damaged: the HDF5 library crashes")
    if result.returncode:
        words = result.stderr.decode("utf-8", "replace").strip().splitlines() or ["the HDF5 library refuses"]
        raise OSError(words[-1].partition(": ")[2] or words[-1])


def _check_sizes(file, limit):
    """Raise ValueError where the file declares more than `limit` bytes, or leads to other files."""
    waiting = [file]
    seen = set()
    total = 0
    while waiting:
        item = waiting.pop()
        for name in item.attrs:
            attribute = item.attrs.get_id(name)
            total += math.prod(attribute.shape or ()) * attribute.dtype.itemsize
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise ValueError(f"{item.name} is kept in another file")
            rows = max(math.prod(item.shape or ()), math.prod(item.chunks or ()))  # a chunk is read as a whole
            total += rows * item.dtype.itemsize
        if total > limit:
            raise ValueError(f"it declares {total} bytes and more, which so small a file cannot hold")
        if isinstance(item, h5py.Group):
            if len(seen) > HDF5_OBJECTS:
                raise ValueError(f"it has more than {HDF5_OBJECTS} objects")
            for name in item:
                if not isinstance(item.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name} is a link to somewhere else")
                child = item[name]
                place = h5py.h5o.get_info(child.id).addr
                if place not in seen:
                    seen.add(place)
                    waiting.append(child)


def chunk_rows(row_shape: tuple[int, ...], dtype: DTypeLike, chunk_bytes: int = 1 << 14) -> int:
    """Rows of a chunk of about `chunk_bytes`: a file of few rows stays small."""
    return max(1, chunk_bytes // (max(1, math.prod(row_shape)) * np.dtype(dtype).itemsize))


def append(data: h5py.Dataset, values: np.ndarray | list, axis: int = 0) -> None:
    """Enlarge the h5py.Dataset `data` by `values` along `axis`."""
    start = data.shape[axis]
    data.resize(start + np.shape(values)[axis], axis=axis)
    if data.shape[axis] > start:
        data[(slice(None),) * axis + (slice(start, None),)] = values


class Strings(Sequence):
    """A list of strings that are str only when they are asked for: millions of them are to fit into memory.

    values : (S,) str, or bytes of UTF-8
    rows : (K,) int, optional     which of them, in which order; all by default
    """

    def __init__(self, values: np.ndarray, rows: np.ndarray | None = None):
        self.values = values
        self.rows = rows

    def __len__(self) -> int:
        return len(self.values if self.rows is None else self.rows)

    def __getitem__(self, index: int | slice) -> "str | Strings":
        if isinstance(index, slice):
            return Strings(self.values[index]) if self.rows is None else Strings(self.values, self.rows[index])
        found = self.values[index if self.rows is None else self.rows[index]]
        return found.decode() if isinstance(found, bytes) else str(found)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BLOCK):
            found = self._values(start)
            yield from np.char.decode(found, "utf-8").tolist() if found.dtype.kind == "S" else found.tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(a == b for a, b in zip(self, other))

    __hash__ = None

    def __add__(self, other: Sequence[str]) -> list[str]:
        return [*self, *other]

    def __radd__(self, other: Sequence[str]) -> list[str]:
        return [*other, *self]

    def _values(self, start):
        """Those of a block, of whichever kind they are."""
        part = slice(start, start + BLOCK)
        return self.values[part] if self.rows is None else self.values[self.rows[part]]


def write_strings(group: h5py.Group, name: str, texts: str | Sequence[str]) -> None:
    """A text, or many, as strings of one length: those of any length stand where there are no checksums."""
    if isinstance(texts, str):
        encoded = texts.encode()
        group.create_dataset(name, data=encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))
        return
    length = max((len(text.encode()) for text in texts), default=1)
    data = group.create_dataset(name, (len(texts),), h5py.string_dtype("utf-8", max(1, length)))
    for start in range(0, len(texts), BLOCK):
        data[start : start + BLOCK] = [text.encode() for text in texts[start : start + BLOCK]]


def json_blocks(lists: Sequence[Sequence[str]]) -> Iterator[str]:
    """The text json.dumps(lists), some thousands of strings at a time."""
    for number, texts in enumerate(lists):
        yield ", [" if number else "[["
        for start in range(0, len(texts), BLOCK):
            yield (", " if start else "") + json.dumps(list(texts[start : start + BLOCK]))[1:-1]
        yield "]"
    yield "]"


def attribute_text(item: h5py.HLObject, name: str) -> str:
    """An attribute as text. Raises KeyError where there is none, DataError for one that is no UTF-8."""
    text = str(item.attrs[name])
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"the attribute {name} of {item.name} is no text in UTF-8; restore the file") from None
    return text
