"""Frames of extended XYZ: cut out of a stream, and read six times as fast as by ASE.

`parse_frame` reads the common part of the grammar and gives the rest back: for nested brackets, escapes, JSON, unusual
columns and everything that is damaged it returns None, and the caller hands the text to ASE, so that what is read, and
what is refused, is the same. ASE walks the comment line character by character, which is most of its time.

Format   https://github.com/libAtoms/extxyz, as ase.io.extxyz of ASE 3.29 reads it
"""

import functools
import itertools
import re
import typing
import zlib

import ase
import numpy as np
from ase.calculators.calculator import all_properties
from ase.data import atomic_numbers

from refattn.errors import DataError, in_one_line

CALCULATOR_ARRAYS = ("forces", "charges", "magmoms", "energies", "stresses")
NOT_KEPT = ("numbers", "positions", "momenta", "masses", "tags", "occupancy")

# key, key=value or key="quoted value"; ASE lets an = that stands alone join what is around it, which is left to it.
PAIR = re.compile(r"""(([^\s="'{}\[\]\\]++)(?:=(?:"([^"\\]+)"|([^\s="'{}\[\]\\]++)))?+(?:\s++(?!=)|\Z))""")
COUNT = re.compile(r"\d{1,12}", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,18}")
LOGICALS = ("T", "F", "true", "false", "True", "False", "TRUE", "FALSE")
PERIODS = {" ".join(flags): [flag == "T" for flag in flags] for flags in itertools.product("TF", repeat=3)}
NUMBERS = {written: z for name, z in atomic_numbers.items() for written in (name, name.upper(), name.lower())}
TENSORS = ("stress", "virial")  # nine numbers
# What ASE moves from the comment line to the results of a calculator, after which they come last among the labels;
# those of the second line have to be numbers.
RESULTS = ("energy", "free_energy", "magmom", "dipole", "stress", "polarization", "dielectric_tensor")
NUMERIC_RESULTS = ("dipole", "polarization", "dielectric_tensor", *TENSORS)
# Columns of another name than species and pos that mean something to ASE; forces and their like are results.
SPECIAL_COLUMNS = {"symbols", "species", "numbers", "Z", "positions", "pos", "move_mask", "initial_charges"}
SPECIAL_COLUMNS |= set(all_properties) - set(CALCULATOR_ARRAYS)
CONVERTERS = {"R": (float, "d"), "I": (int, "i"), "L": (("T", "True").__contains__, "?")}  # S: text, never kept


class Frame(typing.NamedTuple):
    """One structure as it was read; what its numbers are worth as labels is still to be seen."""

    id: str  # "" where it has none
    labels: dict  # key -> int or float
    atoms: ase.Atoms  # elements, positions, cell and periods only
    arrays: dict  # name -> (N, ...) float64


class Column(typing.NamedTuple):
    """Columns `start` to `stop` of the atoms' lines: R, I or L, and the name in Frame.arrays, or None if not kept."""

    name: str | None
    kind: str
    start: int
    stop: int


def frame_of(atoms):
    """The Frame of an ase.Atoms with info, arrays and perhaps a calculator."""
    plain = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return Frame(str(atoms.info.get("id", "")).strip(), labels_of(atoms), plain, arrays_of(atoms))


def labels_of(atoms):
    """key -> int or float: the numbers in `atoms.info` and in the results of its calculator, without `id`."""
    labels = {}
    for key, value in {**atoms.info, **(atoms.calc.results if atoms.calc else {})}.items():
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            value = value.item()
        if key != "id" and isinstance(value, (int, float)) and not isinstance(value, bool):
            labels[key] = value
    return labels


def arrays_of(atoms):
    """name -> (N, ...) float64: the per-site float arrays, forces and populations for example, but no velocities.

    `ring`, the flags that a network may ask for, may be integers or logicals too.
    """
    results, kinds = atoms.calc.results if atoms.calc else {}, {"ring": "biuf"}
    found = {name: values for name, values in atoms.arrays.items() if values.dtype.kind in kinds.get(name, "f")}
    found = {name: values for name, values in found.items() if name not in NOT_KEPT}
    found.update({name: np.asarray(results[name]) for name in CALCULATOR_ARRAYS if results.get(name) is not None})
    return {name.replace("/", "_"): values.astype(float) for name, values in found.items()}


def cut_frames(lines, path):
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
                header, line_number = next(lines, ""), line_number + 1
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


def check_widths(comment, rows, where):
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


