"""Sources that ASE reads: the files are written here by hand or by ASE, in their original formats."""

import gzip
import sqlite3

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from refattn.data.sources.extxyz import check_widths
from refattn.data.sources.files import FilesSource, Seen, open_files
from refattn.data.sources.labels import LABELS, LabelTable
from refattn.errors import DataError

WATER = """3
Properties=species:S:1:pos:R:3:forces:R:3:population:R:1:tag:I:1 id=w1 \
energy=-14.5 gap=7 n=3 ok=T metal=False note="a b" v="1 2 3" x/y=2 u=nan
O 0 0 0.1 0 0 1 0.5 1
H 0 0.75 -0.5 0 1 0 0.25 2
H 0 -0.75 -0.5 1 0 0 0.25 3
"""
SALT = """2
Lattice="0 2.8 2.8 2.8 0 2.8 2.8 2.8 0" Properties=species:S:1:pos:R:3 dipole=1.25 free_energy=-3
Na 0 0 0
Cl 2.8 2.8 2.8
"""


def put(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_extended_xyz(tmp_path, packed):
    path = tmp_path / ("set.extxyz.gz" if packed else "set.extxyz")
    path.write_bytes(gzip.compress((WATER + SALT).encode()) if packed else (WATER + SALT).encode())
    source = FilesSource(path)
    water, salt = list(source)
    assert source.fraction == 1
    assert source.name == path.name
    assert water.id == "w1"
    assert water.atoms.symbols.get_chemical_formula() == "H2O"
    assert not water.atoms.pbc.any()
    assert {k: v for k, v in water.labels.items() if v == v} == {
        "energy": -14.5, "gap": 7.0, "n": 3.0, "metal": 0.0, "x_y": 2.0
    }  # fmt: skip
    assert np.isnan(water.labels["u"])
    assert water.arrays.keys() == {"forces", "population"}
    assert water.arrays["forces"].tolist()[0] == [0, 0, 1]
    assert water.arrays["population"].tolist() == [0.5, 0.25, 0.25]
    assert salt.id == "set-1"
    assert salt.atoms.pbc.all()
    assert salt.labels == {"dipole": 1.25, "free_energy": -3.0}
    np.testing.assert_allclose(salt.atoms.cell.array, 2.8 * (1 - np.eye(3)))
    assert salt.arrays == {}


def test_byte_order_mark(tmp_path):
    (tmp_path / "set.extxyz").write_bytes(b"\xef\xbb\xbf" + WATER.encode())
    assert [record.id for record in FilesSource(tmp_path / "set.extxyz")] == ["w1"]


@pytest.mark.parametrize(("kind", "flags"), [("I", ("1", "0")), ("L", ("T", "F")), ("R", ("1.0", "0.0"))])
def test_ring_flags_of_any_type_are_kept(tmp_path, kind, flags):
    yes, no = flags
    rows = f"Properties=species:S:1:pos:R:3:ring:{kind}:2\nC 0 0 0 {yes} {no}\nC 0 0 2 {no} {no}\n"
    (record,) = FilesSource(put(tmp_path / "set.extxyz", f"2\n{rows}"))
    assert record.arrays["ring"].dtype == float
    assert record.arrays["ring"].tolist() == [[1, 0], [0, 0]]


def test_files_that_share_a_stem_are_called_by_their_paths(tmp_path):
    paths = [tmp_path / name for name in ("a/set.xyz", "b/set.xyz", "b/other.xyz")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        put(path, SALT)
    ids = [record.id for source in open_files(paths) for record in source]
    assert ids == [str(paths[0]), str(paths[1]), "other"]


def test_agrees_with_ase_on_what_ase_wrote(tmp_path):
    images = [molecule(name) for name in ("CH4", "C6H6", "H2O")] + [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)]
    ase.io.write(tmp_path / "set.xyz", images, format="extxyz")
    for record, atoms in zip(FilesSource(tmp_path / "set.xyz"), ase.io.read(tmp_path / "set.xyz", ":"), strict=True):
        assert record.atoms == atoms


def test_plain_xyz_may_have_any_comment_and_blank_lines(tmp_path):
    path = put(tmp_path / "ar.xyz", "1\nE = -1 kcal, from a = {paper\nAr 0 0 0 99\n\n1\n\nAr 1 2 3\n\n\n")
    assert [record.id for record in FilesSource(path)] == ["ar-0", "ar-1"]
    assert [r.id for r in FilesSource(put(tmp_path / "one.xyz", "1\n\nAr 1 2 3"))] == ["one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WATER + SALT[:-20], "frame 1.*of 2 atoms"),
        (WATER + SALT[: SALT.index("Na")], "frame 1.*ends after 0 of 2"),
        (WATER + "2\n", "frame 1"),
        (WATER.replace("3\nP", "2\nP") + SALT, "frame 1.*begins with 'H 0 -0.75"),
        (WATER.replace("3\nP", "4\nP") + SALT, "frame 0"),
        (WATER.replace("3\nP", "x\nP"), "frame 0"),
        (WATER.replace("3\nP", "-3\nP"), "frame 0"),
        (WATER.replace("3\nP", "99999999999999\nP"), "frame 0"),
        (WATER.replace("O 0 0 0.1", "Qq 0 0 0.1"), "unknown element.*Qq"),
        (WATER.replace("O 0 0 0.1", "O 0 0 zero"), "frame 0"),
        (WATER.replace("O 0 0 0.1", "O 0 0.1"), "frame 0.*26 values.* not 27"),
        (WATER.replace("O 0 0 0.1", "O 0 0 0 0.1"), "frame 0.*28 values"),
        (WATER.replace("pos:R:3", "pos:R:q"), "frame 0"),
        (WATER.replace("pos:R:3", "pos:R"), "frame 0"),
        (WATER.replace("species:S:1:", ""), "frame 0"),
        (SALT.replace("0 2.8 2.8 2.8", "2.8"), "frame 0"),
        (WATER.replace("energy=-14.5", "energy=inf"), "energy is too large"),
        (WATER.replace("n=3", "n=1e999"), "n is too large"),
        (WATER.replace("n=3", 'n="_JSON ' + "9" * 400 + '"'), "n is too large"),
        (WATER + WATER, "w1 is also that of"),
        ("", "no structure"),
        ("\n\n", "no structure"),
        ("\0\1\2", "frame 0"),
    ],
)
def test_damaged_frames(tmp_path, text, message):
    path = put(tmp_path / "set.extxyz", text)
    with pytest.raises(DataError, match=f"(?s){path}.*{message}") as caught:
        list(FilesSource(path))
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ | (caught.value.__context__ is None)


