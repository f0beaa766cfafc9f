"""Ensembles: their mean and spread against NumPy on the members' own predictions, and their training after a kill."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
import small_data
from click.testing import CliRunner
from damage import cut, drop, put, remove, swap
from small_data import label, molecules, small_config, write_molecules

import refattn
from refattn.cli.main import cli
from refattn.errors import ConfigError, RunError
from refattn.prediction.ensemble import members_of, read_plan
from refattn.training.train import Interrupted, train
from refattn.training.train_ensemble import train_ensemble

FLOAT32 = 5e-6  # float32 numbers of order 1 after about 20 roundings each; of a shard of another cut
SETTINGS = {"epochs": 2, "seed": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.h5", n=40)


@pytest.fixture(scope="module")
def ensemble(data, tmp_path_factory):
    """A finished ensemble of three, and its metrics."""
    out = tmp_path_factory.mktemp("ensemble") / "three"
    return out, train_ensemble(small_config(data, **SETTINGS), 3, out, n_threads=1)


def command(*arguments, status=0):
    """What a command prints on stdout, or on stderr where it must fail."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.stderr or repr(result.exception)
    return result.stderr if status else result.stdout


# ---- predictions -----------------------------------------------------------------------------------------------------


def test_mean_and_spread_are_those_of_the_members(ensemble):
    structures = molecules(12, seed=3)
    members = [refattn.load(ensemble[0] / f"member_{k}").predict(structures) for k in range(3)]
    values = np.array([member.value for member in members])
    assert (values.std(axis=0) > 1e-3).all()  # the seeds differ
    result = refattn.load(ensemble[0]).predict(structures)
    np.testing.assert_allclose(result.value, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.spread, values.std(axis=0, ddof=1), rtol=1e-9)
    for n, attention in enumerate(result.attention):
        np.testing.assert_allclose(attention, np.mean([m.attention[n] for m in members], axis=0), rtol=1e-6)
        assert attention.sum() == pytest.approx(1, abs=1e-6)
    assert result.distance is result.lower is None
    asked = refattn.load(ensemble[0]).predict(structures, coverage=0.5)
    distances = [refattn.load(ensemble[0] / f"member_{k}").predict(structures, uncertainty=True) for k in range(3)]
    np.testing.assert_allclose(asked.distance, np.mean([d.distance for d in distances], axis=0), rtol=1e-12)
    np.testing.assert_allclose((asked.lower + asked.upper) / 2, asked.value, rtol=1e-12)


def test_interval_is_that_of_the_mean(ensemble):
    """The score of a validation molecule is the error of the mean over the mean distance."""
    model, images = refattn.load(ensemble[0]), {atoms.info["id"]: atoms for atoms in molecules(40)}
    valid = [images[id] for id in model.checkpoints[0].split.valid]
    result = model.predict(valid, coverage=0.8)
    error = np.abs(result.value - [label(atoms) for atoms in valid])
    q = np.sort(error / result.distance)[3]  # of 4, rank 5 * 0.8
    np.testing.assert_allclose((result.upper - result.lower) / 2, q * result.distance, rtol=1e-3)


