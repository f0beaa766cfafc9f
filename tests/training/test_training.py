"""Loss, Adam, schedules and the loop: against hand-written formulas, the authors' code, and itself after a kill."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import small_data
from click.testing import CliRunner
from small_data import small_config, write_molecules
from upstream_fixtures import open_network, variant

from refattn.cli.main import cli
from refattn.cli.train import StopFlag
from refattn.common.loss import LOSSES, loss_of
from refattn.common.metrics import metrics, r2_against
from refattn.config import CHOICES, TrainingConfig, config_from_dict
from refattn.data.splits import read_split
from refattn.errors import ConfigError, DataError, RefattnError, RunError, TrainingError
from refattn.network.checkpoint import load_checkpoint, save_checkpoint
from refattn.network.model import backward, forward
from refattn.network.params import from_arrays
from refattn.ops import load_backend
from refattn.prediction.run_directory import FILES
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam
from refattn.training.schedule import Schedule
from refattn.training.train import Interrupted, train
from refattn.verification import verify

RUN_FILES = {
    "split.json", "calibration.h5",
    "config.toml", "model.h5", "last.h5", "log.jsonl", "metrics.json", "predictions.csv", "curve.png", "parity.png"
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.h5")


# ---- loss, Adam, schedules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_the_formula_and_its_gradient_the_difference_quotient(name):
    output, label = np.array([0.3, -1.0, 2.1, 0.05]), np.array([0.0, 1.0, 1.0, 0.0])
    error = output - label
    p = 1 / (1 + np.exp(-output))
    delta = 0.7
    expected = {
        "rmse": math.sqrt((error**2).mean()),
        "mse": (error**2).mean(),
        "mae": np.abs(error).mean(),
        "huber": np.mean([e * e / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2) for e in error]),
        "cross_entropy": -np.log(np.where(label == 1, p, 1 - p)).mean(),
    }[name]

    def loss(z):
        value, slope = LOSSES[name].points(z, label, delta)
        total, factor = LOSSES[name].reduce(value.sum(), len(z))
        return total, factor * slope

    assert loss(output)[0] == pytest.approx(expected, rel=1e-14)
    numeric = [(loss(output + h)[0] - loss(output - h)[0]) / 2e-6 for h in 1e-6 * np.eye(4)]
    np.testing.assert_allclose(loss(output)[1], numeric, rtol=1e-8)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_keep_the_type_and_the_shape(name, dtype):
    for n_structures in (1, 3):
        output = np.linspace(-2, 1, n_structures, dtype=dtype)
        points = LOSSES[name].points(output, np.ones_like(output), 0.1)
        assert (points.dtype, points.shape) == (dtype, (2, n_structures))


def test_the_cross_entropy_is_finite_where_probabilities_round_to_0_or_1():
    output = np.array([-800.0, 800.0, 800.0])
    value, slope = LOSSES["cross_entropy"].points(output, np.array([1.0, 1.0, 0.0]), 1.0)
    assert value.tolist() == [800, 0, 800]
    assert slope.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("name", [name for name in LOSSES if not LOSSES[name].of_class])
def test_a_perfect_batch_has_no_loss_and_no_gradient(name):
    value, slope = LOSSES[name].points(np.ones(4), np.ones(4), 1.0)
    total, factor = LOSSES[name].reduce(value.sum(), 4)
    assert (total, *(factor * slope)) == (0, 0, 0, 0, 0)


def test_an_unknown_loss_is_one_sentence_with_the_choices():
    with pytest.raises(
        ConfigError, match="^there is no loss 'cubic'; choose one of rmse, mse, mae, huber, cross_entropy$"
    ):
        loss_of("cubic")
    assert CHOICES["training.loss"] == tuple(LOSSES)


def test_adam_by_hand():
    config = TrainingConfig(weight_decay=0.01, rate_decay=0.5)
    w, mask = np.array([1.0, -2.0]), np.array([1.0, 0.0])
    adam, vector = Adam(w, mask, config), w.copy()
    m = v = np.zeros(2)
    for t, grad in enumerate(([0.5, 1.0], [-1.0, 0.25], [2.0, 0.0]), start=1):
        adam.update(vector, np.array(grad), 0.1)
        g = np.array(grad) + 2 * 0.01 * mask * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        rate = 0.1 / (1 + 0.5 * (t - 1)) * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        w = w - rate * m / (np.sqrt(v) + 1e-7)
        np.testing.assert_allclose(vector, w, rtol=1e-14)
    assert adam.penalty(vector) == pytest.approx(0.01 * w[0] ** 2)


@pytest.mark.parametrize("name", ["s_base", "s_plus"])
def test_three_steps_equal_the_authors_code(name):
    """Loss with weight decay before each of three Adam steps, and the weights after them, in float64."""
    ops = load_backend("cpu")
    with open_network() as file:
        fixture = variant(file, name)
        losses = fixture.group["f64"].attrs["adam3_losses"]
        start, wanted = fixture.arrays(), fixture.arrays("f64/adam3")
    model, y = fixture.config.model, fixture.graph["y"]
    params = from_arrays(model, start, np.float64)
    adam, grads = Adam(params.vector, params.decay_mask(), in_float32()), params.zeros_like()
    for step in range(3):
        tape = forward(params, fixture_shard(fixture), model, ops)
        value, slope = LOSSES["rmse"].points(tape.prediction[:, 0], y, 1.0)
        loss, factor = LOSSES["rmse"].reduce(value.sum(), len(y))
        assert loss + adam.penalty(params.vector) == pytest.approx(losses[step], rel=1e-9)
        backward((slope * factor)[:, None], tape, params, grads, model, ops)
        adam.update(params.vector, grads.vector, float(np.float32(5e-4)))
    for key, array in wanted.items():
        np.testing.assert_allclose(params[key], array, rtol=0, atol=1e-9, err_msg=key)


def in_float32():
    """Adam's constants as Keras has them: float32 variables, also for a float64 network."""
    names = ("beta_1", "beta_2", "rate_decay")
    return TrainingConfig(**{name: float(np.float32(getattr(TrainingConfig, name))) for name in names})


