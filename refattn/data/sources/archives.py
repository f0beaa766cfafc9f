"""Members of zip and tar archives, one after the other, each in a file of its own for as long as it is read."""

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from refattn.common.archives import TarMember, bounded, check_member
from refattn.errors import DataError, in_one_line

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
OPENERS = dict.fromkeys((".gz", ".tgz"), gzip.open) | dict.fromkeys((".bz2", ".tbz2"), bz2.open)
OPENERS |= dict.fromkeys((".xz", ".txz"), lzma.open)
END = 1024  # bytes of zeros that a tar file ends with, at least
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError)
UNREADABLE += (zipfile.BadZipFile, tarfile.TarError)


def unpacked(
    path: Path, wanted: Callable[[str], bool], progress: Callable[[float], None]
) -> Iterator[tuple[str, Path]]:
    """(name within the archive, path on the disk) of every member that is wanted; its file goes when the next comes.

    Parameters
    ----------
    wanted : callable (name) -> bool
    progress : callable (part of the archive)

    Raises DataError for an archive that is damaged, or unpacks to too much (refattn.common.limits).
    """
    members = _zip(path, progress) if path.suffix.lower() == ".zip" else _tar(path, progress)
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        try:
            for name, stream in members:
                if wanted(name):
                    file = Path(folder) / PurePosixPath(name).name
                    with open(file, "xb") as out:
                        shutil.copyfileobj(stream, out)
                    yield name, file
                    file.unlink()
        except UNREADABLE as error:
            raise DataError(f"{path}: cannot be read on ({in_one_line(error)}); restore it") from None


def _zip(path, progress):
    """(name, stream) of every file."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for number, member in enumerate(members, 1):
            check_member(member)
            with archive.open(member) as stream:
                yield member.filename, stream
            progress(number / len(members))


def _tail(raw):
    """The last bytes of an open file, which stays at its beginning."""
    raw.seek(-END, os.SEEK_END)
    tail = raw.read()
    raw.seek(0)
    return tail


def _tar(path, progress):
    """(name, stream) of every regular file, read as a stream."""
    size = max(path.stat().st_size, 1)
    with open(path, "rb") as raw:
        if path.suffix.lower() == ".tar" and (size < END or _tail(raw).strip(b"\0")):
            raise ValueError("it ends without the mark of its end; it was cut")
        # Decompressed here and not by tarfile, which takes a compressed stream that was cut for a complete one.
        opener = OPENERS.get(path.suffix.lower())
        stream = bounded(opener(raw), raw) if opener else raw
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=TarMember) as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, archive.extractfile(member)
                progress(raw.tell() / size)
        if any(rest.strip(b"\0") for rest in iter(lambda: stream.read(1 << 20), b"")):
            raise ValueError("it has damaged data within")
