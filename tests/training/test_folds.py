"""Folds of a split: every structure is tested on once, a training that was stopped goes on, and processes share it."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from small_data import label, small_config, write_molecules

import refattn
from refattn.cli.main import cli
from refattn.config import GraphConfig, to_toml
from refattn.data.splits import choose_split, read_split
from refattn.data.store import Record, read_dataset
from refattn.data.writer import DatasetWriter
from refattn.errors import ConfigError, RunError
from refattn.structures.batch import GraphBatch
from refattn.training.train import Interrupted, train
from refattn.training.train_folds import train_folds


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Of 10 molecules, four of each, two epochs; whole molecules are new."""
    path = write_molecules(tmp_path_factory.mktemp("data") / "molecules.h5", n=40)
    config = small_config(path, epochs=2, seed=5)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, split_by="composition", valid_by="group"))


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Three folds, stopped in the second one and resumed."""
    out = tmp_path_factory.mktemp("folds") / "three"
    calls = iter(range(99))
    with pytest.raises(Interrupted):
        train_folds(config, 3, out, n_threads=1, stop=lambda: next(calls) > 7)
    assert (out / "fold_0" / "metrics.json").exists() and not (out / "metrics.json").exists()
    return out, train_folds(None, None, out, n_threads=1, resume=True)


def test_mean_and_spread_are_those_of_the_runs(finished):
    out, summary = finished
    assert json.loads((out / "metrics.json").read_text()) == summary
    runs = [json.loads((out / f"fold_{k}" / "metrics.json").read_text()) for k in range(3)]
    found = summary["targets"]["spread"]
    for part in ("valid", "test"):
        errors = [run[part]["mae"] for run in runs]
        assert found[part]["mae_of_folds"] == errors
        assert found[part]["mae"] == pytest.approx(np.mean(errors))
        assert found[part]["mae_std"] == pytest.approx(np.std(errors, ddof=1))
    assert found["test"]["n"] == 40 and found["split_by"] == "composition"
    assert found["baseline_mae"] == pytest.approx(found["composition_mae"])  # no composition of a test part is known


def test_every_structure_is_tested_on_once(finished):
    tested = [id for k in range(3) for id in read_split(finished[0] / f"fold_{k}" / "split.json").test]
    assert sorted(tested) == sorted(f"m{n}" for n in range(40))


def test_what_the_folds_began_with_has_seen_of_all_their_test_parts(config, finished, tmp_path):
    """Every structure is tested on once, so that it has seen as many as it was trained and validated on."""
    start = finished[0] / "fold_0"
    training = dataclasses.replace(config.training, epochs=1)
    summary = train_folds(dataclasses.replace(config, training=training), 3, tmp_path / "tuned", 1, init=start)
    split = read_split(start / "split.json")
    assert summary["init"] == {
        "name": str(start / "model.h5"),
        "test_structures_seen": len(split.train) + len(split.valid),
    }
    assert json.loads((tmp_path / "tuned" / "metrics.json").read_text()) == summary
    assert "init" not in finished[1]
    path = tmp_path / "tuned" / "fold_1" / "metrics.json"
    content = json.loads(path.read_text())
    for damaged in (7, {"name": "x"}):
        path.write_text(json.dumps(content | {"init": damaged}))
        with pytest.raises(RunError, match="fold_1/metrics.json: cannot be read as metrics"):
            train_folds(None, None, tmp_path / "tuned", 1, resume=True)


def test_processes_that_share_the_folds_leave_the_same(config, finished, tmp_path):
    summary = finished[1]
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    for fold in (2, 0, 1):
        command = ["train", path, "--folds", 3, "--fold", fold, "--out", tmp_path / "shared", "--threads", 1]
        result = CliRunner().invoke(cli, [*map(str, command)])
        assert result.exit_code == 0, result.stderr
        alone = f"model, predictions and pictures are in {tmp_path / 'shared' / f'fold_{fold}'}\n"
        assert result.stderr.endswith(alone) == (fold != 1)
    assert f"the runs fold_0 to fold_2 in {tmp_path / 'shared'} have models, predictions" in result.stderr
    assert "of 3 folds" in result.stdout and "new groups too" in result.stdout
    shared = json.loads((tmp_path / "shared" / "metrics.json").read_text())
    assert {**shared, "seconds": 0} == {**summary, "seconds": 0}
    other = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=6))
    with pytest.raises(RunError, match="training.seed = 5 .asked for: 6."):
        train_folds(other, 3, tmp_path / "shared", only=1)
    command = ["train", "--out", tmp_path / "shared", "--resume", "--epochs", 3, "--threads", 1]
    assert CliRunner().invoke(cli, [*map(str, command)]).exit_code == 0
    runs = [tmp_path / "shared" / f"fold_{k}" for k in range(3)]
    assert [json.loads((run / "metrics.json").read_text())["epochs"] for run in runs] == [3, 3, 3]


@pytest.mark.parametrize(("name", "what"), [("fold", "folds"), ("member", "the members of an ensemble")])
def test_a_folder_of_runs_in_the_place_of_one(finished, tmp_path, name, what):
    """What needs one network says where they are."""
    for k in (0, 1):
        shutil.copytree(finished[0] / f"fold_{k}", tmp_path / f"{name}_{k}")
    message = f"{tmp_path}: holds {what}, a run each; give one of these, such as {tmp_path / f'{name}_0'}"
    commands = [["verify"]]
    if name == "fold":
        shutil.copy(finished[0] / "folds.json", tmp_path)
        commands += [["evaluate"], ["info"], ["predict", "x.xyz"], ["explain", "x.xyz", "--out", "out"]]
        with pytest.raises(RunError, match=re.escape(message)):
            refattn.load(tmp_path)
    for command, *rest in commands:
        result = CliRunner().invoke(cli, [command, str(tmp_path), *rest])
        assert (result.exit_code, result.stderr) == (1, f"refattn: {message}\n")


def test_intervals_are_calibrated_by_the_groups(finished):
    run = finished[0] / "fold_1"
    model = refattn.load(run)
    (conformal,) = model.conformals
    n_valid = len(read_split(run / "split.json").valid)
    assert len(conformal.group) == n_valid and conformal.n_exchangeable == n_valid // 4
    assert conformal.assumption.startswith("new groups of structures are drawn as the 3 groups")
    result = CliRunner().invoke(cli, ["evaluate", str(run), "--coverage", "0.5"])
    assert "they assume that new groups of structures" in result.stdout
    assert "rest on 3 validation groups" in result.stderr


def test_what_makes_no_folds(config, finished, tmp_path):
    with pytest.raises(ConfigError, match="there is no fold 3 of 3"):
        train_folds(config, 3, tmp_path / "run", only=3)
    with pytest.raises(RunError, match="already holds the folds of a split"):
        train_folds(config, 3, finished[0])
    result = CliRunner().invoke(cli, ["train", "--folds", "3", "--fold", "3", "--out", str(tmp_path / "beyond")])
    assert "there is no fold 3 of 3" in result.stderr and not (tmp_path / "beyond").exists()
    for options in (["--fold", "1"], ["--folds", "2", "--ensemble", "2"], ["--folds", "2", "--overwrite"]):
        assert CliRunner().invoke(cli, ["train", *options, "--out", str(tmp_path / "run")]).exit_code == 2


def test_groups_of_elements_that_are_trained_on_too_calibrate_nothing(tmp_path):
    """NF3, to validate on for its N, counts as one with F, as CF4 does, which is trained on: it is said."""
    names = 8 * ["NH3"] + 2 * ["NF3"] + 4 * ["CF4"] + 8 * ["H2O"] + 10 * ["CH4"] + 10 * ["C2H6"]
    structures = [molecule(name) for name in names]
    records = [Record(f"m{n}", atoms, {"spread": label(atoms)}, {}) for n, atoms in enumerate(structures)]
    with DatasetWriter(tmp_path / "set.h5", GraphConfig()) as writer:
        writer.add(records, [GraphBatch.from_atoms(atoms) for atoms in structures])
    config = small_config(tmp_path / "set.h5", epochs=1)
    for seed in range(20):
        data = dataclasses.replace(config.data, split_by="elements", valid_by="group", split_seed=seed, n_test=8)
        split = choose_split(read_dataset(tmp_path / "set.h5"), dataclasses.replace(data, n_valid=10))
        if all(names[int(id[1:])] == "H2O" for id in split.test) and len(split.valid) == 10:
            break
    train(dataclasses.replace(config, data=dataclasses.replace(data, n_valid=10)), tmp_path / "run", n_threads=1)
    assert refattn.load(tmp_path / "run").conformals[0].group is None
    said = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), "--coverage", "0.5"]).stdout
    assert "new structures are drawn as the 10 structures" in said
    assert "promises nothing: those of the validation part are shared with the training part" in said
