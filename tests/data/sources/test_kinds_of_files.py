"""Every kind of file and folder that structures come in, and of tables beside them: nothing is lost in silence."""

import gzip
import io
import json
import tarfile
import unicodedata
import zipfile

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from click.testing import CliRunner
from qm9_molecules import METHANE

from refattn.cli.prepare import prepare as command
from refattn.data.prepare import prepare
from refattn.data.sources.files import FilesSource, open_files, read_structures
from refattn.data.sources.labels import LabelError, LabelTable
from refattn.data.sources.registry import open_source
from refattn.data.store import read_dataset
from refattn.errors import DataError

WATER = "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


def xyz(*comments, rows=WATER):
    return "".join(f"3\n{comment}\n{rows}" for comment in comments)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def collected(source):
    """Records and what was left out, of a FilesSource or of a path."""
    source = source if isinstance(source, FilesSource) else open_source(source)
    return list(source), dict(source.skipped)


# ---- comment lines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["007", "60_1812", "1e5", "T", "0x10", "1.0", "-3", "mol 1", "ü"])
def test_ids_stay_as_they_are_written(tmp_path, id):
    (record,) = FilesSource(put(tmp_path / "set.extxyz", xyz(f'id="{id}" gap=7.5')))
    assert (record.id, record.labels) == (id, {"gap": 7.5})


def test_ids_that_are_one_number_are_several(tmp_path):
    records, _ = collected(put(tmp_path / "set.extxyz", xyz("id=007", "id=60_1812", "id=601812", "id=7")))
    assert [record.id for record in records] == ["007", "60_1812", "601812", "7"]


@pytest.mark.parametrize("text", ["7,5", "7.5eV", "1_0", "1.5D+01", "0x1", "7.5.1"])
def test_labels_that_are_meant_to_be_numbers_are_refused(tmp_path, text):
    path = put(tmp_path / "set.extxyz", xyz("id=a gap=1", f"id=b gap={text}"))
    with pytest.raises(LabelError, match=r"set.extxyz, frame 1: gap is '"):
        collected(path)
    assert len(list(read_structures(open_files([path])))) == 2  # a prediction needs no labels


def test_texts_are_counted_where_others_are_numbers(tmp_path):
    path = put(tmp_path / "set.extxyz", xyz("id=a y=1 kind=bulk", "id=b y=none kind=bulk", "id=c y=? kind=slab"))
    source = open_source(path)
    records, _ = collected(source)
    assert [record.labels for record in records] == [{"y": 1.0}, {}, {}]
    assert source.notes() == [
        f"y is no number in 2 structures, the first time 'none' in {path}, frame 1",
        "text, and so no labels: kind of 3 structures (first 'bulk')",
    ]


def test_comment_lines(tmp_path):
    """Six stress components, small letters, quotes, one key twice, a cell under another name."""
    lattice = "10 0 0 0 10 0 0 0 10"
    frames = [
        f'id=a gap=1 stress="1 2 3 4 5 6" Lattice="{lattice}"',
        f'id=b lattice="{lattice}" properties=species:S:1:pos:R:3 gap=1',
        "id=c gap=7.5 gap=8.5",
        "id='d' gap = 2",
        f'id=e box="{lattice}"',
        "id=f gap=7.5 gap=7.5",
        r'id=g occupancy="_JSON {\"0\": {\"Sr\": 0.5, \"La\": 0.5}}"',
        r'id=h occupancy="_JSON {\"0\": {\"O\": 1.0}}"',
        'id=i Properties="species:S:1:pos:R:3" pbc="T T T"',
        "ID=j VEC1 10 0 0 VEC2 0 10 0 VEC3 0 0 10",
        "ID=007",
    ]
    records, skipped = collected(put(tmp_path / "set.extxyz", xyz(*frames)))
    assert [record.id for record in records] == ["a", "b", "d", "f", "h", "i", "007"]
    assert [bool(record.atoms.cell.any()) for record in records] == [True, True] + 5 * [False]
    assert records[2].labels == {"gap": 2.0}
    assert "gap is 7.5 and 8.5" in skipped["set-2"]
    assert "its cell is called box" in skipped["set-4"]
    assert "frame 6 (line 31): the site 0 is shared" in skipped["set-6"]
    assert "its cell is called VEC1" in skipped["set-9"]


