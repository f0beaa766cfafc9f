"""Structures of VASP's POSCAR, held to what its lines say twice.

ASE makes the atoms: it reads as many rows as are counted, and leaves those behind them and what else they say alone.
"""

import io
import itertools
import re

import ase
import ase.io
from ase.data import atomic_numbers

from refattn.data.sources.extxyz import ISOTOPES
from refattn.errors import DataError

ROW = re.compile(r"\s*(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?(?:\s+|$)){3}")  # three numbers
COUNTS = re.compile(r"\s*\d{1,9}(?:\s+\d{1,9})*\s*")
FLAGS = {"T", "F", ".TRUE.", ".FALSE."}  # of selective dynamics
BEHIND = re.compile(
    r"(?i)[\s\d.ed+-]*|\s*(?:[ckd]|lattice velocities).*"
)  # the positions: blocks of numbers, their titles
TITLE = re.compile(r"(?i)\s*[ckd]")  # of velocities; of a second structure too, with Direct or Cartesian below it
CONFIGURATION = re.compile(r"(?i)\s*(?:direct|cartesian)\s+configuration\s*=")  # above every frame of an XDATCAR


def read_poscar(text: str) -> ase.Atoms:
    """The structure of a POSCAR or CONTCAR. Raises DataError where it contradicts itself, or leaves something open."""
    title, *lines = text.splitlines() or [""]
    lines = [re.split("[!#]", line)[0] for line in lines]
    head = [re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", line) for line in lines[:4]]
    is_named = len(lines) > 4 and not COUNTS.fullmatch(lines[4])
    names = (lines[4] if is_named else re.sub(r"(?<=[A-Za-z])\d+(?=\s|$)", "", title.lstrip("# "))).split()
    names = [re.split("[/_]", word)[0] for word in names]  # Na_pv
    if not names or not all(ISOTOPES.get(name, name) in atomic_numbers for name in names):
        raise DataError("names no elements; write them in a line above that of the counts")
    if not any(float(word) for word in head[0].split() if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", word)):
        raise DataError("has no scale, a number that is not 0, in its second line; write it")
    lines = lines[5 if is_named else 4 :]
    if not lines or not COUNTS.fullmatch(lines[0]):
        raise DataError("has no line with the number of atoms of each element; write it below that of the elements")
    counts = [int(word) for word in lines[0].split()]
    if len(names) != len(counts):
        raise DataError(f"names {len(names)} elements and counts {len(counts)}; correct one of them")
    lines = lines[2 if len(lines) > 1 and re.match(r"(?i)\s*s", lines[1]) else 1 :]
    if not lines or not lines[0].strip() or ROW.match(lines[0]):
        raise DataError("has no line Direct or Cartesian above its coordinates; write it")
    rows = list(itertools.takewhile(ROW.match, lines[1:]))
    if len(rows) != sum(counts):
        raise DataError(f"counts {' + '.join(map(str, counts))} atoms and lists {len(rows)}; repair it")
    _check_names(rows, [name for name, count in zip(names, counts, strict=True) for _ in range(count)])
    _check_behind(lines[1 + len(rows) :])
    positions = [" ".join(re.sub("[dD]", "e", word) for word in row.split()[:3]) for row in rows]
    kept = [title, *head, " ".join(names), " ".join(map(str, counts)), lines[0], *positions, ""]
    return ase.io.read(io.StringIO("\n".join(kept)), format="vasp")


def _check_behind(lines):
    """Raise DataError where there is more behind the positions than velocities, with one title at most."""
    if any(CONFIGURATION.match(line) for line in lines):
        raise DataError("holds the frames of an XDATCAR; rename the file to XDATCAR, and all of them are read")
    titles = [line for line in lines if TITLE.match(line)]
    behind = next((line for line in lines if not BEHIND.fullmatch(line)), (titles[1:] or [""])[0])
    if behind:
        raise DataError(f"goes on behind its atoms with {behind.strip()[:40]!r}; give one structure in a file")


def _check_names(rows, names):
    """Raise DataError where an element behind coordinates is not the one that is counted."""
    for number, (row, name) in enumerate(zip(rows, names, strict=True), 1):
        words = row.split()[3:]
        words = words[3:] if FLAGS.issuperset(map(str.upper, words[:3])) else words
        match = re.fullmatch(r"([A-Z][a-z]?)(?:\d*[+-]?|_\w*)", words[0]) if words else None
        if match and ISOTOPES.get(match[1], match[1]) in atomic_numbers and match[1] != name:
            raise DataError(
                f"row {number} of its atoms is {name} by the counts, and says {match[1]}; correct one of them"
            )
