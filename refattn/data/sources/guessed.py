"""Formats of which ASE would guess the elements, or take a part for the whole."""

import re

from refattn.errors import DataError

# Format of ASE -> what it takes for elements.
NO_ELEMENTS = {
    "gromacs": "names of atoms (CA may be calcium or a carbon)",
    "gromos": "names of atoms (CA may be calcium or a carbon)",
    "dlp4": "names of atoms",
    "dlp-history": "names of atoms",
    "gpumd": "masses",
    "lammps-data": "numbers of types, or masses",
    "lammps-dump-binary": "numbers of types",
    "netcdftrajectory": "numbers of types at most",
    "cp2k-dcd": "positions",
    "lammps-dump-text": "numbers of types",
}
# Instructions of SHELX that numbers follow, as they follow the name of an atom.
NO_ATOMS = {"ZERR", "CELL", "FVAR", "WGHT", "PLAN", "SIZE", "OMIT", "SHEL", "TWIN", "LATT", "UNIT", "MERG", "FMAP"}
NO_ATOMS |= {"SFAC", "TEMP", "GRID", "HKLF", "MPLA", "CONF", "BASF", "EXTI", "SWAT", "CGLS", "MOVE", "STIR", "TITL"}
NO_ATOMS |= {"REM"}


def check_elements(kind: str, beginning: bytes) -> None:
    """Raise DataError where a file of ASE's format `kind`, which begins so, does not name its elements."""
    columns = re.search(rb"ITEM: ATOMS[^\n]*", beginning)
    is_dump = kind == "lammps-dump-text"
    if is_dump and columns and b"element" in columns[0].split():
        return
    if kind in NO_ELEMENTS:
        cure = "add the column element (dump_modify element)" if is_dump else "convert it to extended XYZ"
        raise DataError(f"its format has {NO_ELEMENTS[kind]}, not elements; {cure}")


def check_xsf(text: str) -> None:
    """Raise DataError where an XSF has more rows of atoms than it counts."""
    lines = [line.split() for line in text.splitlines() if line.split("#")[0].strip()]
    for k, words in enumerate(lines[:-1]):
        if words[0] in ("PRIMCOORD", "CONVCOORD"):
            count = int(lines[k + 1][0]) if lines[k + 1][0].isdigit() else 0
            after = lines[k + 2 + count : k + 3 + count]
            if after and len(after[0]) >= 4 and re.fullmatch(r"\d+|[A-Z][a-z]?", after[0][0]):
                raise DataError(f"counts {count} atoms and lists more; correct one of them")


def with_shelx_elements(text: str) -> str:
    """A file of SHELX with the elements of its SFAC in the place of the names of atoms.

    Raises DataError where the name of an atom does not begin as its element.
    """
    elements = [word for line in re.findall(r"(?mi)^SFAC\b(.*)$", text) for word in line.split() if word.isalpha()]

    def named(match):
        name, number = match[1], int(match[2])
        if name.upper() in NO_ATOMS:
            return match[0]
        element = elements[number - 1].capitalize() if 0 < number <= len(elements) else ""
        if not element or not name.upper().startswith(element.upper()):
            raise DataError(
                f"the atom {name} is number {number} of SFAC, {element or 'which has fewer'}; correct one of them"
            )
        return f"{element} {number}{match[3]}"

    return re.sub(r"(?m)^([A-Za-z]\w*)[ \t]+(\d{1,3})((?:[ \t]+[+-]?(?:\d+\.?\d*|\.\d+)){3,})", named, text)
