"""Frames of extended XYZ, cut out of a stream, and what of an ase.Atoms is kept.

ASE reads the columns of the frames one by one: its own loop over a file seeks, which is quadratic in a packed one, and
of a frame that was cut or has columns too many it says nothing. The comment line is read here, where an id stays as it
is written and only what is a number becomes one.
"""

import io
import itertools
import json
import lzma
import re
import typing
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import ase
import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.io.extxyz import read_xyz

from refattn.common.archives import OPENERS, decompressed
from refattn.errors import DataError, in_one_line

CALCULATOR_ARRAYS = ("forces", "charges", "magmoms", "energies", "stresses")
NOT_KEPT = ("numbers", "positions", "momenta", "masses", "tags", "occupancy")
ISOTOPES = {"D": "H", "T": "H"}  # in every reader

COUNT = re.compile(r"\d{1,12}", re.ASCII)
NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf|infinity)", re.ASCII | re.IGNORECASE)
TRUTH = {"true": "1", "false": "0"}  # not T and F, which are elements too
# KEY=VALUE; the value may be in quotes or brackets, and behind blanks, but for another KEY=. The length of a key bounds
# the work on a long line without any.
ITEM = re.compile(
    r"""(?<![^\s,])([^\s="'{}\[\],]{1,200})\s*=(?:\s+(?![^\s="'{}\[\],]{1,200}\s*=))?(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'"""
    r"""|(\{(?:[^{}]|\{[^{}]*\})*\})|\[((?:[^\[\]]|\[[^\[\]]*\])*)\]|([^\s"'{\[]\S*))"""
)
KNOWN = {
    "lattice": "Lattice",
    "properties": "Properties",
    "pbc": "pbc",
    "id": "id",
}  # in whatever case they are written
QM9 = re.compile(r"gdb\s+\d+(?:\s+\S+){15}\s*")  # its comment line
PIECE = 1 << 18  # bytes; every call to the system or to zlib lets other threads go first
LINES_PER_LOOK = 2048  # for the same reason
OTHER_CELLS = {"cell", "box", "unit_cell", "unitcell", "cell_vectors", "lattice_vectors", "latt"}
ANGLES = {"a", "b", "c", "alpha", "beta", "gamma"}
# A word for a cell with three numbers behind it, however they are written.
CELL = re.compile(
    r"(?i)(?<![^\s,;])(lattice|latt|cell|box|unit[ _]?cell|(?:cell|lattice)[ _](?:vectors|parameters)|VEC1)"
    r"[\s:=\"'“”{(\[]{1,20}(?:[-+.\d][-+.\deE]{0,40}(?:[\s,;\])]{1,20}|$)){3}"
)
NAMED = re.compile(r"(?i)(?<![^\s,])(lattice|properties|pbc|id|occupancy)\s*=")
WITH_COLON = re.compile(r"(?<![^\s,])(\w{1,100}): +([-+.\d]\S*)")
PERIODS = {"t": "T", "true": "T", "1": "T", "f": "F", "false": "F", "0": "F"}  # ASE knows T and F alone in all cases
OCCUPANCIES = ("occupancy", "occupancies", "occ", "site_occupancy")


class CountError(DataError):
    """No count of atoms where a frame should begin: that of the frame before may be wrong."""


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
    check_occupancy(atoms.info.get("occupancy"), atoms.arrays)
    texts = texts_among(atoms.info, but=("id",))
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


def check_occupancy(kinds: object, arrays: Mapping[str, np.ndarray] = {}) -> None:
    """Raise DataError where a site is shared or not full.

    kinds : what ASE keeps in info["occupancy"], a dict site -> {element: part}; whatever else is no such thing
    arrays : name -> (N, ...) per-site arrays
    """
    for site, parts in kinds.items() if isinstance(kinds, dict) else ():
        if isinstance(parts, dict) and (len(parts) > 1 or any(part != 1 for part in parts.values())):
            shares = ", ".join(f"{element} {part}" for element, part in parts.items())
            raise DataError(
                f"the site {site} is shared by several elements or not full ({shares}); order the structure"
            )
    for name in arrays.keys() & OCCUPANCIES:
        column = arrays[name]
        if column.dtype.kind not in "iuf" or not np.allclose(column, 1, atol=5e-3):
            raise DataError(f"its column `{name}` says that sites are not full; order the structure")


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


def texts_among(values: Mapping[str, object], but: Collection[str] = ()) -> dict[str, str]:
    """The values that are text, but for those of the keys `but`."""
    return {key: value for key, value in values.items() if isinstance(value, str) and key not in but}


def labels_of_json(values: Mapping[str, object], but: Collection[str] = ()) -> tuple[dict[str, float], dict[str, str]]:
    """Labels, which are numbers and texts that are one number, and other texts, but for those of the keys `but`."""
    labels, texts = labels_and_texts(texts_among(values, but))
    return labels | numbers_among(values), texts


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


