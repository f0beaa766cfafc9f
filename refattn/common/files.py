"""Files that appear complete or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from refattn.errors import OutputError


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and is removed otherwise.

    Raises OutputError when the system refuses.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        put_in_place(part, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error}); check the folder and its space") from None
    finally:
        with contextlib.suppress(OSError):  # it was renamed, or its folder is none
            part.unlink()


def put_in_place(part: Path, path: Path) -> None:
    """Give the finished file `part` the name `path`. Raises OSError."""
    with open(part, "rb+") as stream:
        os.fsync(stream.fileno())  # else a power cut could leave the new name without the new contents
    os.replace(part, path)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file; it appears complete or not at all. Raises OutputError."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def make_directory(path: Path | str) -> None:
    """Make a directory where there is none. Raises OutputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error}); choose another folder") from None
