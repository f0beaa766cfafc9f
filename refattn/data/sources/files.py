"""Structures and labels from files: one, a folder or an archive of them, a database.

A source is iterated once and yields a Record at a time, so that its size does not matter. Labels are the numbers
in the comment line or in `atoms.info`, in the results of a calculator (ASE moves keys such as energy or dipole there),
in the key-value pairs of a database, in the tags of an .sdf, or in a table (labels.py). Which reader takes which file:
readers.py.
"""

import collections
import copy
import functools
import hashlib
import itertools
import re
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import ase

from refattn.common.text import counted
from refattn.data.sources.archives import ARCHIVES, unpacked
from refattn.data.sources.extxyz import UnparsedFrame, read_xyz_file
from refattn.data.sources.labels import DECIMAL_COMMA, LABELS, LabelError, LabelTable, normal, number_of
from refattn.data.sources.readers import PACKED, POSCAR, READERS, read_file
from refattn.data.store import Record
from refattn.errors import DataError

SUFFIXES = "|".join([*READERS, "traj", "xsf"])
STRUCTURE_FILE = re.compile(rf"(?i)(.*\.({SUFFIXES})(\.(gz|bz2|xz))?|(POSCAR|CONTCAR).*)")
XYZ = re.compile(r"(?i)\.(ext)?xyz(\.(gz|bz2|xz))?$")
STRUCTURE_SUFFIX = re.compile(rf"(?i)\.({SUFFIXES})$")
LIKE_NUMBER = re.compile(r"[+\-−]?\.?\d.*")  # also with the minus of typesetters
FORTRAN = re.compile(r"[+-]?\d*\.?\d+[dD][+-]?\d+")

Skip = Callable[[str, Exception], None]
NAMED = 5  # examples in a note
FILES = 1 << 40  # frames of a file
TWO_WORDS = struct.Struct("QQ").unpack


