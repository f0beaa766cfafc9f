"""The archives of the SCANN authors: zip files of XYZ trajectories whose comment lines hold the labels.

fullerene-MD has the words `homo lumo total_energy`, Pt/graphene-MD `total_energy Ref_energy`; SmFe12-CD is in
smfe12.py. The authors read every file FOLDER/NAME.xyz of the archive in the order of the paths, frame after frame, and
take each frame for a molecule without a cell, also platinum on graphene. Their loader multiplies by 1000 to get meV,
so the energies are in eV.

The archives themselves could not be looked at: what stands here is what the authors' own readers expect of them.

Source   sinhvt3421/scann--material 1.0, scann/utils/dataset/fullerene.py and pt_graphene.py, datagenerator.py
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

import ase
import numpy as np
from ase.data import atomic_numbers

from refattn.common.archives import check_member
from refattn.data.sources.published import PUBLISHED
from refattn.data.store import Record
from refattn.errors import DataError, in_one_line

UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile)
LONGEST_LINE = 10_000  # characters


class ScannArchive:
    """Iterable of Record from an archive of the authors, or from the folder that it was unpacked to.

    Members are read as a stream, and no path of the archive reaches the disk. An id is the path in the archive without
    its suffix, and -NUMBER of the frame, counted from 1.

    Attributes
    ----------
    skipped : list of (id, reason)
        XYZ files that stand elsewhere in the archive than where the authors look, so far.
    fraction : float        part of the input that has been read
    name, licence, citation : str

    Raises
    ------
    DataError
        While iterating: a file or frame that is damaged, with file and line, or an archive without such files.
    """

    published = ""  # its name in PUBLISHED
    depth = 2  # of FOLDER/NAME.xyz

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.fraction = 0.0
        self.skipped = []
        if not self.path.exists():
            raise DataError(f"{path}: there is no such file or folder; {self._advice()}")
        item = PUBLISHED[self.published]
        self.name = item.description.partition(":")[0]
        self.licence = item.licence
        self.citation = item.citation

    def __iter__(self) -> Iterator[Record]:
        where = self.path
        try:
            for name, stream, span in self._folder() if self.path.is_dir() else self._archive():
                where = f"{self.path}, {name}"
                for record in self._records(name, stream, where):
                    self.fraction = span[0] + (span[1] - span[0]) * stream.buffer.tell() / span[2]
                    yield record
        except UNREADABLE as error:
            raise DataError(f"{where}: cannot be read further ({in_one_line(error)}); {self._advice()}") from None

    def _records(self, name, stream, where):
        for number, (line, comment, numbers, positions) in enumerate(read_frames(stream, where), 1):
            atoms, labels = self.frame(comment, numbers, positions, f"{where}, line {line}")
            atoms.info["id"] = f"{name.removesuffix('.xyz')}-{number}"
            yield Record(atoms.info["id"], atoms, labels, {})

    def frame(
        self, comment: str, numbers: list[int], positions: np.ndarray, where: str
    ) -> tuple[ase.Atoms, dict[str, float]]:
        """Atoms and labels of a frame; `where` names its comment line."""
        return ase.Atoms(numbers, positions), self.labels(comment, where)

    def labels(self, comment: str, where: str) -> dict[str, float]:
        """name -> float, from the comment line. Raises DataError."""
        raise NotImplementedError

    def _advice(self):
        return f"fetch it with `refattn data fetch {self.published}`"

    def _folder(self):
        """(name, stream, span) of every file of an unpacked archive."""
        files = sorted(self.path.rglob("*.xyz"), key=lambda file: file.relative_to(self.path).as_posix())
        files = [file for file in files if file.is_file() and not file.name.startswith(".")]
        if not files:
            raise DataError(f"{self.path}: the folder holds no .xyz file; check the path")
        sizes = [file.stat().st_size for file in files]
        for file, span in zip(files, spans(sizes), strict=True):
            with open(file, encoding="utf-8") as stream:
                yield file.relative_to(self.path).as_posix(), stream, span

    def _archive(self):
        """(name, stream, span) of every member."""
        with zipfile.ZipFile(self.path) as archive:
            names = self._members(archive)
            if not names:
                raise DataError(f"{self.path}: holds no {'FOLDER/' * (self.depth - 1)}NAME.xyz; {self._advice()}")
            sizes = [archive.getinfo(name).file_size for name in names]
            for name, span in zip(names, spans(sizes), strict=True):
                check_member(archive.getinfo(name))
                with archive.open(name) as member:
                    yield name, io.TextIOWrapper(member, encoding="utf-8"), span

    def _members(self, archive):
        """Names of the XYZ files in the authors' order; others, and what macOS adds, are noted as skipped."""
        names = sorted(info.filename for info in archive.infolist() if info.filename.lower().endswith(".xyz"))
        taken = [name for name in names if self._is_taken(PurePosixPath(name))]
        reason = f"not at {'FOLDER/' * (self.depth - 1)}NAME.xyz of the archive, where the authors' reader looks"
        self.skipped += [(name, reason) for name in names if name not in set(taken)]
        return taken

    def _is_taken(self, path):
        hidden = any(part.startswith(".") for part in path.parts)  # such as ._NAME.xyz, which macOS adds
        return len(path.parts) == self.depth and path.suffix == ".xyz" and not hidden


