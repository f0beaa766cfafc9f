"""Our reader of extended XYZ against ASE's, to the last bit: on frames that ASE wrote, by hand, and damaged."""

import gzip
import io
import random
import zlib

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io.extxyz import read_xyz

from refattn.data.sources import files
from refattn.data.sources.extxyz import check_widths, cut_frames, frame_of, parse_frame
from refattn.data.sources.files import FilesSource
from refattn.data.sources.gunzip import Gunzip
from refattn.errors import DataError


def by_ase(text):
    """The Frame that ASE's reader makes of one frame, or its exception."""
    try:
        return frame_of(next(read_xyz(io.StringIO(text), 0)))
    except Exception as error:  # it raises anything; the type is compared
        return error


def same(ours, ase_frame):
    """Two Frames, or Records, bit for bit, with the order of labels and arrays."""
    assert ours.id == ase_frame.id
    assert list(ours.labels) == list(ase_frame.labels)
    for key, value in ase_frame.labels.items():
        assert np.float64(ours.labels[key]).tobytes() == np.float64(value).tobytes(), key
    assert list(ours.arrays) == list(ase_frame.arrays)
    for name, values in ase_frame.arrays.items():
        found = ours.arrays[name]
        assert (found.dtype, found.shape, found.tobytes()) == (values.dtype, values.shape, values.tobytes()), name
    a, b = ours.atoms, ase_frame.atoms
    assert a.arrays.keys() == b.arrays.keys()
    for name in a.arrays:
        assert (a.arrays[name].dtype, a.arrays[name].tobytes()) == (b.arrays[name].dtype, b.arrays[name].tobytes())
    assert a.cell.array.tobytes() == b.cell.array.tobytes()
    assert (a.pbc.tolist(), a.info) == (b.pbc.tolist(), b.info)


def check(text):
    """Compare every frame of a text; the number that our own reader read."""
    n_ours = 0
    for header, comment, rows, _ in cut_frames(io.StringIO(text), "set"):
        expected, ours = by_ase(header + comment + "".join(rows)), parse_frame(comment, rows)
        if ours is None:
            continue
        n_ours += 1
        assert not isinstance(expected, Exception), (comment, rows, expected)
        same(ours, expected)
    return n_ours


INFO = [
    {},
    {"id": "m1", "homo": -0.5, "n": 3, "big": 10**17, "huge": 10**30, "tiny": 1e-300, "u": float("nan")},
    {"id": 7, "ok": True, "no": False, "name": "water", "text": "two words", "none": None},
    {"v": np.array([1.5, 2.5]), "w": np.array([1, 2, 3]), "flags": np.array([True, False]), "m": np.eye(2)},
    {"list": [1, "a"], "dict": {"a": {"b": 1}}, "nested": [[1, 2], [3, 4]], "zero": np.array(2.5)},
    {"virial": np.arange(9.0).reshape(3, 3), "q": 'a "quote"', "s": "it's", "b": "[1 2]", "eq": "a=b", "back": "a\\b"},
    {"x/y": 1.0, "a-b": 2, "with space": 3, "uid": 5, "UID": "6", "energy_total": -1.25e5, "ü": 1.0, "e": "é"},
    {"id": "1e5", "k": "T", "l": "F F", "z": "1 2 3", "dipole": 1.25, "magmom": 2.0},
    {"id": "gdb_1", "comma": "1,2", "one": "1,", "json": "_JSON 5", "j": "_JSONx", "np": np.float32(0.1)},
    {"id": "nan", "inf": float("inf"), "minus": -0.0, "int8": np.int8(3), "under": "1_000"},
]
CALCULATED = [
    {},
    {"energy": -14.5, "forces": None, "dipole": np.array([0.1, 0.2, 0.3])},
    {"stress": np.arange(6.0), "free_energy": -3.0, "magmoms": None, "charges": None, "energies": None},
]


def images():
    """Structures with every combination of INFO, calculated results, columns and periods."""
    rng, found = np.random.default_rng(0), []
    columns = ("population", "tag", "flag", "name", "momenta", "initial_charges", "ring", "a/b")
    for number, info in enumerate(INFO * 6):
        atoms = [molecule("H2O"), bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6), molecule("C6H6")][number % 4]
        atoms.rattle(0.1, seed=number)
        n = len(atoms)
        values = rng.normal(size=n), rng.integers(9, size=n), rng.random(n) < 0.5, np.array(["ab"] * n)
        values += rng.normal(size=(n, 3)), rng.normal(size=n), rng.integers(2, size=(n, 2)), rng.normal(size=(n, 2))
        for column in rng.choice(8, size=number % 4, replace=False):
            atoms.set_array(columns[column], values[column])
        atoms.info, results = dict(info), dict(CALCULATED[number % 3])
        for name, value in results.items():
            results[name] = rng.normal(size=(n, 3) if name == "forces" else n) if value is None else value
        if results and "dipole" not in info:
            atoms.calc = SinglePointCalculator(atoms, **results)
        if number % 11 == 5:
            atoms.set_constraint(FixAtoms([0]))
        if number % 7 == 3:
            atoms.pbc = (True, False, True)
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def written():
    stream = io.StringIO()
    ase.io.write(stream, images(), format="extxyz")
    return stream.getvalue()


