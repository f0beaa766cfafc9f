"""QM9 as its authors published it: `dsgdb9nsd.xyz.tar.bz2`, or the folder of `dsgdb9nsd_000001.xyz` and so on.

A file holds the number of atoms; `gdb`, the molecule's number and 15 properties; a line per atom with its Mulliken
charge; frequencies; SMILES; InChI. Exponents may be written `*^`. The archive is read as a stream, nothing is unpacked.

Source   Ramakrishnan et al., Sci. Data 1, 140022 (2014), doi 10.1038/sdata.2014.22, Tables 2 and 3
"""

import bz2
import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import ase
import numpy as np
from ase.units import Hartree

from refattn.common.archives import TarMember, bounded, read_member
from refattn.data.store import Record
from refattn.errors import DataError, in_one_line

LICENCE = "CC0 1.0"
CITATION = (
    "R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Quantum chemistry structures and properties of "
    "134 kilo molecules, Scientific Data 1, 140022 (2014), doi 10.1038/sdata.2014.22"
)
WHERE_TO_GET = "doi 10.6084/m9.figshare.978904"
COUNT = re.compile(r"[0-9]{1,9}")
MEMBER = re.compile(r"(?:.*/)?dsgdb9nsd_(\d+)\.xyz")
OPENERS = {".bz2": bz2.open, ".gz": gzip.open}
UNCHARACTERISED = "uncharacterised: listed by QM9's authors, the relaxed geometry is of another molecule"

# The 15 properties in their order, and what turns their unit into that of files.LABELS.
PROPERTIES = {
    "rotational_a": 1.0,  # GHz
    "rotational_b": 1.0,
    "rotational_c": 1.0,
    "mu": 1.0,  # Debye
    "alpha": 1.0,  # Bohr^3
    "homo": Hartree,
    "lumo": Hartree,
    "gap": Hartree,
    "r2": 1.0,  # Bohr^2
    "zpve": Hartree,
    "u0": Hartree,
    "u298": Hartree,
    "h298": Hartree,
    "g298": Hartree,
    "cv": 1.0,  # cal/mol/K
}


class QM9Source:
    """Iterable of Record from the archive or the folder; ids are `gdb_N`. Energies in eV.

    Parameters
    ----------
    uncharacterised : path, optional
        The authors' list of 3,054 molecules to leave out; by default `uncharacterized.txt` in or beside `path`.
    keep_uncharacterised : bool
        Leave none out, and need no list.

    Attributes
    ----------
    skipped : list of (id, reason)      molecules left out so far
    fraction : float                    part of the input that has been read

    Raises
    ------
    DataError
        No list, or a file that is missing, damaged or of another format.
    """

    name = "QM9 (dsgdb9nsd)"
    licence = LICENCE
    citation = CITATION

    def __init__(self, path: Path | str, uncharacterised: Path | str | None = None, keep_uncharacterised: bool = False):
        self.path = Path(path)
        self.fraction = 0.0
        self.skipped = []
        if not self.path.exists():
            raise DataError(f"{path}: there is no such file or folder; get it from {WHERE_TO_GET}")
        self.left_out = set() if keep_uncharacterised else read_uncharacterised(uncharacterised or self._find_list())

    def __iter__(self) -> Iterator[Record]:
        seen = set()
        for where, text in self._folder() if self.path.is_dir() else self._archive():
            record = parse_molecule(text, where)
            if record.id in seen:
                raise DataError(f"{where}: {record.id} is there twice; remove one of them")
            seen.add(record.id)
            if record.id in self.left_out:
                self.skipped.append((record.id, UNCHARACTERISED))
            else:
                yield record

    def _find_list(self):
        for folder in (self.path, self.path.parent):
            if (folder / "uncharacterized.txt").is_file():
                return folder / "uncharacterized.txt"
        raise DataError(
            f"{self.path}: uncharacterized.txt, the list of molecules to leave out, is not beside it; get it from "
            f"{WHERE_TO_GET}, name it with --uncharacterized, or keep all molecules with --keep-uncharacterized"
        )

    def _folder(self):
        files = sorted(file for file in self.path.iterdir() if MEMBER.fullmatch(file.name))
        if not files:
            raise DataError(f"{self.path}: the folder holds no dsgdb9nsd_NUMBER.xyz; check the path")
        for number, file in enumerate(files, 1):
            try:
                yield file, file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file}: cannot be read ({error}); restore it") from None
            self.fraction = number / len(files)

    def _archive(self):
        """(where, text) of every molecule; members are read in memory, so no path of the archive reaches the disk."""
        size = max(self.path.stat().st_size, 1)
        found = False
        try:
            # Decompressed here and not by tarfile, which takes a compressed stream that was cut for a complete one.
            with (
                open(self.path, "rb") as raw,
                bounded(OPENERS.get(self.path.suffix, io.BufferedReader)(raw), raw) as stream,
                tarfile.open(fileobj=stream, mode="r|", tarinfo=TarMember) as archive,
            ):
                for member in archive:
                    if not (member.isfile() and MEMBER.fullmatch(member.name)):
                        continue
                    found = True
                    self.fraction = raw.tell() / size
                    yield f"{self.path}, {member.name}", read_member(archive, member)
                # tarfile stops at a damaged header as if it were the end: read on, to the checksum of the compression.
                if any(rest.strip(b"\0") for rest in iter(lambda: stream.read(1 << 20), b"")):
                    raise DataError(f"{self.path}: has damaged data within; get it from {WHERE_TO_GET}")
        except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
            reason = in_one_line(error)
            raise DataError(f"{self.path}: cannot be read further ({reason}); get it from {WHERE_TO_GET}") from None
        if not found:
            raise DataError(f"{self.path}: the archive holds no dsgdb9nsd_NUMBER.xyz; check the path")


