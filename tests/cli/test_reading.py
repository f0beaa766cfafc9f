"""What `prepare` reads, `predict`, `explain` and `embed` read the same, and --skip-bad covers what cannot be read."""

import json
import os
import zipfile

import h5py
import pytest
from click.testing import CliRunner
from explanation_cases import network
from qm9_molecules import METHANE

import refattn
from refattn.cli.main import cli

WATER = "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
GOOD = "3\nid=007 gap=1\n" + WATER + "3\nid=60_1812\n" + WATER
BAD = "3\nid=bad\nQq 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n3\nid=near\nO 0 0 0\nH 0.1 0 0\nH 0 1 0\n3\nid=007\n" + WATER


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run, and structures as text, in a folder, in an archive, as a data set, and in QM9's own format."""
    place = tmp_path_factory.mktemp("reading")
    refattn.save_checkpoint(place / "model.h5", network({"variant": "scann+"}, dtype="float32").checkpoint)
    (place / "good.extxyz").write_text(GOOD)
    (place / "bad.extxyz").write_text(GOOD + BAD)
    (place / "folder" / "sub").mkdir(parents=True)
    (place / "folder" / "sub" / "set.extxyz").write_text(GOOD)
    (place / "folder" / "notes.txt").write_text("text")
    (place / "dsgdb9nsd_000001.xyz").write_text(METHANE)
    with zipfile.ZipFile(place / "set.zip", "w") as archive:
        archive.writestr("set.extxyz", GOOD)
    assert run("prepare", place / "good.extxyz", place / "set.h5").exit_code == 0
    return place


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def predicted(place, *arguments):
    result = run("predict", place, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["id"] for line in result.stdout.splitlines()], result.stderr


def test_predict_reads_what_prepare_reads(place):
    ids = ["007", "60_1812"]
    for name in ("good.extxyz", "set.zip", "set.h5"):
        assert predicted(place, place / name)[0] == ids
    found, notes = predicted(place, place / "folder", "--recursive")
    assert found == ids
    assert "1 file passed over, by the name no file of structures: notes.txt" in notes
    assert predicted(place, place / "dsgdb9nsd_000001.xyz")[0] == ["gdb_1"]
    (place / "plain.xyz").write_text("3\nmol_1 x\n" + WATER)
    assert predicted(place, place / "plain.xyz", "--id-from", "comment")[0] == ["mol_1"]


def test_skip_bad_covers_what_cannot_be_read(place, tmp_path):
    refused = run("predict", place, place / "bad.extxyz")
    assert refused.exit_code == 1
    assert "frame 2 (line 11): cannot be read (unknown element or key 'Qq')" in refused.stderr
    found, notes = predicted(place, place / "bad.extxyz", "--skip-bad")
    assert found == ["007", "60_1812"]
    assert "2 structures, 3 left out" in notes
    assert "left out near: atoms 0 (O) and 1 (H) are 0.100 Å apart" in notes
    assert predicted(place, place / "bad.extxyz", "--skip-bad", "--min-distance", "0")[0] == ["007", "60_1812", "near"]
    result = run("embed", place, place / "bad.extxyz", "--out", tmp_path / "maps", "--skip-bad", "--no-sites")
    assert "2 structures, 3 left out" in result.stderr
    with h5py.File(tmp_path / "maps" / "embedding.h5") as file:
        assert len(file["structures/id"]) == 2
    options = ("--scores", "none", "--no-pages", "--max-pictures", "0", "--out", tmp_path / "why")
    assert "2 structures, 3 left out" in run("explain", place, place / "bad.extxyz", "--skip-bad", *options).stderr


def test_names_that_no_file_can_hold(tmp_path):
    """A file name in no encoding is written with escapes; a structure whose id a terminal would obey is left out."""
    for name in (b"m\xff.xyz", b"n\xff.xyz"):
        with open(os.path.join(os.fsencode(tmp_path), name), "w") as file:
            file.write("3\n\n" + WATER)
    (tmp_path / "odd.xyz").write_text('3\nid="\x1b[31mred"\n' + WATER + "3\nid=red\n" + WATER)
    result = run("prepare", tmp_path, tmp_path / "set.h5")
    assert "3 structures, 1 left out" in result.stdout, result.stderr
    assert "its id '\\x1b[31mred' has characters that are not printed" in result.stdout
    with h5py.File(tmp_path / "set.h5") as file:
        assert file["structures/id"].asstr()[:].tolist() == [r"m\udcff", r"n\udcff", "red"]
    assert run("prepare", tmp_path / os.fsdecode(b"m\xff.xyz"), tmp_path / "one.h5").exit_code == 0