def parse_frame(comment, rows):
    """The Frame of a comment line and the lines of the atoms, or None where it takes ASE to read or to refuse it.

    Parameters
    ----------
    comment : str;  rows : list of str
    """
    comment = comment.strip()
    pairs = PAIR.findall(comment)
    if sum([len(pair[0]) for pair in pairs]) < len(comment) or not comment.isascii() or "\0" in comment:
        return None
    info = {key: quoted or plain or "T" for _, key, quoted, plain in pairs}  # T, true, is what ASE makes of a key alone
    try:
        columns, n_columns = _columns(info.pop("Properties", "species:S:1:pos:R:3")) or ((), None)
        values = list(zip(*map(str.split, rows), strict=True))  # as many in every line, or a ValueError
        if len(values) != n_columns:
            return None
        cell = info.pop("Lattice", None)
        pbc = PERIODS[info.pop("pbc")] if "pbc" in info else cell is not None
        id = _id(info.pop("id", ""))
        labels = _labels(info)
        arrays = _arrays(columns, values)
        atoms = ase.Atoms(
            numbers=np.array([NUMBERS[symbol] for symbol in values[0]]),
            positions=np.array([list(map(float, column)) for column in values[1:4]]).T,
            cell=None if cell is None else np.reshape(_numbers(cell, 9), (3, 3)),
            pbc=pbc,
        )
    except (ValueError, KeyError, OverflowError):  # a word that is no number, an element or keyword unknown here
        return None
    return Frame(id, labels, atoms, arrays)


@functools.lru_cache(256)
def _columns(properties):
    """(the Column of every property after species and pos, number of all columns), or None where ASE is to read them.

    Raises ValueError for a width that is no number.
    """
    fields = properties.split(":")
    if fields[:6] != ["species", "S", "1", "pos", "R", "3"] or len(fields) % 3:
        return None
    columns, stop, expanded = [], 4, {"species", "pos0", "pos1", "pos2"}
    for name, kind, width in zip(fields[6::3], fields[7::3], map(int, fields[8::3]), strict=True):
        start, stop, before = stop, stop + width, len(expanded)
        if not name or not 1 <= width <= 1000 or kind not in "RILS" or len(kind) != 1:
            return None
        expanded |= {name} if width == 1 else {f"{name}{column}" for column in range(width)}
        name = "charges" if name == "charge" else name
        result = name in CALCULATOR_ARRAYS
        if name in SPECIAL_COLUMNS or len(expanded) != before + width or (result and kind == "S"):
            return None  # it means something to ASE, or two columns have one name
        kept = result or (name == "ring" and kind != "S") or (kind == "R" and name not in NOT_KEPT)
        columns.append(Column(name if kept else None, kind, start, stop))
    # ASE lists the results of a calculator, in their order, after what else there is.
    rank = {name: number for number, name in enumerate(CALCULATOR_ARRAYS, 1)}
    return sorted(columns, key=lambda column: rank.get(column.name, 0)), stop


def _arrays(columns, values):
    """The arrays of a Frame from the words of every column. Raises ValueError, OverflowError."""
    arrays = {}
    for name, kind, start, stop in columns:
        if kind == "S":
            continue
        convert, dtype = CONVERTERS[kind]
        # What is not kept is converted all the same: a word that is no number makes the frame a damaged one.
        rows = np.array([list(map(convert, column)) for column in values[start:stop]], dtype)
        if name:
            arrays[name.replace("/", "_")] = rows[0].astype(float) if len(rows) == 1 else rows.T.astype(float, "C")
    return arrays


def _id(text):
    """The id as text: ASE reads a number where it can. Raises ValueError where it reads something else."""
    if INTEGER.fullmatch(text):
        return str(int(text))
    words = text.replace(",", " ").split()
    if text and (not words or words[0] in (*LOGICALS, "_JSON") or _is_number(words[0])):
        raise ValueError("not a plain id")
    return text.strip()


def _labels(info):
    """The labels of a Frame from the pairs of its comment line. Raises ValueError for what is left to ASE."""
    labels, results = {}, {}
    for key, text in info.items():
        number = _number(text)
        if key in TENSORS:
            _numbers(text, 9)
        elif key in NUMERIC_RESULTS and number is None:
            _numbers(text)
        if number is not None and key.lower() != "uid":  # which ASE leaves a text
            (results if key in RESULTS else labels)[key] = number
    return labels | results


def _number(text):
    """The number that a value is, or None for texts, logicals and arrays. Raises ValueError where ASE has to decide."""
    if "_" in text and text.startswith("_JSON"):
        raise ValueError("JSON, which may be a number")
    try:
        number = float(text)
        return 0.0 if number == 0 and INTEGER.fullmatch(text.strip()) else number  # -0 is an integer, -0.0 is not
    except ValueError:
        words = text.replace(",", " ").split() if "," in text or " " in text else [text]
    if not words or (len(words) == 1 and words[0] != text):
        raise ValueError("nothing, or a single word with commas, which may be a number")
    return None


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(text, n=None):
    """The numbers of a value, `n` of them if it is given. Raises ValueError."""
    words = text.replace(",", " ").split()
    if n is not None and len(words) != n:
        raise ValueError(f"{len(words)} numbers instead of {n}")
    numbers = list(map(float, words))
    if "-" in text and all(map(INTEGER.fullmatch, words)):
        return [number + 0.0 for number in numbers]  # of integers -0 is 0
    return numbers