class FilesSource:
    """Iterable of Record from a file, a folder, an archive or a database.

    A structure's id is `id` in its comment line or data, as it is written, else the database's unique id, else the name
    of its file without suffix, followed by -NUMBER if the file holds several.

    Parameters
    ----------
    path : path
        A file (streamed if .xyz or .extxyz, gzipped or not), a database, a zip or tar archive, or a folder, of which
        the structure files are read in the order of their names; other files in it are left alone.
    labels : path, optional
        A table with a header line; first column: id or file name, other columns: labels; an empty cell is unknown.
    label_names : tuple of str      columns to take, by default all with numbers; see LabelTable
    recursive : bool                read the folders in a folder too
    id_from : "id" or "comment"     where the ids of .xyz files without `id=` are: nowhere, or first in the comment line

    Attributes
    ----------
    skip : callable (id, error), optional
        Is told what cannot be read or has the id of another, which is left out then; without it, errors are raised. In
        a single file one that hides where the next structure begins is raised always.
    labels_matter : bool              refuse labels that are all but numbers
    fraction : float or None          part of the input that has been read, None where unknown
    skipped : list of (id, reason)    by skip_quietly
    passed_over : list of str         files of a folder or an archive that are no structure files
    units : dict name -> str          of labels, where the input says them
    mixed_units : dict name -> str    of labels that come in several units: where, and in which
    name, licence, citation : str

    Raises
    ------
    DataError
        While iterating: an unreadable file or frame, a repeated id, a label that is not a finite number, a structure
        without a row, rows without any structure; it names file and frame or line.
    """

    licence = citation = ""

    def __init__(
        self,
        path: Path | str,
        labels: Path | str | None = None,
        label_names: tuple[str, ...] = (),
        recursive: bool = False,
        id_from: str = "id",
    ):
        self.path = Path(path)
        if not self.path.exists():
            raise DataError(f"{path}: there is no such file or folder; check the path")
        if not (self.path.is_file() or self.path.is_dir()):
            raise DataError(f"{path}: is a pipe or device, which cannot be read twice; give a file")
        self.name = self.path.name
        self.fraction = None
        self.id_from = id_from
        self.recursive = recursive
        self.skip = None
        self.labels_matter = True
        self.skipped = []
        self.passed_over = []
        self.units = {}
        self.mixed_units = {}
        self.known_units = {}  # of the first structure with the label; by its name where the input does not say it
        self.texts = {}  # name -> (how many, the first, its location) of labels that are no numbers
        self.numeric = set()
        self.overruled = collections.Counter()  # name -> labels of files of which the table has another value
        self.ordered = None  # the file whose structures the rows of the table are taken in the order of
        self.unread = None  # where a structure is that cannot be read
        self.seen = None  # a Seen that several sources share
        self.cut = None  # as of `structures`, perhaps unparsed, where it is a piece of a file
        self.extra_rows = []
        self.files = [self.path]
        if self.path.is_dir():
            self.files = self._structure_files(recursive, labels)
        self.names = _ids(self.files, self.path)  # the ids of structures that have none
        self.table = LabelTable(labels, label_names) if labels else None

    def skip_quietly(self) -> None:
        """Collect what is left out in `skipped`."""
        self.skip = lambda id, error: self.skipped.append((id, str(error)))

    def unread_copy(self) -> "FilesSource":
        """One of its own of the same files, without a table, that collects what is left out."""
        own = copy.copy(self)
        own.skipped = []
        own.units = {}
        own.mixed_units = {}
        own.known_units = {}
        own.texts = {}
        own.numeric = set()
        own.skip_quietly()
        return own

    def __iter__(self) -> Iterator[Record]:
        seen = Seen() if self.seen is None else self.seen
        for location, fallback, frame in self.structures() if self.cut is None else self._parsed():
            id = fallback if isinstance(frame, DataError) else frame.id or fallback
            try:
                if isinstance(frame, DataError):
                    self.unread = self.unread or _where(*location)
                    if self.table and self.table.in_order:
                        self._refuse_order()
                    raise frame
                id, labels = self._labelled(id, location, frame)
                known_as = id if id.isascii() else normal(id)
                other = seen.meet(known_as, location)
                if other:
                    other = _where(*other)
                    raise DataError(f"{_where(*location)}: the id {id} is also that of {other}; give each its own")
            except LabelError:
                raise
            except DataError as error:
                if self.skip is None:
                    raise
                self.skip(id, error)
                continue
            frame.atoms.info["id"] = id
            yield Record(id, frame.atoms, labels, frame.arrays)
        if self.table:
            self.extra_rows = self.table.left_over()

    def notes(self) -> list[str]:
        """What should be known of the files besides what was left out, a sentence each."""
        found = [("file", "passed over, by the name no file of structures", self.passed_over)]
        if self.table:
            found += [("row", f"of {self.table.path} without a structure", self.extra_rows)]
            found += [("column", f"of {self.table.path} left alone, without a number", self.table.texts)]
        notes = [
            f"{counted(len(names), noun)} {what}: {', '.join(names[:NAMED])}" for noun, what, names in found if names
        ]
        if self.table and self.table.in_order:
            notes.append(f"the structures have no ids; those of {self.table.path} were taken in their order")
        for name, count in self.overruled.items():
            notes.append(f"{name} of {counted(count, 'structure')} is another in {self.table.path}, which was taken")
        others = []
        for name, (count, text, location) in self.texts.items():
            if name in self.numeric or name in LABELS or LIKE_NUMBER.fullmatch(text):
                notes.append(
                    f"{name} is no number in {counted(count, 'structure')}, the first time {text[:40]!r} in {location}"
                )
            else:
                others.append(f"{name} of {counted(count, 'structure')} (first {text[:20]!r})")
        if others:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            notes.append(f"text, and so no labels: {', '.join(others[:NAMED])}{more}")
        return notes

    def _labelled(self, id, location, frame):
        """id and labels of a Frame, from its file and from the table."""
        self._note_units(frame, location)
        self.numeric.update(frame.labels)
        for name, text in frame.texts.items() if self.labels_matter else ():
            self._note_text(name, text, location)
        labels = {
            key.replace("/", "_"): number_of(value, key, lambda: _where(*location))  # HDF5 keeps the slash for itself
            for key, value in frame.labels.items()
        }
        if len(labels) < len(frame.labels):
            names = [key for key in frame.labels if "/" in key]
            raise DataError(
                f"{_where(*location)}: {names[0]} and {names[0].replace('/', '_')} are one label; rename it"
            )
        if self.table:
            member = PurePosixPath(location[0].removeprefix(f"{self.path}, "))  # of an archive, or the file itself
            names = (id, *frame.names, *(_names(member) if location[1] is None else ()))
            is_nameless = not frame.id and location[1] is not None and not self.table.taken
            if self.table.in_order or (is_nameless and not self.table.has(names)):
                if self.unread:
                    self._refuse_order()
                self._check_order(frame, location)
                id = self.table.next_id(_where(*location))
                names = (id,)
            given = self.table.take(names, _where(*location))
            self.overruled.update(
                name for name, value in given.items() if name in labels and labels[name] != value == value
            )
            labels.update(given)
        return id, labels

    def _note_units(self, frame, location):
        """Take in the units of a Frame's labels, but for those of the table's columns, which replace them."""
        own = {**frame.units, **(self.table.units if self.table else {})}
        self.units.update(own)
        for name in frame.labels:
            unit = own.get(name) or LABELS.get(name, {}).get("unit", "")
            known = self.known_units.setdefault(name, unit)
            if unit != known and name not in self.mixed_units:
                text = f"{name} is in {unit or 'no unit'} here, in {known or 'no unit'} before"
                self.mixed_units[name] = f"{_where(*location)}: {text}"

    def _check_order(self, frame, location):
        """Raise LabelError for a structure that does not come in the order of the rows: one with a name of its own."""
        self.ordered = self.ordered or location[0]
        if frame.id or location[1] is None or location[0] != self.ordered:
            has = f"the id {frame.id}" if frame.id else "a name of its own"
            raise LabelError(
                f"{_where(*location)}: has {has}, but those before have the rows of {self.table.path} in their order; "
                f"give every structure of {self.ordered} its id"
            )

    def _refuse_order(self):
        raise LabelError(
            f"{self.unread} cannot be read, and the rows of {self.table.path} are taken in the order of the "
            "structures; repair it, or give every structure its id"
        )

    def _note_text(self, name, text, location):
        """Count a text where a number may have been meant. Raises LabelError where one was."""
        is_known = name in LABELS and LIKE_NUMBER.fullmatch(text)
        if is_known or DECIMAL_COMMA.fullmatch(text) or FORTRAN.fullmatch(text):
            raise LabelError(
                f"{_where(*location)}: {name} is {text[:40]!r}, not a number; write it with a point, without a unit, "
                "or leave it away where it is unknown"
            )
        count, first, where = self.texts.get(name, (0, text, _where(*location)))
        self.texts[name] = (count + 1, first, where)

    def _parsed(self):
        """As `structures`, of a piece; see pieces.py."""
        path = self.files[0]
        try:
            for location, fallback, found in self.cut:
                yield location, fallback, found.frame() if isinstance(found, UnparsedFrame) else found
        except DataError as error:
            if self.skip is None or path == self.path:
                raise
            yield (str(path), None), self.names[path], error

    def structures(self, parse: bool = True) -> Iterator[tuple]:
        """(location, id if it has none, Frame or DataError) of every structure.

        A location is the name of the file and the number of the frame, None where the file has a single one. Unless
        `parse`, frames of extended XYZ are an UnparsedFrame each.
        """
        for path, name, fallback in self._paths():
            try:
                for number, fallback_id, frame in self._numbered(path, fallback, parse):
                    if isinstance(frame, DataError) and name != str(path):
                        frame = DataError(str(frame).replace(str(path), name))
                    yield (name, number), fallback_id, frame
            except DataError as error:
                error = DataError(str(error).replace(str(path), name))
                if self.skip is None or path == self.path:
                    raise error from None
                yield (name, None), fallback, error

    def _numbered(self, path, fallback, parse):
        """(number or None, id if it has none, Frame or DataError) of every structure of a file."""
        read = functools.partial(read_xyz_file, parse=parse) if XYZ.search(path.name) else read_file
        frames = read(path, self.id_from, self._progress)
        first = next(frames, None)
        if first is None:
            raise DataError(f"{path}: holds no structure; repair or remove it")
        try:
            second = next(frames, None)
        except DataError:
            yield 0, f"{fallback}-0", first
            raise
        if second is None:
            yield None, fallback, first
            return
        for number, frame in enumerate(itertools.chain([first, second], frames)):
            yield number, f"{fallback}-{number}", frame

    def _paths(self):
        """(path on the disk, name for messages, id if a structure has none) of every file."""
        self._begun = 0.0
        if self.path.name.lower().endswith(ARCHIVES) and self.path.is_file():
            self._part = 0.0
            self.passed_over.clear()  # it is read anew for every target
            names = collections.Counter()
            for name, path in unpacked(self.path, self._is_wanted, self._lose, self._archive_progress):
                id = _id(PurePosixPath(name))
                names[id] += 1
                yield path, f"{self.path}, {name}", id if names[id] == 1 else _without_suffix(PurePosixPath(name))
            return
        total = max(n_bytes(self.files), 1)
        n_read = 0
        for file in self.files:
            size = n_bytes([file])
            self._begun = n_read / total
            self._part = size / total
            n_read += size
            yield file, str(file), self.names[file]

    def _progress(self, fraction):
        """Part of everything that has been read, when `fraction` of the present file has."""
        self.fraction = self._begun + fraction * self._part

    def _archive_progress(self, fraction):
        self._begun = self.fraction = fraction

    def _lose(self, name):
        self.passed_over.append(f"{name} (no file)")

    def _is_wanted(self, name):
        """Whether a member of an archive is a structure file; others are noted, but for hidden ones."""
        path = PurePosixPath(name)
        hidden = any(part.startswith(".") for part in path.parts if part != "..") or "__MACOSX" in path.parts
        if not hidden and not STRUCTURE_FILE.fullmatch(path.name):
            self.passed_over.append(name)
        return not hidden and bool(STRUCTURE_FILE.fullmatch(path.name))

    def _structure_files(self, recursive, labels):
        """The structure files of the folder; others are noted, but for hidden ones and the table of labels."""
        try:
            found = sorted(self.path.rglob("*") if recursive else self.path.iterdir())
            found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(self.path).parts)]
            files = [p for p in found if p.is_file() and STRUCTURE_FILE.fullmatch(p.name)]
            others = [p for p in found if p not in set(files) and not (recursive and p.is_dir())]
        except OSError as error:
            raise DataError(f"{self.path}: cannot be listed ({error}); check its rights") from None
        is_labels = [labels is not None and p.resolve() == Path(labels).resolve() for p in others]
        for path, is_table in zip(others, is_labels, strict=True):
            if not is_table:
                name = str(path.relative_to(self.path))
                self.passed_over.append(f"{name}/ (see --recursive)" if path.is_dir() else name)
        if not files:
            there = f"; there are {', '.join(self.passed_over[:NAMED])}" if self.passed_over else ""
            raise DataError(
                f"{self.path}: the folder holds no structure file such as .cif, .xyz or POSCAR{there}; check the path"
            )
        return files


