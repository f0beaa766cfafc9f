"""Classes: trained with the cross entropy, predicted as probabilities, explained by their log odds; and weights."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from small_data import molecules, small_config

import refattn
from refattn.cli.main import cli
from refattn.common.metrics import class_metrics
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.errors import ConfigError, DataError
from refattn.report.errors_of_run import errors_of_run
from refattn.structures.batch import GraphBatch
from refattn.training.train import train


def has_oxygen(atoms):
    return float(8 in atoms.numbers)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty molecules with the class `oxygen`, and a weight for each."""
    path = tmp_path_factory.mktemp("data") / "classes.h5"
    with DatasetWriter(path, refattn.config.GraphConfig()) as writer:
        structures = molecules(60)
        labels = [{"oxygen": has_oxygen(a), "size": len(a) / 2, "trust": 1.0 + n % 2} for n, a in enumerate(structures)]
        records = [Record(a.info["id"], a, label, {}) for a, label in zip(structures, labels)]
        writer.add(records, [GraphBatch.from_atoms(a) for a in structures])
    return path


def config_of(data, target="oxygen", **settings):
    config = small_config(data, loss="cross_entropy", epochs=10)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, target=target, **settings))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("run") / "run"
    return run, train(config_of(data, weight="trust"), run, n_threads=1)


def test_metrics_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 50).astype(float)
    probability = np.round(rng.uniform(0.01, 0.99, 50), 1)  # with ties
    found = class_metrics(label, probability)
    assert found["auc"] == pytest.approx(roc_auc_score(label, probability), rel=1e-14)
    assert found["accuracy"] == accuracy_score(label, probability > 0.5)
    assert found["cross_entropy"] == pytest.approx(log_loss(label, probability), rel=1e-14)
    assert class_metrics(np.ones(3), np.full(3, 0.2))["auc"] is None
    assert class_metrics(np.zeros(0), np.zeros(0)) == {"auc": None, "accuracy": None, "cross_entropy": None}


def test_a_class_is_learned_and_predicted_as_a_probability(trained):
    run, summary = trained
    assert summary["train"]["auc"] > 0.9
    assert summary["composition_auc"] == 1  # the composition says whether there is oxygen
    assert (run / "roc.png").exists() and not (run / "parity.png").exists()
    structures = molecules(10, seed=5)
    value = refattn.load(run).predict(structures).value
    assert ((value > 0) & (value < 1)).all()
    result = CliRunner().invoke(cli, ["evaluate", str(run)])
    assert result.exit_code == 0, result.output
    assert errors_of_run(run, ["oxygen"]).startswith("On its test set the area under the ROC curve of oxygen is ")
    assert "AUC" in result.output and "cross entropy" in result.output and "RMSE" not in result.output


def test_scores_sum_to_log_odds(trained):
    e = refattn.explain(refattn.load(trained[0]), molecules(5)[4])
    log_odds = [np.log(p / (1 - p)) for p in (e.value, e.baseline_value)]
    assert e.integrated_gradients.sum() == pytest.approx(log_odds[0] - log_odds[1], rel=2e-3)
    assert (e.unit, e.unit_of_scores, e.mean_value) == ("", "log odds", 0.5)


def test_intervals_of_a_probability_are_refused(trained, tmp_path):
    run = trained[0]
    model = refattn.load(run)
    assert model.predict(molecules(3), uncertainty=True).distance.shape == (3,)
    with pytest.raises(ConfigError, match="probabilities of a class"):
        model.predict(molecules(3), coverage=0.9)
    result = CliRunner().invoke(cli, ["evaluate", str(run), "--coverage", "0.9"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("size", {}, "the label size of structure m.* is .*; with the loss cross_entropy it must be 0 or 1"),
        ("oxygen", {"weight": "none"}, "none"),
        ("size", {"weight": "oxygen", "loss": "mse"}, "the weight oxygen of structure m.* is 0; it must be a finite"),
    ],
)
def test_other_labels_and_weights_are_refused(data, tmp_path, target, settings, message):
    loss = settings.pop("loss", "cross_entropy")
    config = config_of(data, target, **settings)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, loss=loss))
    with pytest.raises(DataError, match=message):
        train(config, tmp_path / "run", n_threads=1)
    assert not (tmp_path / "run" / "model.h5").exists()


def test_log_odds_have_no_clip(data):
    config = config_of(data)
    with pytest.raises(ConfigError, match="non_negative"):
        dataclasses.replace(config, model=dataclasses.replace(config.model, non_negative=True))


@pytest.mark.parametrize("label", [2.0, 0.5])
def test_evaluate_refuses_labels_that_are_no_classes(trained, tmp_path, label):
    with DatasetWriter(tmp_path / "other.h5", refattn.config.GraphConfig()) as writer:
        atoms = molecules(1, seed=9)[0]
        writer.add([Record("odd", atoms, {"oxygen": label}, {})], [GraphBatch.from_atoms(atoms)])
    arguments = ["evaluate", str(trained[0]), "--data", str(tmp_path / "other.h5"), "--keep-seen"]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"the label oxygen of structure odd is {label:g}; " in result.stderr
