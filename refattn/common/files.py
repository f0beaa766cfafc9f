"""Files that appear complete or not at all, and in nobody else's place.

What is written goes to a file of its own beside the target, under a name that no file had (O_EXCL), and is renamed at
the end. A process that is killed leaves such a file; the next one that writes into the folder removes it.
"""

import contextlib
import errno
import hashlib
import numbers
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from refattn.errors import OutputError, in_one_line

try:
    import fcntl
except ImportError:  # Windows: two commands with one output are then kept apart by the lock's file alone
    fcntl = None

PART = re.compile(r"\.refattn-[0-9a-f]{16}\.part")
LOCK = re.compile(r"\.refattn-[0-9a-f]{16}\.lock")
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)  # Windows


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A new file beside `path`, empty yet, which takes its place when the block ends well and is removed otherwise.

    Raises OutputError when the system refuses.
    """
    path = Path(path)
    try:
        with temporary_file(path.parent) as part:
            yield part
            put_in_place(part, path)
    except OSError as error:
        raise cannot_be_written(path, error) from None


@contextlib.contextmanager
def temporary_file(folder: Path | str) -> Iterator[Path]:
    """A new, empty file in `folder`, removed at the end where it still has its name. Raises OSError."""
    part, handle = _locked_part(Path(folder))
    try:
        yield part
    finally:
        if fcntl:
            os.close(handle)
        with contextlib.suppress(OSError):  # it was renamed
            part.unlink()


def _locked_part(folder):
    """Path and handle of a new file that this process has locked; on Windows the handle is closed."""
    while True:
        part = folder / f".refattn-{secrets.token_hex(8)}.part"
        handle = os.open(part, FLAGS | os.O_EXCL | BINARY, 0o666)
        if not fcntl:
            os.close(handle)
            return part, handle
        is_ours = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # remove_leftovers has it, and is about to remove it
            is_ours = False
        except OSError:  # a file system without locks
            pass
        if is_ours and part.exists():  # else remove_leftovers was there before
            return part, handle
        os.close(handle)


def remove_leftovers(folder: Path | str) -> None:
    """Remove the temporary files of processes that were killed: those that no process has locked."""
    if not fcntl:
        return
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), open(entry.path, "rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def put_in_place(part: Path, path: Path) -> None:
    """Give the finished file `part` the name `path`. Raises OSError."""
    with open(part, "rb+") as stream:
        os.fsync(stream.fileno())  # else a power cut could leave the new name without the new contents
    os.replace(part, path)


def cannot_be_written(path: Path | str, error: OSError) -> OutputError:
    """The error for an output that the system refuses."""
    folder = Path(path).parent
    if not folder.is_dir():
        return OutputError(f"{path}: cannot be written, there is no folder {folder}; make it, or choose another")
    return OutputError(
        f"{path}: cannot be written ({in_one_line(error.strerror or error)}); check the folder and its space"
    )


def write_text(path: Path | str, text: str) -> None:
    """Write a text file; it appears complete or not at all. Raises OutputError."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def holds_text(path: Path | str, text: str) -> bool:
    """Whether the file `path` is there and holds that text."""
    path = Path(path)
    return path.is_file() and path.read_bytes() == text.encode(errors="backslashreplace")


def other_format(content: Mapping, format: str, version: int, advice: str) -> str:
    """What is wrong with a file whose `format` and `version` in its content or attributes are others; else nothing."""
    found = content.get("version")
    if content.get("format") != format:
        return f"is not a {format} of version {version}; {advice}"
    if found == version:
        return ""
    newer = isinstance(found, numbers.Integral) and found > version
    do = "a newer refattn wrote it: install that one, or " if newer else ""
    return f"is a {format} of version {found!s:.20}, and this refattn reads version {version}; {do}{advice}"


def make_directory(path: Path | str) -> None:
    """Make a directory where there is none. Raises OutputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({in_one_line(error)}); choose another folder") from None


def private_folder(name: str) -> Path:
    """A folder in the user's cache folder, which nobody else may write. Raises OutputError where it is not so."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refattn"
    make_directory(cache.parent)
    path = cache / name
    try:
        for folder in (cache, path):
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = os.lstat(folder)
            others = stat.S_IWGRP | stat.S_IWOTH
            if hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & others):
                raise OutputError(f"{folder}: others may write it; move it away, or take their right with chmod go-w")
            if not stat.S_ISDIR(facts.st_mode):
                raise OutputError(f"{folder}: is a link or a file; move it away")
    except OSError as error:
        raise cannot_be_written(path, error) from None
    return path


@contextlib.contextmanager
def only_process(path: Path | str) -> Iterator[None]:
    """Keep other processes from writing the output `path`, a file or a folder that exists, while the block runs.

    The system lifts the lock when the process ends, however it does. On a file system without locks a process that
    is killed leaves the lock's file, which then has to be removed by hand.

    Raises OutputError where another process has the lock, or the folder cannot be written.
    """
    path = Path(path).absolute()
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    lock = folder / f".refattn-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.lock"
    try:
        handle = _taken(lock)
    except (BlockingIOError, FileExistsError) as error:
        killed = f", or was killed; if none is, remove {lock}" if isinstance(error, FileExistsError) else ""
        raise OutputError(f"{path}: another process is writing it{killed}; wait for that one to end") from None
    except OSError as error:
        raise cannot_be_written(path, error) from None
    try:
        remove_leftovers(folder)
        yield
    finally:
        remove_leftovers(folder)  # of what a killed process had started, and which ended after it
        if not fcntl:
            os.close(handle)  # Windows removes no file that is open
        with contextlib.suppress(OSError):
            lock.unlink()
        if fcntl:
            os.close(handle)  # last: whoever comes between still finds it locked


def _taken(lock):
    """The open file `lock`, which no other process has. Raises BlockingIOError, FileExistsError or another OSError."""
    while True:
        try:
            handle = os.open(lock, FLAGS | os.O_EXCL, 0o666)
            is_new = True
        except FileExistsError:
            handle = os.open(lock, FLAGS, 0o666)
            is_new = False
        try:
            if fcntl is None:
                raise OSError(errno.ENOLCK, "no locks")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise
        except FileNotFoundError:
            pass  # of the process before, which removed it meanwhile
        except OSError:  # no locks here: who made the file has it
            if is_new:
                return handle
            os.close(handle)
            raise FileExistsError from None
        os.close(handle)