class Seen:
    """The location of every id, in 36 to 72 bytes each, where a dict of their texts needs 300: an open-addressing table
    of digests of 128 bits."""

    def __init__(self):
        self.names = []  # of files, in the order in which they are met
        self.count = 0
        self._resize(1 << 10)

    def _resize(self, n_slots):
        self.mask = n_slots - 1
        self.digests = array("Q", bytes(16 * n_slots))
        self.places = array("Q", bytes(8 * n_slots))  # FILES times the file's number, and 2 + the frame's; 0: free

    def __contains__(self, id: str) -> bool:
        return bool(self.places[self._slot(*_digest(id))])

    def meet(self, id: str, location: tuple[str, int | None]) -> tuple[str, int | None] | None:
        """The location where an id was met before; None, and it is noted, where it was not."""
        low, high = _digest(id)
        slot = self._slot(low, high)
        place = self.places[slot]
        if place:
            number = place & (FILES - 1)
            return self.names[place // FILES], None if number == 1 else number - 2
        name, number = location
        if not self.names or self.names[-1] != name:
            self.names.append(name)
        self._put(slot, low, high, FILES * (len(self.names) - 1) + (1 if number is None else number + 2))
        self.count += 1
        if 3 * self.count > 2 * self.mask:
            self._grow()
        return None

    def _slot(self, low, high):
        """Where a digest is, or the free slot for it."""
        slot = low & self.mask
        while self.places[slot] and (self.digests[2 * slot] != low or self.digests[2 * slot + 1] != high):
            slot = (slot + 1) & self.mask
        return slot

    def _put(self, slot, low, high, place):
        self.digests[2 * slot] = low
        self.digests[2 * slot + 1] = high
        self.places[slot] = place

    def _grow(self):
        digests = self.digests
        places = self.places
        self._resize(2 * len(places))
        for low, high, place in zip(digests[::2], digests[1::2], places, strict=True):
            if place:
                self._put(self._slot(low, high), low, high, place)


def _digest(id):
    """128 bits of an id, as two words."""
    return TWO_WORDS(hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def open_files(paths: Iterable[Path | str], **options) -> list[FilesSource]:
    """A FilesSource for every path; files of one stem, such as a/POSCAR and b/POSCAR, have their paths as ids."""
    sources = [FilesSource(path, **options) for path in paths]
    counts = collections.Counter(name for source in sources for name in source.names.values())
    for source in sources:
        source.names = {file: name if counts[name] == 1 else str(file) for file, name in source.names.items()}
    return sources


def n_bytes(files: Iterable[Path]) -> int:
    """Size of files together; 0 for one that is there no more, which who reads it says."""
    return sum(file.stat().st_size for file in files if file.is_file())


def read_structures(
    sources: Iterable[FilesSource],
    target: str | Sequence[str] | None = None,
    skip: Skip | None = None,
    seen: "Seen | None" = None,
) -> Iterator[ase.Atoms]:
    """The structures of every FilesSource as ase.Atoms, with their `id` in info, and their per-site arrays.

    With `target` the `label` of that name is in info too, None where it is not known; of several a dict of each. Where
    `skip` is given, it is told what cannot be read, see FilesSource. `seen` has ids that no structure may have.
    """
    seen = Seen() if seen is None else seen
    for source in sources:
        source.skip = skip
        source.seen = seen
        source.labels_matter = False
    for record in itertools.chain.from_iterable(sources):
        for name, values in record.arrays.items():
            record.atoms.set_array(name, values)
        record.atoms.info["charge"] = record.labels.get("charge", 0.0)  # which predictions do not know
        if target is not None:
            label = record.labels.get
            record.atoms.info["label"] = label(target) if isinstance(target, str) else {t: label(t) for t in target}
        yield record.atoms


def _where(name, number):
    """A location in words."""
    return name + ("" if number is None else f", frame {number}")


def _ids(files, root):
    """Path -> id of the structures that have none; with its folder where files of several have one stem."""
    relative = {
        file: PurePosixPath(file.relative_to(root).as_posix()) if file != root else PurePosixPath(file.name)
        for file in files
    }
    counts = collections.Counter(map(_id, relative.values()))
    return {file: _id(path) if counts[_id(path)] == 1 else _without_suffix(path) for file, path in relative.items()}


def _id(path):
    """The id by the name of a file; ID/POSCAR has that of its folder, POSCAR.mp-1 is one of its own."""
    if re.fullmatch(r"(?i)(POSCAR|CONTCAR)(\.(gz|bz2|xz))?", path.name) and path.parent.name:
        return path.parent.as_posix()
    return PurePosixPath(_without_suffix(path)).name


def _without_suffix(path):
    name = PACKED.sub("", path.as_posix())
    match = POSCAR.fullmatch(path.name)
    is_suffix = not match or not match[1] or STRUCTURE_SUFFIX.search(name)
    return name.removesuffix(PurePosixPath(name).suffix) if is_suffix else name


def _names(path):
    """Names of a file that a row of labels may use for its structure."""
    special = POSCAR.fullmatch(path.name)
    return (_id(path), path.name, *([special[1].strip("._-")] if special and special[1] else ()))