def test_damaged_compression_and_encoding(tmp_path):
    path, packed = tmp_path / "set.extxyz.gz", gzip.compress((WATER + SALT).encode())
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0x55
    checksum = bytearray(packed)
    checksum[-6] ^= 1
    cut = (packed[:-1], packed[:-12], packed[:5], b"", b"\0")
    for damaged in (*cut, b"not gzip", packed + b"x", bytes(flipped), bytes(checksum), gzip.compress(b"\xff\xfe\n")):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=str(path)):
            list(FilesSource(path))
    with pytest.raises(DataError, match="there is no such"):
        FilesSource(tmp_path / "absent.xyz")


def test_widths_are_checked_before_ase_reads():
    rows = ["H 0 0 0 1\n", "H 0 0\n"]
    check_widths("Properties=species:S:1:pos:R:3", rows, "here")  # as many in all: ASE finds the short line
    with pytest.raises(DataError, match="here: has 8 values for its 2 atoms, not 10"):
        check_widths("Properties=species:S:1:pos:R:3:f:R:1", rows, "here")


@pytest.fixture
def folder(tmp_path):
    """Three structures in three formats, and files that are none."""
    folder = tmp_path / "set"
    folder.mkdir()
    ase.io.write(folder / "copper.cif", bulk("Cu"))
    ase.io.write(folder / "salt.vasp", bulk("NaCl", "rocksalt", a=5.6))
    ase.io.write(folder / "water.xyz", molecule("H2O"), format="extxyz")
    put(folder / "README.md", "not a structure")
    return folder


def test_folder_with_csv(folder, tmp_path):
    table = put(
        tmp_path / "labels.csv", "\ufeffname, e_form,band_gap\nsalt.vasp,-2.1,8.5\ncopper, 0,\nwater,nan,1e0\n\n"
    )
    source = FilesSource(folder, table)
    records = list(source)
    assert [record.id for record in records] == ["copper", "salt", "water"]
    assert source.fraction == 1
    assert records[0].atoms.pbc.all()
    assert len(records[1].atoms) == 2
    assert records[1].labels == {"e_form": -2.1, "band_gap": 8.5}
    assert records[0].labels["e_form"] == 0
    assert np.isnan(records[0].labels["band_gap"])
    assert np.isnan(records[2].labels["e_form"])
    assert records[2].labels["band_gap"] == 1


