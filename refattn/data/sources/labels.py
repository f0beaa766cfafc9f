"""Labels: what their usual names stand for, and tables of them in text files."""

import codecs
import csv
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from refattn.common.text import counted, plain_cell
from refattn.data.sources.extxyz import NUMBER, TRUTH
from refattn.data.store import LARGEST_LABEL
from refattn.errors import DataError, in_one_line

SEPARATORS = ",;\t|"
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx and .ods, and .xls begin
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?", re.ASCII)
MISSING = {"", "na", "n/a", "<na>", "nan", "null", "none"}  # as programs write what is not known
WITH_UNIT = re.compile(r"(.+?)\s*[(\[]([^()\[\]]*)[)\]]")  # gap (eV), as refattn writes it

# Labels by their usual names: unit, kind, description. Other names have no unit unless the user gives one.
_KNOWN = """
homo | eV | intensive | energy of the highest occupied orbital
lumo | eV | intensive | energy of the lowest unoccupied orbital
gap | eV | intensive | lumo - homo
xtb_homo | eV | intensive | energy of the highest occupied orbital, GFN2-xTB
xtb_lumo | eV | intensive | energy of the lowest unoccupied orbital, GFN2-xTB
xtb_gap | eV | intensive | xtb_lumo - xtb_homo
xtb_energy | eV | extensive | total energy, GFN2-xTB
energy | eV | extensive | total energy
free_energy | eV | extensive | total energy with the electronic entropy
deformation_energy | eV | extensive | energy above that of the relaxed parts
binding_energy_per_atom | eV/atom | intensive | binding energy
g4mp2_binding_energy | eV | extensive | atomisation energy, G4MP2
e_form | eV/atom | intensive | formation energy
band_gap | eV | intensive | band gap
mu | Debye | intensive | dipole moment
dipole | Debye | intensive | dipole moment
alpha | Bohr^3 | extensive | isotropic polarisability
r2 | Bohr^2 | extensive | electronic spatial extent
zpve | eV | extensive | zero-point vibrational energy
u0 | eV | extensive | internal energy at 0 K
u298 | eV | extensive | internal energy at 298.15 K
h298 | eV | extensive | enthalpy at 298.15 K
g298 | eV | extensive | free energy at 298.15 K
cv | cal/mol/K | extensive | heat capacity at 298.15 K
rotational_a | GHz | intensive | rotational constant A
rotational_b | GHz | intensive | rotational constant B
rotational_c | GHz | intensive | rotational constant C
temperature | K | intensive | temperature of the dynamics
log10_gvrh | log10 GPa | intensive | shear modulus, Voigt-Reuss-Hill
last_phdos_peak | 1/cm | intensive | highest frequency of the phonon density of states
refractive_index | 1 | intensive | refractive index
"""
LABELS = {
    name: {"unit": unit, "kind": kind, "description": text}
    for name, unit, kind, text in (re.split(r" \| ", line) for line in _KNOWN.strip().splitlines())
}


class LabelError(DataError):
    """A label that is meant to be a number and is none: never left out with its structure."""


def number_of(value: float, name: str, where: str | Callable[[], str]) -> float:
    """`value` as a float; NaN passes, it means unknown. Raises LabelError for an infinite one.

    where : str, or a function that returns it, because nearly all values are finite
    """
    if abs(value) > LARGEST_LABEL:  # also catches integers that no float can hold
        where = where() if callable(where) else where
        raise LabelError(f"{where}: {name} is too large to be a label; repair it, or write nan if unknown")
    return float(value)


def normal(id: str) -> str:
    """An id in Unicode's composed form, so that ü of one system is that of another."""
    return unicodedata.normalize("NFC", id.strip())


