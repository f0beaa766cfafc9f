"""Frames of extended XYZ, cut out of a stream, and what of an ase.Atoms is kept.

ASE reads the columns of the frames one by one: its own loop over a file seeks, which is quadratic in a packed one, and
of a frame that was cut or has columns too many it says nothing. The comment line is read here, where an id stays as it
is written and only what is a number becomes one.
"""

import gzip
import io
import itertools
import json
import re
import typing
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ase
import numpy as np
from ase.io.extxyz import read_xyz

from refattn.common.archives import bounded
from refattn.errors import DataError, in_one_line

CALCULATOR_ARRAYS = ("forces", "charges", "magmoms", "energies", "stresses")
NOT_KEPT = ("numbers", "positions", "momenta", "masses", "tags", "occupancy")
ISOTOPES = {"D": "H", "T": "H"}  # in every reader

COUNT = re.compile(r"\d{1,12}", re.ASCII)
NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE)
TRUTH = {"true": "1", "false": "0"}  # not T and F, which are elements too
# KEY=VALUE; the value may be in quotes or brackets. The length of a key bounds the work on a long line without any.
ITEM = re.compile(
    r"""(?<![^\s,])([^\s="'{}\[\],]{1,200})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'"""
    r"""|\{([^{}]*)\}|\[([^\[\]]*)\]|([^\s"'{\[]\S*))"""
)
KNOWN = {
    "lattice": "Lattice",
    "properties": "Properties",
    "pbc": "pbc",
    "id": "id",
}  # in whatever case they are written
QM9 = re.compile(r"gdb\s+\d+(?:\s+\S+){15}\s*")  # its comment line
PIECE = 1 << 18  # bytes; every call to the system or to zlib lets other threads go first
FRAMES_PER_LOOK = 128  # for the same reason
OTHER_CELLS = {"cell", "box", "unit_cell", "unitcell", "cell_vectors", "lattice_vectors", "latt"}


class Frame(typing.NamedTuple):
    """One structure as it was read; what its numbers are worth as labels is still to be seen."""

    id: str  # "" where it has none
    labels: dict[str, int | float]
    atoms: ase.Atoms  # elements, positions, cell and periods only
    arrays: dict[str, np.ndarray]  # (N, ...) float64
    texts: dict[str, str] = {}  # single values that are no numbers
    names: tuple[str, ...] = ()  # others by which a table of labels may know it
    units: dict[str, str] = {}  # of labels, where the file says them


def frame_of(atoms: ase.Atoms) -> Frame:
    """The Frame of an ase.Atoms with info, arrays and perhaps a calculator. Raises DataError for partial occupancy."""
    check_occupancy(atoms.info.get("occupancy"), atoms.arrays.get("occupancy"))
    texts = {key: value for key, value in atoms.info.items() if isinstance(value, str) and key != "id"}
    return Frame(str(atoms.info.get("id", "")).strip(), labels_of(atoms), plain(atoms), arrays_of(atoms), texts)


def plain(atoms: ase.Atoms) -> ase.Atoms:
    """Elements, positions, cell and periods of an ase.Atoms."""
    return ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def strip(atoms: ase.Atoms) -> None:
    """Leave what `plain` copies, which takes longer."""
    for name in atoms.arrays.keys() - {"numbers", "positions"}:
        del atoms.arrays[name]
    atoms.info.clear()
    atoms.calc = None
    atoms.set_constraint()


def check_occupancy(kinds: object, column: np.ndarray | None = None) -> None:
    """Raise DataError where a site is shared or not full.

    kinds : what ASE keeps in info["occupancy"], a dict site -> {element: part}, whatever else is no such thing
    column : (N,) per-site array, optional
    """
    for site, parts in kinds.items() if isinstance(kinds, dict) else ():
        if isinstance(parts, dict) and (len(parts) > 1 or any(part != 1 for part in parts.values())):
            shares = ", ".join(f"{element} {part}" for element, part in parts.items())
            raise DataError(
                f"the site {site} is shared by several elements or not full ({shares}); order the structure"
            )
    if column is not None and column.dtype.kind in "iuf" and not np.allclose(column, 1, atol=5e-3):
        raise DataError("its column `occupancy` says that sites are not full; order the structure")


def labels_of(atoms: ase.Atoms) -> dict[str, int | float]:
    """key -> int or float: the numbers in `atoms.info` and in the results of its calculator, without `id`."""
    labels = numbers_among({**atoms.info, **(atoms.calc.results if atoms.calc else {})})
    labels.pop("id", None)
    return labels


def numbers_among(values: Mapping[str, object]) -> dict[str, int | float]:
    """The values that are numbers, also as arrays of no dimension; truth values as 1 and 0."""
    values = {key: value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value
              for key, value in values.items()}  # fmt: skip
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    return {key: int(value) if isinstance(value, bool) else value for key, value in numbers.items()}


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


