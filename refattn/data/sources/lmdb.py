"""Rows of ASE's LMDB databases (.aselmdb), as OMat24 and OC20 have them: JSON, packed by zlib, under a running number.

The file is a B+ tree of pages, read here page by page with every number checked: the library maps the file and follows
whatever it says.

Source   the file format of LMDB 0.9, page and node headers of mdb.c (openldap.org)
"""

import contextlib
import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from refattn.common.limits import MEMBER
from refattn.errors import DataError

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = struct.Struct("<QHHHH")  # of a page: number, padding, flags, end of the nodes' places, begin of the nodes
META = struct.Struct("<IIQQ48s48sQQ")  # behind it: magic, version, address, size, tables of free and of used pages, ...
TABLE = struct.Struct("<IHHQQQQQ")  # size of a page, flags, depth, numbers of pages, entries, root
NODE = struct.Struct("<HHHH")  # low and high half of the size, flags, size of the key
NUMBER = struct.Struct("<Q")
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # kinds of pages
BIG = 1  # flag of a node whose value has pages of its own
DAMAGED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error, zlib.error)
NO_PAGE = (1 << 64) - 1
DEEPEST = 20


class LmdbFile:
    """The values of a file of LMDB under their keys; use it in a `with` statement.

    Raises what is in DAMAGED for what is no such file, or damaged.
    """

    def __init__(self, path: Path | str):
        with open(path, "rb") as stream:
            self.content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        first = META.unpack_from(self.content, HEADER.size)
        self.page_size = TABLE.unpack(first[4])[0]
        if first[:2] != (MAGIC, VERSION) or self.page_size not in (1 << n for n in range(8, 17)):
            raise ValueError("it is no database of LMDB")
        second = META.unpack_from(self.content, self.page_size + HEADER.size)
        newest = max(first, second, key=lambda meta: meta[-1])
        *_, self.n_entries, self.root = TABLE.unpack(newest[5])

    def __enter__(self) -> "LmdbFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.content.close()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none."""
        number = self.root
        for _ in range(DEEPEST):
            if number == NO_PAGE:
                return None
            start, kind, places = self._page(number)
            nodes = [(*NODE.unpack_from(self.content, start + place), start + place) for place in places]
            if kind & LEAF:
                return next((self._value(node) for node in nodes if self._key(node) == key), None)
            later = (k for k, node in enumerate(nodes) if k and self._key(node) > key)
            low, high, upper, *_ = nodes[next(later, len(nodes)) - 1]
            number = low | high << 16 | upper << 32
        raise ValueError("its tree has no end")

    def _page(self, number):
        """(place, kind, places of the nodes in it) of a page with nodes."""
        start = number * self.page_size
        _, _, kind, end, _ = HEADER.unpack_from(self.content, start)
        if not kind & (BRANCH | LEAF) or not HEADER.size < end <= self.page_size:
            raise ValueError(f"its page {number} is damaged")
        places = struct.unpack_from(f"<{(end - HEADER.size) // 2}H", self.content, start + HEADER.size)
        return start, kind, places

    def _key(self, node):
        *_, size, place = node
        return self.content[place + NODE.size : place + NODE.size + size]

    def _value(self, node):
        low, high, flags, key_size, place = node
        size = low | high << 16
        start = place + NODE.size + key_size
        if flags & BIG:
            start = NUMBER.unpack_from(self.content, start)[0] * self.page_size
            if not HEADER.unpack_from(self.content, start)[2] & OVERFLOW:
                raise ValueError("a large value is not where it should be")
            start += HEADER.size
        if start + size > len(self.content):
            raise ValueError("it was cut")
        return self.content[start : start + size]


def read_rows(path: Path) -> Iterator[tuple[float, dict | DataError]]:
    """(part of the file, row of the database as a dict) in the order of their numbers; DataError for a damaged row."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(LmdbFile(path))
            end = _unpacked(file.get(b"nextid"))
            deleted = set(_unpacked(file.get(b"deleted_ids") or zlib.compress(b"[]")))
        except DAMAGED as error:
            raise DataError(f"it is no database of ASE in LMDB ({error}); restore it") from None
        if not isinstance(end, int) or end > file.n_entries + len(deleted) + 1:
            raise DataError(f"it has no rows up to number {end}; restore it")
        for number in range(1, end):
            if number in deleted:
                continue
            try:
                row = _unpacked(file.get(str(number).encode()))
                row.pop("constraints", None)
            except DAMAGED as error:
                row = DataError(f"its row {number} is missing or damaged ({error}); restore it")
            yield number / end, row


def _unpacked(value):
    """What a value stands for. Raises ValueError, TypeError (where there is none) or zlib.error."""
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(value, MEMBER)
    if not unpacking.eof:
        raise ValueError(f"{len(value)} bytes unpack to more than {MEMBER} or were cut; REFATTN_MEMBER allows more")
    return json.loads(text, object_hook=_arrays)


def _arrays(found):
    """Arrays as ASE writes them: shape, type and numbers."""
    if "__ndarray__" not in found:
        return found
    shape, dtype, values = found["__ndarray__"]
    return np.array(values, np.dtype(str(dtype))).reshape(shape)
