"""Compressed files in bounded memory and time: what a few bytes unpack to has an end (limits.py)."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from refattn.common.limits import MEMBER, SMALL, UNPACKING

BUFFER = 1 << 18  # bytes
OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
OPENERS |= {".tgz": gzip.open, ".tbz2": bz2.open, ".txz": lzma.open}


class _Bounded(io.RawIOBase):
    def __init__(self, stream, packed):
        self.stream = stream
        self.packed = packed
        self.done = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        n = self.stream.readinto(buffer)
        self.done += n
        _check(self.done, self.packed.tell())
        return n


def bounded(stream: BinaryIO, packed: BinaryIO) -> io.BufferedReader:
    """What `stream` unpacks of the open file `packed`. Reading it raises ValueError beyond the limit."""
    return io.BufferedReader(_Bounded(stream, packed), BUFFER)


def decompressed(packed: BinaryIO, path: Path) -> BinaryIO:
    """What an open file unpacks to, bounded; itself where the suffix of `path` names no compression."""
    opener = OPENERS.get(path.suffix.lower())
    return bounded(opener(packed), packed) if opener else packed


def check_member(member: zipfile.ZipInfo) -> None:
    """Raise ValueError for a member of a zip file that would unpack to too much."""
    _check(member.file_size, member.compress_size)


def _check(size, packed):
    if size > SMALL + UNPACKING * packed:
        raise ValueError(f"{packed} bytes unpack to {size} and more; REFATTN_UNPACKING allows more")


class TarMember(tarfile.TarInfo):
    """A member of a tar file; its extended headers, which tarfile reads at once, are no larger than MEMBER."""

    def _proc_member(self, archive):
        if self.type not in tarfile.REGULAR_TYPES and self.size > MEMBER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    """The text of a member. Raises ValueError for one that is too large, or no UTF-8."""
    if member.size > MEMBER:
        raise ValueError(f"{member.name} has {member.size} bytes; REFATTN_MEMBER allows more")
    return archive.extractfile(member).read().decode("utf-8")
