"""Materials Project 2018.6.1, as MEGNet's authors distribute it: `mp.2018.6.1.json`, bare or in its zip file.

A list of objects, of which `material_id`, `structure` (the text of a CIF file, in P1, written by pymatgen),
`formation_energy_per_atom` (eV/atom) and `band_gap` (eV) are read. The list is cut into its elements while it is
read, so that memory does not depend on its length. Crystals of one atom are left out, as by the SCANN authors: their
network divides 0 by 0 there. That leaves 69,106 of 69,239.

Source   figshare.com/articles/Graphs_of_materials_project/7451351; sinhvt3421/scann--material 1.0, mp2018.py;
         69,239: README.md of materialsvirtuallab/megnet
"""

import contextlib
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import ase

from refattn.common.archives import bounded, check_member
from refattn.common.jsoncutter import JsonCutter
from refattn.data.sources.cif import read_cif
from refattn.data.sources.published import PUBLISHED
from refattn.data.store import LARGEST_LABEL, Record
from refattn.errors import DataError, in_one_line

LABELS = {"formation_energy_per_atom": "e_form", "band_gap": "band_gap"}
ONE_ATOM = "one atom in the cell: left out by the authors, whose attention divides 0 by 0 there"
ADVICE = "fetch it again with `refattn data fetch materials_project`"
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile)


class MaterialsProjectSource:
    """Iterable of Record with labels e_form (eV/atom) and band_gap (eV); ids are those of the Materials Project.

    Parameters
    ----------
    path : path
        The zip file, or the .json or .json.gz in it.

    Attributes
    ----------
    skipped : list of (id, reason)      crystals of one atom so far
    fraction : float                    part of the input that has been read
    name, licence, citation : str

    Raises
    ------
    DataError
        While iterating: a file that is damaged or of another format, with the id or the number of the element.
    """

    name = "Materials Project 2018.6.1 (MEGNet)"
    licence = PUBLISHED["materials_project"].licence
    citation = PUBLISHED["materials_project"].citation

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.fraction = 0.0
        self.skipped = []
        if not self.path.is_file():
            raise DataError(f"{path}: there is no such file; fetch it with `refattn data fetch materials_project`")

    def __iter__(self) -> Iterator[Record]:
        size = max(self.path.stat().st_size, 1)
        seen = set()
        try:
            with open(self.path, "rb") as raw, self._text(raw) as text:
                for number, element in enumerate(JsonCutter(text).elements(), 1):
                    self.fraction = min(raw.tell() / size, 1.0)
                    record = read_element(element, f"{self.path}, element {number}")
                    if record.id in seen:
                        raise DataError(f"{self.path}, element {number}: {record.id} is there twice; {ADVICE}")
                    seen.add(record.id)
                    if len(record.atoms) > 1:
                        yield record
                    else:
                        self.skipped.append((record.id, ONE_ATOM))
            self.fraction = 1.0
        except UNREADABLE as error:
            raise DataError(f"{self.path}: cannot be read further ({in_one_line(error)}); {ADVICE}") from None

    @contextlib.contextmanager
    def _text(self, raw):
        """The JSON text as a stream."""
        with contextlib.ExitStack() as stack:
            stream = raw
            beginning = raw.read(2)
            raw.seek(0)
            if beginning == b"PK":
                archive = stack.enter_context(zipfile.ZipFile(raw))
                names = [name for name in archive.namelist() if re.fullmatch(r"(?!__MACOSX)[^.].*\.json", name)]
                if len(names) != 1:
                    raise ValueError(f"holds {len(names)} files .json instead of one")
                check_member(archive.getinfo(names[0]))
                stream = stack.enter_context(archive.open(names[0]))
            elif self.path.suffix == ".gz":
                stream = bounded(stack.enter_context(gzip.open(raw)), raw)
            yield io.TextIOWrapper(stream, encoding="utf-8")


def read_element(element: dict, where: str) -> Record:
    """Record of one object of the list. Raises DataError that names `where` and what is wrong."""
    id = element.get("material_id")
    cif = element.get("structure")
    if not (isinstance(id, str) and id and isinstance(cif, str)):
        raise DataError(f"{where}: has no material_id or no structure; {ADVICE}")
    labels = {}
    for key, name in LABELS.items():
        value = element.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST_LABEL:
                raise DataError(f"{where}, {id}: {key} is {value!r:.40}, no number for a label; {ADVICE}")
            labels[name] = float(value)
    atoms = read_crystal(cif, f"{where}, {id}")
    atoms.info["id"] = id
    return Record(id, atoms, labels, {})


def read_crystal(cif: str, where: str) -> ase.Atoms:
    """The Atoms in the text of a CIF file. Raises DataError that names `where`."""
    try:
        (atoms,) = read_cif(cif)
    except (DataError, ValueError, ArithmeticError, LookupError) as error:
        atoms = error
    if isinstance(atoms, Exception):
        raise DataError(f"{where}: its structure cannot be read ({in_one_line(atoms)}); {ADVICE}")
    return atoms
