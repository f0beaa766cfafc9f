"""QM9 as DeepChem distributes it and PyTorch Geometric reads it: `gdb9.tar.gz` with `gdb9.sdf` and `gdb9.sdf.csv`.

The molecules and their numbers are those of the authors' archive (qm9.py), with positions rounded to 1e-4 Å and
without charges. The sdf holds a V2000 block a molecule, its title `gdb_N`; the table holds the 15 properties, energies
in Hartree, and four atomisation energies, which are left out. Bonds are left out too.

Source   Ramakrishnan et al., Sci. Data 1, 140022 (2014); columns as torch_geometric/datasets/qm9.py lists them; block
         format: CTfile Formats, BIOVIA 2020
"""

import contextlib
import csv
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import ase
import numpy as np

from refattn.common.archives import TarMember, bounded
from refattn.data.sources.qm9 import PROPERTIES, UNCHARACTERISED, QM9Source
from refattn.data.sources.sdf import cut_blocks, parse_molfile
from refattn.data.store import Record
from refattn.errors import DataError, in_one_line

SDF = "gdb9.sdf"
TABLE = "gdb9.sdf.csv"
COLUMNS = {"rotational_a": "A", "rotational_b": "B", "rotational_c": "C"}  # the others have our names
ADVICE = "fetch it again with `refattn data fetch qm9_sdf`"
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError)
MAX_LINES = 2000  # of a block: V2000 has at most 999 atoms and 999 bonds


class QM9SdfSource(QM9Source):
    """Iterable of Record from the archive, from the folder with both files, or from the .sdf with the table beside it.

    Parameters, attributes and errors are those of QM9Source.
    """

    name = "QM9 (gdb9.sdf)"

    def __iter__(self) -> Iterator[Record]:
        table = read_table(self._lines(TABLE), self._where(TABLE))
        seen = set()
        for id, atoms in read_molecules(self._lines(SDF), self._where(SDF)):
            if id in seen or id not in table:
                fault = "is there twice" if id in seen else f"has no row in {TABLE}"
                raise DataError(f"{self._where(SDF)}: {id} {fault}; {ADVICE}")
            seen.add(id)
            if id in self.left_out:
                self.skipped.append((id, UNCHARACTERISED))
            else:
                yield Record(id, atoms, dict(zip(PROPERTIES, table[id].tolist(), strict=True)), {})
        missing = next((id for id in table if id not in seen), None)
        if missing:
            raise DataError(f"{self._where(SDF)}: has no {missing}, which {TABLE} lists; {ADVICE}")

    def _file(self, name):
        """The file that holds `name`: itself, or the archive."""
        if self.path.is_dir():
            return self.path / name
        return self.path if name == SDF or is_archive(self.path) else Path(f"{self.path}.csv")

    def _where(self, name):
        return f"{self.path}, {name}" if is_archive(self.path) else str(self._file(name))

    def _lines(self, name):
        """Lines of one of the two files, as a stream; members of an archive are read in memory, never unpacked."""
        file = self._file(name)
        try:
            size = max(file.stat().st_size, 1)
            with open(file, "rb") as raw:
                for line in _member(raw, file, name) if is_archive(file) else io.TextIOWrapper(raw, encoding="utf-8"):
                    self.fraction = raw.tell() / size if name == SDF else 0.0
                    yield line
        except UNREADABLE as error:
            raise DataError(f"{self._where(name)}: cannot be read further ({in_one_line(error)}); {ADVICE}") from None


def is_archive(path: Path) -> bool:
    return ".tar" in path.suffixes or path.suffix == ".tgz"


def _member(raw, file, name):
    """Lines of the member `name` of a (gzipped) archive, whatever its folder."""
    with (
        contextlib.nullcontext(raw) if file.suffix == ".tar" else bounded(gzip.open(raw), raw) as plain,
        tarfile.open(fileobj=plain, mode="r|", tarinfo=TarMember) as archive,
    ):
        for member in archive:
            if member.isfile() and Path(member.name).name == name:
                yield from (line.decode("utf-8") for line in archive.extractfile(member))
                for _ in iter(lambda: plain.read(1 << 20), b""):
                    pass  # on to the checksum of the compression
                return
    raise ValueError(f"the archive holds no {name}")


def read_table(lines: Iterable[str], where: str) -> dict[str, np.ndarray]:
    """id -> (15,) float64, the properties in the order and the units of files.LABELS, from the lines of gdb9.sdf.csv.

    Raises DataError that names `where` and the line.
    """
    reader = csv.reader(lines)
    try:
        header = [name.strip() for name in next(reader, [])]
        names = ["mol_id", *(COLUMNS.get(name, name) for name in PROPERTIES)]
        absent = [name for name in names if name not in header]
        if absent:
            raise DataError(f"{where}, line 1: has no column {absent[0]}; {ADVICE}")
        columns = [header.index(name) for name in names]
        table = {}
        units = np.array(list(PROPERTIES.values()))
        for cells in filter(None, reader):
            if len(cells) != len(header) or cells[columns[0]] in table:
                raise ValueError("a repeated molecule or another number of columns")
            values = np.array([float(cells[column]) for column in columns[1:]])
            if not np.isfinite(values).all():
                raise ValueError("a number that is not finite")
            table[cells[columns[0]]] = values * units
    except (ValueError, csv.Error) as error:
        raise DataError(f"{where}, line {reader.line_num}: holds {in_one_line(error)}; {ADVICE}") from None
    return table


def read_molecules(lines: Iterable[str], where: str) -> Iterator[tuple[str, ase.Atoms]]:
    """(id, Atoms) of every block, from the lines of gdb9.sdf. Raises DataError that names `where` and the line."""
    for number, block in enumerate(cut_blocks(lines, MAX_LINES), 1):
        yield parse_block(block, f"{where}, molecule {number}")


def parse_block(lines: list[str], where: str) -> tuple[str, ase.Atoms]:
    """id and Atoms of one V2000 block: title, two lines of text, the counts, and a line an atom in fixed columns."""
    try:
        if len(lines) < 4 or "V2000" not in lines[3]:
            raise ValueError("no counts of a V2000 block in its fourth line")
        atoms = parse_molfile(lines)
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: holds {in_one_line(error)}; {ADVICE}") from None
    atoms.info["id"] = lines[0].strip()
    return atoms.info["id"], atoms
