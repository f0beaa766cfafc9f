"""Several targets in one network: missing labels, the loss of a batch and its gradient, a run from start to end."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import tolerances
from small_data import molecules, small_config, write_properties

import refattn
from refattn.common.loss import LOSSES
from refattn.config import config_from_dict
from refattn.data.store import read_dataset
from refattn.errors import DataError
from refattn.gradient_check import central_difference
from refattn.network.checkpoint import load_checkpoint
from refattn.network.inference import predict_rows
from refattn.network.params import initialise
from refattn.ops import load_backend
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam
from refattn.training.cpu_stepper import CpuStepper
from refattn.training.targets import Targets, label_scale
from refattn.training.train import Interrupted, train

NAMES = ["spread", "heavy"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_properties(tmp_path_factory.mktemp("data") / "molecules.h5")


def config_of(data, targets=NAMES, model=None, **training):
    """small_config of several targets."""
    config = small_config(data, **training)
    data = dataclasses.replace(config.data, target=targets, target_weight=[1.0, 0.5, 2.0][: len(targets)])
    return dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, **(model or {})))


def stepper_of(config, dataset, label, ops="cpu"):
    params = initialise(config.model, 0, config.training.dtype)
    adam = Adam(params.vector, params.decay_mask(), config.training)
    return CpuStepper(config, load_backend(ops), dataset.graphs, dataset.id, Targets(label), params, adam)


# ---- loss and gradient -------------------------------------------------------------------------------------------


def loss_by_hand(config, label, prediction):
    """sum_k w_k L_k, each L_k over the structures whose label is known."""
    total = 0.0
    for k, weight in enumerate(config.data.weights):
        errors = [p - y for p, y in zip(prediction[:, k], label[:, k], strict=True) if not np.isnan(y)]
        if errors:
            value = sum(LOSSES[config.training.loss].point(e, config.training.huber_delta)[0] for e in errors)
            total += weight * LOSSES[config.training.loss].reduce(value, len(errors))[0]
    return total


@pytest.mark.parametrize("ops", ["cpu", "reference"])
@pytest.mark.parametrize("loss", ["rmse", "huber"])
def test_gradient_of_a_batch_is_the_difference_quotient(monkeypatch, data, loss, ops):
    """Three targets, of which one has no label in the batch and another one some; over several shards."""
    config = config_of(
        data, ["spread", "heavy", "none"], {"dropout": 0.0, "attention_dropout": 0.0}, loss=loss, dtype="float64"
    )
    dataset, rows = read_dataset(data), np.array([5, 1, 8, 30, 12, 2])
    label = np.random.default_rng(0).normal(size=(len(dataset), 3))
    label[rows, 2] = label[rows[:4], 1] = np.nan
    monkeypatch.setattr(GraphBatch, "cut", lambda graphs, rows: [rows[:2], rows[2:3], rows[3:]])
    stepper = stepper_of(config, dataset, label, ops)

    def batch_loss():
        output = predict_rows(stepper.params, config.model, load_backend("cpu"), dataset.graphs, rows)
        return loss_by_hand(config, label[rows], output.prediction)

    found, absolute = stepper.compute_gradient(rows, 0, map)
    assert found == pytest.approx(batch_loss(), rel=1e-12)
    assert absolute[2] == 0
    for name in ("target1.after_b", "output_w", "target1.output_w", "target2.output_w", "layer1.query_b"):
        expected = central_difference(batch_loss, stepper.params[name])
        np.testing.assert_allclose(stepper.grads[name], expected, rtol=0, atol=1e-7 * np.abs(expected).max(initial=1))


def test_one_of_two_targets_without_weight_is_one_alone(data):
    """The path of several terms gives the numbers of the path of one."""
    dataset, rows = read_dataset(data), np.arange(40)
    label = np.random.default_rng(0).normal(size=(len(dataset), 1))
    alone = stepper_of(config_of(data, ["spread"], loss="rmse", dtype="float64"), dataset, label)
    both = stepper_of(
        config_of(data, loss="rmse", dtype="float64"), dataset, np.column_stack([label, np.full_like(label, np.nan)])
    )
    for stepper in (alone, both):
        for _ in range(3):  # pools of work arrays grow
            stepper.compute_gradient(rows, 1, map)
    n = len(alone.params.vector)
    expected = alone.grads.vector
    assert np.abs(both.grads.vector[:n] - expected).max() <= tolerances.NETWORK * np.abs(expected).max()
    assert not both.grads.vector[n:].any()


# ---- a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "two"
    return out, train(config_of(data, epochs=4), out, n_threads=1)


def test_both_targets_are_learned_and_told_apart_by_name(data, finished):
    out, summary = finished
    assert json.loads((out / "metrics.json").read_text()) == summary
    assert set(summary["targets"]) == set(NAMES)
    dataset = read_dataset(data)
    for name in NAMES:
        found = summary["targets"][name]
        assert found["test"]["mae"] < found["baseline_mae"]
    known = ~np.isnan(dataset.labels["heavy"])
    parts = ("train", "valid", "test")
    assert [sum(summary["targets"][name][part]["n"] for part in parts) for name in NAMES] == [60, known.sum()]
    assert summary["targets"]["heavy"]["unit"] == "atoms"
    records = list(csv.DictReader((out / "predictions.csv").open()))
    assert sum(record["heavy"] == "" for record in records) == (~known).sum()
    values = refattn.load(out).predict(molecules(60)).value
    row = {id: n for n, id in enumerate(dataset.id)}
    for record in records:
        told = [float(record[f"prediction {name}"]) for name in NAMES]
        np.testing.assert_allclose(values[row[record["id"]]], told, rtol=1e-5)


def test_scale_is_of_the_known_training_labels(data, finished):
    checkpoint = load_checkpoint(finished[0] / "model.h5")
    dataset = read_dataset(data)
    rows = np.flatnonzero(np.isin(dataset.id, checkpoint.split.train))
    for k, name in enumerate(NAMES):
        label = dataset.labels[name][rows]
        assert checkpoint.scale.mean[k] == pytest.approx(np.nanmean(label))
        assert checkpoint.scale.std[k] == pytest.approx(np.nanstd(label))
    assert checkpoint.units == ("", "atoms")


def test_threads_and_a_stop_do_not_change_a_bit(data, finished, tmp_path):
    calls = []
    with pytest.raises(Interrupted):
        train(config_of(data, epochs=4), tmp_path / "run", 2, stop=lambda: calls.append(1) or len(calls) == 9)
    train(None, tmp_path / "run", 2, resume=True)
    first, second = (load_checkpoint(run / "last.h5") for run in (finished[0], tmp_path / "run"))
    assert np.array_equal(first.params.vector, second.params.vector)
    for a, b in zip(first.state["history"], second.state["history"], strict=True):
        assert {**a, "seconds": 0, "structures_per_second": 0} == {**b, "seconds": 0, "structures_per_second": 0}


def test_a_target_without_labels_is_one_sentence(data, tmp_path):
    with pytest.raises(DataError, match="^no structure to train on has the label none; "):
        train(config_of(data, ["spread", "none"]), tmp_path / "run")


def test_one_name_in_a_list_is_that_target(data):
    sections = {"data": {"path": str(data), "target": ["spread"]}}
    assert config_from_dict(sections) == config_from_dict({"data": {"path": str(data), "target": "spread"}})


def test_a_non_negative_target_is_not_shifted():
    config = config_from_dict({"model": {"non_negative": True}, "data": {"target": NAMES}})
    scale = label_scale(np.array([[1.0, 2.0], [3.0, np.nan], [np.nan, 4.0]]), config)
    assert (scale.mean.tolist(), scale.std.tolist()) == ([0, 0], [1, 1])