class UnparsedFrame(typing.NamedTuple):
    """The lines of a frame of extended XYZ, which another process may parse."""

    header: str
    comment: str
    rows: list[str]
    where: str
    id_from: str

    def frame(self) -> Frame | DataError:
        """The Frame, or the DataError that names where it cannot be had."""
        try:
            return read_frame(*self)
        except DataError as error:
            return error if str(error).startswith(self.where) else DataError(f"{self.where}: {error}")
        except Exception as error:  # ASE raises anything for columns that are none
            reason = f"unknown element or key {error}" if isinstance(error, KeyError) else in_one_line(error)
            return DataError(f"{self.where}: cannot be read ({reason}); repair it")


def read_xyz_file(
    path: Path, id_from: str, progress: Callable[[float], None], parse: bool = True
) -> Iterator[Frame | DataError | UnparsedFrame]:
    """The Frame of every frame of a (gzipped) file, read as a stream of lines, or why it cannot be had.

    Parameters are those of readers.read_file; unless `parse`, frames are cut only, and are an UnparsedFrame each.
    Raises DataError where frames cannot be told from each other any more.
    """
    size = max(path.stat().st_size, 1)
    with open(path, "rb") as raw:
        # editors on Windows put a byte order mark first; what is no UTF-8 stands in comments, or is refused
        unpacked = decompressed(raw, path) if path.suffix.lower() in OPENERS else raw
        stream = io.BufferedReader(unpacked, PIECE)
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace")
        last = []  # the frame before: nothing is known of its count until the next begins
        looked = -LINES_PER_LOOK  # the line at which the progress was said
        try:
            for number, (header, comment, rows, line) in enumerate(cut_frames(lines, path)):
                yield from last
                if line - looked >= LINES_PER_LOOK:
                    looked = line
                    progress(raw.tell() / size)
                where = f"{path}, frame {number} (line {line})"
                if number == 0 and QM9.fullmatch(comment):
                    yield _qm9(header + comment + "".join([*rows, *lines]), path)
                    return
                found = UnparsedFrame(header, comment, rows, where, id_from)
                last = [found.frame() if parse else found]
        except CountError:
            parsed = (found.frame() if isinstance(found, UnparsedFrame) else found for found in last)
            yield from (found for found in parsed if isinstance(found, DataError))
            raise
        except DataError:
            yield from last
            raise
        yield from last
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
    properties = items.get("Properties")
    _check_columns(properties, where)
    check_widths(properties, rows, where)
    if "pbc" in items:
        items["pbc"] = _periods(items["pbc"], where)
    kept = [f'{name}="{items.pop(name)}"' for name in ("Lattice", "Properties", "pbc") if name in items]
    if properties is None and rows and rows[0].lstrip()[:1].isdigit():
        rows = _with_symbols(rows, where)
    if properties and ":Z:I:1" in f":{properties}" and ":species:S:1" in f":{properties}":
        _check_elements(properties, rows, where)
    text = "".join(rows)
    if ("D" in text or "T" in text) and re.search(r"(?<!\S)[DT](?!\S)", text):
        text = _without_isotopes(rows, kept)
    atoms = next(read_xyz(io.StringIO(f"{header.strip()}\n{' '.join(kept)}\n{text}"), 0))
    if not any(name.startswith("Lattice") for name in kept):
        _check_cell(comment, items, where)
    id = items.pop("id", "").strip()
    if not id and id_from == "comment":
        id = (comment.split() or [""])[0]
    if "\ufffd" in comment and ("\ufffd" in id or "\ufffd" in "".join(items)):
        raise DataError(f"{where}: an id or a name in its comment line is no UTF-8; save the file as UTF-8")
    occupancy = items.pop("occupancy", None)
    check_occupancy(None if occupancy is None else _occupancy_of(occupancy), atoms.arrays)
    labels, texts = labels_and_texts(items)
    if ": " in comment:
        for name, value in WITH_COLON.findall(comment):
            texts.setdefault(name, f"{name}: {value}")
    arrays = arrays_of(atoms)
    strip(atoms)
    return Frame(id, labels, atoms, arrays, texts)


def labels_and_texts(items: Mapping[str, str]) -> tuple[dict[str, float], dict[str, str]]:
    """The values that are one number, and those that are text; lists of numbers are neither."""
    numbers = {key: TRUTH.get(value.lower(), value) for key, value in items.items()}
    labels = {key: float(value) for key, value in numbers.items() if NUMBER.fullmatch(value)}
    texts = {}
    for key in [key for key in items if key not in labels]:
        words = items[key].split()
        if len(words) == 1 or not all(map(NUMBER.fullmatch, words)):
            texts[key] = " ".join(words)
    return labels, texts


