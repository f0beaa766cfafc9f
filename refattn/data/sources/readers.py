"""Which reader takes which file, and what ASE's readers are not to be believed in.

A reader yields a Frame for every structure, or a DataError for one that cannot be had while others can. What cannot be
read on is raised.
"""

import codecs
import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import ase
import ase.data
import ase.io
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import UnknownFileTypeError, filetype
from ase.io.res import Res

from refattn.common.archives import decompressed
from refattn.data.sources.extxyz import ISOTOPES, Frame, frame_of, read_xyz_file
from refattn.data.sources.guessed import check_elements, check_xsf, with_shelx_elements
from refattn.errors import DataError, MissingExtra, in_one_line

BEGINNING = 1 << 16  # bytes by which the kinds of JSON are told apart
MAX_TEXT = 1 << 30  # bytes of a file that is read as a whole
PACKED = re.compile(r"(?i)\.(gz|bz2|xz)$")
POSCAR = re.compile(r"(?i)(?:POSCAR|CONTCAR)(.*)|.*\.(?:vasp|poscar)(?:\.(?:gz|bz2|xz))?")
# Lines of SHELX that make more, fewer or other atoms of those that are listed.
SHELX = re.compile(r"(?mi)^(?:SYMM\b|PART\b|AFIX\b|LATT\s+(?!-1\b)).*$")


def read_file(path: Path, id_from: str, progress: Callable[[float], None]) -> Iterator[Frame | DataError]:
    """The Frame of every structure of a file, or why it cannot be had.

    Parameters
    ----------
    path : path
    id_from : "id" or "comment"                  see extxyz.read_frame
    progress : callable (part of the file)       is called now and then

    Raises DataError where the file cannot be read on. All messages name the file.
    """
    return _checked(lambda: _reader(path)(path, id_from, progress), path, 0)


def read_rows(path: Path, rows: slice) -> Iterator[Frame | DataError]:
    """The Frame of some structures of a prepared data set, as by read_file."""
    from refattn.data.sources.databases import frames_of_rows

    return _checked(lambda: frames_of_rows(path, rows), path, rows.start)


def _checked(read, path, number):
    try:
        for found in read():
            yield _frame(found, path, number)
            number += 1
    except MissingExtra:
        raise
    except DataError as error:
        raise _located(error, path, number) from None
    except Exception as error:  # the parsers of ASE raise anything; the reason goes into the message
        raise DataError(f"{path}, frame {number}: cannot be read ({reason_of(error)}); repair it") from None


def reason_of(error: Exception) -> str:
    """An exception in one line."""
    if isinstance(error, KeyError):  # what ase.Atoms raises for a symbol that it does not know
        return f"unknown element or key {error}"
    if isinstance(error, UnknownFileTypeError):
        return "no format that ASE knows"
    return in_one_line(error)


def _frame(found, path, number):
    """A Frame as it is, that of an ase.Atoms, or an error that names the file."""
    try:
        return frame_of(found) if isinstance(found, ase.Atoms) else _located(found, path, number)
    except DataError as error:
        return _located(error, path, number)


def _located(found, path, number):
    if isinstance(found, Frame) or str(found).startswith(str(path)):
        return found
    return DataError(f"{path}, frame {number}: {found}")


def _reader(path):
    """The function (path, id_from, progress) that reads a file, by its name, else by what ASE finds in it."""
    suffix = PACKED.sub("", path.name).lower().rpartition(".")[2]
    if suffix in READERS:
        return READERS[suffix]
    if POSCAR.fullmatch(path.name):
        return _poscar
    if suffix == "csv":
        return _table
    kind = filetype(str(path))
    check_elements(kind, _beginning(path))
    return _xsf if kind == "xsf" else READERS.get(kind, _by_ase)


def _text(path):
    """A file as text; what is no UTF-8 stands in comments, or is no structure."""
    with open(path, "rb") as raw:
        content = decompressed(raw, path).read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise DataError(f"has more than {MAX_TEXT >> 30} GiB; give it in parts, or as extended XYZ")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:BEGINNING]:
        raise DataError("is text in UTF-16, or no text; write it as UTF-8")
    return content.decode("utf-8-sig", "replace")


def _cif(path, *_):
    from refattn.data.sources.cif import read_cif  # loads gemmi

    return read_cif(_text(path))


def _pdb(path, *_):
    from refattn.data.sources.pdb import read_pdb

    return read_pdb(_text(path))


def _sdf(path, *_):
    from refattn.data.sources.sdf import read_sdf

    return read_sdf(io.StringIO(_text(path)))


