"""QM9 in its original formats. The molecules below are gdb_1 (as published) and others in its pattern."""

import bz2
import io
import random
import tarfile

import numpy as np
import pytest
from qm9_molecules import LIST, METHANE, numbered

from refattn.data.sources.labels import LABELS
from refattn.data.sources.qm9 import PROPERTIES, QM9Source, parse_molecule, read_uncharacterised
from refattn.data.sources.qm9_sdf import QM9SdfSource
from refattn.data.sources.registry import open_source
from refattn.errors import DataError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "qm9"
    folder.mkdir()
    for n in (1, 2, 3, 10):
        (folder / f"dsgdb9nsd_{n:06d}.xyz").write_text(numbered(n))
    (folder / "readme.txt").write_text("not a molecule")
    return folder


@pytest.fixture
def archive(folder, tmp_path):
    path = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(path, "w:bz2") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, file.name)
    return path


def test_methane():
    """Values in eV, made of QM9 by others: orbitals, alpha and cv from one copy of the set, the others from another."""
    record = parse_molecule(METHANE, "here")
    assert record.id == "gdb_1"
    assert record.atoms.symbols.get_chemical_formula() == "CH4"
    wanted = {"homo": -10.549854, "lumo": 3.186453, "gap": 13.736308, "alpha": 13.21, "cv": 6.469, "mu": 0.0}
    # they are rounded to 1e-6, and Hartree differs in the ninth digit between CODATA's years
    wanted |= {"u0": -1101.487799, "zpve": 1.217682, "r2": 35.3641, "rotational_a": 157.7118}
    for name, value in wanted.items():
        assert record.labels[name] == pytest.approx(value, rel=1e-8, abs=1e-6), name
    assert set(record.labels) == set(PROPERTIES) <= set(LABELS)
    assert record.labels["g298"] < record.labels["u0"] < record.labels["u298"] < record.labels["h298"]
    assert record.atoms.positions[0].tolist() == [-0.0126981359, 1.0858041578, 0.0080009958]
    np.testing.assert_allclose(record.arrays["mulliken_charge"], [-0.535689, 0.133921, 0.133922, 0.133923, 0.133923])


@pytest.mark.parametrize("kind", ["folder", "archive", "tar", "tar.gz"])
def test_sources(folder, archive, tmp_path, kind):
    (tmp_path / "uncharacterized.txt").write_text(LIST)
    path = {"folder": folder, "archive": archive}.get(kind)
    if path is None:
        path = tmp_path / f"dsgdb9nsd.{kind}"
        with tarfile.open(path, "w:gz" if "gz" in kind else "w") as tar:
            tar.add(folder, "qm9")
    source = QM9Source(path)
    assert sorted(record.id for record in source) == ["gdb_1", "gdb_10", "gdb_3"]
    assert [id for id, _ in source.skipped] == ["gdb_2"]
    assert "uncharacterised" in source.skipped[0][1]
    assert 0 < source.fraction <= 1
    assert source.licence.startswith("CC0")
    assert "140022" in source.citation
    everything = QM9Source(path, keep_uncharacterised=True)
    assert len(list(everything)) == 4
    assert everything.skipped == []


def test_nothing_of_an_archive_reaches_the_disk(tmp_path):
    path = tmp_path / "dsgdb9nsd.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../dsgdb9nsd_000001.xyz", "/absolute/dsgdb9nsd_000003.xyz", "link.xyz"):
            info = tarfile.TarInfo(name)
            info.size = len(METHANE)
            tar.addfile(info, io.BytesIO(numbered(1 if ".." in name else 3).encode()))
        link = tarfile.TarInfo("dsgdb9nsd_000004.xyz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert [r.id for r in QM9Source(path, keep_uncharacterised=True)] == ["gdb_1", "gdb_3"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_list_of_uncharacterised(folder, tmp_path):
    with pytest.raises(DataError, match="--keep-uncharacterized"):
        QM9Source(folder)
    (tmp_path / "mine.txt").write_text(LIST)
    assert read_uncharacterised(tmp_path / "mine.txt") == {"gdb_2", "gdb_4"}
    assert len(list(QM9Source(folder, tmp_path / "mine.txt"))) == 3
    for content in (b"", b"no molecule\n", b"\xff\n"):
        (tmp_path / "mine.txt").write_bytes(content)
        with pytest.raises(DataError, match="mine.txt"):
            QM9Source(folder, tmp_path / "mine.txt")
    with pytest.raises(DataError, match="absent.txt"):
        QM9Source(folder, tmp_path / "absent.txt")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5\ngdb", "6\ngdb", "10 lines"),
        ("5\ngdb", "4\ngdb", "10 lines"),
        ("5\ngdb", "five\ngdb", "10 lines"),
        ("gdb 1", "gdb one", "line 2"),
        ("gdb 1", "gdb", "line 2"),
        ("\t6.469", "", "line 2"),
        ("6.469", "6.469\t1", "line 2"),
        ("6.469", "six", "line 2.*six"),
        ("6.469", "nan", "line 2.*finite"),
        ("-0.535689", "", "line 3"),
        ("-0.535689", "1 2", "line 3"),
        ("-0.535689", "1*^999", "line 3.*finite"),
        ("C\t-0.0", "Qq\t-0.0", "line 3: must be an element"),
        ("C\tC\t\n", "", "9 lines"),
    ],
)
def test_damaged_molecules(old, new, message):
    assert old in METHANE
    with pytest.raises(DataError, match=f"here.*{message}"):
        parse_molecule(METHANE.replace(old, new, 1), "here")