def test_damaged_and_repeated_frames_are_left_out(tmp_path):
    bad = "3\nid=bad\nO 0 0 0\nQq 1 0 0\nH 0 1 0\n"
    wide = "3\nid=wide\nO 0 0 0\nH 1 0 0 0.5\nH 0 1 0\n"
    partial = "1\nProperties=species:S:1:pos:R:3:occupancy:R:1 id=p\nNa 0 0 0 0.5\n"
    path = put(tmp_path / "set.extxyz", xyz("id=a") + bad + wide + partial + xyz("id=a", "id=b"))
    records, skipped = collected(path)
    assert [record.id for record in records] == ["a", "b"]
    assert list(skipped) == ["set-1", "set-2", "set-3", "a"]
    assert "Qq" in skipped["set-1"]
    assert "its lines have 4 to 5 words" in skipped["set-2"]
    assert "sites are not full" in skipped["set-3"]
    assert "is also that of" in skipped["a"]
    with pytest.raises(DataError, match="frame 1.*Qq"):
        list(FilesSource(path))
    left_out = {}
    assert len(list(read_structures(open_files([path]), skip=left_out.__setitem__))) == 2
    assert left_out.keys() == skipped.keys()


def test_isotopes_are_hydrogen_in_every_reader(tmp_path):
    text = "3\nProperties=tag:S:1:species:S:1:pos:R:3 id=w\nT O 0 0 0\nD D 0.96 0 0\nx T -0.24 0.93 0\n"
    put(tmp_path / "a.extxyz", text)
    put(tmp_path / "b.xyz", xyz("", rows=WATER.replace("H", "D", 1).replace("H", "T")))
    put(tmp_path / "c.gen", "3 C\nO D T\n1 1 0 0 0\n2 2 0.96 0 0\n3 3 -0.24 0.93 0\n")
    put(tmp_path / "d.sdf", sdf("w").replace(" H ", " D ", 1).replace(" H ", " T "))
    put(tmp_path / "POSCAR", "w\n1\n9 0 0\n0 9 0\n0 0 9\nO D T\n1 1 1\nC\n" + "0 0 0\n0.96 0 0\n-0.24 0.93 0\n")
    records, skipped = collected(tmp_path)
    assert skipped == {}
    assert [record.atoms.get_chemical_formula() for record in records] == 5 * ["H2O"]
    with pytest.raises(KeyError):
        Atoms("D")  # ASE itself is as it was


def test_ids_from_comments(tmp_path):
    path = put(tmp_path / "set.xyz", xyz("mol_1 -76.4", "mol_2", "id=own x"))
    assert [record.id for record in FilesSource(path, id_from="comment")] == ["mol_1", "mol_2", "own"]
    assert [record.id for record in FilesSource(path)] == ["set-0", "set-1", "own"]


# ---- formats -----------------------------------------------------------------------------------------------------


def sdf(title, *tags, rows=WATER, dimension="3D"):
    lines = [title, f"  prog    0101010000{dimension}", "", "  3  2  0  0  0  0  0  0  0  0999 V2000"]
    for row in rows.splitlines():
        symbol, *position = row.split()
        lines.append("".join(f"{float(x):10.4f}" for x in position) + f" {symbol:<3s} 0  0  0  0")
    lines += ["  1  2  1  0", "  1  3  1  0", "M  END"]
    for name, value in tags:
        lines += [f">  <{name}>", value, ""]
    return "\n".join([*lines, "$$$$", ""])


def test_several_molecules_of_an_sdf(tmp_path):
    text = sdf("water", ("gap", "7.5"), ("name", "steam"), ("id", "w1")) + sdf("heavy", ("gap", "8.5"))
    drawing = "\n".join(f"{row.split()[0]} {' '.join(row.split()[1:3])} 0" for row in WATER.splitlines())
    text += sdf("drawn", rows=drawing, dimension="2D") + sdf("cut").replace("M  END", "")
    records, skipped = collected(put(tmp_path / "two.sdf", text))
    assert [(record.id, record.labels) for record in records] == [("w1", {"gap": 7.5}), ("two-1", {"gap": 8.5})]
    assert "drawing in two dimensions" in skipped["two-2"]
    assert "block 3 is no molecule" in skipped["two-3"]


