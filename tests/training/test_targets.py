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
from refattn.data.notes import notes_on
from refattn.data.store import read_dataset
from refattn.data.taught_attention import taught_attention
from refattn.errors import DataError
from refattn.gradient_check import central_difference
from refattn.network.checkpoint import load_checkpoint
from refattn.network.inference import predict_rows
from refattn.network.model import forward
from refattn.network.params import initialise
from refattn.ops import load_backend
from refattn.structures.batch import GraphBatch
from refattn.training import targets
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
    config = small_config(data)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, target=targets, target_weight=[1.0, 0.5, 2.0][: len(targets)]),
        model=dataclasses.replace(config.model, **(model or {})),
        training=dataclasses.replace(config.training, **training),
    )


def stepper_of(config, dataset, targets, ops="cpu"):
    params = initialise(config.model, 0, config.training.dtype)
    adam = Adam(params.vector, params.decay_mask(), config.training)
    return CpuStepper(config, load_backend(ops), dataset.graphs, dataset.id, targets, params, adam)


# ---- loss and gradient -------------------------------------------------------------------------------------------


def loss_by_hand(config, targets, dataset, rows, params):
    """sum_k w_k L_k, each over the structures whose label is known, and the mean cross entropy of taught attention."""
    shard = dataset.graphs.take(rows).for_network(config.model, np.float64)
    tape = forward(params, shard, config.model, load_backend("reference"))
    total = 0.0
    for k, (target, weight) in enumerate(zip(config.data.targets, config.data.weights, strict=True)):
        pairs = zip(tape.prediction[:, k], targets.label[rows, k], strict=True)
        of_structure = np.ones(len(rows)) if targets.weight is None else targets.weight[rows]
        known = [(p, y, w) for (p, y), w in zip(pairs, of_structure, strict=True) if not np.isnan(y)]
        if known:
            loss = LOSSES[config.training.loss]
            value = sum(w * loss.point(p, y, config.training.huber_delta)[0] for p, y, w in known)
            total += weight * loss.reduce(value, sum(w for _, _, w in known))[0]
        if target in dict(config.training.attention):
            total += config.attention_weights[k] * np.mean(
                [entropy for entropy in entropies(tape.beta[k], targets.share[:, k], dataset, rows) if entropy]
            )
    return total


def entropies(beta, share, dataset, rows):
    """-sum_i p_i log beta_i of each of the structures."""
    start = 0
    for row in rows:
        p = share[dataset.graphs.site_ptr[row] : dataset.graphs.site_ptr[row + 1]]
        yield -(p * np.log(beta[start : start + len(p)])).sum()
        start += len(p)


CASES = [
    ({"loss": "rmse"}, {}, ["spread", "heavy", "none"], "cpu"),
    ({"loss": "huber"}, {}, ["spread", "heavy", "none"], "reference"),
    ({"loss": "cross_entropy"}, {}, ["spread"], "cpu"),
    ({"attention": {"spread": "population"}}, {"readout": "published"}, ["spread"], "cpu"),
    (
        {"attention": {"spread": "population", "heavy": "population"}, "attention_weight": [0.3, 2.0]},
        {"head": "additive"},
        ["spread", "heavy"],
        "cpu",
    ),
    ({"attention": {"spread": "population"}, "loss": "mae"}, {"readout": "sum"}, ["spread", "none"], "reference"),
]


@pytest.mark.parametrize(("training", "model", "targets", "ops"), CASES)
def test_gradient_of_a_batch_is_the_difference_quotient(monkeypatch, data, training, model, targets, ops):
    """Some labels are missing, of `none` all; m5, m30 and m0 have no population; over several shards, with weights."""
    model = {"dropout": 0.0, "attention_dropout": 0.0, **model}
    config = config_of(data, targets, model, dtype="float64", **training)
    dataset, rows = read_dataset(data), np.array([5, 1, 8, 30, 12, 2])
    label = np.random.default_rng(0).normal(size=(len(dataset), len(targets)))
    label[:, [name == "none" for name in targets]] = label[rows[:4], 1:2] = np.nan
    weight = np.random.default_rng(1).uniform(0.5, 2, len(dataset)) if ops == "cpu" else None
    wanted = Targets(label, taught_attention(dataset, config), weight)
    monkeypatch.setattr(GraphBatch, "cut", lambda graphs, rows, limit: [rows[:2], rows[2:3], rows[3:]])
    stepper = stepper_of(config, dataset, wanted, ops)

    def batch_loss():
        return loss_by_hand(config, wanted, dataset, rows, stepper.params)

    found, absolute = stepper.compute_gradient(rows, 0, map)
    assert found == pytest.approx(batch_loss(), rel=1e-12)
    assert [sum == 0 for sum in absolute] == [name == "none" for name in targets]
    last = f"target{len(targets) - 1}." if len(targets) > 1 else ""
    for name in (f"{last}global_key_b", "after_b", f"{last}output_w", "output_b", "layer1.query_b"):
        expected = central_difference(batch_loss, stepper.params[name])
        np.testing.assert_allclose(stepper.grads[name], expected, rtol=0, atol=1e-7 * np.abs(expected).max(initial=1))