def test_threads_do_not_change_a_bit(ensemble):
    model = refattn.load(ensemble[0])
    one, two = (model.predict(molecules(30), n_threads=n, coverage=0.5) for n in (1, 2))
    for name in ("value", "spread", "distance", "lower", "upper"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_what_needs_one_network_says_so(ensemble):
    with pytest.raises(RunError, match="give one of its members"):
        refattn.explain(refattn.load(ensemble[0]), molecules(1))


def test_command_line(ensemble, tmp_path):
    ase.io.write(tmp_path / "new.extxyz", molecules(5), format="extxyz")
    command("predict", ensemble[0], tmp_path / "new.extxyz", "--out", tmp_path / "out.h5")
    wanted = refattn.load(ensemble[0]).predict(ase.io.read(tmp_path / "new.extxyz", ":"))
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["spread"][:].tolist() == wanted.spread.tolist()
        assert file["value"][:].tolist() == wanted.value.tolist()
        assert "distance" not in file
    assert f"\tspread {wanted.spread[0]:.6g}" in command("predict", ensemble[0], tmp_path / "new.extxyz")
    found = json.loads(command("evaluate", ensemble[0], "--coverage", 0.5, "--json"))
    assert found["test"] == ensemble[1]["test"]
    assert found["uncertainty"]["n"] == 4
    assert found["uncertainty"]["curve"]["wanted"] == [n / 10 for n in range(1, 9)]  # 0.9 needs 9 to validate
    assert found["uncertainty"]["mean_spread"] > 0
    assert "mean spread" in command("evaluate", ensemble[0], "--coverage", 0.5)
    model = ensemble[0] / "member_1" / "model.h5"
    (tmp_path / "out.csv").hardlink_to(model)
    message = command("predict", ensemble[0], tmp_path / "new.extxyz", "--out", tmp_path / "out.csv", status=1)
    assert "is the input" in message


def test_metrics_are_those_of_the_mean(ensemble):
    """Computed from the predictions.csv of the members."""
    out, summary = ensemble
    assert json.loads((out / "metrics.json").read_text()) == summary
    tables = []
    for folder in (out, *(out / f"member_{k}" for k in range(3))):
        with open(folder / "predictions.csv", newline="") as stream:
            tables.append(list(csv.reader(stream))[1:])
    assert len(tables[0]) == 40
    values = np.array([[float(row[3]) for row in table] for table in tables])
    np.testing.assert_allclose(values[0], values[1:].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose([float(row[4]) for row in tables[0]], values[1:].std(axis=0, ddof=1), rtol=1e-9)
    test = np.array([row[1] == "test" for row in tables[0]])
    error = np.abs(values - [float(row[2]) for row in tables[0]])[:, test].mean(axis=1)
    assert [summary["test"]["mae"], *summary["member_test_mae"]] == pytest.approx(error.tolist())


# ---- training --------------------------------------------------------------------------------------------------------


def contents(out):
    """Parameters of every member, and every file that has no times in it."""
    found = {}
    for member in sorted(out.glob("member_*")):
        with h5py.File(member / "last.h5") as file:
            file["parameters"].visititems(
                lambda name, item, at=member.name: (
                    found.update({f"{at}/{name}": item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
                )
            )
        found[f"{member.name}/calibration"] = (member / "calibration.h5").read_bytes()
    files = [path for path in sorted(out.rglob("*")) if path.name in ("predictions.csv", "split.json", "config.toml")]
    return found | {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_members_have_seeds_of_their_own_and_one_split(ensemble):
    assert (ensemble[0] / "member_2" / "metrics.json").exists()
    for k in range(3):
        checkpoint = refattn.load(ensemble[0] / f"member_{k}").checkpoint
        assert checkpoint.config.training.seed == 5 + k
        assert checkpoint.split == refattn.load(ensemble[0] / "member_0").checkpoint.split


def test_a_member_is_the_run_of_its_seed(data, ensemble, tmp_path):
    train(small_config(data, epochs=2, seed=6), tmp_path / "alone", n_threads=2)
    for name in ("predictions.csv", "calibration.h5"):
        assert (tmp_path / "alone" / name).read_bytes() == (ensemble[0] / "member_1" / name).read_bytes()


def test_kill_in_the_second_member_and_resume_do_not_change_a_bit(data, ensemble, tmp_path):
    out = tmp_path / "killed"
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from small_data import small_config; from refattn.training.train_ensemble import train_ensemble; import time\n"
        "def slow(record):\n"
        "    if record['member'] == 1 and record['epoch'] == 2: print('there', flush=True); time.sleep(60)\n"
        "train_ensemble(small_config(sys.argv[1], epochs=2, seed=5), 3, sys.argv[2], n_threads=2, progress=slow)\n"
    )
    arguments = [sys.executable, "-c", code, str(data), str(out), str(Path(small_data.__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "there"
        process.send_signal(signal.SIGKILL)
    assert not (out / "member_2").exists()
    with pytest.raises(RunError, match="member_1 of its 3 members is not trained; go on with .* --resume"):
        refattn.load(out)
    finished = (out / "member_0" / "last.h5").stat().st_mtime_ns
    command("train", "--out", out, "--resume", "--threads", 1)
    assert (out / "member_0" / "last.h5").stat().st_mtime_ns == finished
    assert contents(out) == contents(ensemble[0])


def test_interruption_and_resume_do_not_change_a_bit(data, ensemble, tmp_path):
    """After the first batch of the first member."""
    out = tmp_path / "stopped"
    with pytest.raises(Interrupted):
        train_ensemble(small_config(data, **SETTINGS), 3, out, n_threads=1, stop=lambda: True)
    train_ensemble(None, None, out, n_threads=2, resume=True)
    assert contents(out) == contents(ensemble[0])


def test_a_folder_that_holds_an_ensemble_or_a_run_is_refused(data, ensemble):
    out, before = ensemble[0], contents(ensemble[0])
    for start in (lambda: train(small_config(data), out), lambda: train_ensemble(small_config(data), 2, out)):
        with pytest.raises(RunError, match="already holds an ensemble"):
            start()
    with pytest.raises(RunError, match="already holds a run"):
        train_ensemble(small_config(data), 2, out / "member_0")
    train_ensemble(None, None, out, resume=True)
    assert contents(out) == before


def test_members_that_are_stopped_on_the_way_to_more_epochs_are_not_finished(data, ensemble, tmp_path):
    out = shutil.copytree(ensemble[0], tmp_path / "three")
    longer = small_config(data, **SETTINGS | {"epochs": 3})
    with pytest.raises(Interrupted):
        train_ensemble(longer, 3, out, n_threads=1, resume=True, stop=lambda: True)
    assert not (out / "metrics.json").exists()  # it would be that of two epochs
    train_ensemble(longer, 3, out, n_threads=1, resume=True)
    assert [json.loads((out / f"member_{k}" / "metrics.json").read_text())["epochs"] for k in range(3)] == [3, 3, 3]


def test_nothing_is_left_of_an_ensemble_that_cannot_be_trained(data, tmp_path):
    for n_members, init, error in ((1, None, ConfigError), (2, tmp_path / "none", RunError)):
        with pytest.raises(error):
            train_ensemble(small_config(data), n_members, tmp_path / "out", init=init)
        assert not (tmp_path / "out").exists()


def test_fine_tuned_members_start_from_the_other_run(data, ensemble, tmp_path):
    rates = {"learning_rate": 1e-9, "learning_rate_min": 1e-9}
    config = small_config(data, epochs=1, **rates)
    summary = train_ensemble(config, 2, tmp_path / "out", n_threads=1, init=ensemble[0] / "member_0")
    assert summary["member_test_mae"] == pytest.approx([ensemble[1]["member_test_mae"][0]] * 2, rel=1e-3)
    assert summary["init"] == {"name": str(ensemble[0] / "member_0" / "model.h5"), "test_structures_seen": 0}
    with pytest.raises(RunError, match="its runs do not begin with .*member_1; leave --init out"):
        train_ensemble(config, 2, tmp_path / "out", init=ensemble[0] / "member_1", resume=True)


def test_info_names_the_members(ensemble):
    facts = json.loads(command("info", ensemble[0], "--json"))
    assert facts["members"] == ["member_0", "member_1", "member_2"]
    assert facts["metrics"]["member_test_mae"] == ensemble[1]["member_test_mae"]


@pytest.fixture
def copy(ensemble, tmp_path):
    return shutil.copytree(ensemble[0], tmp_path / "copy")


@pytest.mark.parametrize(
    "damage",
    [
        *(cut(0), cut(0.5), put("[]"), put("{}"), put("\x00\xff"), swap('"n_members": 3', '"n_members": true')),
        *(swap('"n_members": 3', '"n_members": 1'), swap('"version": 1', '"version": 2'), swap("[model]", "[modle]")),
        swap('"init": ""', '"init": 1'),
    ],
)
def test_a_damaged_plan_is_refused_in_one_sentence(copy, damage):
    damage(copy / "ensemble.json")
    for arguments in (("train", "--out", copy, "--resume"), ("evaluate", copy)):
        message = command(*arguments, status=1)
        assert message.startswith("refattn: ") and "; " in message and len(message.splitlines()) == 1


def test_an_ensemble_and_its_data_may_be_moved_together(ensemble, data, copy):
    moved = data.rename(copy.parent / data.name)
    shutil.rmtree(copy / "member_2")
    try:
        again = train_ensemble(None, None, copy, n_threads=1, resume=True)
        assert CliRunner().invoke(cli, ["evaluate", str(copy)]).exit_code == 0
    finally:
        moved.rename(data)
    assert again["member_test_mae"] == ensemble[1]["member_test_mae"]


def test_members_that_are_missing_damaged_or_of_another_kind(data, copy, tmp_path):
    train(small_config(data, epochs=1, seed=3), tmp_path / "single", n_threads=1)
    assert members_of(copy) == [copy / f"member_{k}" for k in range(3)]
    assert members_of(tmp_path / "single") == [tmp_path / "single"]
    remove(copy / "ensemble.json")  # runs that somebody put together
    assert refattn.load(copy).predict(molecules(2)).spread.shape == (2,)
    calibration = copy / "member_2" / "calibration.h5"
    drop("label")(calibration)
    with pytest.raises(RunError, match="member_2.*calibration.h5: cannot be read"):
        refattn.load(copy).predict(molecules(2), uncertainty=True)
    other = small_config(write_molecules(tmp_path / "other.h5", n=30), epochs=1)
    shutil.rmtree(copy / "member_2")
    train(other, copy / "member_2", n_threads=1)
    with pytest.raises(RunError, match="member_2: has another network"):
        refattn.load(copy)
    shutil.rmtree(copy / "member_1")
    with pytest.raises(RunError, match="member_1 of its 2 members is missing"):
        refattn.load(copy)
    shutil.rmtree(copy / "member_2")
    with pytest.raises(RunError, match="one member is no ensemble"):
        refattn.load(copy)


def test_a_training_from_the_command_line(data, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[model]\nn_layers = 1\nwidth = 16\nn_heads = 4\n[data]\ntarget = "spread"\n')
    arguments = ["train", config, "--data", data, "--out", tmp_path / "two", "--epochs", 1, "--ensemble", 2]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    assert "member 2 of 2" in result.stderr
    assert "test MAE of the members alone: " in result.stderr
    assert "spread" in result.stdout
    assert read_plan(tmp_path / "two").n_members == 2
    message = command(*arguments[:-1], 3, "--resume", status=1)
    assert "its ensemble has 2 members (asked for: 3)" in message
    arguments[arguments.index("--epochs") + 1] = 2
    result = CliRunner().invoke(cli, [*map(str, arguments), "--resume"])
    assert result.exit_code == 0 and result.stderr.count("epoch   2/") == 2, result.stderr
