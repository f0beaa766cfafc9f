"""QM9 in its original format. The molecules below are gdb_1 (as published) and others in its pattern."""

import bz2
import io
import tarfile

import numpy as np
import pytest

from refattn.data.files import LABELS
from refattn.data.qm9 import PROPERTIES, QM9Source, parse_molecule, read_uncharacterised
from refattn.errors import DataError

METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 1.33923*^-1
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""  # noqa: E501
# A header of text, lines that begin with an index, and a last line of text, as in the authors' file.
LIST = "\n3054 molecules\n".replace("3054", "Some") + " Index  Smiles\n-----\n     2  CN  [NH3]  1.0\n  4  C#C\n-----\n"


def numbered(n):
    return METHANE.replace("gdb 1\t", f"gdb {n}\t")


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
    """Values of ../shared/data/README.md (homo, lumo, alpha, cv) and qm9.extxyz.gz (u0, zpve, r2), in eV."""
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
