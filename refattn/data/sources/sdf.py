"""Molecules from MDL's files: .mol holds one, .sdf any number of them, each with tags behind it.

A block begins with a title, a line of the program, a comment and the counts; V2000 has a line an atom in fixed columns,
V3000 has words. Bonds are left alone. Tags that are numbers are labels.

Source   CTfile Formats, BIOVIA 2020
"""

import itertools
import re
from collections.abc import Iterable, Iterator

import ase
import numpy as np
from ase.data import atomic_numbers

from refattn.data.sources.extxyz import ISOTOPES, Frame, labels_and_texts
from refattn.errors import DataError, in_one_line

END = "$$$$"
MAX_LINES = 1_000_000  # of a block
TAG = re.compile(r">.*<([^<>]+)>")
ATOM = re.compile(r"\s*-?\d+\.\d+\s*-?\d+\.\d+\s*-?\d+\.\d+\s+[A-Z*]")  # a line of V2000


def read_sdf(lines: Iterable[str]) -> Iterator[Frame | DataError]:
    """The Frame of every block, or why it cannot be had."""
    lines = iter(lines)
    for number in itertools.count():
        block = list(itertools.islice(itertools.takewhile(lambda line: line.rstrip() != END, lines), MAX_LINES))
        if not any(map(str.strip, block)):  # after the last one
            return
        try:
            yield _frame(block)
        except (DataError, ValueError, KeyError, IndexError) as error:
            yield DataError(f"block {number} is no molecule ({in_one_line(error)}); repair it")


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
    if sum(line.startswith("M  END") for line in block) > 1:
        raise DataError(f"several molecules without a line {END} between them")
    atoms = parse_molfile(block)
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
    text = re.sub(r"-\s*\nM  V30 ", "", "".join(line.rstrip("\n") + "\n" for line in lines))
    rows = re.findall(r"^M  V30\s+(.*)$", text, re.MULTILINE)
    count = next((int(row.split()[1]) for row in rows if row.startswith("COUNTS")), 0)
    start = rows.index("BEGIN ATOM") + 1
    words = [row.split() for row in rows[start : rows.index("END ATOM")]]
    if not count or len(words) != count:
        raise ValueError(f"{len(words)} atoms where it counts {count}")
    return [row[1] for row in words], [[float(x) for x in row[2:5]] for row in words]
