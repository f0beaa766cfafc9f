"""Which files a command may replace: earlier outputs of its own kind, whatever --overwrite names, and never an input.

An earlier output is recognised by how it begins: an HDF5 file by its attribute `format`, others by their first bytes.
"""

import contextlib
import os
import re
import stat
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from refattn.common.hdf5 import UNREADABLE, reading_hdf5
from refattn.errors import DataError, OutputError, in_one_line

BEGINNING = 4096  # bytes that are looked at
OF_RUNS = ("refattn-model", "refattn-calibration")  # the formats that only the commands which write them replace
NOTHING = re.compile(rb"\Z")  # the Mark of what no command replaces
Mark = str | re.Pattern  # the `format` of an HDF5 file, or what a file of another kind begins with


def claim(outputs: Mapping[Path, Mark], inputs: Iterable[Path | str], overwrite: bool = False) -> None:
    """Raise OutputError where a file is in the way of `outputs`: an input, or no output of this kind.

    Parameters
    ----------
    outputs : dict           the files to be written -> their Mark
    inputs : iterable        files that the command reads; links to them are found
    overwrite : bool         whether other files, but no inputs, may be replaced
    """
    present = {path: mark for path, mark in outputs.items() if os.path.exists(path)}
    if not present:
        return
    for source in inputs:
        for path in present:
            if os.path.exists(source) and os.path.samefile(source, path):
                raise OutputError(f"{path}: is the input {source} itself; choose another file for the output")
    for path, mark in present.items():
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OutputError(f"{path}: cannot be written, a folder or device has that name; choose another")
        if not overwrite and not is_output(path, mark):
            raise OutputError(f"{path}: exists and is no earlier output of this command; move it, or give --overwrite")
        if mark not in OF_RUNS and mark is not NOTHING:
            check_no_run(path)


def check_no_run(path: Path | str) -> None:
    """Raise OutputError where the file is the model, the state or the calibration of a run."""
    if os.path.isfile(path) and os.path.getsize(path) and any(is_output(path, format) for format in OF_RUNS):
        raise OutputError(f"{path}: belongs to a trained run, and is not replaced; choose another file for the output")


def mark_for(path: Path | str, marks: Mapping[str, Mark], what: str) -> Mark:
    """The Mark of a file by its suffix. Raises DataError for one that `marks` lacks; `what` is what the file holds."""
    suffix = Path(path).suffix.lower()
    if suffix not in marks:
        raise DataError(f"{path}: {what} are written to {', '.join(marks)}; choose one of these suffixes")
    return marks[suffix]


def is_output(path: Path | str, mark: Mark) -> bool:
    """Whether the file is empty or begins as the Mark says."""
    try:
        if isinstance(mark, str):
            with reading_hdf5(path) as file:
                return file.attrs.get("format") == mark
        with open(path, "rb") as stream:
            beginning = stream.read(BEGINNING)
        if beginning.startswith(b"\x1f\x8b"):
            beginning = zlib.decompressobj(31).decompress(beginning, BEGINNING)
    except (*UNREADABLE, zlib.error):
        return os.path.isfile(path) and os.path.getsize(path) == 0
    return not beginning or mark.match(beginning) is not None


def remove_earlier(files: Iterable[Path], kept: Iterable[Path]) -> None:
    """Remove what an earlier call left and this one did not write, and the folders that this empties.

    Parameters
    ----------
    files : iterable      outputs of the earlier call; links and empty files among them stay, which may be anybody's
    kept : iterable       those of this call, also under other names, as on systems that do not tell cases apart

    Raises OutputError where the system refuses.
    """
    written = {_identity(path.stat()) for path in kept}
    for path in files:
        try:
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_size and _identity(found) not in written:
                path.unlink()
        except OSError as error:
            raise OutputError(f"{path}: is of an earlier call, and cannot be removed ({in_one_line(error)})") from None
        with contextlib.suppress(OSError):  # it holds other files
            path.parent.rmdir()


def _identity(found):
    return found.st_dev, found.st_ino