def fixture_shard(fixture):
    g = fixture.graph
    offset = np.repeat(np.repeat(g["site_ptr"][:-1], np.diff(g["site_ptr"])), np.diff(g["edge_ptr"]))
    arrays = (
        g["site_ptr"],
        g["edge_ptr"],
        (g["nbr"] + offset).astype(np.int32),
        g["z"],
        g["r"],
        g["omega"],
        g["weight"],
    )
    return GraphBatch(*arrays, np.arange(len(g["y"])))


def test_cosine_is_keras_cosine_decay():
    config = TrainingConfig(
        schedule="cosine", epochs=10, cosine_fraction=0.5, learning_rate=5e-4, learning_rate_min=1e-4
    )
    schedule = Schedule(config, steps_per_epoch=4)
    for step in range(40):
        fraction = min(step, 20) / 20
        decayed = 0.8 * 0.5 * (1 + math.cos(math.pi * fraction)) + 0.2  # Keras: (1 - alpha) cosine + alpha, alpha 0.2
        assert schedule.rate(step) == pytest.approx(5e-4 * decayed, rel=1e-12)


def test_warm_restarts_equal_the_authors_code():
    with open_network() as file:
        rates, curve = file["sgdr/lr"][()], file["sgdr/val_mae"][()]
    schedule = Schedule(TrainingConfig(schedule="sgdr", learning_rate=5e-4, learning_rate_min=1e-4), 1)
    ours = []
    for mae in curve:
        ours.append(schedule.rate(0))
        schedule.end_epoch(float(mae))
    np.testing.assert_allclose(ours, rates, rtol=1e-12)


def test_metrics():
    result = metrics(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0]))
    assert result == {
        "n": 3,
        "mae": pytest.approx(2 / 3),
        "rmse": pytest.approx(math.sqrt(2 / 3)),
        "r2": pytest.approx(1 - 2 / (14 / 3)),
    }


def test_equal_labels_have_no_r2():
    """Whatever their mean is rounded to."""
    label = np.full(7, 0.1)
    assert r2_against(label, label + 1, np.full(7, label.mean() + 1e-16)) is None
    assert label.mean() != 0.1
    assert metrics(label, label)["r2"] is None
    assert metrics(1 + 1e-6 * np.arange(7.0), np.ones(7))["r2"] is not None


# ---- the loop ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run of 6 epochs on one thread: (directory, metrics)."""
    out = tmp_path_factory.mktemp("run") / "six"
    return out, train(small_config(data), out, n_threads=1)