def _database(path, _, progress):
    from refattn.data.sources.databases import read_database

    return read_database(path, progress)


def _json(path, id_from, progress):
    from refattn.data.sources.optimade import SIGN, read_optimade
    from refattn.data.sources.pymatgen import is_pymatgen, read_pymatgen

    beginning = _beginning(path)
    if SIGN in beginning:
        return read_optimade(_text(path))
    reader = read_pymatgen if is_pymatgen(path, beginning) else _database
    return reader(path, id_from, progress)


def _beginning(path):
    """The first bytes of a file, unpacked."""
    with open(path, "rb") as raw:
        return decompressed(raw, path).read(BEGINNING)


def _smiles(path, *_):
    from refattn.data.sources.smiles import read_smiles

    return read_smiles(_text(path))


def _table(path, *_):
    """A table that is given alone; in a folder one may be of labels."""
    from refattn.data.sources.smiles import read_smiles_table

    return read_smiles_table(_text(path))


def _lmdb(path, _, progress):
    from refattn.data.sources.databases import read_lmdb

    return read_lmdb(path, progress)


def _prepared(path, _, progress):
    from refattn.data.sources.databases import read_prepared

    return read_prepared(path, progress)


def _by_ase(path, *_):
    """What only ASE reads, with D and T as hydrogen; its warnings are of what it does not need for that."""
    frames = ase.io.iread(path, index=":", do_not_split_by_at_sign=True)
    while True:
        with _isotopes(), warnings.catch_warnings(action="ignore"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


@contextlib.contextmanager
def _isotopes():
    for isotope, element in ISOTOPES.items():
        ase.data.atomic_numbers[isotope] = ase.data.atomic_numbers[element]
    try:
        yield
    finally:
        for isotope in ISOTOPES:
            del ase.data.atomic_numbers[isotope]


def _poscar(path, *_):
    from refattn.data.sources.vasp import read_poscar

    with _isotopes():
        yield read_poscar(_text(path))


def _gen(path, *_):
    """ASE reads the first structure of DFTB+'s format only."""
    lines = [line for line in _text(path).splitlines(keepends=True) if line.strip() and line.lstrip()[0] != "#"]
    parts = []
    while lines:  # all of them first: what follows one that counts too few is part of it
        match = re.fullmatch(r"\s*(\d{1,9})\s+([csfh])\b.*\s*", lines[0], re.IGNORECASE)
        end = 2 + int(match[1]) + (0 if match[2] in "cC" else 4) if match else 0
        if not 2 < end <= len(lines):
            raise DataError(f"the line {lines[0].strip()[:40]!r} does not count the atoms that follow; repair it")
        parts.append("".join(lines[:end]))
        lines = lines[end:]
    for part in parts:
        with _isotopes():
            yield ase.io.read(io.StringIO(part), format="gen")


def _res(path, *_):
    """ASE reads the atoms that SHELX's format lists, not those that symmetry makes of them."""
    text = with_shelx_elements(_text(path))
    if SHELX.search(text):
        raise DataError(f"its line {SHELX.search(text)[0][:40]!r} changes the atoms listed; convert it to CIF")
    if not re.search(r"(?mi)^LATT\b", text):
        raise DataError("has no line LATT -1, without which atoms are inverted; write it, or convert it to CIF")
    partial = re.search(r"(?m)^[A-Z][a-z]?\s+\d+(?:\s+-?[\d.]+){3}\s+(?!1?1(?:\.0*)?(?:\s|$))[\d.]+", text)
    if partial:
        raise DataError(f"the site {partial[0][:40]!r} is not full; give an ordered structure")
    with _isotopes():
        found = Res.from_string(text)
    if found.energy is not None:
        found.atoms.calc = SinglePointCalculator(found.atoms, energy=found.energy)
    yield found.atoms


def _xsf(path, *_):
    check_xsf(_text(path))
    return _by_ase(path)


READERS = {
    **dict.fromkeys(("xyz", "extxyz"), read_xyz_file),
    **dict.fromkeys(("cif", "mcif", "mmcif"), _cif),
    **dict.fromkeys(("pdb", "ent", "proteindatabank"), _pdb),
    **dict.fromkeys(("sdf", "sd", "mol"), _sdf),
    "db": _database,
    "json": _json,
    "aselmdb": _lmdb,
    **dict.fromkeys(("h5", "hdf5"), _prepared),
    **dict.fromkeys(("smi", "smiles"), _smiles),
    "gen": _gen,
    "res": _res,
    "vasp": _poscar,
    "poscar": _poscar,
}
