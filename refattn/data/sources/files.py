"""Structures and labels from any file that ASE reads: extended XYZ, a folder of structure files, an ASE database.

A source is iterated once and yields a Record at a time, so that its size does not matter. Labels are the numbers
in `atoms.info`, in the results of a calculator (ASE moves keys such as energy or dipole there), in the key-value
pairs of a database, or in a CSV file. (Gzipped) extended XYZ is read as a stream of frames, see extxyz.py.
"""

import collections
import csv
import gzip
import io
import itertools
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import ase.db
import ase.io
from ase.io.extxyz import read_xyz
from ase.io.formats import UnknownFileTypeError

from refattn.common.archives import bounded
from refattn.common.text import plain_cell
from refattn.data.sources.extxyz import Frame, check_widths, cut_frames, frame_of
from refattn.data.store import LARGEST_LABEL, Record
from refattn.errors import DataError, in_one_line

SUFFIXES = "cif|xyz|extxyz|vasp|poscar|pdb|sdf|mol|traj|xsf|gen|res|json"
STRUCTURE_FILE = re.compile(rf"(?i)(.*\.({SUFFIXES})(\.gz)?|(POSCAR|CONTCAR).*)")

PIECE = 1 << 18  # bytes; every call to the system or to zlib lets other threads go first
FRAMES_PER_LOOK = 128  # for the same reason

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


class FilesSource:
    """Iterable of Record from a file, a folder or an ASE database.

    A structure's id is `id` in its comment line or data, else the database's unique id, else the name of its file
    without suffix, followed by -NUMBER if the file holds several.

    Parameters
    ----------
    path : path
        A file that ASE reads (streamed if .xyz or .extxyz, gzipped or not), an ASE database (.db), or a folder, of
        which the structure files are read in the order of their names; other files in it are left alone.
    labels : path, optional
        A CSV file with a header line; first column: id or file name, other columns: labels; an empty cell is unknown.

    Attributes
    ----------
    fraction : float or None      part of the input that has been read, None where unknown
    name, licence, citation : str

    Raises
    ------
    DataError
        While iterating: an unreadable file or frame, a repeated id, a label that is not a finite number, a structure
        without a row or a row without a structure; it names file and frame or line.
    """

    licence = citation = ""

    def __init__(self, path: Path | str, labels: Path | str | None = None):
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{path}: there is no such file or folder; check the path")
        self.name = self.path.name
        self.fraction = None
        self.files = [self.path]
        if self.path.is_dir():
            self.files = _structure_files(self.path)
        self.names = {file: _stem(file) for file in self.files}  # the ids of structures that have none
        self.table = LabelTable(labels) if labels else None

    def __iter__(self) -> Iterator[Record]:
        seen = {}  # id -> location; a location is shorter than the text that names it
        for location, fallback, frame in self._structures():
            id = frame.id or fallback
            if id in seen:
                where = self._where(*location)
                other = self._where(*seen[id])
                raise DataError(f"{where}: the id {id} is also that of {other}; give each structure its own")
            seen[id] = location
            labels = {
                key.replace("/", "_"): _finite(value, key, self._where, location)  # HDF5 keeps the slash for itself
                for key, value in frame.labels.items()
            }
            if self.table:
                labels.update(self.table.take((id, *self._file_names(*location)), self._where(*location)))
            frame.atoms.info["id"] = id
            yield Record(id, frame.atoms, labels, frame.arrays)
        if self.table:
            self.table.check_all_taken(self.path)

    def _structures(self):
        """(location, id if it has none, Frame) of every structure; a location is (number of the file, of the frame).

        The number of the frame is None where the file has a single one.
        """
        for done, file in enumerate(self.files):
            self._done = done
            frames = self._frames(file)
            first, second = next(frames, None), next(frames, None)
            if first is None:
                raise DataError(f"{file}: holds no structure; repair or remove it")
            if second is None:
                yield (done, None), self.names[file], first
                continue
            for number, frame in enumerate(itertools.chain([first, second], frames)):
                yield (done, number), f"{self.names[file]}-{number}", frame

    def _where(self, file, number):
        """A location in words."""
        return str(self.files[file]) + ("" if number is None else f", frame {number}")

    def _file_names(self, file, number):
        """Names of its file that a row of labels may use for a structure."""
        return (_stem(self.files[file]), self.files[file].name) if number is None else ()

    def _frames(self, file):
        """The Frame of every structure of a file; all that can go wrong in a parser becomes a DataError."""
        if re.search(r"(?i)\.(ext)?xyz(\.gz)?$", file.name):
            frames = self._xyz(file)
        elif file.suffix == ".db":
            frames = self._database(file)
        else:
            frames = ase.io.iread(file, index=":", do_not_split_by_at_sign=True)
        for number in itertools.count():
            try:
                frame = next(frames)
                frame = frame if isinstance(frame, Frame) else frame_of(frame)
            except StopIteration:
                return
            except DataError:
                raise
            except Exception as error:  # the parsers of ASE raise anything; the reason goes into the message
                raise DataError(f"{file}, frame {number}: cannot be read ({reason_of(error)}); repair it") from None
            yield frame

    def _progress(self, fraction):
        """Part of all files that has been read, when `fraction` of the present one has."""
        self.fraction = (self._done + fraction) / len(self.files)

    def _xyz(self, path):
        """Structures of an extended XYZ file, read as a stream of lines."""
        size = max(path.stat().st_size, 1)
        with open(path, "rb") as raw:
            unpacked = bounded(gzip.GzipFile(fileobj=raw), raw) if path.suffix.lower() == ".gz" else raw
            # editors on Windows put a byte order mark first
            lines = io.TextIOWrapper(io.BufferedReader(unpacked, PIECE), encoding="utf-8-sig")
            for number, (header, comment, rows, line) in enumerate(cut_frames(lines, path)):
                if number % FRAMES_PER_LOOK == 0:
                    self._progress(raw.tell() / size)
                check_widths(comment, rows, f"{path}, frame {number} (line {line})")
                yield next(read_xyz(io.StringIO(header + comment + "".join(rows)), 0))
            self._progress(1)

    def _database(self, path):
        """Structures of an ASE database; labels are its key-value pairs and the numbers in its data."""
        _check_database(path)
        with ase.db.connect(path) as database:
            total = max(database.count(), 1)
            for number, row in enumerate(database.select(), 1):
                self._progress(number / total)
                atoms = row.toatoms()
                atoms.info = {"id": row.unique_id, **row.data, **row.key_value_pairs}
                yield atoms


