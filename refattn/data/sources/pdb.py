"""Structures from the Protein Data Bank's old format by gemmi, by way of mmCIF (cif.py), with the same checks."""

import re
from collections.abc import Iterator

import ase
import gemmi

from refattn.data.sources.cif import read_items, tagged
from refattn.errors import DataError, in_one_line

ATOM = re.compile(r"(?m)^(?:ATOM  |HETATM).*$")
TRITIUM = re.compile(r"(?m)^((?:ATOM  |HETATM).{70}) T")  # gemmi knows no T; D counts as hydrogen too
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


def _items(text):
    """The items of mmCIF that a part stands for. Raises DataError where an atom would be lost or moved."""
    rows = ATOM.findall(text)
    for row in rows:
        numbers = [row[i : i + 8].strip() for i in (30, 38, 46)]
        if not all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", number) for number in numbers):
            raise DataError(f"the coordinates in {row[:54].strip()!r} are no numbers in columns 31 to 54")
    structure = gemmi.read_pdb_string(text)
    items = tagged(structure.make_mmcif_document()[0])
    found = len(items.get("_atom_site_cartn_x", []))
    if found != len(rows):
        raise DataError(f"{found} of {len(rows)} atoms can be read")
    if set(items["_atom_site_occupancy"]) == {"0"}:  # some programs leave it at that
        del items["_atom_site_occupancy"]
    return items
