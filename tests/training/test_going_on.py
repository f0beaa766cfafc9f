"""The same command goes on: from another working directory, with other types, and where what it began with is gone."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from small_data import small_config, write_molecules

import refattn.models
from refattn.cli.main import cli
from refattn.config import load_config, to_toml
from refattn.data.splits import Split, write_split
from refattn.errors import DataError, RunError
from refattn.models import CARD
from refattn.network.checkpoint import load_checkpoint
from refattn.training.train import Interrupted, train
from refattn.training.train_ensemble import train_ensemble
from refattn.training.train_folds import train_folds


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return small_config(write_molecules(tmp_path_factory.mktemp("data") / "molecules.h5", n=40), epochs=1)


@pytest.fixture(scope="module")
def start(config, tmp_path_factory):
    """A run to begin others with."""
    out = tmp_path_factory.mktemp("start") / "run"
    train(config, out, 1)
    return out


def changed(config, section, **values):
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def stop_after(n_batches):
    calls = iter(range(n_batches + 1))
    return lambda: next(calls) == n_batches


def test_a_run_of_another_type_to_begin_with(config, start, tmp_path):
    """float32 to float64: what the run began with is what the file says, rounded as it was."""
    wide = changed(config, "training", dtype="float64", seed=3)
    with pytest.raises(Interrupted):
        train(wide, tmp_path / "run", 1, init=start, stop=stop_after(1))
    train(wide, tmp_path / "run", 1, resume=True, init=start)
    train(changed(config, "training", seed=9), tmp_path / "other", 1)
    with pytest.raises(RunError, match="did not begin with"):
        train(wide, tmp_path / "run", 1, resume=True, init=tmp_path / "other")


def test_a_table_of_groups_that_was_changed_is_found_before_more_is_trained(config, tmp_path):
    """The split was drawn by it; with the table as it was the run goes on."""
    table = tmp_path / "groups.csv"
    texts = ["id,group\n" + "".join(f"m{n},{n % size}\n" for n in range(40)) for size in (8, 5)]
    table.write_text(texts[0])
    grouped = changed(config, "data", split_by="group", split_group=str(table))
    with pytest.raises(Interrupted):
        train(grouped, tmp_path / "run", 1, stop=stop_after(1))
    table.write_text(texts[1])
    kept = (tmp_path / "run" / "last.h5").read_bytes()
    said = []
    with pytest.raises(DataError, match="gives other groups than those that the split was drawn by; restore the file"):
        train(None, tmp_path / "run", 1, resume=True, progress=said.append)
    assert not said and (tmp_path / "run" / "last.h5").read_bytes() == kept
    table.write_text(texts[0])
    assert train(None, tmp_path / "run", 1, resume=True)["epochs"] == 1


def test_a_fold_goes_on_without_what_it_began_with(config, start, tmp_path):
    copied = shutil.copytree(start, tmp_path / "copied")
    with pytest.raises(Interrupted):
        train_folds(config, 2, tmp_path / "two", 1, init=copied, only=0, stop=stop_after(1))
    shutil.rmtree(copied)
    train_folds(None, 2, tmp_path / "two", 1, resume=True, only=0)
    assert (tmp_path / "two" / "fold_0" / "metrics.json").exists()


def test_no_mean_over_folds_of_different_lengths(config, tmp_path):
    out = tmp_path / "two"
    train_folds(config, 2, out, 1)
    (out / "metrics.json").unlink()
    longer = changed(config, "training", epochs=2)
    train_folds(longer, 2, out, 1, resume=True, only=0)
    assert not (out / "metrics.json").exists()
    train_folds(longer, 2, out, 1, resume=True, only=1)
    assert json.loads((out / "metrics.json").read_text())["n_folds"] == 2


def test_an_ensemble_begins_with_a_model_that_ships(config, start, tmp_path, monkeypatch):
    shutil.copytree(start, tmp_path / "models" / "small")
    (tmp_path / "models" / "small" / CARD).write_text("{}")
    monkeypatch.setattr(refattn.models, "FOLDER", tmp_path / "models")
    calls = stop_after(1)
    with pytest.raises(Interrupted):
        train_ensemble(config, 2, tmp_path / "two", 1, init="small", stop=calls)
    train_ensemble(config, 2, tmp_path / "two", 1, resume=True, init="small")
    with pytest.raises(RunError, match="do not begin with"):
        train_ensemble(config, 2, tmp_path / "two", 1, resume=True, init=start)


def test_files_of_a_configuration_are_found_from_elsewhere(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = [f"m{n}" for n in range(40)]
    write_split("parts.json", Split(ids[:30], ids[30:35], ids[35:]))
    named = changed(config, "data", split="parts.json")
    train(named, "run", 1)
    assert load_config("run/config.toml").data.split == str(tmp_path / "parts.json")
    train(named, "run", 1, resume=True)  # the same words name the same file
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(RunError, match="data.split = "):
        train(named, tmp_path / "run", 1, resume=True)  # here they name another one


def test_an_embedding_that_splits_is_found_from_elsewhere(config, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["embed", str(start), config.data.path, "--out", "maps"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    by = changed(config, "data", split_by="cluster", split_group="maps/embedding.h5")
    train(by, "run", 1)
    monkeypatch.chdir("/")
    assert "split_by" in CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run"), "--json"]).stdout
    assert load_checkpoint(tmp_path / "run" / "model.h5").config.data.split_group == str(tmp_path / "maps/embedding.h5")
    with h5py.File(tmp_path / "maps" / "embedding.h5", "r+") as file:
        vectors = file["structures/structure_vector"]
        vectors[...] = np.random.default_rng(0).normal(size=vectors.shape)
    result = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "run")])
    assert result.exit_code == 1 and "gives other groups than those that the split was drawn by" in result.stderr


def test_folds_and_members_are_not_mixed(config, tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(to_toml(config))
    out = tmp_path / "two"
    with pytest.raises(Interrupted):
        train_ensemble(config, 2, out, 1, stop=stop_after(1))
    result = CliRunner().invoke(cli, ["train", str(file), "--out", str(out), "--folds", "2", "--resume"])
    assert result.exit_code == 2 and "holds an ensemble" in result.stderr


def test_a_fold_alone_is_told_how_to_go_on(config, tmp_path, monkeypatch):
    file = tmp_path / "c.toml"
    file.write_text(to_toml(config))
    monkeypatch.setattr("refattn.cli.train.StopFlag", lambda: stop_after(1))
    result = CliRunner().invoke(
        cli, ["train", str(file), "--out", str(tmp_path / "two"), "--folds", "2", "--fold", "1"]
    )
    assert result.exit_code == 130 and "two --folds 2 --fold 1 --resume" in result.stderr