def read_uncharacterised(path: Path | str) -> set[str]:
    """Ids in the authors' list: the first word of every line that begins with a number, other lines are text."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); get it from {WHERE_TO_GET}") from None
    ids = {f"gdb_{int(words[0])}" for words in map(str.split, lines) if words and COUNT.fullmatch(words[0])}
    if not ids:
        raise DataError(f"{path}: lists no molecule; get it from {WHERE_TO_GET}")
    return ids


def parse_molecule(text: str, where: str) -> Record:
    """Record of one file's text. Raises DataError that names `where` and the line."""
    lines = text.rstrip().splitlines()
    n_sites = int(lines[0]) if lines and COUNT.fullmatch(lines[0].strip()) else 0
    if n_sites < 1 or len(lines) != n_sites + 5:
        raise DataError(f"{where}: has {len(lines)} lines, not 5 more than the atoms counted in line 1; restore it")
    words = lines[1].split()
    if len(words) != 2 + len(PROPERTIES) or words[0] != "gdb" or not COUNT.fullmatch(words[1]):
        raise DataError(f"{where}, line 2: must be gdb, a number and {len(PROPERTIES)} properties; restore the file")
    values = _numbers(words[2:], f"{where}, line 2")
    symbols = []
    rows = []
    for number, line in enumerate(lines[2 : n_sites + 2], 3):
        symbol, *rest = line.split() or [""]
        if symbol not in ase.data.atomic_numbers or len(rest) != 4:
            raise DataError(f"{where}, line {number}: must be an element, a position and a charge; restore the file")
        symbols.append(symbol)
        rows.append(_numbers(rest, f"{where}, line {number}"))
    id = f"gdb_{int(words[1])}"
    rows = np.array(rows)
    labels = {name: value * unit for (name, unit), value in zip(PROPERTIES.items(), values, strict=True)}
    return Record(id, ase.Atoms(symbols, rows[:, :3], info={"id": id}), labels, {"mulliken_charge": rows[:, 3]})


def _numbers(words, where):
    try:
        values = [float(word.replace("*^", "e")) for word in words]
    except ValueError as error:
        raise DataError(f"{where}: {error}; restore the file") from None
    if not np.isfinite(values).all():
        raise DataError(f"{where}: holds a number that is not finite; restore the file")
    return values