def _periods(text, where):
    """The words of `pbc` as ASE reads them, three of T and F; one word is that of all directions."""
    words = [PERIODS.get(word.lower()) for word in text.replace(",", " ").split()]
    if len(words) not in (1, 3) or None in words:
        raise DataError(f'{where}: pbc is {text[:40]!r}; write pbc="T T T", one word for each direction')
    return " ".join(words * (3 // len(words)))


def _check_columns(properties, where):
    """Raise DataError where `Properties` has no elements or no positions; ASE makes dummies and zeros of them."""
    names = set((properties or "species:S:1:pos:R:3").split(":")[::3])
    for wanted, what in ((("species", "Z", "symbols", "numbers"), "elements"), (("pos", "positions"), "positions")):
        if not names.intersection(wanted):
            raise DataError(f"{where}: Properties has no column of {what}; call it {wanted[0]}")


def _with_symbols(rows, where):
    """The lines of a plain frame with symbols for atomic numbers."""
    cells = [row.split() for row in rows]
    if not all(len(row) == 4 and row[0].isdecimal() and 0 < int(row[0][:4]) < len(chemical_symbols) for row in cells):
        raise DataError(f"{where}: begins its lines with numbers that are not all those of elements; write symbols")
    return [" ".join([chemical_symbols[int(row[0])], *row[1:]]) + "\n" for row in cells]


def _check_elements(properties, rows, where):
    """Raise DataError where the columns `species` and `Z` contradict each other; ASE takes Z."""
    species, z = (_column(properties, name) for name in ("species", "Z"))
    for row in map(str.split, rows):
        symbol = row[species].capitalize()
        if atomic_numbers.get(ISOTOPES.get(symbol, symbol)) != int(row[z]):
            raise DataError(f"{where}: an atom is {row[species]} by its symbol and has the atomic number {row[z]}")


def _column(properties, name):
    """The number of the first column of that name."""
    words = properties.split(":")
    before = itertools.takewhile(lambda pair: pair[0] != name, zip(words[::3], words[2::3], strict=False))
    return sum(int(width) for _, width in before if width.isdigit())


def _check_cell(comment, items, where):
    """Raise DataError for a cell that is written in any other way than `Lattice`, of which ASE makes a cluster."""
    found = CELL.search(comment)
    other = found and found[1]
    for key in items:
        if key == "H" or key.lower() in OTHER_CELLS:
            n_words = len(items[key].split())
            other = key if n_words == 9 or (n_words in (3, 6) and key != "H") else other
    if not other and len(items) >= len(ANGLES) and set(map(str.lower, items)) >= ANGLES:
        other = "a, b, c"
    if other:
        raise DataError(
            f'{where}: its cell is called {other}, which nobody reads; write Lattice="..." with nine numbers'
        )


def _occupancy_of(text):
    """What `occupancy` in a comment line says. Raises DataError for what is neither ASE's notation nor full."""
    kinds = _json_of(text)
    if not isinstance(kinds, dict) and not (NUMBER.fullmatch(text) and float(text) == 1):
        raise DataError(f"its occupancy {text[:40]!r} cannot be read; leave it away where all sites are full")
    return kinds


def comment_items(comment: str, where: str) -> dict[str, str]:
    """KEY -> value as it is written, of a comment line. Raises DataError for a key with two values."""
    items = {}
    for match in ITEM.finditer(comment):
        key = KNOWN.get(match[1].lower(), match[1])
        value = next(text for text in match.groups()[1:] if text is not None)
        if match[4] is not None:
            value = value if key == "occupancy" else value[1:-1]
        elif match[5] is not None and "[" in value:
            value = re.sub(r"[\[\],\s]+", " ", value).strip()
        if "\\" in value and (match[2] is not None or match[3] is not None):
            value = re.sub(r"""\\(["'\\])""", r"\1", value)
        value = value.removeprefix("_JSON ") if NUMBER.fullmatch(value.removeprefix("_JSON ")) else value
        if items.setdefault(key, value) != value:
            raise DataError(
                f"{where}: {key} is {items[key][:40]} and {value[:40]} in one comment line; keep one of them"
            )
    if comment.count("=") > len(items):
        for name in NAMED.findall(comment):
            if KNOWN.get(name.lower(), name) not in items:
                raise DataError(f"{where}: {name} in its comment line cannot be read; close its quotes or brackets")
    return items


def _without_isotopes(rows, kept):
    """The lines of the atoms with H for D and T, in the column of the symbols."""
    layout = re.search(r'Properties="([^"]*)"', " ".join(kept))
    properties = layout[1] if layout else "species:S:1:pos:R:3"
    before = _column(properties, "species" if "species:" in properties else "symbols")
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
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            where = f"{path}, frame {number} (line {line_number + 1})"
            raise DataError(
                f"{where}: cannot be read further ({in_one_line(error)}); it is damaged, restore it"
            ) from None
        if n_sites < 0 or len(rows) < n_sites + 1:
            _refuse(header, rows, n_sites, f"{path}, frame {number} (line {line_number + 1})")
        yield header, rows[0], rows[1:], line_number + 1
        line_number += 1 + len(rows)


def _refuse(header, rows, n_sites, where):
    if "\0" in header:
        raise DataError(f"{where}: holds zero bytes; if it is text in UTF-16, save it as UTF-8")
    if n_sites < 0:
        found = header.strip()[:40]
        raise CountError(f"{where}: begins with {found!r}, not a number of atoms; the count before may be wrong")
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