def open_files(paths: Iterable[Path | str]) -> list[FilesSource]:
    """A FilesSource for every path; files of one stem, such as a/POSCAR and b/POSCAR, have their paths as ids."""
    sources = [FilesSource(path) for path in paths]
    counts = collections.Counter(name for source in sources for name in source.names.values())
    for source in sources:
        source.names = {file: name if counts[name] == 1 else str(file) for file, name in source.names.items()}
    return sources


def read_structures(sources: Iterable[FilesSource], target: str | None = None) -> Iterator[ase.Atoms]:
    """The structures of every FilesSource as ase.Atoms, with their `id` in info, and their per-site arrays.

    With `target` the `label` of that name is in info too, None where it is not known.
    """
    for record in itertools.chain.from_iterable(sources):
        for name, values in record.arrays.items():
            record.atoms.set_array(name, values)
        if target is not None:
            record.atoms.info["label"] = record.labels.get(target)
        yield record.atoms


class LabelTable:
    """The rows of a CSV file of labels; raises DataError with the line for whatever does not fit."""

    def __init__(self, path: Path | str):
        self.path = path
        self.rows = {}
        self.taken = set()
        try:
            with open(path, newline="", encoding="utf-8-sig") as stream:
                self._read(csv.reader(stream, strict=True))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as CSV ({error}); check the path and the format") from None

    def _read(self, reader):
        header = [plain_cell(name.strip()) for name in next(reader, [])]
        if len(header) < 2 or not all(header) or len(set(header)) < len(header):
            raise DataError(f"{self.path}, line 1: must name the columns, an id and one or more labels; repair it")
        for cells in filter(None, reader):
            where = f"{self.path}, line {reader.line_num}"
            if len(cells) != len(header):
                raise DataError(f"{where}: has {len(cells)} columns instead of {len(header)}; repair the line")
            id = plain_cell(cells[0].strip())
            if id in self.rows:
                raise DataError(f"{where}: the id {id} is that of line {self.rows[id][0]} too; keep one of them")
            values = {name: _number(cell, name, where) for name, cell in zip(header[1:], cells[1:], strict=True)}
            self.rows[id] = reader.line_num, values

    def take(self, names: tuple[str, ...], where: str) -> dict[str, float]:
        """Labels of the structure that is known by one of `names`."""
        for name in names:
            if name in self.rows:
                self.taken.add(name)
                return self.rows[name][1]
        raise DataError(f"{where}: {self.path} has no row for {names[0]}; add one or remove the structure")

    def check_all_taken(self, source: Path | str) -> None:
        """Raise DataError for the first row that no structure has asked for."""
        for id, (line, _) in self.rows.items():
            if id not in self.taken:
                raise DataError(f"{self.path}, line {line}: {source} has no structure {id}; add it or remove the line")


def _check_database(path):
    """ase.db.connect would write its tables into any other SQLite file; look before, without the right to write."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as a database ({error}); check the path or restore it") from None
    if not found:
        raise DataError(f"{path}: is not a database of ASE; check the path")


def _number(cell, name, where):
    try:
        return _finite(float(cell) if cell.strip() else math.nan, name, where)
    except ValueError:
        raise DataError(f"{where}: {name} is {cell[:40]!r}, not a number; repair it, or empty the cell") from None


def _finite(value, name, where, location=()):
    """`value` as a float; NaN passes, it means unknown. Raises DataError for an infinite one, at `where` or its result.

    Parameters
    ----------
    where : str, or a function of `location` that returns it, because nearly all values are finite
    """
    if abs(value) > LARGEST_LABEL:  # also catches integers that no float can hold
        where = where(*location) if callable(where) else where
        raise DataError(f"{where}: {name} is too large to be a label; repair it, or write nan if unknown")
    return float(value)


def reason_of(error: Exception) -> str:
    """An exception in one line."""
    if isinstance(error, KeyError):  # what ase.Atoms raises for a symbol that it does not know
        return f"unknown element or key {error}"
    if isinstance(error, UnknownFileTypeError):
        return "no format that ASE knows"
    return in_one_line(error)


def _structure_files(folder):
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file() and STRUCTURE_FILE.fullmatch(p.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error}); check its rights") from None
    if not files:
        raise DataError(f"{folder}: the folder holds no structure file such as .cif, .xyz or POSCAR; check the path")
    return files


def _stem(path):
    return Path(path.name.removesuffix(".gz")).stem
