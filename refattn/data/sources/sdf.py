"""Molecules from MDL's files: .mol holds one, .sdf any number of them, each with tags behind it.

A block begins with a title, a line of the program, a comment and the counts; V2000 has a line an atom in fixed columns,
V3000 has words. Tags that are numbers are labels. Bonds only say whether hydrogen atoms are missing, which these
formats need not list.

Source   CTfile Formats, BIOVIA 2020
"""

import itertools
import re
from collections.abc import Iterable, Iterator

import ase
import numpy as np
from ase.data import atomic_numbers

from refattn.common.text import counted
from refattn.data.sources.extxyz import ISOTOPES, Frame, labels_and_texts
from refattn.errors import DataError, in_one_line

END = "$$$$"
MAX_LINES = 1_000_000  # of a block
TAG = re.compile(r">.*<([^<>]+)>")
ATOM = re.compile(r"\s*-?\d+\.\d+\s*-?\d+\.\d+\s*-?\d+\.\d+\s+[A-Z*]")  # a line of V2000
VALENCES = {"H": 1, "C": 4, "N": 3, "O": 2}  # of neutral atoms, as the formats take them
ORDERS = {1: 1, 2: 2, 3: 3, 4: 1.5, 9: 0, 10: 0}  # of the types of bonds; 4 is aromatic, 9 coordination, 10 hydrogen
CHARGES = {"": 0, "0": 0, "1": 3, "2": 2, "3": 1, "5": -1, "6": -2, "7": -3}  # of V2000, by their codes; 4 is a radical
# With others a valence may be any, in complexes for example.
ORGANIC = {"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I"}


def read_sdf(lines: Iterable[str]) -> Iterator[Frame | DataError]:
    """The Frame of every block, or why it cannot be had."""
    for number, block in enumerate(cut_blocks(lines, MAX_LINES)):
        try:
            yield _frame(block)
        except (DataError, ValueError, KeyError, IndexError) as error:
            yield DataError(f"block {number} is no molecule ({in_one_line(error)}); repair it")


def cut_blocks(lines: Iterable[str], max_lines: int) -> Iterator[list[str]]:
    """The lines of every block up to its END, empty blocks too; what is blank behind the last END is none."""
    block = []
    for line in lines:
        is_end = line.rstrip() == END
        if not is_end:
            block.append(line)
        if is_end or len(block) == max_lines:
            yield block
            block = []
    if any(map(str.strip, block)):
        yield block


def parse_molfile(lines: list[str]) -> ase.Atoms:
    """Atoms of a block, V2000 or V3000. Raises ValueError, KeyError or DataError for what is none."""
    counts = lines[3] if len(lines) > 3 else ""
    if "V3000" in counts:
        symbols, positions = _v3000(lines)
    elif "V2000" in counts or re.match(r"[ \d]{6}", counts):
        n_sites = int(counts[:3])
        rows = lines[4 : 4 + n_sites]
        if n_sites < 1 or len(rows) < n_sites or not any(line.startswith("M  END") for line in lines):
            raise ValueError("fewer lines than it counts atoms, or no end")
        if any(map(ATOM.match, itertools.takewhile(lambda line: line[:6] != "M  END", lines[4 + n_sites :]))):
            raise ValueError(f"it lists more atoms than the {n_sites} that it counts")
        symbols = [row[31:34].strip() for row in rows]
        positions = [[float(row[i : i + 10]) for i in (0, 10, 20)] for row in rows]
    else:
        raise ValueError("no counts of a V2000 or V3000 block in its fourth line")
    numbers = [atomic_numbers[ISOTOPES.get(symbol, symbol)] for symbol in symbols]
    positions = np.array(positions)
    if not np.isfinite(positions).all() or not all(numbers):
        raise ValueError("an atom that is none")
    if lines[1][20:22] == "2D" and len(numbers) > 1 and not positions[:, 2].any():
        raise DataError("it is a drawing in two dimensions; give coordinates in space")
    return ase.Atoms(numbers, positions)


def _frame(block):
    """The Frame of a block with its tags."""
    if not any(map(str.strip, block)):
        raise DataError("it is empty")
    if sum(line.startswith("M  END") for line in block) > 1:
        raise DataError(f"several molecules without a line {END} between them")
    atoms = parse_molfile(block)
    _check_hydrogens(block, atoms.get_chemical_symbols())
    values = {}
    lines = iter(itertools.dropwhile(lambda line: not line.startswith("M  END"), block))
    for line in lines:
        match = TAG.match(line)
        if match:
            name = match[1].strip()
            value = " ".join(" ".join(itertools.takewhile(str.strip, lines)).split())
            if values.setdefault(name, value) != value:
                raise DataError(f"its tag {name} is {values[name][:40]} and {value[:40]}; keep one of them")
    title = block[0].strip()
    id = values.pop("id", "")
    labels, texts = labels_and_texts(values)
    return Frame(id, labels, atoms, {}, texts, (title,) if title else ())