def test_v3000(tmp_path):
    head = "w\n  prog\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\nM  V30 COUNTS 2 1 0 0 0\n"
    atoms = "M  V30 BEGIN ATOM\nM  V30 1 O 0 0 0 0\nM  V30 2 H 0.9-\nM  V30 6 0 0 0\nM  V30 END ATOM\n"
    (record,) = FilesSource(put(tmp_path / "a.mol", head + atoms + "M  V30 END CTAB\nM  END\n"))
    assert record.atoms.get_chemical_formula() == "HO"
    assert record.atoms.positions[1].tolist() == [0.96, 0, 0]
    with pytest.raises(DataError, match="2 atoms where it counts 3"):
        list(FilesSource(put(tmp_path / "a.mol", head.replace("COUNTS 2", "COUNTS 3") + atoms + "M  END\n")))


def test_several_structures_of_a_gen(tmp_path):
    water = "3 C\nO H\n1 1 0 0 0\n2 2 0.96 0 0\n3 2 -0.24 0.93 0\n"
    salt = "2 F\nNa Cl\n1 1 0 0 0\n2 2 0.5 0.5 0.5\n0 0 0\n4 0 0\n0 4 0\n0 0 4\n"
    for damaged in (
        water.replace("3 C", "-3 C"),
        water.replace("3 C", 5000 * "9" + " C"),
        water.replace("3 C", "4 C"),
        water.replace("3", "2", 1),
    ):
        with pytest.raises(DataError, match="does not count the atoms that follow; repair it"):
            list(FilesSource(put(tmp_path / "a.gen", damaged)))
    records = list(FilesSource(put(tmp_path / "a.gen", water + salt + water)))
    assert [record.atoms.get_chemical_formula() for record in records] == ["H2O", "ClNa", "H2O"]


POSCAR = "NaCl\n1.0\n5.64 0 0\n0 5.64 0\n0 0 5.64\nNa Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n"


def test_poscar_counts_its_atoms(tmp_path):
    ((record),) = FilesSource(put(tmp_path / "POSCAR", POSCAR + "\n0 0 0\n0 0 0\n"))  # velocities
    assert len(record.atoms) == 2
    with pytest.raises(DataError, match=r"counts 1 \+ 1 atoms and lists 3"):
        list(FilesSource(put(tmp_path / "POSCAR", POSCAR + ".25 .25 .25\n")))
    with pytest.raises(DataError, match="names no elements"):
        list(FilesSource(put(tmp_path / "POSCAR", POSCAR.replace("NaCl", "salt").replace("Na Cl\n", ""))))
    for title in ("Na Cl", "# Na1 Cl1"):
        (record,) = FilesSource(put(tmp_path / "POSCAR", POSCAR.replace("Na Cl\n", "").replace("NaCl", title)))
        assert record.atoms.get_chemical_formula() == "ClNa"
    with pytest.raises(DataError, match=r"counts 1 \+ 1 atoms and lists 1"):
        list(FilesSource(put(tmp_path / "POSCAR", POSCAR.replace(".5 .5 .5\n", ""))))


LATTICE_VELOCITIES = "\nLattice velocities and vectors\n 1\n" + 6 * "0 0 0\n" + "\n0 0 0\n0 0 0\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".5 .5 .5\n", ".5 .5 .5\n" + LATTICE_VELOCITIES),
        ("1 1\nDirect\n0 0 0\n", "1 1 # two\nDirect ! fractions\n0 0 0 ! Na\n"),
        ("0 0 0\n.5 .5 .5", "0 0 0 Na\n.5 .5 .5 Cl-"),
        ("Direct\n0 0 0\n.5 .5 .5", "Selective\nDirect\n0.0D0 0 0 T T F Na\n.5 .5 .5 F F F"),
        ("Na Cl\n", "Na_pv Cl/abc123\n"),
    ],
)
def test_poscar_says_more_than_positions(tmp_path, old, new):
    (record,) = FilesSource(put(tmp_path / "POSCAR", POSCAR.replace(old, new)))
    assert record.atoms.get_chemical_formula() == "ClNa"
    assert record.atoms.positions[1].tolist() == pytest.approx([2.82, 2.82, 2.82])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Na Cl\n", "Na Cl K\n", "names 3 elements and counts 2"),
        ("Na Cl\n", "Na\n", "names 1 elements and counts 2"),
        ("NaCl\n1.0", "Na Cl K\n1.0", "names 3 elements and counts 2"),
        ("0 0 0\n.5 .5 .5", "0 0 0 Cl\n.5 .5 .5 Na", "row 1 of its atoms is Na by the counts, and says Cl"),
        (".5 .5 .5\n", f".5 .5 .5\n{POSCAR}", "goes on behind its atoms with 'NaCl'"),
        ("Direct\n", "", "no line Direct or Cartesian"),
        ("\n1.0\n", "\n0\n", "has no scale"),
        ("1 1\n", "3 -1\n", "no line with the number of atoms"),
    ],
)
def test_poscar_that_contradicts_itself(tmp_path, old, new, words):
    text = POSCAR.replace(old, new, 1)
    if "Na Cl K" in text.splitlines()[0]:  # as VASP 4 wrote it
        text = text.replace("Na Cl\n", "")
    with pytest.raises(DataError, match=words):
        list(FilesSource(put(tmp_path / "POSCAR", text)))


