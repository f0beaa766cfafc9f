"""refattn explain --validate: its files, what it reads, and what it refuses."""

import dataclasses
import json
import re

import ase
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from explanation_cases import network, populated_structures

from refattn.cli.main import cli
from refattn.cli.validate import learned, sample_of
from refattn.data.fingerprint import Fingerprint, graph_digests
from refattn.data.splits import Split
from refattn.network.checkpoint import save_checkpoint
from refattn.prediction.predictor import Model

OPTIONS = ["--validate", "--scores", "occlusion", "--costly", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ensemble of two, and a set of molecules."""
    folder = tmp_path_factory.mktemp("validate")
    for seed in range(2):
        member = folder / "runs" / f"member_{seed}"
        member.mkdir(parents=True)
        checkpoint = network(seed=seed).checkpoint
        checkpoint.split = Split(["CH3OH"], ["C2H4"], ["CH3CHO"])
        save_checkpoint(member / "model.h5", checkpoint)
    structures = populated_structures(lambda atoms: np.arange(len(atoms)) + 1.0)
    ase.io.write(folder / "set.extxyz", structures, format="extxyz")
    return folder


def run(*arguments):
    result = CliRunner().invoke(cli, ["explain", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result


def test_report_of_an_ensemble(folder):
    result = run(folder / "runs", folder / "set.extxyz", "--out", folder / "out", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert "left out 2 structures of the training and validation set" in result.stderr
    record = json.loads((folder / "out" / "validation.json").read_text())
    assert (record["n_runs"], record["n_structures"], record["left_out"]) == (2, 7, [])
    told = {sentence["text"].replace("−", "-") for sentence in record["sentences"]}
    assert all(line.split("\t")[1].split(": ", 1)[-1] in told or line.split("\t")[1] in told
               for line in result.stdout.splitlines())  # fmt: skip
    page = (folder / "out" / "validation.html").read_text()
    assert page.count("data:image/png;base64,") == 5  # two orbitals, curves, seeds, random parameters
    assert not re.search(r'(src|href)="(?!data:)', page)  # it needs no other file and no network
    assert all(sentence["text"].split(":")[0] in page for sentence in record["sentences"])


def test_numbers_as_json_and_a_single_run(folder):
    single = folder / "runs" / "member_0"
    result = run(single, folder / "set.extxyz", "--out", folder / "single", *OPTIONS, "--sample", 3, "--json")
    record = json.loads(result.stdout)
    assert (record["n_structures"], record["stability"]) == (3, {})


def test_without_files_the_test_part_of_the_runs_data(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert CliRunner().invoke(cli, ["prepare", "set.extxyz", "set.h5"]).exit_code == 0
    checkpoint = network().checkpoint
    checkpoint.split = Split(["CH3OH"], ["C2H4"], ["CH3CHO", "C4H4O"])
    checkpoint.config.data.__dict__["path"] = "/before/the/move/set.h5"
    save_checkpoint("own.h5", checkpoint)
    result = run("own.h5", "--out", "own", *OPTIONS, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_structures"] == 2


def test_structures_of_the_training_are_known_by_their_graphs():
    model = network()
    trained, other = molecule("CH3OH"), molecule("C2H4")
    digests = graph_digests(model.graph("trained", trained), np.zeros(1, dtype=np.int64))
    split = Split(["trained"], [], [])
    model = Model(dataclasses.replace(model.checkpoint, split=split, fingerprint=Fingerprint(digests, ("",))))
    renamed, same_name, unknown = trained.copy(), other.copy(), ase.Atoms("U")
    renamed.info["id"] = "another"
    same_name.info["id"] = "trained"
    unknown.info["id"] = "trained"
    assert [learned(model, atoms) for atoms in (renamed, same_name, unknown)] == [True, False, False]
    by_id = Model(dataclasses.replace(model.checkpoint, fingerprint=None))  # a run of before
    assert [learned(by_id, atoms) for atoms in (renamed, same_name)] == [False, True]


def test_sample_is_seeded_and_in_order():
    numbers = list(range(50))
    assert sample_of(numbers, 60, 0) == numbers
    drawn = sample_of(numbers, 20, 0)
    assert drawn == sorted(set(drawn)) == sample_of(numbers, 20, 0) != sample_of(numbers, 20, 1)


def test_refused(folder, tmp_path):
    save_checkpoint(tmp_path / "none.h5", network().checkpoint)
    cases = [
        ([tmp_path / "none.h5", "--out", tmp_path / "o", *OPTIONS], 1, "no test set of its own; name FILES"),
        ([folder / "runs", folder / "no.xyz", "--out", tmp_path / "o", *OPTIONS], 1, "no.xyz"),
        ([folder / "runs", "--out", tmp_path / "o"], 2, "name FILES to explain"),
        ([folder / "runs", folder / "set.extxyz", "--out", tmp_path / "none.h5", *OPTIONS], 1, "choose another folder"),
    ]
    for arguments, status, text in cases:
        result = run(*arguments)
        assert (result.exit_code, text in result.output) == (status, True), result.output
    (folder / "holes" / "member_1").mkdir(parents=True)
    assert "member_0 of its 1 members is missing" in run(folder / "holes", "--out", tmp_path, *OPTIONS).output


def test_a_structure_that_cannot_be_explained(folder, tmp_path):
    ase.io.write(tmp_path / "odd.extxyz", [molecule("CH3CHO"), ase.Atoms("U")], format="extxyz")
    arguments = [folder / "runs", tmp_path / "odd.extxyz", "--out", tmp_path / "o", *OPTIONS]
    assert "never saw in training" in run(*arguments).output
    record = json.loads(run(*arguments, "--skip-bad", "--json").stdout)
    assert (record["n_structures"], len(record["left_out"])) == (1, 1)


def test_files_are_read_with_the_options_of_reading(folder):
    """Of a folder the subfolders too; ids from comments; and the least distance of the command line."""
    single = folder / "runs" / "member_0"
    (folder / "tree" / "below").mkdir(parents=True)
    for path, name in (("a", "H2O"), ("below/b", "NH3")):
        atoms = molecule(name)
        ase.io.write(folder / "tree" / f"{path}.xyz", atoms, format="xyz", comment=f"called {name}")
    flat, deep, near = ([single, folder / "tree", "--out", folder / f"read_{n}", *OPTIONS, "--json"] for n in range(3))
    assert json.loads(run(*flat).stdout)["n_structures"] == 1
    assert json.loads(run(*deep, "--recursive").stdout)["n_structures"] == 2
    result = run(*near, "--min-distance", 0.98, "--id-from", "comment", "--recursive")
    assert result.exit_code == 1 and "called " in result.stderr


@pytest.mark.parametrize("options", [["--recursive"], ["--id-from", "comment"], ["--min-distance", "0.1"]])
def test_options_of_reading_need_files(folder, options):
    result = run(folder / "runs", "--out", folder / "unread", *OPTIONS, *options)
    assert result.exit_code == 2 and "has no effect without FILES to validate with" in result.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["explain", "run", "x.xyz", "--out", "o", "--sample", "5"], "--sample has no effect without --validate"),
        (["explain", "run", "x.xyz", "--out", "o", "--costly", "5"], "--costly has no effect without --validate"),
        (["explain", "run", "--out", "o", "--validate", "--edges"], "--edges has no effect with --validate"),
        (["explain", "run", "--out", "o", "--validate", "--no-pages"], "--no-pages has no effect with --validate"),
        (["explain", "run", "x.xyz", "--out", "o.chemiscope.json", "--edges"], "--edges has no effect on a"),
        (["explain", "run", "x.xyz", "--out", "o", "--no-pages", "--max-pages", "3"], "--max-pages has no effect with"),
        (["embed", "run", "x.xyz", "--out", "o.chemiscope.json", "--colour", "size"], "--colour has no effect on a"),
        (["embed", "run", "x.xyz", "--out", "o", "--no-sites", "--max-points", "3"], "--max-points has no effect with"),
        (["prepare", "x.xyz", "o.h5", "--limit", "3", "--processes", "2"], "--processes has no effect beside --part"),
        (["evaluate", "run", "--skip-bad"], "--skip-bad has no effect without --data"),
        (["evaluate", "run", "--keep-seen"], "--keep-seen has no effect without --data"),
    ],
)
def test_an_option_without_effect_is_refused(words, why):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2 and why in result.stderr
