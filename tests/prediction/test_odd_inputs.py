"""Targets whose names meet others, and structures of which one lacks what the network reads: nothing else is lost."""

import json

import ase.io
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from small_data import molecules

import refattn
from refattn.cli.main import cli
from refattn.common.text import told_apart

TARGETS = ("E+", "E*", "band gap", "unit", "band_gap")
SMALL = {"n_layers": 1, "width": 16, "n_heads": 4, "global_width": 16, "head_width": 16, "embedding_width": 8}


def command(*arguments, status=0):
    """What a command prints on stdout, or on stderr where it must fail."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.stderr or repr(result.exception)
    return result.stderr if status else result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of four targets that reads ring features, and structures for it."""
    folder = tmp_path_factory.mktemp("odd")
    structures = molecules(30, seed=1)
    rows = ["id,E+,E*,band gap (eV),unit,band_gap"]
    for n, atoms in enumerate(structures):
        atoms.info = {"id": f"m{n}"}
        atoms.set_array("ring", np.zeros((len(atoms), 2)))
        rows.append(f"m{n},{len(atoms)},{-n},{n / 7},{n % 5},{n % 7}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    ase.io.write(folder / "set.extxyz", structures, format="extxyz")
    command("prepare", folder / "set.extxyz", folder / "set.h5", "--labels", folder / "labels.csv")
    chosen = [word for name in TARGETS for word in ("--target", name)]
    sizes = [word for name, size in SMALL.items() for word in ("--set", f"model.{name}={size}")]
    options = ["--epochs", 1, "--threads", 1, "--set", "model.ring=true", *chosen, *sizes]
    command("train", "--data", folder / "set.h5", "--out", folder / "run", *options)
    return folder


def test_every_target_has_vectors_of_its_own(folder, tmp_path):
    command("embed", folder / "run", folder / "set.extxyz", "--out", tmp_path / "maps", "--no-sites")
    found = {}
    for path in (tmp_path / "maps").glob("*/embedding.h5"):
        with h5py.File(path) as file:
            found[file.attrs["target"]] = file["structures/structure_vector"][()]
    assert {*found} == {*TARGETS}
    own = refattn.embed(refattn.load(folder / "run"), ase.io.read(folder / "set.extxyz", ":"), target="E+")
    np.testing.assert_allclose(found["E+"], own.structure_vector, atol=1e-6)
    assert not np.allclose(found["E+"], found["E*"])


@pytest.mark.parametrize("suffix", [".xyz", ".csv", ".h5"])
def test_an_own_output_is_replaced_whatever_the_targets_are_called(folder, tmp_path, suffix):
    for _ in range(2):
        command("predict", folder / "run", folder / "set.extxyz", "--out", tmp_path / f"p{suffix}")


def test_own_explanations_are_replaced_whatever_the_targets_are_called(folder, tmp_path):
    options = ["--scores", "none", "--no-pages", "--max-pictures", 0, "--target", "band gap"]
    for _ in range(2):
        command("explain", folder / "run", folder / "set.extxyz", "--out", tmp_path / "why", *options)


def test_every_target_has_columns_of_its_own(folder, tmp_path):
    command("predict", folder / "run", folder / "set.extxyz", "--out", tmp_path / "p.xyz")
    found = refattn.load(folder / "run").predict(ase.io.read(folder / "set.extxyz"))
    written = ase.io.read(tmp_path / "p.xyz")
    columns = [f"attention_{name}" for name in ("E+", "E*", "band_gap", "unit", "band_gap-2")]
    for k, column in enumerate(columns):
        np.testing.assert_allclose(written.arrays[column], found.attention[0][:, k], atol=1e-6)
    assert not np.allclose(written.arrays["attention_band_gap"], written.arrays["attention_band_gap-2"])
    options = ["--scores", "none", "--no-pages", "--max-pictures", 0]
    command("explain", folder / "run", folder / "set.extxyz", "--out", tmp_path / "why", *options)
    explained = ase.io.read(tmp_path / "why" / "explained.extxyz")
    for column in columns:
        beta = explained.arrays[column.replace("attention", "beta")]
        np.testing.assert_allclose(beta, written.arrays[column], atol=1e-6)


def test_names_are_told_apart():
    assert told_apart(["a", "b", "a", "a-2", "A", "a"]) == ["a", "b", "a-2", "a-2-2", "A", "a-3"]
    assert told_apart(["a", "A", "a"], str.lower) == ["a", "A-2", "a-3"]


def test_a_target_that_is_a_field_of_json_is_refused(folder, tmp_path):
    for options in (["--json"], ["--out", tmp_path / "p.json"]):
        words = command("predict", folder / "run", folder / "set.extxyz", *options, status=1)
        assert "the target unit has the name of a field" in words
    assert not list(tmp_path.iterdir())


def test_arrays_of_the_input_do_not_meet_those_of_the_output(folder, tmp_path):
    atoms = ase.io.read(folder / "set.extxyz")
    atoms.set_array("attention_E+", np.ones((len(atoms), 2)))
    atoms.set_array("attention_E_", np.ones((len(atoms), 2)))
    ase.io.write(tmp_path / "in.extxyz", atoms, format="extxyz")
    command("predict", folder / "run", tmp_path / "in.extxyz", "--out", tmp_path / "out.xyz")
    written = ase.io.read(tmp_path / "out.xyz")
    assert all(values.ndim == 1 for name, values in written.arrays.items() if name.startswith("attention"))


def test_a_structure_without_ring_features_takes_no_other_with_it(folder, tmp_path):
    structures = ase.io.read(folder / "set.extxyz", ":4")
    del structures[2].arrays["ring"]
    ase.io.write(tmp_path / "mix.extxyz", structures, format="extxyz")
    words = command("predict", folder / "run", tmp_path / "mix.extxyz", "--out", tmp_path / "p.csv", status=1)
    assert "structure m2 has no per-site array `ring`" in words
    options = ["--skip-bad", "--scores", "none", "--no-pages", "--max-pictures", 0]
    command("explain", folder / "run", tmp_path / "mix.extxyz", "--out", tmp_path / "why", *options)
    with h5py.File(tmp_path / "why" / "explanations.h5") as file:
        assert file["structures/id"].asstr()[()].tolist() == ["m0", "m1", "m3"]
    command("predict", folder / "run", tmp_path / "mix.extxyz", "--out", tmp_path / "p.csv", "--skip-bad")
    assert [line.split(",")[0] for line in (tmp_path / "p.csv").read_text().splitlines()[1:]] == ["m0", "m1", "m3"]


def test_tables_say_of_a_score_what_holds_of_every_structure(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("refattn.report.findings.HARDLY", 1e9)  # every score is weak
    options = ["--scores", "none", "--max-pictures", 0]
    command("explain", folder / "run", folder / "set.extxyz", "--out", tmp_path / "why", *options)
    with h5py.File(tmp_path / "why" / "explanations.h5") as file:
        texts = [str(data.attrs["description"]) for data in file["sites"].values() if "description" in data.attrs]
    assert texts and not [text for text in texts if "all sites together" in text]
    pages = [*(tmp_path / "why" / "pages").glob("*.html")]
    assert pages and all("all sites together" in page.read_text(encoding="utf-8") for page in pages)


def test_evaluate_reads_only_the_structures_that_it_needs(folder, tmp_path):
    structures = ase.io.read(folder / "set.extxyz", ":")
    odd = structures[3].copy()
    odd.numbers[0], odd.info["id"] = 35, "bromide"
    ase.io.write(tmp_path / "more.extxyz", [*structures, odd], format="extxyz")
    rows = (folder / "labels.csv").read_text() + "bromide,1,1,1,1,1\n"
    (tmp_path / "labels.csv").write_text(rows)
    command("prepare", tmp_path / "more.extxyz", tmp_path / "more.h5", "--labels", tmp_path / "labels.csv")
    sizes = [word for name, size in SMALL.items() for word in ("--set", f"model.{name}={size}")]
    options = ["--epochs", 1, "--threads", 1, "--target", "E+", "--set", "model.n_elements=20", *sizes]
    command("train", "--data", folder / "set.h5", "--out", tmp_path / "run", *options)
    options = ["--data", tmp_path / "more.h5", "--keep-seen", "--json"]
    assert "bromide" in command("evaluate", tmp_path / "run", *options, status=1)
    assert json.loads(command("evaluate", tmp_path / "run", *options, "--skip-bad"))["test"]["n"] == 30