def test_qm9_is_known_by_its_comment_line(tmp_path):
    (record,) = FilesSource(put(tmp_path / "dsgdb9nsd_000001.xyz", METHANE))
    assert record.id == "gdb_1"
    assert record.labels["gap"] == pytest.approx(13.736308, abs=1e-5)
    (atoms,) = read_structures(open_files([tmp_path / "dsgdb9nsd_000001.xyz"]), "gap")
    assert atoms.info["label"] == record.labels["gap"]


def test_databases(tmp_path):
    """ASE's in JSON, and what SchNetPack writes into its own: arrays of one number, units, Bohr."""
    with ase.db.connect(tmp_path / "a.json") as database:
        database.write(molecule("H2O"), gap=7.5, data={"id": "007"})
        database.write(bulk("Cu"), gap=0.5)
    first, second = FilesSource(tmp_path / "a.json")
    assert (first.id, first.labels["gap"], second.labels["gap"]) == ("007", 7.5, 0.5)
    with ase.db.connect(tmp_path / "b.db") as database:
        database.metadata = {"_distance_unit": "Bohr", "_property_unit_dict": {"homo": "Hartree"}}
        database.write(molecule("H2O"), data={"homo": np.array([-0.25]), "forces": np.zeros((3, 3))})
    (record,) = open_source(tmp_path / "b.db")
    assert record.labels == {"homo": -0.25}
    assert record.atoms.get_distance(0, 1) == pytest.approx(0.529177 * molecule("H2O").get_distance(0, 1), rel=1e-5)
    report = prepare(open_source(tmp_path / "b.db"), tmp_path / "b.h5")
    assert report.labels["homo"] == "Hartree"
    for text in ("[]", "{}", '{"structure": {}}', "nonsense"):
        with pytest.raises(DataError, match="no database of ASE in JSON"):
            list(FilesSource(put(tmp_path / "c.json", text)))


def test_prepared_sets_are_structures_again(tmp_path):
    prepare(open_source(put(tmp_path / "set.extxyz", xyz("id=a gap=1", "id=b"))), tmp_path / "set.h5")
    records = list(FilesSource(tmp_path / "set.h5"))
    assert [(record.id, record.labels) for record in records] == [("a", {"gap": 1.0}), ("b", {})]
    assert records[0].atoms == read_dataset(tmp_path / "set.h5").atoms(0)


# ---- folders and archives ----------------------------------------------------------------------------------------


def test_folders(tmp_path):
    for name in (
        "a.xyz",
        "._a.xyz",
        ".hidden/b.xyz",
        "sub/a.xyz",
        "POSCAR.mp-1",
        "POSCAR.mp-2",
        "ID1/POSCAR",
        "README.md",
    ):
        put(tmp_path / "set" / name, POSCAR if "POSCAR" in name else xyz("") if name.endswith("xyz") else "text")
    put(tmp_path / "set" / "labels.csv", "id,y\n")
    put(tmp_path / "set" / "bad.cif", "data_x\n")
    source = open_source(tmp_path / "set")
    records, skipped = collected(source)
    assert [record.id for record in records] == ["POSCAR.mp-1", "POSCAR.mp-2", "a"]
    assert list(skipped) == ["bad"]
    passed = "ID1/ (see --recursive), README.md, labels.csv, sub/ (see --recursive)"
    assert source.notes() == [f"4 files passed over, by the name no file of structures: {passed}"]
    records, _ = collected(open_source(tmp_path / "set", recursive=True))
    assert [record.id for record in records] == ["ID1", "POSCAR.mp-1", "POSCAR.mp-2", "a", "sub/a"]
    (tmp_path / "nothing" / "deep").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no structure file.*there are deep/ \(see --recursive\)"):
        open_source(tmp_path / "nothing")