def test_one_of_two_targets_without_weight_is_one_alone(data):
    """The path of several terms gives the numbers of the path of one."""
    dataset, rows = read_dataset(data), np.arange(40)
    label = np.random.default_rng(0).normal(size=(len(dataset), 1))
    alone = stepper_of(config_of(data, ["spread"], loss="rmse", dtype="float64"), dataset, Targets(label))
    both = stepper_of(
        config_of(data, loss="rmse", dtype="float64"),
        dataset,
        Targets(np.column_stack([label, np.full_like(label, np.nan)])),
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
    scale = label_scale(np.array([[1.0, 2.0], [3.0, np.nan], [np.nan, 4.0]]), None, None, config)
    assert (scale.mean.tolist(), scale.std.tolist()) == ([0, 0], [1, 1])


# ---- taught attention --------------------------------------------------------------------------------------------


def test_populations_are_clipped_and_divided_by_their_sum(data):
    """A negative entry is 0; without the array, or with nothing left of it, a structure is not taught."""
    dataset = read_dataset(data)
    dataset.arrays["population"][:] = np.nan
    first, second, third = (dataset.graphs.site_ptr[n : n + 2] for n in (1, 2, 3))
    dataset.arrays["population"][slice(*first)] = -1.0
    dataset.arrays["population"][first[0]] = dataset.arrays["population"][first[0] + 1] = 2.0
    dataset.arrays["population"][slice(*second)] = -0.5
    dataset.arrays["population"][slice(*third)] = [1.0] + [np.nan] * (np.ptp(third) - 1)
    share = taught_attention(dataset, config_of(data, attention={"heavy": "population"}))
    assert share[first[0] : first[0] + 2, 1].tolist() == [0.5, 0.5]
    assert share.sum() == 1
    with pytest.raises(DataError, match="has no array 'nothing' with a number for every site; it has: population"):
        taught_attention(dataset, config_of(data, attention={"heavy": "nothing"}))


def test_attention_is_learned_and_a_run_goes_on_to_the_bit(data, tmp_path):
    config = config_of(data, ["spread"], attention={"spread": "population"}, attention_weight=1.0, epochs=4)
    train(config, tmp_path / "run", n_threads=1)
    calls = []
    with pytest.raises(Interrupted):
        train(config, tmp_path / "other", 2, stop=lambda: calls.append(1) or len(calls) == 9)
    train(None, tmp_path / "other", 2, resume=True)
    first, second = (load_checkpoint(tmp_path / run / "last.h5").params.vector for run in ("run", "other"))
    assert np.array_equal(first, second)
    dataset = read_dataset(data)
    found = np.concatenate(refattn.load(tmp_path / "run").predict(molecules(60)).attention)
    taught = ~np.isnan(dataset.arrays["population"])
    heavy = dataset.graphs.z > 1
    assert found[taught & heavy].mean() > 3 * found[taught & ~heavy].mean()


# ---- the sum over sites ------------------------------------------------------------------------------------------


def test_a_sum_over_elements_is_the_reference_values_alone(data, tmp_path):
    """What is left of the label is rounding, which the network is not to learn; what was never seen adds nothing."""
    config = config_of(data, ["spread", "heavy"], {"readout": "sum"}, epochs=2)
    assert config.model.head == "additive"
    train(config, tmp_path / "run", n_threads=1)
    model = refattn.load(tmp_path / "run")
    checkpoint = model.checkpoint
    assert checkpoint.mean.tolist() == [0, 0]
    heavy = checkpoint.reference[1]
    np.testing.assert_allclose(heavy[[1, 6, 7, 8]], [0, 1, 1, 1], atol=1e-10)
    assert heavy[9] == 0
    assert checkpoint.std[1] == 1
    structures = molecules(10)
    dataset, value = read_dataset(data), model.predict(structures).value
    output = (value[:, 1] - [(atoms.numbers > 1).sum() for atoms in structures]) / checkpoint.std[1]
    wanted = predict_rows(checkpoint.params, model.config.model, model.ops, dataset.graphs, np.arange(10)).prediction
    np.testing.assert_allclose(output, wanted[:, 1], rtol=0, atol=1e-5)


def test_the_reference_of_many_structures_is_that_of_few(data, monkeypatch):
    config = config_of(data, ["spread", "heavy"], {"readout": "sum"})
    dataset = read_dataset(data)
    label = np.column_stack([dataset.labels[name] for name in NAMES])
    label[3, 1] = np.nan
    rows = np.arange(len(dataset))
    few = label_scale(label, dataset.graphs, rows, config)
    monkeypatch.setattr(targets, "MANY", 7)
    many = label_scale(label, dataset.graphs, rows, config)
    np.testing.assert_allclose(many.reference, few.reference, rtol=0, atol=1e-9)  # of numbers around 1
    np.testing.assert_allclose(many.std, few.std, rtol=1e-9)


# ---- notes -------------------------------------------------------------------------------------------------------


def notes(config, dataset, rows=((2, 4), (5, 7), (8, 10))):
    return notes_on(config, dataset, tuple(map(np.array, rows)))


def test_an_extensive_label_has_a_note_where_the_readout_is_not_a_sum(data):
    dataset = read_dataset(data)
    dataset.label_attrs["heavy"]["kind"] = "extensive"
    (note,) = notes(config_of(data), dataset)
    assert note.startswith("heavy is extensive") and note.endswith("set model.readout=sum")
    summed = config_of(data, model={"readout": "sum"})
    assert notes(summed, dataset) == []
    dataset.label_attrs["heavy"]["kind"] = "intensive"
    (note,) = notes(summed, dataset)
    assert note.startswith("heavy is intensive") and note.endswith("set model.readout=intensive")


def test_labels_without_anything_to_learn_have_a_note(data):
    dataset = read_dataset(data)
    dataset.labels["spread"][[2, 4, 5]] = 0.1, 0.1 + 1e-15, 0.7
    assert notes(config_of(data), dataset) == [
        "spread is 0.1 in all structures to train on; there is nothing to learn from it"
    ]


def test_negative_labels_of_a_non_negative_network_have_a_note(data):
    dataset = read_dataset(data)
    dataset.labels["heavy"][[2, 10, 11]] = -1
    (note,) = notes(config_of(data, model={"non_negative": True}), dataset)
    assert note.startswith("heavy is negative in 2 structures") and note.endswith("set model.non_negative=false")
    assert notes(config_of(data), dataset) == []


def test_elements_that_only_other_parts_have_are_noted(data):
    """m2 is NH3, m1 CH4, m4 CH3OH, m9 CO2, m7 HCN; element features know of every element."""
    dataset = read_dataset(data)
    chosen, tested = notes(config_of(data, ["spread"]), dataset, [(1, 11), (4, 21), (7, 9)])
    assert chosen.startswith("no structure to train on holds O, which 1 of 2 to validate on do, and they help")
    assert tested.startswith("no structure to train on holds N, O, which 2 of 2 to test on do; leave")
    assert notes(config_of(data, ["spread"], {"features": "cgcnn"}), dataset, [(1, 11), (4, 21), (7, 9)]) == []


def test_distances_in_bohr_have_a_note(data):
    dataset = read_dataset(data)
    graphs = dataclasses.replace(dataset.graphs, r=dataset.graphs.r * 1.89)
    (note,) = notes(config_of(data), dataclasses.replace(dataset, graphs=graphs))
    assert note.startswith("2 of the first 2 structures to train on have no two atoms nearer than 1.3 times")
    assert "m2, N and H at 1.77 Å" in note and note.endswith("coordinates are read in Å")
