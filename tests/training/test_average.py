"""The moving average of the parameters, and the warm-up of the learning rate."""

import dataclasses

import h5py
import numpy as np
import pytest
from small_data import small_config, write_molecules

import refattn
from refattn.config import TrainingConfig
from refattn.errors import ConfigError, RunError
from refattn.network.checkpoint import load_checkpoint
from refattn.network.params import initialise
from refattn.training.average import Average
from refattn.training.schedule import Schedule
from refattn.training.train import Interrupted, train


def test_average_by_hand():
    """After t steps d is (1 + t) / (10 + t) until that is larger than ema."""
    params = initialise(small_config("set.h5").model, 0, "float32")
    average = Average(params, 0.5)
    expected = params.vector.astype(float)
    for step in range(1, 20):
        params.vector += np.float32(0.1)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * params.vector.astype(float)
        average.update(step)
    np.testing.assert_allclose(average.vector, expected, rtol=1e-12)
    assert np.array_equal(average.params.vector, expected.astype(np.float32))


def test_resumed_average_has_the_same_bits_and_predicts(tmp_path):
    data = write_molecules(tmp_path / "molecules.h5", n=40)
    config = small_config(data, epochs=2, ema=0.9, warmup_epochs=1)
    whole = train(config, tmp_path / "whole", 1)
    calls = iter(range(9))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", 1, stop=lambda: next(calls) == 5)
    assert train(None, tmp_path / "run", 1, resume=True)["valid"] == whole["valid"]
    first, second = (load_checkpoint(tmp_path / name / "last.h5") for name in ("whole", "run"))
    assert np.array_equal(first.params.vector, second.params.vector)
    assert np.array_equal(first.state["ema"], second.state["ema"])
    best = load_checkpoint(tmp_path / "run" / "model.h5")
    if first.state["history"][1]["valid_mae"] < first.state["history"][0]["valid_mae"]:
        assert np.array_equal(best.params.vector, first.state["ema"].astype(np.float32))
    assert np.array_equal(
        refattn.load(tmp_path / "whole" / "last.h5").checkpoint.params.vector, first.state["ema"].astype(np.float32)
    )
    assert not np.array_equal(best.params.vector, first.params.vector)
    with h5py.File(tmp_path / "run" / "last.h5", "a") as file:
        del file["state/ema"]
    with pytest.raises(RunError):
        train(None, tmp_path / "run", 1, resume=True)


def test_warm_up_is_a_line_to_the_schedule():
    config = TrainingConfig(epochs=10, learning_rate=1e-3, warmup_epochs=2)
    with_warmup, without = (Schedule(dataclasses.replace(config, warmup_epochs=n), 5) for n in (2, 0))
    for step in range(50):
        assert with_warmup.rate(step) == pytest.approx(without.rate(step) * min(1, (step + 1) / 10), rel=1e-12)
    with pytest.raises(ConfigError, match="ema is 1"):
        TrainingConfig(ema=1.0)