def packed(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(
            path, "w:gz" if path.name.endswith("gz") else "w:xz" if path.suffix == ".xz" else "w"
        ) as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
    return path


MEMBERS = {
    "set/a.xyz": xyz("gap=1"),
    "set/b.xyz": xyz("id=one gap=2", "id=two gap=3"),
    "set/._a.xyz": "no structure",
    "__MACOSX/a.xyz": "no structure",
    "../other/a.xyz": xyz("gap=4"),
    "set/bad.cif": "data_x\n",
    "mp-1/POSCAR": POSCAR,
    "README.md": "text",
}


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tar.xz"])
def test_archives(tmp_path, name):
    path = packed(tmp_path / name, MEMBERS)
    source = open_source(path)
    records, skipped = collected(source)
    assert [record.id for record in records] == ["a", "one", "two", "../other/a", "mp-1"]
    assert skipped.keys() == {"bad"}
    assert f"{path}, set/bad.cif: it lists no sites" in skipped["bad"].replace(", frame 0", "")
    collected(source)  # once more, as for a second target
    assert source.passed_over == ["README.md"]
    assert source.fraction == 1
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"nonsense" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=name):
            collected(path)


def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch):
    from refattn.common import archives

    monkeypatch.setattr(archives, "SMALL", 1000)
    for name in ("bomb.zip", "bomb.tar.gz"):
        with pytest.raises(DataError, match="unpack to"):
            collected(packed(tmp_path / name, {"a.xyz": "0" * 3_000_000}))
    for name in ("bomb.xyz.gz", "bomb.cif.gz"):
        with pytest.raises(DataError, match="unpack to"):
            collected(put(tmp_path / name, gzip.compress(b"0" * 3_000_000)))


# ---- tables of labels --------------------------------------------------------------------------------------------


def labelled(tmp_path, table, names=(), ids=("a", "b")):
    path = put(tmp_path / "set.extxyz", xyz(*(f"id={id}" for id in ids)))
    source = open_source(path, labels=put(tmp_path / "labels.csv", table), label_names=names)
    records, skipped = collected(source)
    return {record.id: record.labels for record in records}, skipped, source


@pytest.mark.parametrize(
    "table",
    [
        "id,gap\na,1.5\nb,2.5\n",
        "\ufeffid;gap\r\na;1,5\r\nb;2,5\r\n",
        "id\tgap\na\t1.5\nb\t2.5\n",
        "# made by hand\nid|gap\na|1.5\n# more\nb|2.5\n",
        "id gap\na 1.5\nb   2.5\n",
        "id,formula,gap\na,H2O,1.5\nb,H2O,2.5\n",
        '"id","gap"\n"a","1.5"\n"b","2.5"\n',
        "id, gap\n a , 1.5\n b , 2.5\n\n,\n",
    ],
)
def test_tables(tmp_path, table):
    found, skipped, _ = labelled(tmp_path, table)
    assert (found, skipped) == ({"a": {"gap": 1.5}, "b": {"gap": 2.5}}, {})


def test_columns_are_chosen(tmp_path):
    table = "id,formula,gap (eV),homo [Hartree]\na,H2O,1.5,-0.2\nb,H2O,2.5,-0.3\n"
    found, _, source = labelled(tmp_path, table)
    assert found["a"] == {"gap": 1.5, "homo": -0.2}
    assert source.units == {"gap": "eV", "homo": "Hartree"}
    assert "1 column of" in source.notes()[0]
    assert "formula" in source.notes()[0]
    assert labelled(tmp_path, table, names=("homo",))[0]["a"] == {"homo": -0.2}
    with pytest.raises(DataError, match="has no column mu; there are formula, gap"):
        labelled(tmp_path, table, names=("mu",))
    with pytest.raises(DataError, match="formula is 'H2O', not a number"):
        labelled(tmp_path, table, names=("formula",))


def test_a_table_without_header(tmp_path):
    with pytest.raises(DataError, match="line 1: looks like data"):
        labelled(tmp_path, "a,1.5\nb,2.5\n")
    assert labelled(tmp_path, "a,1.5\nb,2.5\n", names=("gap",))[0] == {"a": {"gap": 1.5}, "b": {"gap": 2.5}}


