"""Structures from the Protein Data Bank's old format by gemmi, by way of mmCIF (cif.py), with the same checks."""

import re
from collections.abc import Iterator

import ase
import gemmi

from refattn.data.sources.cif import element_of, read_items, tagged
from refattn.errors import DataError, in_one_line

ATOM = re.compile(r"(?m)^(?:ATOM  |HETATM).*$")
TRITIUM = re.compile(r"(?m)^((?:ATOM  |HETATM).{70}) T")  # gemmi knows no T; D counts as hydrogen too
ORGANIC = "HDCNOSP"  # what a name with more letters behind the first, such as CA or OXT, is
HALOGENS = ("CL", "BR")  # no other atom is called so
END = re.compile(r"(?m)^END(?:MDL)? *$")


def read_pdb(text: str) -> Iterator[ase.Atoms | DataError]:
    """The structure of every part that ENDMDL or END closes, or why it cannot be had."""
    text = re.sub(r"(?m)^MODEL.*\n", "", text)
    first = ATOM.search(text)
    head = text[: first.start()] if first else ""
    for part in END.split(text):
        if not ATOM.search(part):
            continue
        if "CRYST1" not in part:  # a trajectory may give the cell once
            part = head + part
        try:
            items = _items(TRITIUM.sub(r"\1 D", part))
        except (DataError, ValueError, RuntimeError) as error:
            yield DataError(f"it is no valid PDB ({in_one_line(error)}); repair it")
            continue
        yield from read_items(items)


def _check_element(row):
    """Raise DataError where columns 77 and 78 are empty and the name may be that of several elements, or of none.

    A name has its element in columns 13 and 14, of one letter in 14; four letters that begin with H are hydrogen. Many
    programs write to the left instead, so that CA may be calcium or a carbon.
    """
    if row[76:78].strip():
        return
    name = row[12:16]
    letters = re.match("[A-Z]*", name.strip().upper().lstrip("0123456789"))[0]
    is_ion = name.strip() == row[17:20].strip()  # CA of the residue CA
    if name[0] in " 0123456789":
        is_known = letters[:1] in ORGANIC or (len(letters) == 1 and element_of(letters))
    else:
        readings = [element for element in (letters[:1], letters[:2]) if element_of(element)]
        is_known = (
            len(letters) == 1
            or len(readings) == 1
            or is_ion
            or letters in HALOGENS
            or (len(name.strip()) == 4 and letters[:1] == "H")
        )
    if not is_known:
        raise DataError(f"the atom {name.strip()} has no element in columns 77 and 78, and its name leaves it open")


def _items(text):
    """The items of mmCIF that a part stands for. Raises DataError where an atom would be lost or moved."""
    rows = ATOM.findall(text)
    for row in rows:
        numbers = [row[i : i + 8].strip() for i in (30, 38, 46)]
        if not all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", number) for number in numbers):
            raise DataError(f"the coordinates in {row[:54].strip()!r} are no numbers in columns 31 to 54")
        _check_element(row)
    structure = gemmi.read_pdb_string(text)
    items = tagged(structure.make_mmcif_document()[0])
    found = len(items.get("_atom_site_cartn_x", []))
    if found != len(rows):
        raise DataError(f"{found} of {len(rows)} atoms can be read")
    if set(items["_atom_site_occupancy"]) == {"0"}:  # some programs leave it at that
        del items["_atom_site_occupancy"]
    return items
