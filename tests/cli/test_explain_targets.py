"""refattn explain, its --validate, and embed with several targets and an additive head: each under its name."""

import csv
import dataclasses
import json

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from explanation_cases import SMALL

import refattn
from refattn.cli.main import cli
from refattn.config import Config, DataConfig, GraphConfig, ModelConfig, TrainingConfig
from refattn.gradient_check import small_network
from refattn.network.checkpoint import Checkpoint, save_checkpoint

TARGETS = ("xtb_homo", "xtb_lumo")
MEAN, STD = np.array([-9.0, -2.0]), np.array([0.5, 1.5])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of two targets, of which the second was taught, three molecules, and what explain makes of them."""
    folder = tmp_path_factory.mktemp("targets")
    config = ModelConfig(**SMALL, head="additive")
    training = TrainingConfig(dtype="float64", attention={"xtb_lumo": "lumo_population"})
    config = Config(config, GraphConfig(), DataConfig(target=TARGETS), training)
    params = small_network(config.model, 0).astype("float64")
    save_checkpoint(folder / "model.h5", Checkpoint(config, params, ("eV", "eV"), MEAN, STD))
    structures = [molecule(name) for name in ("CH3OH", "H2O", "C2H4")]
    for atoms, id in zip(structures, "abc", strict=True):
        atoms.info.update(id=id, xtb_homo=-10.0)
        share = np.random.default_rng(len(atoms)).random(len(atoms))
        for name in ("homo_population", "lumo_population"):
            atoms.set_array(name, share / share.sum())
    ase.io.write(folder / "set.extxyz", structures, format="extxyz")
    options = ("--scores", "integrated_gradients", "--compare", "orbitals", "--score", "contribution")
    invoke("explain", folder / "model.h5", folder / "set.extxyz", "--out", folder / "out", *options)
    return folder


def invoke(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in (*arguments, "--threads", 1)])
    assert result.exit_code == status, result.stderr or repr(result.exception)
    return result.stderr if status else result.stdout


@pytest.fixture(scope="module")
def wanted(folder):
    """{target: Explanation} of every structure."""
    model = refattn.load(folder / "model.h5")
    return refattn.explain(model, ase.io.read(folder / "set.extxyz", ":"), scores=["integrated_gradients"])


def test_tables_have_columns_of_each(folder, wanted):
    with open(folder / "out" / "structures.csv", newline="") as stream:
        structures = list(csv.DictReader(stream))
    with open(folder / "out" / "sites.csv", newline="") as stream:
        sites = list(csv.DictReader(stream))
    frames = ase.io.read(folder / "out" / "explained.extxyz", ":")
    for k, name in enumerate(TARGETS):
        each = [found[name] for found in wanted]
        assert [float(row[f"predicted {name} (eV)"]) for row in structures] == [e.value for e in each]
        assert [row[f"{name} (eV)"] for row in structures] == [["-10.0"] * 3, [""] * 3][k]
        assert [float(row[f"mean {name} (eV)"]) for row in structures] == [MEAN[k]] * 3
        contribution = np.concatenate([e.contribution for e in each])
        assert [float(row[f"contribution_{name} (eV)"]) for row in sites] == contribution.tolist()
        for frame, e in zip(frames, each, strict=True):
            np.testing.assert_allclose(frame.arrays[f"contribution_{name}"], e.contribution, rtol=1e-14)
            assert frame.info[f"predicted_{name}"] == pytest.approx(e.value)


def test_explanations_h5(folder, wanted):
    with h5py.File(folder / "out" / "explanations.h5") as file:
        assert list(file.attrs["target"]) == list(TARGETS)
        assert np.array_equal(file["structures/value"], [[found[name].value for name in TARGETS] for found in wanted])
        label = file["structures/label"][:]
        assert np.array_equal(label, np.broadcast_to([-10.0, np.nan], (3, 2)), equal_nan=True)
        site_ptr = file["structures/site_ptr"][:]
        for k, name in enumerate(TARGETS):
            contribution = file[f"sites/contribution_{name}"]
            assert contribution.attrs["sums_to"] == "value - mean_value"
            sums = np.add.reduceat(contribution[:], site_ptr[:-1])
            mean = file["structures/mean_value"][:, k]
            np.testing.assert_allclose(sums + mean, file["structures/value"][:, k], atol=1e-12)
        vectors = [[*found["xtb_homo"].structure_vector, *found["xtb_lumo"].structure_vector] for found in wanted]
        assert np.array_equal(file["structures/structure_vector"], vectors)


def test_pages_and_pictures_show_each(folder):
    page = (folder / "out" / "pages" / "a.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    names = [column["name"] for column in data["columns"]]
    assert data["first"] == "contribution_xtb_homo" and "site_value_xtb_lumo" in names
    assert "xtb homo" in page and "xtb lumo" in page
    index = (folder / "out" / "index.html").read_text()
    assert "xtb homo, predicted (eV)" in index and "xtb lumo, top site" in index
    assert (folder / "out" / "pictures" / "a.png").exists()


def test_one_target_of_two(folder, tmp_path):
    options = ("--target", "xtb_lumo", "--scores", "none", "--no-pages", "--json")
    arguments = ("explain", folder / "model.h5", folder / "set.extxyz", "--out", tmp_path / "out")
    assert json.loads(invoke(*arguments, *options))["target"] == "xtb_lumo"
    with open(tmp_path / "out" / "structures.csv", newline="") as stream:
        assert "predicted xtb_homo (eV)" not in next(csv.DictReader(stream))
    assert "has no target 'gap'; choose one of xtb_homo, xtb_lumo" in invoke(*arguments, "--target", "gap", status=1)


def test_scores_of_an_additive_head_need_one(folder, tmp_path):
    checkpoint = refattn.load(folder / "model.h5").checkpoint
    config = dataclasses.replace(
        checkpoint.config, model=dataclasses.replace(checkpoint.config.model, head="published")
    )
    save_checkpoint(tmp_path / "model.h5", dataclasses.replace(checkpoint, config=config))
    arguments = ("explain", tmp_path / "model.h5", folder / "set.extxyz", "--out", tmp_path / "out")
    assert "additive head" in invoke(*arguments, "--score", "site_value", status=2)


def test_validation_says_of_each_whether_attention_was_taught(folder, tmp_path):
    arguments = ("explain", folder / "model.h5", folder / "set.extxyz", "--validate", "--scores", "none", "--costly", 1)
    said = invoke(*arguments, "--out", tmp_path)
    record = json.loads((tmp_path / "validation.json").read_text())
    assert (record["target"], record["n_structures"], list(record["targets"])) == ("xtb_homo, xtb_lumo", 3, [*TARGETS])
    for target, text in zip(
        TARGETS, ("was not taught", "was taught: the loss held it to lumo_population"), strict=True
    ):
        lines = [line for line in said.splitlines() if line.startswith(f"{target}: ")]
        assert any(f"The global attention {text}" in line for line in lines)
        assert any("Contribution to the prediction: deleting its first sites" in line for line in lines)
        assert f"<h2>{target}: what holds and what does not</h2>" in (tmp_path / "validation.html").read_text()
    assert (record["targets"]["xtb_homo"]["mae"] != [None], record["targets"]["xtb_lumo"]["mae"]) == (True, [None])
    alone = json.loads(invoke(*arguments, "--out", tmp_path, "--target", "xtb_lumo", "--json"))
    assert alone == {**record["targets"]["xtb_lumo"], "run": record["run"], "left_out": []}


def test_every_target_has_vectors_of_its_own(folder, wanted, tmp_path):
    arguments = ("embed", folder / "model.h5", folder / "set.extxyz", "--out", tmp_path, "--no-sites")
    summary = json.loads(invoke(*arguments, "--json"))
    assert [summary["targets"][name]["structures"] for name in TARGETS] == [3, 3]
    assert "xtb_lumo: structures\t" in invoke(*arguments)
    folders = {name: tmp_path / name for name in TARGETS}
    vectors = refattn.embed(refattn.load(folder / "model.h5"), ase.io.read(folder / "set.extxyz", ":"), n_threads=1)
    arguments = (*arguments[:4], tmp_path / "one", "--target", "xtb_lumo", "--json")
    assert json.loads(invoke(*arguments))["target"] == "xtb_lumo"
    for name, out in [*folders.items(), ("xtb_lumo", tmp_path / "one")]:
        with h5py.File(out / "embedding.h5") as file:
            assert (file.attrs["target"], file.attrs["unit"]) == (name, "eV")
            assert np.array_equal(file["structures/value"], vectors[name].value)
            for n, found in enumerate(wanted):
                e = found[name]
                assert file["structures/value"][n] == pytest.approx(e.value)
                np.testing.assert_allclose(file["structures/structure_vector"][n], e.structure_vector, rtol=1e-9)


def test_folders_of_targets_and_the_vectors_of_one_do_not_stay_beside_each_other(folder, tmp_path):
    """A folder of a target that a call of its own made stays."""
    arguments = ("embed", folder / "model.h5", folder / "set.extxyz", "--no-sites", "--out")
    one = {"embedding.h5", "map.csv", "structures.png"}
    invoke(*arguments, tmp_path / "other", "--target", "xtb_lumo")
    invoke(*arguments, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*TARGETS, "other"}
    (tmp_path / "xtb_homo" / "mine.csv").write_text("id,site,element,x,y\n")
    invoke(*arguments, tmp_path, "--target", "xtb_lumo")
    assert {path.name for path in tmp_path.iterdir()} == {*one, "xtb_homo", "other"}
    assert [path.name for path in (tmp_path / "xtb_homo").iterdir()] == ["mine.csv"]
    invoke(*arguments, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*TARGETS, "other"}
    assert {path.name for path in (tmp_path / "other").iterdir()} == one
