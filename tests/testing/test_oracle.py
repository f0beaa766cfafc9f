"""The oracle file, and the comparison, which names the layer of a planted error."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_data import small_config, write_molecules

from refattn.cli.main import cli
from refattn.config import Config, ModelConfig, to_toml
from refattn.errors import DataError
from refattn.gradient_check import SMALL, small_shard
from refattn.network.checkpoint import load_checkpoint, model_file
from refattn.network.model import backward, forward
from refattn.network.params import from_arrays
from refattn.ops import load_backend
from refattn.testing import compare, make_oracle, outputs_of, read_oracle, write_oracle
from refattn.training.train import train


def oracle_of(**options):
    config = Config(model=ModelConfig(**{**SMALL, "radial_max": 4.0, **options}))
    graph = small_shard(config.model)
    return make_oracle(config, graph, np.random.default_rng(0).normal(size=(len(graph), config.model.n_targets)))


PLUS, SCANN = oracle_of(variant="scann+"), oracle_of(variant="scann", n_targets=2, features="cgcnn", ring=True)


def implementation(oracle, without=(), change_gradient=None, **options):
    """Another implementation: refattn's own, with other options or without some parameters to plant an error."""
    config = dataclasses.replace(oracle.config.model, **options)
    ops = load_backend("reference")

    def function(weights, graph, label):
        weights = {name: np.zeros_like(array) if name in without else array for name, array in weights.items()}
        params = from_arrays(config, weights, label.dtype)
        tape = forward(params, graph, config, ops)
        grads = params.zeros_like()
        error = tape.prediction - label
        backward(2 * error / error.size, tape, params, grads, config, ops)
        grads = {name: grads[name] * (2 if name == change_gradient else 1) for name in grads}
        return outputs_of(tape), grads

    return function


@pytest.mark.parametrize("oracle", [PLUS, SCANN], ids=["plus", "two targets"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_right_agrees_in_every_layer_and_gradient(oracle, dtype):
    found = compare(implementation(oracle), oracle, dtype)
    assert found.first is None and not found.missing
    assert len(found.rows) == len(oracle.steps[dtype].outputs) + len(oracle.steps[dtype].parameters)
    found.check()


PLANTED = {
    "geometry": {"radial_width": 0.4},
    "layer0.alpha": {"n_heads": 1},
    "layer1.site": {"without": ["layer1.residual_b1"]},
    "beta": {"readout": "published"},
    "hidden": {"without": ["hidden_b"]},
    "grad layer1.key_w": {"change_gradient": "layer1.key_w"},
    "grad layer0.geometry_gain": {"change_gradient": "layer0.geometry_gain"},
}


@pytest.mark.parametrize("where", PLANTED)
def test_a_planted_error_is_found_by_the_name_of_its_layer(where):
    if where == "layer0.alpha":  # of one head instead of two the array has another shape
        with pytest.raises(DataError, match=r"layer0.alpha has shape \(14, 1\) and not \(14, 2\)"):
            compare(implementation(PLUS, **PLANTED[where]), PLUS)
        return
    found = compare(implementation(PLUS, **PLANTED[where]), PLUS)
    assert found.first == where
    with pytest.raises(AssertionError, match=f"the first that differs: {where}$"):
        found.check()


def test_a_few_outputs_suffice_and_others_are_named():
    outputs = PLUS.steps["float64"].outputs
    found = compare(lambda weights, graph, label: {"prediction": outputs["prediction"]}, PLUS)
    assert found.first is None and "layer0.alpha" in found.missing and "not given: embedding" in str(found)
    with pytest.raises(DataError, match="the oracle has no nonsense; it has embedding, geometry"):
        compare(lambda weights, graph, label: {"nonsense": 0}, PLUS)
    with pytest.raises(DataError, match="no precision 'float16'; choose one of float64, float32"):
        compare(implementation(PLUS), PLUS, "float16")


def test_adam_goes_down(tmp_path):
    """Three steps on one batch: the first is of the size of the learning rate, and the loss shrinks."""
    step = PLUS.steps["float64"]
    rate = PLUS.config.training.learning_rate
    moved = np.abs(step.adam[0]["output_w"] - step.parameters["output_w"])
    assert moved == pytest.approx(rate, rel=0.01)
    moved = make_oracle(PLUS.config, PLUS.graph, PLUS.label, from_arrays(PLUS.config.model, step.adam[2], np.float64))
    assert moved.steps["float64"].loss < step.loss


def test_the_file_holds_all_of_it(tmp_path):
    path = tmp_path / "oracle.h5"
    write_oracle(path, SCANN)
    back = read_oracle(path)
    assert back.config == SCANN.config and np.array_equal(back.label, SCANN.label)
    for dtype, step in SCANN.steps.items():
        assert [*back.steps[dtype].outputs] == [*step.outputs]
        for kind in ("parameters", "outputs", "grads"):
            for name, array in getattr(step, kind).items():
                assert np.array_equal(getattr(back.steps[dtype], kind)[name], array)
        assert np.array_equal(back.steps[dtype].adam[2]["embed_w"], step.adam[2]["embed_w"])
    assert compare(implementation(SCANN), path).first is None
    (tmp_path / "other.h5").write_bytes(path.read_bytes()[:1000])
    for name, message in (("none.h5", "there is no such file"), ("other.h5", "other.h5: ")):
        with pytest.raises(DataError, match=message):
            read_oracle(tmp_path / name)


def test_the_command_takes_runs_and_configurations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(small_config(write_molecules("data.h5", n=20), epochs=1), "run", n_threads=1)
    Path("small.toml").write_text(to_toml(PLUS.config))
    for source, n in (("run", 3), ("small.toml", 4)):
        arguments = ["oracle", source, "--out", "x.h5", "--structures", "3", "--json"]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        assert json.loads(result.output.splitlines()[0])["structures"] == n
        assert compare(implementation(read_oracle("x.h5")), "x.h5").first is None
    result = CliRunner().invoke(cli, ["oracle", "crystals", "--out", "shipped.h5"])  # an experiment's name too
    assert result.exit_code == 0, result.output
    weights = load_checkpoint(model_file("crystals")).params
    made = read_oracle("shipped.h5").steps["float32"].parameters
    assert made and all(np.array_equal(made[name], weights[name]) for name in made)
    result = CliRunner().invoke(cli, ["oracle", "none.toml"])
    assert (result.exit_code, result.output.count("\n")) == (1, 1) and "none.toml" in result.output