BY_HAND = """
id=a x=1
id = a x = 1
id=a x= 1
x=1 id=a x=2
  id=a\tx=1
id="a" x="1" y='2' z={3} w=[4]
id=a x=1, y=,1 z=1,2 w="1, 2" v=","
id=a x="" y=1
id=a x=" " y=1
id=a=b x=1
id==a x=1
=a x=1
id=a x=
id=
id
id=T
id="T F"
id=1_0 x=1_0 y="1_0 2"
id=1,2
id=007 x=007 y=+5 z=-0 w=.5 v=5. u=1e5 t=1E-5 s=1d5 r=0x10
id=1.0
id=00000000000000000012345678901234567890
id=" padded "
id="two words" x="3 " y=" 4"
id="1 word"
id="word 1"
id=a,
id=é x=1
é=1 id=a x=١
id=a x=nan y=NaN z=inf w=-Infinity v=1e400
id=a x=T y=true z=TRUE w=tRUE v="T F" u="T,F"
id=a flag other x=1 flag
free text, as in plain xyz
E = -1 kcal, from a = {paper
i=1, E=-5.25
0
""
id=a "quoted key"=1
id=a x="a\\"b" y=1
id=a x=a"b"c
id=a x="b"c
id=a x="b" "c" d
id=a x="_JSON 5" y=_JSON z="_JSON [1" w=1
id=a x="_JSON {}"
id=a energy=5 homo=1 free_energy=2 gap=3
id=a energy=T
id=a energy="1 2"
id=a energy=low
id=a dipole=2 mu=1
id=a dipole="1 2 3"
id=a dipole=T
id=a dipole=large
id=a dipole="1 2 x"
id=a magmom=1.5 magmom=2.5
id=a stress="1 2 3 4 5 6 7 8 9"
id=a stress="1 2 3 4 5 6"
id=a stress=1
id=a virial="1 2 3 4 5 6 7 8 9"
id=a virial=x
id=a polarization="1 2 3" dielectric_tensor="1 0 0 0 1 0 0 0 1"
id=a forces=5 charges=1 numbers=3 positions=2
id=a uid=5 UID=6 Uid=x
id=a pbc="T F T"
id=a pbc="F F F" Lattice="1 0 0 0 2 0 0 0 3"
id=a pbc=T Lattice="1 0 0 0 2 0 0 0 3"
id=a pbc="1 0 1"
id=a pbc="true false T"
id=a pbc=x
id=a pbc
id=a Lattice="1 0 0 0 2 0 0 0 3"
id=a Lattice="1,0,0,0,2,0,0,0,3."
id=a Lattice="5 -0 0 0 5 0 0 0 5"
id=a Lattice="5 -0 0 0 5 0 0 0 5.0"
id=a Lattice="5 0 0 0 5 0 0 0"
id=a Lattice="5 5 5"
id=a Lattice=5
id=a Lattice="a b c d e f g h i"
id=a Lattice="nan 0 0 0 inf 0 0 0 1_0"
id=a lattice="1 0 0 0 2 0 0 0 3"
id=a Lattice={1 0 0 0 2 0 0 0 3}
id=a Properties=species:S:1:pos:R:3
id=a Properties="species:S:1:pos:R:3"
id=a Properties=species:S:1:pos:R:3:
id=a Properties=species:S:1:pos:R:3:f
id=a Properties=pos:R:3:species:S:1
id=a Properties=species:S:1:pos:R:2
id=a Properties=species:S:1
id=a Properties=species:S:1:pos:I:3
id=a Properties=Species:S:1:pos:R:3
id=a Properties=T
id=a Properties
id=a properties=species:S:1:pos:R:3
""".strip().split("\n")
ATOMS = ["H 0 0 0.1", "O\t1e0  -.5 +2.", "cl 1 2 3 ", "XE 1 2 3", "X 0 0 1"]


@pytest.mark.parametrize("comment", BY_HAND)
def test_comment_lines_by_hand(comment):
    check(f"5\n{comment}\n" + "\n".join(ATOMS) + "\n")