def test_csv_for_frames_of_one_file(tmp_path):
    frames = put(tmp_path / "set.extxyz", WATER + SALT)
    table = put(tmp_path / "labels.csv", "id,gap\nset-1,2\nw1,3\n")
    water, salt = FilesSource(frames, table)
    assert water.labels["gap"] == 3
    assert water.labels["energy"] == -14.5
    assert salt.labels["gap"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,y\ncopper,1\nsalt,2\n", "water.xyz.*has no row for water"),
        ("id,y\nlead,1\nsilver,2\ntin,3\ngold,4\n", "copper.cif.*has no row for copper"),
        ("id,y\ncopper,1\nsalt,x\nwater,3\n", "csv, line 3: y is 'x'"),
        ("id,y\ncopper,1\nsalt,inf\nwater,3\n", "csv, line 3: y is too large"),
        ("id,y\ncopper,1\nsalt,2\ncopper,3\n", "csv, line 4: the id copper is that of line 2"),
        ("id,y\ncopper,1\nsalt\nwater,3\n", "csv, line 3: has 1 columns instead of 2"),
        ("id,y\ncopper,1\nsalt,2,3\nwater,3\n", "csv, line 3: has 3 columns"),
        ("id,y\ncopper,1\ncopper.cif,2\nsalt,2\nwater,3\n", "csv, lines 2 and 3: copper and copper.cif"),
        ("id\ncopper\n", "csv, line 1"),
        ("id,y,y\ncopper,1,2\n", "csv, line 1"),
        ("", "csv, line 1"),
        ('id,y\n"copper,1\n', "csv"),
        ("id,y\nco\0pper,1\n", "csv"),
    ],
)
def test_damaged_csv(folder, tmp_path, text, message):
    table = put(tmp_path / "labels.csv", text)
    with pytest.raises(DataError, match=message):
        list(FilesSource(folder, table))


def test_unreadable_csv(tmp_path):
    with pytest.raises(DataError):
        LabelTable(tmp_path / "absent.csv")
    (tmp_path / "latin.csv").write_bytes("id,y\nü,1\n".encode("latin-1"))
    with pytest.raises(DataError):
        LabelTable(tmp_path / "latin.csv")


def test_damaged_folders(folder, tmp_path):
    put(folder / "bad.cif", "data_x\n_cell_length_a 3\nloop_\n_atom_site_label\n")
    with pytest.raises(DataError, match="bad.cif"):
        list(FilesSource(folder))
    put(folder / "bad.cif", "")
    with pytest.raises(DataError, match="bad.cif"):
        list(FilesSource(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no structure file"):
        FilesSource(tmp_path / "empty")
    with pytest.raises(DataError, match="notes.txt.*no format"):
        list(FilesSource(put(tmp_path / "notes.txt", "nothing")))


def test_ase_database(tmp_path):
    path = tmp_path / "set.db"
    water = molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=-14.5, forces=np.ones((3, 3)))
    with ase.db.connect(path) as database:
        database.write(
            water, key_value_pairs={"gap": 7.5, "name": "water", "relaxed": True}, data={"mu": 1.8, "v": [1, 2]}
        )
        database.write(bulk("Cu"), data={"id": "copper"})
        unique_id = database.get(1).unique_id
    source = FilesSource(path)
    first, second = list(source)
    assert first.id == unique_id
    assert second.id == "copper"
    assert source.fraction == 1
    assert {**first.labels, "relaxed": 0} == {"gap": 7.5, "mu": 1.8, "energy": -14.5, "relaxed": 0}
    assert first.arrays["forces"].tolist() == np.ones((3, 3)).tolist()
    assert second.atoms == bulk("Cu")


def test_other_databases_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match="not a database of ASE"):
        list(FilesSource(path))
    assert path.read_bytes() == before
    with pytest.raises(DataError):
        list(FilesSource(put(tmp_path / "text.db", "no database" * 100)))


def test_label_table_is_complete():
    """The names that the labels of QM9, orbitals by GFN2-xTB and crystals come under, with their units."""
    units = {"homo": "eV", "alpha": "Bohr^3", "cv": "cal/mol/K", "mu": "Debye", "e_form": "eV/atom", "band_gap": "eV"}
    assert {name: LABELS[name]["unit"] for name in units} == units
    assert all(attrs["kind"] in ("intensive", "extensive") and attrs["description"] for attrs in LABELS.values())


def test_truth_values_of_a_table_are_1_and_0(tmp_path):
    put(tmp_path / "labels.csv", "id,metal\na,True\nb,false\nc,1\n")
    table = LabelTable(tmp_path / "labels.csv")
    assert [table.take([id], "here")["metal"] for id in "abc"] == [1, 0, 1]


def test_every_location_is_found_again_however_many_there_are():
    seen = Seen()
    places = {f"m{n}": (f"{n // 700}.xyz", None if n % 9 == 0 else n % 700) for n in range(3000)}
    for _ in range(2):
        found = [seen.meet(id, place) for id, place in places.items()]
    assert found == [*places.values()] and Seen().meet("m1", ("a", 0)) is None
    assert seen.meet("M1", ("a", 0)) is None