class FullereneArchive(ScannArchive):
    """fullerene-MD: homo, lumo and energy in eV."""

    published = "fullerene_md"

    def labels(self, comment: str, where: str) -> dict[str, float]:
        homo, lumo, energy = numbers_of(comment, 3, where)
        return {"homo": homo, "lumo": lumo, "energy": energy}


class PtGrapheneArchive(ScannArchive):
    """Pt/graphene-MD: energy, and deformation_energy, which is the energy above that of the reference, in eV."""

    published = "pt_graphene_md"

    def labels(self, comment: str, where: str) -> dict[str, float]:
        energy, reference = numbers_of(comment, 2, where)
        return {"energy": energy, "deformation_energy": energy - reference}


def spans(sizes: list[int]) -> Iterator[tuple[float, float, int]]:
    """Of files of these sizes, read one after the other: (part read before, part read after, its size), at least 1."""
    total = max(sum(sizes), 1)
    done = 0
    for size in sizes:
        yield done / total, (done + size) / total, max(size, 1)
        done += size


def numbers_of(comment: str, count: int, where: str) -> list[float]:
    """The first `count` words of a comment line as floats; what follows is left alone, as by the authors."""
    words = comment.split()[:count]
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) < count or not np.isfinite(values).all():
        raise DataError(f"{where}: must begin with {count} numbers, not with {comment[:60]!r}; restore the file")
    return values


def read_frames(stream: TextIO, where: str) -> Iterator[tuple[int, str, list[int], np.ndarray]]:
    """The frames of an XYZ file: number of atoms, comment, and a line an atom with symbol or atomic number, x, y, z.

    Yields (number of the comment line, comment, atomic numbers, positions (N, 3) in Å). Raises DataError with `where`
    and the line. Columns after the fourth are left alone; empty lines may stand between frames.
    """
    lines = enumerate(iter(lambda: stream.readline(LONGEST_LINE), ""), 1)
    for number, header in lines:
        if not header.strip():
            continue
        n_sites = int(header) if re.fullmatch(r"\d{1,9}", header.strip(), re.ASCII) else 0
        if not n_sites:
            raise DataError(f"{where}, line {number}: is {header.strip()[:40]!r}, not a number of atoms; restore it")
        _, comment = next(lines, (0, ""))
        numbers = []
        positions = []
        for after in range(2, n_sites + 2):
            at, row = next(lines, (number + after, ""))
            z, position = _site(row, f"{where}, line {at}")
            numbers.append(z)
            positions.append(position)
        yield number + 1, comment.rstrip("\n"), numbers, np.array(positions)


def _site(row, where):
    words = row.split()
    symbol = words[0] if words else ""
    z = int(symbol) if re.fullmatch(r"\d{1,3}", symbol, re.ASCII) else atomic_numbers.get(symbol, 0)
    try:
        position = [float(word) for word in words[1:4]]
    except ValueError:
        position = []
    if not 1 <= z <= 118 or len(position) < 3 or not np.isfinite(position).all():
        raise DataError(f"{where}: must be an element and a position, not {row.strip()[:40]!r}; restore the file")
    return z, position