def test_every_cut_of_a_molecule():
    lines = METHANE.splitlines()
    for n_lines in range(len(lines)):
        with pytest.raises(DataError, match="here"):
            parse_molecule("\n".join(lines[:n_lines]), "here")


def test_damaged_archives(archive, folder, tmp_path):
    good = archive.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x55
    for content in (good[:-1], good[:-20], good[: len(good) // 2], good[:3], b"", b"not bzip2", bytes(flipped)):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=str(archive)):
            list(QM9Source(archive, keep_uncharacterised=True))
    archive.write_bytes(bz2.compress(b"not a tar" * 100))
    with pytest.raises(DataError, match=str(archive)):
        list(QM9Source(archive, keep_uncharacterised=True))
    with pytest.raises(DataError, match="there is no such"):
        QM9Source(tmp_path / "absent.tar.bz2")


def test_damaged_folders(folder, tmp_path):
    (folder / "dsgdb9nsd_000004.xyz").write_text(numbered(3))
    with pytest.raises(DataError, match="000004.xyz: gdb_3 is there twice"):
        list(QM9Source(folder, keep_uncharacterised=True))
    (folder / "dsgdb9nsd_000004.xyz").write_bytes(b"\xff")
    with pytest.raises(DataError, match="000004.xyz"):
        list(QM9Source(folder, keep_uncharacterised=True))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no dsgdb9nsd"):
        list(QM9Source(tmp_path / "empty", keep_uncharacterised=True))


# ---- gdb9.sdf -------------------------------------------------------------------------------------------------------

SDF = """gdb_1
  -OEChem-03231823243D

  5  4  0     0  0  0  0  0  0999 V2000
   -0.0127    1.0858    0.0080 C   0  0  0  0  0  0  0  0  0  0  0  0
    0.0022   -0.0060    0.0020 H   0  0  0  0  0  0  0  0  0  0  0  0
    1.0117    1.4638    0.0003 H   0  0  0  0  0  0  0  0  0  0  0  0
   -0.5408    1.4475   -0.8766 H   0  0  0  0  0  0  0  0  0  0  0  0
   -0.5238    1.4379    0.9064 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0  0  0  0
  1  3  1  0  0  0  0
M  END
$$$$
"""
HEADER = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,h298_atom,g298_atom\n"
ROW = (
    "gdb_1,157.7118,157.70997,157.70699,0.,13.21,-0.3877,0.1171,0.5048,35.3641,0.044749,-40.47893,-40.476062,"
    "-40.475117,-40.498597,6.469,-395.9,-398.6,-401.0,-372.4\n"
)


def sdf_of(*numbers):
    return "".join(SDF.replace("gdb_1", f"gdb_{n}") for n in numbers)


def table_of(*numbers):
    return HEADER + "".join(ROW.replace("gdb_1", f"gdb_{n}") for n in numbers)


def pack(path, **members):
    """A tar file, gzipped by its suffix, of name -> text."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def qm9_sdf(tmp_path):
    (tmp_path / "uncharacterized.txt").write_text(LIST)
    members = {"gdb9.sdf": sdf_of(1, 2, 3), "gdb9.sdf.csv": table_of(1, 2, 3)}
    (tmp_path / "folder").mkdir()
    for name, text in members.items():
        (tmp_path / "folder" / name).write_text(text)
    return pack(tmp_path / "gdb9.tar.gz", **members)


def test_methane_has_the_labels_of_the_other_form(qm9_sdf):
    record, other = next(iter(QM9SdfSource(qm9_sdf))), parse_molecule(METHANE, "here")
    assert record.id == record.atoms.info["id"] == other.id
    assert record.labels == pytest.approx(other.labels, rel=1e-12)
    assert list(record.labels) == list(other.labels)
    np.testing.assert_array_equal(record.atoms.numbers, other.atoms.numbers)
    np.testing.assert_allclose(record.atoms.positions, other.atoms.positions, atol=0.5001e-4)
    assert not record.atoms.pbc.any()


def test_forms_of_gdb9(qm9_sdf, tmp_path):
    plain = pack(tmp_path / "gdb9.tar", **{"a/gdb9.sdf.csv": table_of(1, 2, 3), "../b/gdb9.sdf": sdf_of(1, 2, 3)})
    for path in (qm9_sdf, plain, tmp_path / "folder", tmp_path / "folder" / "gdb9.sdf"):
        source = open_source(path, uncharacterised=tmp_path / "uncharacterized.txt")
        assert isinstance(source, QM9SdfSource)
        assert [record.id for record in source] == ["gdb_1", "gdb_3"]
        assert [id for id, _ in source.skipped] == ["gdb_2"]
        assert 0 < source.fraction <= 1
        assert source.licence.startswith("CC0")
        assert len(list(QM9SdfSource(path, keep_uncharacterised=True))) == 3
    assert not (tmp_path.parent / "b").exists()


@pytest.mark.parametrize(
    ("sdf", "table", "message"),
    [
        (sdf_of(1), table_of(1, 3), "has no gdb_3"),
        (sdf_of(1, 3), table_of(1), "gdb_3 has no row"),
        (sdf_of(1, 1), table_of(1), "gdb_1 is there twice"),
        (sdf_of(1), table_of(1, 1), "line 3: holds a repeated molecule"),
        (sdf_of(1), table_of(1).replace(",homo,", ",top,"), "line 1: has no column homo"),
        (sdf_of(1), table_of(1).replace("13.21", "x"), "line 2: .*'x'"),
        (sdf_of(1), table_of(1).replace("13.21", "nan"), "line 2: .*not finite"),
        (sdf_of(1), table_of(1).replace(",13.21", ""), "line 2: .*number of columns"),
        (sdf_of(1), "", "line 1: has no column mol_id"),
        (SDF.replace("V2000", "V3000"), table_of(1), "molecule 1: .*V2000"),
        (SDF.replace("  5  4", "  9  4"), table_of(1), "molecule 1: .*counts atoms|molecule 1: .*holds"),
        (SDF.replace("  5  4", "  0  4"), table_of(1), "molecule 1: .*counts atoms"),
        (SDF.replace(" C  ", " Qq "), table_of(1), "molecule 1: .*Qq"),
        (SDF.replace("1.0858", "1.0x58"), table_of(1), "molecule 1: .*1.0x58"),
        (SDF.replace("1.0858", "   nan"), table_of(1), "molecule 1: .*none"),
        (sdf_of(1, 2)[:-200], table_of(1, 2), "molecule 2: .*counts atoms"),
        (sdf_of(1, 2)[: len(SDF)], table_of(1, 2), "has no gdb_2"),
        (sdf_of(1) + "\n$$$$\n" + sdf_of(2), table_of(1, 2), "molecule 2: .*no counts"),
    ],
)
def test_damaged_gdb9(tmp_path, sdf, table, message):
    path = pack(tmp_path / "gdb9.tar.gz", **{"gdb9.sdf": sdf, "gdb9.sdf.csv": table})
    with pytest.raises(DataError, match=f"gdb9.tar.gz, gdb9.*{message}"):
        list(QM9SdfSource(path, keep_uncharacterised=True))


def test_damaged_archives_of_gdb9(qm9_sdf):
    good = qm9_sdf.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0x55
    for content in (good[:-1], good[: len(good) // 2], good[:5], b"", b"no archive", bytes(flipped)):
        qm9_sdf.write_bytes(content)
        with pytest.raises(DataError, match="gdb9.tar.gz, gdb9"):
            list(QM9SdfSource(qm9_sdf, keep_uncharacterised=True))
    pack(qm9_sdf, **{"gdb9.sdf": SDF})
    with pytest.raises(DataError, match="holds no gdb9.sdf.csv"):
        list(QM9SdfSource(qm9_sdf, keep_uncharacterised=True))


def test_random_damage_of_gdb9(tmp_path):
    """Whatever a byte becomes: records, or one sentence."""
    files, draw = {"gdb9.sdf": sdf_of(1, 2, 3), "gdb9.sdf.csv": table_of(1, 2, 3)}, random.Random(0)
    for _ in range(200):
        name = draw.choice(sorted(files))
        for other, text in files.items():
            damaged = bytearray(text.encode())
            damaged[draw.randrange(len(damaged))] ^= (1 << draw.randrange(8)) if other == name else 0
            (tmp_path / other).write_bytes(damaged)
        try:
            list(QM9SdfSource(tmp_path, keep_uncharacterised=True))
        except DataError as error:
            assert "\n" not in str(error)
