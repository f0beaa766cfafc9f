"""Members of zip and tar archives, one after the other, each in a file of its own for as long as it is read."""

import collections
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from refattn.common.archives import TarMember, check_member, decompressed
from refattn.errors import DataError, in_one_line

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_NAME = 200  # bytes of a file that is unpacked
MAX_LINKS = 20  # from one link to the next
END = 1024  # bytes of zeros that a tar file ends with, at least
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, lzma.LZMAError)
UNREADABLE += (zipfile.BadZipFile, tarfile.TarError)


def unpacked(
    path: Path, wanted: Callable[[str], bool], lost: Callable[[str], None], progress: Callable[[float], None]
) -> Iterator[tuple[str, Path]]:
    """(name within the archive, path on the disk) of every member that is wanted; its file goes when the next comes.

    Parameters
    ----------
    wanted : callable (name) -> bool
    lost : callable (name)         is told what is neither a file nor a link to one in the archive
    progress : callable (part of the archive)

    Raises DataError for an archive that is damaged, or unpacks to too much (refattn.common.limits).
    """
    members = _zip(path, progress) if path.suffix.lower() == ".zip" else _tar(path, lost, progress)
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        content = Path(folder) / "content"
        (Path(folder) / "named").mkdir()
        try:
            for names, stream in members:
                names = [name for name in names if wanted(name)]
                if names:
                    with open(content, "wb") as out:
                        shutil.copyfileobj(stream, out)
                for name in names:
                    short = PurePosixPath(name).name
                    short = short if len(os.fsencode(short)) <= MAX_NAME else short[-MAX_NAME // 4 :]
                    file = content.rename(Path(folder) / "named" / short)
                    yield name, file
                    file.rename(content)
        except UNREADABLE as error:
            raise DataError(f"{path}: cannot be read further ({in_one_line(error)}); restore it") from None


def _zip(path, progress):
    """([name], stream) of every file."""
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for number, member in enumerate(members, 1):
            check_member(member)
            with archive.open(member) as stream:
                yield [member.filename], stream
            progress(number / len(members))


def _tail(raw):
    """The last bytes of an open file, which stays at its beginning."""
    raw.seek(-END, os.SEEK_END)
    tail = raw.read()
    raw.seek(0)
    return tail


def _tar(path, lost, progress):
    """([name], stream) of every regular file, then of those again to which links lead, with the names of these."""
    links = {}  # name -> name
    for member, stream, fraction in _members(path):
        if stream:
            yield [member.name], stream
        elif member.issym():
            links[posixpath.normpath(member.name)] = posixpath.join(posixpath.dirname(member.name), member.linkname)
        elif member.islnk():
            links[posixpath.normpath(member.name)] = member.linkname
        elif not member.isdir():
            lost(member.name)
        progress(fraction)
    wanted = collections.defaultdict(list)
    for name, target in links.items():
        for _ in range(MAX_LINKS):
            target = posixpath.normpath(target)
            target = links.get(target, target)
        wanted[target].append(name)
    for member, stream, _ in _members(path) if wanted else ():
        names = stream and wanted.pop(posixpath.normpath(member.name), None)
        if names:
            yield names, stream
    for name in sorted(name for names in wanted.values() for name in names):
        lost(name)


def _members(path):
    """(member, stream of a regular file or None, part of the archive) of a tar file, read as a stream."""
    size = max(path.stat().st_size, 1)
    with open(path, "rb") as raw:
        if path.suffix.lower() == ".tar" and (size < END or _tail(raw).strip(b"\0")):
            raise ValueError("it ends without the mark of its end; it was cut")
        # Decompressed here and not by tarfile, which takes a compressed stream that was cut for a complete one.
        stream = decompressed(raw, path)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=TarMember) as archive:
            for member in archive:
                yield member, archive.extractfile(member) if member.isfile() else None, raw.tell() / size
        if any(rest.strip(b"\0") for rest in iter(lambda: stream.read(1 << 20), b"")):
            raise ValueError("it has damaged data within")