def test_rows_and_structures_without_the_other(tmp_path):
    found, skipped, source = labelled(tmp_path, "id,gap\na,1\nc,3\nd,4\n")
    assert found == {"a": {"gap": 1.0}}
    assert "has no row for b" in skipped["b"]
    assert source.notes() == [f"2 rows of {tmp_path / 'labels.csv'} without a structure: c, d"]
    with pytest.raises(DataError, match="line 2: neither x nor another row is a structure; give the rows the ids"):
        labelled(tmp_path, "id,gap\nx,1\ny,3\n")
    for beginning in (b"PK\3\4", b"\xd0\xcf\x11\xe0"):
        (tmp_path / "table.xlsx").write_bytes(beginning + b"...")
        with pytest.raises(DataError, match="is a workbook of a spreadsheet, or packed; save the sheet as CSV"):
            LabelTable(tmp_path / "table.xlsx")


def test_ids_of_both_unicode_forms_are_one(tmp_path):
    ids = [unicodedata.normalize(form, "Grün") for form in ("NFC", "NFD")]
    found, _, _ = labelled(tmp_path, f"id,gap\n{ids[1]},1\nb,2\n", ids=(ids[0], "b"))
    assert found[ids[0]] == {"gap": 1.0}


def test_structures_without_ids_in_the_order_of_a_table(tmp_path):
    path = put(tmp_path / "set.xyz", xyz("one", "two"))
    table = put(tmp_path / "labels.csv", "id,gap\nx1,1\nx2,2\n")
    source = open_source(path, labels=table)
    records, _ = collected(source)
    assert [(record.id, record.labels["gap"]) for record in records] == [("x1", 1.0), ("x2", 2.0)]
    assert "in their order" in source.notes()[-1]
    for text, words in (("id,gap\nx1,1\n", "has only 1 rows"), ("id,gap\nx1,1\nx2,2\nx3,3\n", "no structure x3")):
        put(table, text)
        with pytest.raises(DataError, match=words):
            prepare(open_source(path, labels=table), tmp_path / "set.h5")


def test_poscars_by_the_end_of_their_names(tmp_path):
    for name in ("POSCAR.mp-1", "POSCAR.mp-2"):
        put(tmp_path / "set" / name, POSCAR)
    table = put(tmp_path / "labels.csv", "material_id,gap\nmp-1,1\nPOSCAR.mp-2,2\n")
    records, _ = collected(open_source(tmp_path / "set", labels=table))
    assert {record.id: record.labels["gap"] for record in records} == {"POSCAR.mp-1": 1.0, "POSCAR.mp-2": 2.0}


def test_large_tables_are_read_once(tmp_path):
    rows = "".join(f"m{k},{k}\n" for k in range(1000))
    table = LabelTable(put(tmp_path / "labels.csv", "id,y\n" + rows))
    assert table.rows["m999"] == (1001, {"y": 999.0})


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_last_line_counts(tmp_path):
    near = xyz("id=near gap=3", rows="O 0 0 0\nH 0.1 0 0\nH 0 3 0\n")
    put(tmp_path / "set" / "a.extxyz", xyz("id=a gap=1 y=2", "id=b gap=2", "id=a") + near)
    put(tmp_path / "set" / "notes.txt", "text")
    out = tmp_path / "set.h5"
    result = CliRunner().invoke(command, [str(tmp_path / "set"), str(out)])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "2 structures, 2 left out; labels: gap (eV) of 2, y (no unit) of 1"
    assert lines[-2] == "note: 1 file passed over, by the name no file of structures: notes.txt"
    reasons = dict(read_dataset(out).skipped)
    assert "atoms 0 (O) and 1 (H) are 0.100 Å apart" in reasons["near"]
    assert "is also that of" in reasons["a"]
    report = json.loads(
        CliRunner().invoke(command, [str(tmp_path / "set"), str(out), "--json", "--min-distance", "0"]).stdout
    )
    assert (report["n_structures"], report["n_skipped"], report["n_labelled"]) == (3, 1, {"gap": 3, "y": 1})


def test_gzipped_files_of_every_kind(tmp_path):
    for name, text in (("a.cif.gz", "data_x\n"), ("POSCAR.gz", POSCAR), ("b.sdf.gz", sdf("w")), ("c.xyz.gz", xyz(""))):
        put(tmp_path / "set" / name, gzip.compress(text.encode()))
    records, skipped = collected(tmp_path / "set")
    assert ([record.id for record in records], list(skipped)) == (["POSCAR", "b", "c"], ["a"])
