"""The registry of the published sets, and the archives of the SCANN authors on samples that are made here."""

import io
import json
import random
import re
import shlex
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import graphene
from click.testing import CliRunner

from refattn.cli.fetch import prepare_command
from refattn.cli.main import cli
from refattn.data.builtin import SETS
from refattn.data.sources.published import PUBLISHED, published_set
from refattn.data.sources.registry import FORMATS, open_source
from refattn.data.sources.scann_archives import FullereneArchive, PtGrapheneArchive, read_frames
from refattn.data.sources.smfe12 import SmFe12Source
from refattn.data.splits import PUBLISHED_SPLITS
from refattn.data.store import read_dataset
from refattn.errors import DataError
from refattn.experiments import load_experiment

EXPERIMENTS = {"fullerene_md": "fullerene", "pt_graphene_md": "pt_graphene"}  # the others have the set's name


# ---- the authors' archives ------------------------------------------------------------------------------------------


def frame_of(atoms, comment):
    rows = "".join(
        f"{s} {x:.6f} {y:.6f} {z:.6f}\n" for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
    )
    return f"{len(atoms)}\n{comment}\n{rows}"


def zipped(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def ring(n):
    angle = np.arange(n) * 2 * np.pi / n
    return Atoms(f"C{n}", np.column_stack([n * 0.23 * np.cos(angle), n * 0.23 * np.sin(angle), 0 * angle]))


@pytest.fixture
def fullerenes(tmp_path):
    members = {
        "fullerene/C70.xyz": frame_of(ring(7), "-6.5 -4.25 -70.5"),
        "fullerene/C60.xyz": frame_of(ring(6), "-6 -4 -60")
        + frame_of(ring(6), "  -6.125\t-4.5 -61.5 more words\n"[:-1]),
        "fullerene/readme.txt": "no structure",
        "fullerene/deep/C72.xyz": frame_of(ring(8), "-1 -1 -1"),
        "__MACOSX/._C60.xyz": "no frame",
        "../C20.xyz": frame_of(ring(5), "-1 -1 -1"),
    }
    return zipped(tmp_path / "fullerene.zip", **members)


def test_fullerene_archive(fullerenes, tmp_path):
    source = open_source(fullerenes)
    assert isinstance(source, FullereneArchive)
    records = list(source)
    assert [record.id for record in records] == ["fullerene/C60-1", "fullerene/C60-2", "fullerene/C70-1"]
    assert records[1].labels == {"homo": -6.125, "lumo": -4.5, "energy": -61.5}
    np.testing.assert_allclose(records[2].atoms.positions, ring(7).positions, atol=1e-6)
    assert not records[0].atoms.pbc.any()
    assert sorted(name for name, _ in source.skipped) == ["../C20.xyz", "__MACOSX/._C60.xyz", "fullerene/deep/C72.xyz"]
    assert source.fraction == 1
    assert "s41524-023-01163-9" in source.citation
    assert names(tmp_path) == ["fullerene.zip"]  # nothing was unpacked


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_unpacked_archive(fullerenes, tmp_path):
    with zipfile.ZipFile(fullerenes) as archive:
        for name in ("fullerene/C60.xyz", "fullerene/C70.xyz"):
            archive.extract(name, tmp_path)
    records = list(open_source(tmp_path / "fullerene", "fullerene_md"))
    assert [record.id for record in records] == ["C60-1", "C60-2", "C70-1"]
    assert records[0].labels == {"homo": -6.0, "lumo": -4.0, "energy": -60.0}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no .xyz"):
        list(FullereneArchive(tmp_path / "empty"))
    with pytest.raises(DataError, match="refattn data fetch fullerene_md"):
        FullereneArchive(tmp_path / "absent")


def test_pt_graphene_archive(tmp_path):
    sheet = graphene(size=(2, 2, 1), vacuum=5)
    sheet += Atoms("Pt", [[2, 2, 7.5]])
    path = zipped(tmp_path / "pt_graphene.zip", **{"pt/md.xyz": frame_of(sheet, "-120.5 -123.75")})
    (record,) = open_source(path)
    assert record.labels == {"energy": -120.5, "deformation_energy": 3.25}
    assert record.atoms.symbols.get_chemical_formula() == "C8Pt"
    assert not record.atoms.cell.any()
    assert isinstance(open_source(path), PtGrapheneArchive)


def test_smfe12_archive(tmp_path):
    crystal = Atoms(
        "SmFe12", np.arange(39).reshape(13, 3) * 0.2, cell=[[5.5, 0, 0], [0, 5.25, 0], [1, 2, 6.5]], pbc=True
    )
    lattice = " ".join(str(x) for x in crystal.cell.ravel())
    comment = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 e_f="-0.0625" '
    path = zipped(tmp_path / "smfe12.zip", **{"smfe12/Mo/a.xyz": frame_of(crystal, comment), "smfe12/b.xyz": "x"})
    source = open_source(path)
    (record,) = source
    assert isinstance(source, SmFe12Source)
    assert record.id == "smfe12/Mo/a-1"
    assert record.labels == {"e_form": -0.0625}
    np.testing.assert_array_equal(record.atoms.cell, crystal.cell)
    assert record.atoms.pbc.all()
    assert [name for name, _ in source.skipped] == ["smfe12/b.xyz"]
    for bad, message in (
        (comment.replace("Lattice", "Cell"), "Lattice"),
        (comment.replace(' e_f="-0.0625"', ""), "quoted energy"),
        (comment.replace("-0.0625", "low"), "energy: must begin"),
        (comment.replace("5.5 ", ""), "Lattice: must begin with 9 numbers"),
    ):
        zipped(path, **{"smfe12/Mo/a.xyz": frame_of(crystal, bad)})
        with pytest.raises(DataError, match=f"a.xyz, line 2.*{message}"):
            list(SmFe12Source(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\n", "two\n", "line 1: is 'two'"),
        ("2\n", "0\n", "line 1: is '0'"),
        ("2\n", "3\n", "line 5: must be an element"),
        ("C 0", "Qq 0", "line 3: must be an element"),
        ("C 0", "C x", "line 3: must be an element"),
        ("C 0 0 0 9.5", "C 0 0", "line 3: must be an element"),
        ("C 0", "C nan", "line 3: must be an element"),
        ("-6 -4 -60", "-6 -4", "line 2: must begin with 3 numbers"),
        ("-6 -4 -60", "-6 -4 inf", "line 2: must begin with 3 numbers"),
        ("-6 -4 -60", "", "line 2: must begin with 3 numbers"),
    ],
)
def test_damaged_frames(tmp_path, old, new, message):
    good = "2\n-6 -4 -60\nC 0 0 0 9.5\n6 0 0 1.4\n"
    path = zipped(tmp_path / "fullerene.zip", **{"a/b.xyz": good + "\n"})
    (record,) = FullereneArchive(path)
    assert record.atoms.symbols.get_chemical_formula() == "C2"
    zipped(path, **{"a/b.xyz": good.replace(old, new)})
    with pytest.raises(DataError, match=f"fullerene.zip, a/b.xyz, {message}"):
        list(FullereneArchive(path))


def test_every_cut_of_a_frame():
    lines = frame_of(ring(5), "-1 -2 -3").splitlines(keepends=True)
    for size in range(1, len(lines)):
        with pytest.raises(DataError, match="here, line"):
            list(read_frames(io.StringIO("".join(lines[:size])), "here"))


def test_damaged_archives(fullerenes):
    good = bytearray(fullerenes.read_bytes())
    flipped = good.copy()
    flipped[60] ^= 0x55
    for content in (good[:-10], good[: len(good) // 2], b"", b"no archive", flipped):
        fullerenes.write_bytes(content)
        with pytest.raises(DataError, match=r"fullerene.zip.*cannot be read further .*refattn data fetch fullerene_md"):
            list(FullereneArchive(fullerenes))
    zipped(fullerenes, **{"C60.xyz": frame_of(ring(6), "-6 -4 -60")})
    with pytest.raises(DataError, match="holds no FOLDER/NAME.xyz"):
        list(FullereneArchive(fullerenes))


def test_random_damage(fullerenes):
    """Whatever a byte becomes: records, or one sentence."""
    good, draw = fullerenes.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(good)
        damaged[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        fullerenes.write_bytes(damaged)
        try:
            list(FullereneArchive(fullerenes))
        except DataError as error:
            assert "\n" not in str(error)


# ---- the registry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_registry(name):
    item = published_set(name)
    assert item.format in FORMATS
    assert item.licence
    assert "doi" in item.citation
    assert item.homepage.startswith("https://")
    for file in item.files:
        assert all(url.startswith("https://") for url in file.urls)
        assert file.urls or file.page
        assert re.fullmatch("([0-9a-f]{64})?", file.sha256)
        assert re.fullmatch("([0-9a-f]{32})?", file.md5)
    with pytest.raises(DataError, match="qm9_sdf"):
        published_set("nothing")


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "qm9_sdf"])
def test_prepare_command_makes_the_graphs_of_the_experiment(name, tmp_path):
    """The options that `data list` prints, given to refattn prepare, and the [graph] of the experiment's file."""
    (tmp_path / "two.xyz").write_text(frame_of(ring(6), ""))
    options = shlex.split(PUBLISHED[name].options)
    result = CliRunner().invoke(cli, ["prepare", str(tmp_path / "two.xyz"), str(tmp_path / "two.h5"), *options])
    assert result.exit_code == 0, result.output
    config = load_experiment(EXPERIMENTS.get(name, name))
    assert read_dataset(tmp_path / "two.h5").graph_config == config.graph
    assert f" {config.data.path} " in prepare_command(name, PUBLISHED[name])
    assert config.data.split == f"published:{name}"
    assert name in PUBLISHED_SPLITS


def test_data_list():
    shown = CliRunner().invoke(cli, ["data", "list"]).output
    facts = json.loads(CliRunner().invoke(cli, ["data", "list", "--json"]).output)
    assert facts["fullerene"]["kind"] == "built-in"
    assert len(facts) == len(SETS) + len(PUBLISHED)  # no name twice
    for name, item in PUBLISHED.items():
        assert facts[name]["licence"] == item.licence
        assert facts[name]["files"][0]["name"] == item.files[0].name
        for command in (facts[name]["fetch"], facts[name]["prepare"]):
            assert command in shown
    assert "86.1 MB" in shown