def read_xyz_file(path: Path, id_from: str, progress: Callable[[float], None]) -> Iterator[Frame | DataError]:
    """The Frame of every frame of a (gzipped) file, read as a stream of lines, or why it cannot be had.

    Parameters are those of readers.read_file. Raises DataError where frames cannot be told from each other any more.
    """
    size = max(path.stat().st_size, 1)
    with open(path, "rb") as raw:
        unpacked = bounded(gzip.GzipFile(fileobj=raw), raw) if path.suffix.lower() == ".gz" else raw
        # editors on Windows put a byte order mark first
        lines = io.TextIOWrapper(io.BufferedReader(unpacked, PIECE), encoding="utf-8-sig")
        for number, (header, comment, rows, line) in enumerate(cut_frames(lines, path)):
            if number % FRAMES_PER_LOOK == 0:
                progress(raw.tell() / size)
            where = f"{path}, frame {number} (line {line})"
            if number == 0 and QM9.fullmatch(comment):
                yield _qm9(header + comment + "".join([*rows, *lines]), path)
                return
            try:
                yield read_frame(header, comment, rows, where, id_from)
            except DataError as error:
                yield error if str(error).startswith(where) else DataError(f"{where}: {error}")
            except Exception as error:  # ASE raises anything for columns that are none
                reason = f"unknown element or key {error}" if isinstance(error, KeyError) else in_one_line(error)
                yield DataError(f"{where}: cannot be read ({reason}); repair it")
        progress(1)


def _qm9(text, path):
    """The Frame of a file as QM9 is published."""
    from refattn.data.sources.qm9 import parse_molecule  # which imports from here

    record = parse_molecule(text, str(path))
    return Frame(record.id, record.labels, plain(record.atoms), record.arrays)


def read_frame(header: str, comment: str, rows: list[str], where: str, id_from: str = "id") -> Frame:
    """The Frame of a count of atoms, a comment line and the lines of the atoms.

    id_from : "id", the value of that key, or "comment", the first word of a line without it

    Raises DataError that names `where`; ASE raises anything for columns that are none.
    """
    items = comment_items(comment, where)
    check_widths(items.get("Properties"), rows, where)
    kept = [f'{name}="{items.pop(name)}"' for name in ("Lattice", "Properties", "pbc") if name in items]
    text = "".join(rows)
    if re.search(r"(?<!\S)[DT](?!\S)", text):
        text = _without_isotopes(rows, kept)
    atoms = next(read_xyz(io.StringIO(f"{header.strip()}\n{' '.join(kept)}\n{text}"), 0))
    other = next((key for key in items if key.lower() in OTHER_CELLS and len(items[key].split()) in (3, 6, 9)), None)
    other = "VEC1" if re.search(r"\bVEC1\b", comment) else other
    if other and not atoms.cell.any():
        raise DataError(
            f'{where}: its cell is called {other}, which nobody reads; write Lattice="..." with nine numbers'
        )
    id = items.pop("id", "").strip()
    if not id and id_from == "comment":
        id = (comment.split() or [""])[0]
    numbers = {key: TRUTH.get(value.lower(), value) for key, value in items.items()}
    labels = {key: float(value) for key, value in numbers.items() if NUMBER.fullmatch(value)}
    texts = {key: value for key, value in items.items() if key not in labels and len(value.split()) == 1}
    check_occupancy(_json_of(items.get("occupancy", "")), atoms.arrays.get("occupancy"))
    arrays = arrays_of(atoms)
    strip(atoms)
    return Frame(id, labels, atoms, arrays, texts)


def comment_items(comment: str, where: str) -> dict[str, str]:
    """KEY -> value as it is written, of a comment line. Raises DataError for a key with two values."""
    items = {}
    for match in ITEM.finditer(comment):
        key = KNOWN.get(match[1].lower(), match[1])
        value = next(text for text in match.groups()[1:] if text is not None)
        if match[2] is not None or match[3] is not None:
            value = re.sub(r"\\(.)", r"\1", value)
        value = value.removeprefix("_JSON ") if NUMBER.fullmatch(value.removeprefix("_JSON ")) else value
        if items.setdefault(key, value) != value:
            raise DataError(
                f"{where}: {key} is {items[key][:40]} and {value[:40]} in one comment line; keep one of them"
            )
    return items


def _without_isotopes(rows, kept):
    """The lines of the atoms with H for D and T, in the column of the symbols."""
    layout = re.search(r'Properties="([^"]*)"', " ".join(kept))
    words = (layout[1] if layout else "species:S:1:pos:R:3").split(":")
    columns = dict(zip(words[::3], words[2::3], strict=False))
    named = list(itertools.takewhile(lambda name: name not in ("species", "symbols"), columns))
    before = sum(int(columns[name]) for name in named if columns[name].isdigit())
    cells = [row.split() for row in rows]
    for row in cells:
        row[before : before + 1] = [ISOTOPES.get(symbol, symbol) for symbol in row[before : before + 1]]
    return "".join(" ".join(row) + "\n" for row in cells)


def _json_of(text):
    """The value of a text that ASE has marked as JSON; None for any other."""
    try:
        return json.loads(text.removeprefix("_JSON ")) if text.startswith(("_JSON ", "{")) else None
    except (ValueError, RecursionError):
        return None


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
        except (OSError, EOFError, zlib.error, ValueError) as error:
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


def check_widths(properties: str | None, rows: list[str], where: str) -> None:
    """Raise DataError for columns that `Properties` does not announce: ASE reads the first and is silent about others.

    Without it all lines must have as many words.

    Parameters
    ----------
    properties : str or None;  rows : list of str, the lines of the atoms;  where : str, for the message
    """
    if properties is None:
        found = {len(row.split()) for row in rows}
        if len(found) > 1:
            raise DataError(f"{where}: its lines have {min(found)} to {max(found)} words; repair the frame")
        return
    wanted = len(rows) * sum(int(width) for width in properties.split(":")[2::3] if width.isdigit())
    found = len("".join(rows).split())
    if found != wanted:
        raise DataError(f"{where}: has {found} values for its {len(rows)} atoms, not {wanted}; repair the frame")
