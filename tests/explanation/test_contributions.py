"""Contributions of the sites sum up to the prediction; several targets are explained each by its own read-out."""

import dataclasses

import numpy as np
import pytest
from ase.build import molecule
from explanation_cases import DIFFERENCE, MEAN, SAME, SMALL, STD, network, rattled_salt
from scipy.special import logit

import refattn
from refattn.config import Config, DataConfig, GraphConfig, ModelConfig, TrainingConfig
from refattn.errors import ConfigError, DataError
from refattn.explanation.explain import COSTLY
from refattn.gradient_check import small_network
from refattn.network.checkpoint import Checkpoint
from refattn.prediction.predictor import Model
from refattn.validation.parameters import randomised

HEADS = [{"head": "additive"}, {"head": "additive", "readout": "published"}, {"readout": "sum"}]
TARGETS = ("homo", "lumo")


def two_targets(options=None, reference=None):
    """A Model of two targets with random parameters."""
    config = ModelConfig(**(SMALL | (options or {})))
    config = Config(config, GraphConfig(), DataConfig(target=TARGETS), TrainingConfig(dtype="float64"))
    scale = (np.array([MEAN, 2.0]), np.array([STD, 3.0])) if reference is None else (np.zeros(2), np.array([STD, 3.0]))
    params = small_network(config.model, 1).astype("float64")
    return Model(Checkpoint(config, params, ("eV", "eV"), *scale, reference=reference))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("options", HEADS, ids=str)
def test_contributions_sum_to_the_prediction(options, dtype, tolerance):
    model = network(options, dtype=dtype)
    for atoms in (molecule("CH3OH"), rattled_salt()):
        found = refattn.explain(model, atoms, scores=(), dtype=dtype)
        n = len(atoms) if options.get("readout") == "sum" else 1
        assert abs(found.contribution.sum() - (found.value - found.mean_value)) <= tolerance * n
        assert found.mean_value == MEAN
        assert found.value == pytest.approx(model.predict(atoms).value[0], abs=1e-5 * n)
        if options.get("readout") != "sum":
            assert found.beta @ found.site_value == pytest.approx(found.value, abs=tolerance)


@pytest.mark.parametrize("readout", ["intensive", "sum"])
def test_site_values_of_a_class_are_log_odds(readout):
    """Their mean with the attention as weights (or their sum) is the logit of the probability."""
    model = network({"head": "additive", "readout": readout})
    training = dataclasses.replace(model.config.training, loss="cross_entropy", scale_target=False)
    config = dataclasses.replace(model.config, training=training)
    model = Model(Checkpoint(config, model.checkpoint.params, "", 0.0, 1.0))
    found = refattn.explain(model, molecule("CH3OH"), scores=())
    weight = found.beta if readout == "intensive" else np.ones(6)
    assert weight @ found.site_value == pytest.approx(logit(found.value), abs=SAME)
    assert found.contribution.sum() == pytest.approx(logit(found.value), abs=SAME)
    assert (found.mean_value, found.spread) == (0.5, None)


def test_what_is_no_number_is_not_explained():
    model = network()
    model.checkpoint.params["output_b"][...] = np.nan
    with pytest.raises(DataError, match="the prediction of structure 0 is not finite"):
        refattn.explain(model, molecule("CH3OH"))


def test_the_published_head_has_no_contributions():
    found = refattn.explain(network(), molecule("H2O"), scores=())
    assert found.site_value is found.contribution is None
    assert "contribution" not in found.site_scores()


def test_reference_values_belong_to_the_sites():
    """The read-out "sum": site values with the elements' references sum to the prediction, without them to the rest."""
    reference = np.random.default_rng(0).normal(size=(2, 119))
    model, atoms = two_targets({"readout": "sum"}, reference), molecule("CH3OH")
    value = model.predict(atoms).value[0]
    for k, (name, found) in enumerate(refattn.explain(model, atoms, scores=["removal"]).items()):
        assert (name, found.target) == (TARGETS[k], TARGETS[k])
        assert found.mean_value == pytest.approx(reference[k][atoms.numbers].sum(), abs=SAME)
        assert found.site_value.sum() == pytest.approx(value[k], abs=SAME)
        assert found.contribution.sum() == pytest.approx(value[k] - found.mean_value, abs=SAME)
        assert refattn.embed(model, atoms, target=name).value[0] == pytest.approx(value[k], abs=SAME)
        rest = [model.predict(atoms[np.arange(len(atoms)) != i]).value[0, k] for i in range(len(atoms))]
        np.testing.assert_allclose(found.removal, value[k] - rest, atol=100 * SAME)


def test_every_target_is_explained_as_if_it_were_alone():
    both = two_targets()
    for k, name in enumerate(TARGETS):
        atoms = molecule("CH3OH")
        found = refattn.explain(both, atoms, scores=COSTLY, target=name)
        alone = two_targets()
        for parameter in alone.checkpoint.params:  # the other target's output is a constant
            if parameter.endswith("output_w") and parameter.startswith("target1.") == (k == 0):
                alone.checkpoint.params[parameter][...] = 0
        wanted = refattn.explain(alone, atoms, scores=COSTLY)[name]
        assert (found.target, found.unit) == (name, "eV")
        for score, values in found.site_scores().items():
            np.testing.assert_allclose(values, getattr(wanted, score), rtol=0, atol=DIFFERENCE)
        prediction = both.predict(atoms)
        assert found.value == pytest.approx(prediction.value[0, k], abs=SAME)
        np.testing.assert_allclose(found.beta, prediction.attention[0][:, k], rtol=SAME)


def test_a_target_that_is_not_there_is_one_sentence():
    with pytest.raises(ConfigError, match="^the model has no target 'gap'; choose one of homo, lumo$"):
        refattn.explain(two_targets(), molecule("H2O"), target="gap")


def test_the_read_outs_of_all_targets_become_random():
    model = two_targets()
    _, first = next(randomised(model, 0))
    for name in ("output_w", "target1.output_w"):
        assert not np.array_equal(first.checkpoint.params[name], model.checkpoint.params[name])