COLUMNS = [
    *("f:R:1", "f:R:3", "f:R:0", "f:R:-1", "f:R:x", "f:Q:1", "f:RI:1", ":R:1", "f::1", "f:R:01", "f:R: 1"),
    *("f:I:1", "f:L:2", "f:S:1", "f:S:3", "ring:I:2", "ring:L:1", "ring:R:1", "ring:S:1", "a/b:R:1", "f:R:1:f:R:1"),
    *("forces:R:3", "forces:I:3", "forces:S:3", "forces:L:1", "charge:R:1", "charges:R:1", "magmoms:R:1"),
    *("charges:R:1:charge:R:1", "energies:R:1:forces:R:3:f:R:1", "stresses:R:9", "energy:R:1", "dipole:R:3"),
    *("born_effective_charges:R:9", "move_mask:L:1", "move_mask:I:3", "initial_charges:R:1", "initial_magmoms:R:1"),
    *("momenta:R:3", "masses:R:1", "tags:I:1", "occupancy:R:1", "pos:R:3", "pos0:R:1", "positions:R:3", "Z:I:1"),
    *("numbers:I:1", "symbols:S:1", "species:S:1", "f1:R:1:f:R:3", "f:R:3:f1:R:1", "f:R:2:f:R:3", "f:R:5000"),
]
WORDS = ["1", "0", "-2.5", "T", "F", "True", "x", "1_0", "nan", "9999999999", "1e5"]


@pytest.mark.parametrize("columns", COLUMNS)
def test_columns(columns):
    draw = random.Random(columns)
    widths = [int(width) if width.strip("-").isdigit() else 1 for width in columns.split(":")[2::3]]
    n = min(sum(widths), 20)
    for words in (["1"], ["1", "0"], ["0.5", "-2.5"], ["T", "F"], ["True", "x"], WORDS, WORDS, WORDS):
        for extra in (0, 0, 1, -1):
            rows = [" ".join([atom, *draw.choices(words, k=max(n + extra, 0))]) for atom in ATOMS]
            check("5\nProperties=species:S:1:pos:R:3:" + columns + " id=a gap=1\n" + "\n".join(rows) + "\n")


def test_frames_that_ase_wrote(written):
    assert check(written) >= 15  # of 60; the others have JSON, escapes or columns of ASE's own


def test_changed_characters(written):
    """Whatever a frame has become: we read what ASE reads, or leave it to ASE."""
    draw, letters, n_ours = random.Random(0), " \t=\"'{}[]\\,:._-TFHx059eé\0", 0
    for _ in range(1500):
        text = list(draw.choice(['1\nid=a gap=1.5 pbc="F F F" n=3\nH 0 0 0\n', TWO]))
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(2, len(text))] = draw.choice(letters)
        try:
            n_ours += check("".join(text))
        except DataError:  # of cut_frames: the number of lines has changed
            continue
    assert n_ours > 150


TWO = """2
Lattice="0 2.8 2.8 2.8 0 2.8 2.8 2.8 0" Properties=species:S:1:pos:R:3:f:R:1:forces:R:3 id=salt energy=-3 x="1 2"
Na 0 0 0 1 2 3 4
Cl 2.8 2.8 2.8 5 6 7 8
"""


def test_source_gives_the_same_records_by_both_ways(written, tmp_path, monkeypatch):
    text = written.replace("id=", "name=").replace("inf", "5") + TWO
    for name, content in (("set.extxyz", text.encode()), ("set.xyz.gz", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(content)
        ours = list(FilesSource(tmp_path / name))
        with monkeypatch.context() as patch:
            patch.setattr(files, "parse_frame", lambda comment, rows: None)
            by_ase = list(FilesSource(tmp_path / name))
        assert len(ours) == len(by_ase) == 61
        for a, b in zip(ours, by_ase, strict=True):
            same(a, b)


def test_widths_are_checked_before_ase_reads():
    rows = ["H 0 0 0 1\n", "H 0 0\n"]
    check_widths("Properties=species:S:1:pos:R:3", rows, "here")  # as many in all: ASE finds the short line
    with pytest.raises(DataError, match="here: has 8 values for its 2 atoms, not 10"):
        check_widths("Properties=species:S:1:pos:R:3:f:R:1", rows, "here")


@pytest.mark.parametrize("size", [0, 1, 100, 300_000, 1_000_000])
def test_gunzip_is_gzip(size):
    text = random.Random(size).randbytes(size // 2) + b"a" * (size - size // 2)
    members = gzip.compress(text) + bytes(700) + gzip.compress(b"") + gzip.compress(text) + bytes(3)
    assert io.BufferedReader(Gunzip(io.BytesIO(members)), 1 << 18).read() == gzip.decompress(members) == text + text
    packed = gzip.compress(text)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # in the checksum
    for damaged in (packed[:-1], packed[:5], b"", b"\0", packed + b"x", text + b"no", bytes(flipped)):
        with pytest.raises((EOFError, zlib.error)):
            io.BufferedReader(Gunzip(io.BytesIO(damaged)), 1 << 18).read()