def test_run_directory_is_complete_and_has_learned(finished):
    out, summary = finished
    assert {path.name for path in out.iterdir()} == RUN_FILES
    assert json.loads((out / "metrics.json").read_text()) == summary
    assert summary["test"]["mae"] < 0.5 * summary["baseline_mae"]
    assert [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    assert len((out / "predictions.csv").read_text().splitlines()) == 1 + 60


def test_threads_do_not_change_a_bit(data, finished, tmp_path):
    train(small_config(data), tmp_path / "two", n_threads=2)
    assert same_state(finished[0] / "last.h5", tmp_path / "two" / "last.h5")


def test_a_save_within_an_epoch_loses_nothing_and_changes_no_bit(data, finished, tmp_path, monkeypatch):
    """After ten minutes; and what was saved goes on after a kill."""
    monkeypatch.setattr("refattn.training.train.SAVE_SECONDS", 0)

    class Killed(Exception):
        pass

    def kill(record):
        if record["epoch"] == 3 and record.get("batch") == 4:
            raise Killed

    with pytest.raises(Killed):
        train(small_config(data), tmp_path / "run", n_threads=1, progress=kill)
    assert load_checkpoint(tmp_path / "run" / "last.h5").state["place"]["batch"] == 3
    train(small_config(data), tmp_path / "run", n_threads=1, resume=True)
    assert same_state(finished[0] / "last.h5", tmp_path / "run" / "last.h5")


def test_a_longer_run_is_that_of_more_epochs(data, finished, tmp_path):
    for epochs in (2, 4):
        train(small_config(data, epochs=epochs, schedule="constant"), tmp_path / "run", n_threads=1, resume=True)
    train(small_config(data, epochs=4, schedule="constant"), tmp_path / "four", n_threads=1)
    assert same_state(tmp_path / "four" / "last.h5", tmp_path / "run" / "last.h5")


@pytest.mark.parametrize("stop_after", [1, 6, 15])
def test_interruption_and_resume_do_not_change_a_bit(data, finished, tmp_path, stop_after):
    calls = []

    def stop():
        calls.append(1)
        return len(calls) == stop_after

    with pytest.raises(Interrupted, match="epoch"):
        train(small_config(data), tmp_path / "run", n_threads=1, stop=stop)
    train(None, tmp_path / "run", n_threads=2, resume=True)
    assert same_state(finished[0] / "last.h5", tmp_path / "run" / "last.h5")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES


def test_kill_in_the_fourth_epoch_and_resume_do_not_change_a_bit(data, finished, tmp_path):
    out = tmp_path / "killed"
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from small_data import small_config; from refattn.training.train import train; import time\n"
        "def slow(record):\n"
        "    if record['epoch'] == 4: print('fourth', flush=True); time.sleep(60)\n"
        "train(small_config(sys.argv[1]), sys.argv[2], n_threads=2, progress=slow)\n"
    )
    arguments = [sys.executable, "-c", code, str(data), str(out), str(Path(small_data.__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == "fourth"
        process.send_signal(signal.SIGKILL)
    assert not (out / "metrics.json").exists()
    train(None, out, resume=True)
    assert same_state(finished[0] / "last.h5", out / "last.h5")


def test_a_run_is_verified_by_training_it_again(finished, tmp_path):
    """On another number of threads; a digest that differs is found at its step, and what has changed is said."""
    found = verify(finished[0], n_threads=2)
    n_batches = -(-len(load_checkpoint(finished[0] / "last.h5").split.train) // 8)
    assert {1, 2, 4, 8, 16, 32} | {epoch * n_batches for epoch in range(1, 7)} == {*found.steps}
    assert (found.first_difference, found.changed) == (None, {})
    run = tmp_path / "run"
    run.mkdir()
    checkpoint = load_checkpoint(finished[0] / "last.h5")
    checkpoint.state["digests"]["4"] = "0"
    save_checkpoint(run / "last.h5", checkpoint)
    with h5py.File(run / "last.h5", "r+") as file:
        file.attrs["processor"] = "an abacus"
    result = CliRunner().invoke(cli, ["verify", str(run), "--steps", "3"])
    assert result.exit_code == 0 and "the same bits after 2 of its steps, the last of them 2" in result.output
    result = CliRunner().invoke(cli, ["verify", str(run), "--steps", "5"])
    assert result.exit_code == 1
    assert "the parameters differ after step 4: processor an abacus then and" in result.output
    checkpoint.state.update(digests={}, history=[])
    save_checkpoint(run / "last.h5", checkpoint)
    with pytest.raises(RunError, match="keeps no digests of its first 3 steps; train it again"):
        verify(run, steps=3)


def same_state(a, b):
    """Whether two checkpoints hold the same bits, times aside."""
    first, second = load_checkpoint(a), load_checkpoint(b)
    for record in first.state["history"] + second.state["history"]:
        del record["seconds"], record["structures_per_second"]
    arrays = [np.array_equal(first.state[name], second.state[name]) for name in ("adam_m", "adam_v")]
    rest = first.state["history"] == second.state["history"] and first.state["schedule"] == second.state["schedule"]
    return (
        np.array_equal(first.params.vector, second.params.vector)
        and all(arrays)
        and rest
        and first.split == second.split
    )


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize("schedule", ["constant", "sgdr"])
def test_other_losses_and_schedules_learn(data, tmp_path, loss, schedule):
    summary = train(small_config(data, loss=loss, schedule=schedule), tmp_path / "run", n_threads=1)
    assert summary["test"]["mae"] < summary["baseline_mae"]


def test_early_stopping_keeps_the_best_model(data, tmp_path):
    summary = train(small_config(data, learning_rate=0.5, epochs=12, patience=2), tmp_path / "run", n_threads=1)
    assert summary["epochs"] < 12
    assert summary["epochs"] == summary["best_epoch"] + 2


def test_a_split_file_is_used(data, finished, tmp_path):
    """The split of a run, given to another one whose own seed would draw differently."""
    config = small_config(data, epochs=1)
    settings = dataclasses.replace(config.data, split=str(finished[0] / "split.json"), split_seed=9)
    train(dataclasses.replace(config, data=settings), tmp_path / "run")
    splits = [read_split(run / "split.json") for run in (finished[0], tmp_path / "run")]
    assert splits[0] == splits[1] == load_checkpoint(tmp_path / "run" / "model.h5").split


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"graph": {"rule": "upstream"}}, r"prepared with rule = isolated \(configuration: upstream\)"),
        ({"model": {"radial_max": 3.0}}, "set model.radial_max=4.0"),
        ({"data": {"target": "gap"}}, "has no label 'gap'"),
    ],
)
def test_a_configuration_that_does_not_fit_the_data(data, tmp_path, sections, message):
    with pytest.raises(RefattnError, match=message):
        train(config_from_dict({"data": {"path": str(data)}} | sections), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resume_after_the_data_were_replaced(tmp_path):
    data = write_molecules(tmp_path / "molecules.h5", n=20)
    train(small_config(data, epochs=1), tmp_path / "run")
    write_molecules(data, n=20, labels=[np.nan] * 20)
    with pytest.raises(DataError, match="the label spread of structure m"):
        train(None, tmp_path / "run", resume=True)
    write_molecules(data, n=20, labels=[1.0] * 20)
    message = "the labels spread are not those that the run was trained on"
    with pytest.raises(DataError, match=message):
        train(None, tmp_path / "run", resume=True)
    for line in (["evaluate", "--calibrate"], ["explain", "--validate", "--out", tmp_path / "report"]):
        result = CliRunner().invoke(cli, [line[0], str(tmp_path / "run"), *map(str, line[1:])])
        assert result.exit_code == 1 and message in result.stderr


def test_a_run_and_its_data_may_be_moved_together(tmp_path):
    (tmp_path / "old").mkdir()
    data = write_molecules(tmp_path / "old" / "molecules.h5", n=20)
    before = train(small_config(data, epochs=1), tmp_path / "old" / "runs" / "one")
    (tmp_path / "old").rename(tmp_path / "new")
    run = tmp_path / "new" / "runs" / "one"
    result = CliRunner().invoke(cli, ["evaluate", str(run), "--calibrate"])
    assert result.exit_code == 0, result.stderr
    assert train(None, run, resume=True)["test"] == before["test"]
    elsewhere = (tmp_path / "new" / "molecules.h5").rename(tmp_path / "elsewhere.h5")
    result = CliRunner().invoke(cli, ["train", "--out", str(run), "--resume", "--data", str(elsewhere)])
    assert result.exit_code == 0, result.stderr
    assert {load_checkpoint(run / name).config.data.path for name in FILES[:2]} == {str(elsewhere)}
    assert CliRunner().invoke(cli, ["evaluate", str(run)]).exit_code == 0


def test_default_directory(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("spread", "spread-2"):
        train(small_config(data, epochs=1))
        assert (tmp_path / "runs" / name / "metrics.json").exists()


def test_a_loss_that_is_not_finite_names_epoch_batch_and_structures(data, tmp_path):
    with pytest.raises(
        TrainingError, match=r"epoch \d+, batch \d+: the .* is not finite in the structures m\d+.*(stays in|no model)"
    ):
        train(small_config(data, learning_rate=1e30, learning_rate_min=1e30), tmp_path / "run", n_threads=1)


def test_a_finished_directory_is_not_overwritten(data, finished):
    before = (finished[0] / "model.h5").read_bytes()
    with pytest.raises(RunError, match="already holds a run"):
        train(small_config(data), finished[0])
    assert (finished[0] / "model.h5").read_bytes() == before


def test_resume_of_a_finished_run_changes_nothing(finished):
    before = (finished[0] / "model.h5").read_bytes()
    assert train(None, finished[0], resume=True)["test"] == finished[1]["test"]
    assert (finished[0] / "model.h5").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_ask_to_stop(number):
    stop = StopFlag()
    assert not stop()
    os.kill(os.getpid(), number)
    assert stop()


def test_sigterm_saves_and_says_how_to_go_on(data, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(
        '[model]\nn_layers = 1\nwidth = 16\nn_heads = 4\n[data]\ntarget = "spread"\n[training]\nepochs = 100000\n'
    )
    command = [
        sys.executable,
        "-m",
        "refattn.cli.main",
        "train",
        str(config),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "log.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        message = process.stderr.read()
    assert process.returncode == 130
    assert "stopped in epoch" in message
    assert "--resume" in message
    assert load_checkpoint(tmp_path / "run" / "last.h5").state["adam_step"] > 0
