"""Frames of extended XYZ, cut out of a stream, and what of an ase.Atoms is kept.

ASE reads the frames one by one: its own loop over a file seeks, which is quadratic in a packed one, and of a frame that
was cut or has columns too many it says nothing.
"""

import itertools
import re
import typing
import zlib
from collections.abc import Iterator
from pathlib import Path

import ase
import numpy as np

from refattn.errors import DataError, in_one_line

CALCULATOR_ARRAYS = ("forces", "charges", "magmoms", "energies", "stresses")
NOT_KEPT = ("numbers", "positions", "momenta", "masses", "tags", "occupancy")

COUNT = re.compile(r"\d{1,12}", re.ASCII)


class Frame(typing.NamedTuple):
    """One structure as it was read; what its numbers are worth as labels is still to be seen."""

    id: str  # "" where it has none
    labels: dict[str, int | float]
    atoms: ase.Atoms  # elements, positions, cell and periods only
    arrays: dict[str, np.ndarray]  # (N, ...) float64


def frame_of(atoms: ase.Atoms) -> Frame:
    """The Frame of an ase.Atoms with info, arrays and perhaps a calculator."""
    plain = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return Frame(str(atoms.info.get("id", "")).strip(), labels_of(atoms), plain, arrays_of(atoms))


def labels_of(atoms: ase.Atoms) -> dict[str, int | float]:
    """key -> int or float: the numbers in `atoms.info` and in the results of its calculator, without `id`."""
    labels = {}
    for key, value in {**atoms.info, **(atoms.calc.results if atoms.calc else {})}.items():
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            value = value.item()
        if key != "id" and isinstance(value, (int, float)) and not isinstance(value, bool):
            labels[key] = value
    return labels


def arrays_of(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    """name -> (N, ...) float64: the per-site float arrays, forces and populations for example, but no velocities.

    `ring`, the flags that a network may ask for, may be integers or logicals too.
    """
    results = atoms.calc.results if atoms.calc else {}
    kinds = {"ring": "biuf"}
    found = {name: values for name, values in atoms.arrays.items() if values.dtype.kind in kinds.get(name, "f")}
    found = {name: values for name, values in found.items() if name not in NOT_KEPT}
    found.update({name: np.asarray(results[name]) for name in CALCULATOR_ARRAYS if results.get(name) is not None})
    return {name.replace("/", "_"): values.astype(float) for name, values in found.items()}


def cut_frames(lines: Iterator[str], path: Path | str) -> Iterator[tuple[str, str, list[str], int]]:
    """(header, comment, lines of the atoms) of one frame after the other; there are as many lines as it says.

    Parameters
    ----------
    lines : iterator of str     with their line ends
    path : path                 for messages

    Raises DataError that names file, frame and line: not a number of atoms, a frame that was cut, a damaged file.
    """
    line_number = 0
    for number in itertools.count():
        try:
            header = next(lines, "")
            while header.isspace():
                header = next(lines, "")
                line_number += 1
            if not header:
                return
            n_sites = int(header) if COUNT.fullmatch(header.strip()) else -1
            rows = list(itertools.islice(lines, n_sites + 1))
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            where = f"{path}, frame {number} (line {line_number + 1})"
            raise DataError(f"{where}: cannot be read on ({in_one_line(error)}); it is damaged, restore it") from None
        if n_sites < 0 or len(rows) < n_sites + 1:
            _refuse(header, rows, n_sites, f"{path}, frame {number} (line {line_number + 1})")
        yield header, rows[0], rows[1:], line_number + 1
        line_number += 1 + len(rows)


def _refuse(header, rows, n_sites, where):
    if n_sites < 0:
        found = header.strip()[:40]
        raise DataError(f"{where}: begins with {found!r}, not a number of atoms; the count before may be wrong")
    raise DataError(f"{where}: ends after {max(len(rows) - 1, 0)} of {n_sites} atoms; the file was cut, restore it")


def check_widths(comment: str, rows: list[str], where: str) -> None:
    """Raise DataError for columns that `Properties` does not announce: ASE reads the first and is silent about others.

    Parameters
    ----------
    comment : str;  rows : list of str, the lines of the atoms;  where : str, for the message
    """
    properties = re.search(r'Properties="?([^\s"]+)', comment)
    if properties:
        widths = properties[1].split(":")[2::3]
        wanted = len(rows) * sum(int(width) for width in widths if width.isdigit())
        found = len("".join(rows).split())
        if found != wanted:
            raise DataError(f"{where}: has {found} values for its {len(rows)} atoms, not {wanted}; repair the frame")