def read_table(path: Path | str) -> tuple[list[tuple[int, list[str]]], str | None]:
    """The lines of a text file that hold any cells, as (number, cells), the header first, and what separates the cells.

    Separators are commas, semicolons, tabs, bars, or blanks (None); lines that begin with # are left alone. Raises
    DataError for a file that is missing or none of text.
    """
    try:
        with open(path, "rb") as raw:
            beginning = raw.read(4)
        if beginning in WORKBOOKS:
            raise DataError(f"{path}: is a workbook of a spreadsheet, or packed; save the sheet as CSV")
        is_utf16 = beginning[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        with open(path, newline="", encoding="utf-16" if is_utf16 else "utf-8-sig") as stream:
            first = next((line for line in stream if line.strip() and not line.startswith("#")), "")
            named = re.fullmatch(r"(?i)sep=(.)\s*", first)  # as spreadsheets write it
            separator = named[1] if named else max(SEPARATORS, key=first.count)
            separator = separator if separator in first else None
            stream.seek(0)
            rows = list(_cells(stream, separator))[1 if named else 0 :]
    except UnicodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({in_one_line(error)}); save it as UTF-8") from None
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path of the table") from None
    except (OSError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as CSV ({in_one_line(error)}); check the path and the format"
        ) from None
    while rows and len(rows[0][1]) > 1 and not any(cells[-1].strip() for _, cells in rows):
        rows = [(line, cells[:-1]) for line, cells in rows]  # separators at the ends of lines
    return rows, separator


def name_in(cell: str) -> str:
    """The id, or the name of a column, that stands in a cell."""
    return normal(plain_cell(cell.strip()))


class LabelTable:
    """The rows of a text file of labels; raises DataError with the line for whatever does not fit.

    The file is one of read_table. Columns without a single number are texts and no labels. A unit may stand behind a
    name: `gap (eV)`.

    Parameters
    ----------
    path : path
    names : tuple of str     columns to take, by default all that hold numbers; for a file without header: their names

    Attributes
    ----------
    rows : dict id -> (line, {name: float})
    units : dict name -> str
    taken : dict of the rows' ids that structures have asked for -> the id of that structure
    texts : list of columns that are no labels
    """

    def __init__(self, path: Path | str, names: tuple[str, ...] = ()):
        self.path = path
        self.names = names
        self.rows = {}
        self.units = {}
        self.taken = {}
        self.texts = []
        self.in_order = None  # an iterator over the ids, where structures without ids come in their order
        self._read(*read_table(path))

    def _read(self, rows, separator):
        header = [name_in(cell) for cell in rows[0][1]] if rows else []
        if len(header) > 1 and all(_is_number(cell) for cell in header[1:]):
            if len(self.names) != len(header) - 1:
                raise DataError(
                    f"{self.path}, line {rows[0][0]}: looks like data, not like the names of columns; write a header "
                    f"such as id,gap, or name the {counted(len(header) - 1, 'column')} with --label"
                )
            rows = [(0, header := ["id", *self.names]), *rows]
        if len(header) > 1 and (not header[0] or "id" in map(str.lower, header[1:])):
            raise DataError(
                f"{self.path}, line {rows[0][0]}: the first column, {header[0] or 'without a name'}, must hold the "
                "ids; move them there (with pandas: index=False)"
            )
        if len(header) < 2 or not all(header) or len(set(header)) < len(header):
            raise DataError(f"{self.path}, line 1: must name the columns, an id and one or more labels; repair it")
        columns = self._columns(header, rows[1:], separator)
        for line, cells in rows[1:]:
            id = name_in(cells[0])
            if id in self.rows:
                raise DataError(
                    f"{self.path}, line {line}: the id {id} is that of line {self.rows[id][0]} too; keep one of them"
                )
            where = f"{self.path}, line {line}"
            values = {name: self._number(cells[k], name, where, separator) for name, k in columns.items()}
            self.rows[id] = line, values

    def _columns(self, header, rows, separator):
        """Name -> number of the columns that are labels; their units go to self.units."""
        for line, cells in rows:
            if len(cells) == len(header) + 1 and not cells[-1].strip():
                del cells[-1]
            if len(cells) != len(header):
                where = f"{self.path}, line {line}"
                raise DataError(f"{where}: has {len(cells)} columns instead of {len(header)}; repair the line")
        columns = {}
        for k, title in enumerate(header[1:], 1):
            match = WITH_UNIT.fullmatch(title)
            name = match[1] if match else title
            known = [cells[k].strip() for _, cells in rows if cells[k].strip().lower() not in MISSING]
            if self.names and not {name, title} & set(self.names):
                continue
            is_number = any(_is_number(cell, separator) or DECIMAL_COMMA.fullmatch(cell) for cell in known)
            if not self.names and known and not is_number:
                self.texts.append(name)
                continue
            where = f"{self.path}, line 1"
            if name in columns:
                other = header[columns[name]]
                raise DataError(f"{where}: {other} and {title} are both {name}; choose one by --label {title!r}")
            if "/" in name:
                raise DataError(f"{where}: {name} cannot name a label; write a unit in brackets, such as gap (eV)")
            columns[name] = k
            if match:
                self.units[name] = match[2].strip()
        absent = [name for name in self.names if name not in columns and name not in header]
        if absent or not columns:
            what = f"has no column {absent[0]}" if absent else "has no column of numbers"
            raise DataError(f"{self.path}, line 1: {what}; there are {', '.join(header[1:])}")
        return columns

    def _number(self, cell, name, where, separator):
        cell = TRUTH.get(cell.strip().lower(), cell.strip())
        cell = "" if cell.lower() in MISSING else cell
        if separator != "," and DECIMAL_COMMA.fullmatch(cell):
            cell = cell.replace(",", ".")
        if cell and not NUMBER.fullmatch(cell):
            raise DataError(
                f"{where}: {name} is {cell[:40]!r}, not a number with a decimal point; repair it, or empty the cell"
            )
        return number_of(float(cell) if cell else math.nan, name, where)

    def has(self, names: Iterable[str]) -> bool:
        """Whether there is a row for one of `names`."""
        return any(normal(name) in self.rows for name in names)

    def take(self, names: Iterable[str], where: str) -> dict[str, float]:
        """Labels of the structure that is known by one of `names`."""
        names = [normal(name) for name in names]
        found = [name for name in dict.fromkeys(names) if name in self.rows]
        if len(found) > 1:
            lines = " and ".join(str(self.rows[name][0]) for name in found)
            raise DataError(
                f"{where}: {self.path}, lines {lines}: {' and '.join(found)} are its names; keep one of them"
            )
        if found:
            other = self.taken.setdefault(found[0], names[0])
            if other != names[0]:
                line = f"{self.path}, line {self.rows[found[0]][0]}"
                raise LabelError(f"{where}: {line}, {found[0]}, is the row of {other} too; give each a row with its id")
            return self.rows[found[0]][1]
        raise DataError(f"{where}: {self.path} has no row for {names[0]}; add one or remove the structure")

    def next_id(self, where: str) -> str:
        """The id of the next row, for structures that have none and come in the order of the rows."""
        self.in_order = self.in_order or iter(list(self.rows))
        id = next(self.in_order, None)
        if id is None:
            raise LabelError(f"{where}: {self.path} has only {len(self.rows)} rows; give every structure its own")
        return id

    def left_over(self) -> list[str]:
        """Ids of the rows that no structure has asked for. Raises DataError where all are, or the order is not sure."""
        left = [id for id in self.rows if id not in self.taken]
        if left and (self.in_order or len(left) == len(self.rows)):
            line = self.rows[left[0]][0]
            what = f"there is no structure {left[0]}; add it or remove the line"
            if not self.in_order and len(left) > 1:
                what = f"neither {left[0]} nor another row is a structure; give the rows the ids of structures"
            raise DataError(f"{self.path}, line {line}: {what}")
        return left


def _cells(stream, separator):
    """(line, cells) of every line that holds any."""
    if separator is None:
        words = ((number, line.split()) for number, line in enumerate(stream, 1))
        yield from ((number, cells) for number, cells in words if cells and not cells[0].startswith("#"))
        return
    reader = csv.reader(stream, delimiter=separator, strict=True, skipinitialspace=True)
    for cells in reader:
        if any(map(str.strip, cells)) and not cells[0].startswith("#"):
            yield reader.line_num, cells


def _is_number(cell, separator=","):
    cell = TRUTH.get(cell.strip().lower(), cell.strip())
    return bool(NUMBER.fullmatch(cell) or (separator != "," and DECIMAL_COMMA.fullmatch(cell)))