def _v3000(lines):
    """Symbols and positions of a V3000 block, whose lines may go on after a dash."""
    rows = _v3000_rows(lines)
    count = next((int(row.split()[1]) for row in rows if row.startswith("COUNTS")), 0)
    start = rows.index("BEGIN ATOM") + 1
    words = [row.split() for row in rows[start : rows.index("END ATOM")]]
    if not count or len(words) != count:
        raise ValueError(f"{len(words)} atoms where it counts {count}")
    return [row[1] for row in words], [[float(x) for x in row[2:5]] for row in words]


def _v3000_rows(lines):
    text = re.sub(r"-\s*\nM  V30 ", "", "".join(line.rstrip("\n") + "\n" for line in lines))
    return re.findall(r"^M  V30\s+(.*)$", text, re.MULTILINE)


def _check_hydrogens(lines, symbols):
    """Raise DataError where bonds leave valences of H, C, N or O open: there the formats mean hydrogen atoms.

    An uncharged N or O with one bond too many is a cation whose charge is not written, and allows for an anion. Nothing
    is said of radicals, bonds of unknown order, other elements and atoms listed without bonds.
    """
    found = (_bonds_v3000 if "V3000" in lines[3] else _bonds_v2000)(lines, len(symbols))
    if found is None or not ORGANIC.issuperset(symbols):
        return
    bonds, charges, valences = found
    if (not bonds and len(symbols) > 1) or any(kind not in ORDERS for *_, kind in bonds):
        return
    sums = np.zeros(len(symbols))
    is_aromatic = np.zeros(len(symbols), dtype=bool)
    for a, b, kind in bonds:
        sums[[a - 1, b - 1]] += ORDERS[kind]
        is_aromatic[[a - 1, b - 1]] |= kind == 4
    n_open = {}
    n_cations = 0
    for k, symbol in enumerate(symbols):
        if symbol in VALENCES:
            charge = charges.get(k + 1, 0)
            usual = VALENCES[symbol] + (charge if symbol in "NO" else -abs(charge))
            left = valences.get(k + 1, usual) - sums[k]
            n_cations += symbol in "NO" and not charge and not is_aromatic[k] and left == -1
            if left >= 1:
                n_open[k] = int(left)
    if sum(n_open.values()) > n_cations:
        first = min(n_open)
        missing = counted(sum(n_open.values()), "hydrogen atom")
        raise DataError(
            f"its bonds leave room for {missing} without coordinates, {n_open[first]} of them at {symbols[first]}"
            f"{first + 1}; add them"
        )


def _bonds_v2000(lines, n_sites):
    """Bonds (a, b, type), and charges and valences by the number of the atom; None where radicals or queries are."""
    n_bonds = int(lines[3][3:6].strip() or 0)
    rows = [[row[i : i + 3].strip() for i in (0, 3, 6)] for row in lines[4 + n_sites : 4 + n_sites + n_bonds]]
    bonds = [tuple(map(int, row)) for row in rows if all(map(str.isdecimal, row))]
    if len(bonds) != n_bonds or not all(0 < k <= n_sites for *pair, _ in bonds for k in pair):
        raise ValueError(f"its bonds are not the {n_bonds} that it counts, between its atoms")
    charges = {}
    valences = {}
    for k, row in enumerate(lines[4 : 4 + n_sites], 1):
        charges[k] = CHARGES.get(row[36:39].strip())
        valence = row[48:51].strip()
        if valence.isdecimal() and int(valence):
            valences[k] = int(valence) % 15  # 15 is none
    properties = itertools.takewhile(lambda line: line[:6] != "M  END", lines[4 + n_sites + n_bonds :])
    properties = [line for line in properties if line.strip() and line[:6] != "M  ISO"]
    if any(line[:6] != "M  CHG" for line in properties):
        return None
    if properties:  # in the place of all charges above
        words = [int(word) for line in properties for word in line[9:].split()]
        charges = dict(zip(words[::2], words[1::2], strict=True))
    return None if None in charges.values() else (bonds, charges, valences)


def _bonds_v3000(lines, n_sites):
    """What _bonds_v2000 returns."""
    rows = _v3000_rows(lines)
    atoms = rows[rows.index("BEGIN ATOM") + 1 : rows.index("END ATOM")]
    numbers = {row.split()[0]: k for k, row in enumerate(atoms, 1)}
    bonds = rows[rows.index("BEGIN BOND") + 1 : rows.index("END BOND")] if "BEGIN BOND" in rows else []
    words = [row.split() for row in bonds]
    bonds = [(numbers[row[2]], numbers[row[3]], int(row[1])) for row in words]
    values = [dict(re.findall(r"\b(CHG|RAD|VAL)=(-?\d+)", row)) for row in atoms]
    if any(value.get("RAD", "0") != "0" for value in values):
        return None
    charges = {k: int(value["CHG"]) for k, value in enumerate(values, 1) if "CHG" in value}
    valences = {k: max(int(value["VAL"]), 0) for k, value in enumerate(values, 1) if value.get("VAL", "0") != "0"}
    return bonds, charges, valences
