"""The table of parameters: sizes, initial values, views of one vector, weight decay."""

import math
from pathlib import Path

import numpy as np
import pytest

from refattn.config import ModelConfig
from refattn.gradient_check import configurations
from refattn.network.params import Parameters, from_arrays, initialise, parameter_table

NETWORKS = dict(configurations())
PUBLISHED = {"n_elements": 10}  # the authors' table for QM9 ends at fluorine


@pytest.mark.parametrize(("variant", "n_parameters"), [("scann", 557_665), ("scann+", 890_977)])
def test_published_sizes(variant, n_parameters):
    """Keras's count for the QM9 configuration (docs/authors_code.md section 6; fixture full_plus)."""
    table = parameter_table(ModelConfig(variant=variant, **PUBLISHED))
    assert sum(entry.size for entry in table) == n_parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_views_of_one_vector(name):
    params = initialise(NETWORKS[name], 0, np.float64)
    assert list(params) == [entry.name for entry in params.table]
    assert len(set(params)) == len(params.table)
    params.vector[:] = np.arange(params.vector.size)
    start = 0
    for entry in params.table:
        assert params[entry.name].shape == entry.shape
        assert np.array_equal(params[entry.name].ravel(), np.arange(start, start + entry.size))
        start += entry.size
    assert start == params.vector.size
    params.target(NETWORKS[name].n_targets - 1)["output_b"][...] = -1
    assert params.vector[-1] == -1


def test_layers_are_the_same_arrays_under_short_names():
    params = initialise(ModelConfig(n_layers=3, width=8, n_heads=2), 0)
    for layer in range(3):
        names = [name for name in params if name.startswith(f"layer{layer}.")]
        assert names
        for name in names:
            assert np.shares_memory(params.layer(layer)[name.partition(".")[2]], params[name])


def test_zeros_like_and_astype_are_copies():
    params = initialise(ModelConfig(n_layers=1, width=8, n_heads=2), 0)
    zeros, double = params.zeros_like(), params.astype(np.float64)
    assert not zeros.vector.any()
    assert zeros.vector.dtype == np.float32
    assert double.vector.dtype == np.float64
    double.vector[:] = 7
    zeros["site_w"][...] = 7
    assert not (params.vector == 7).any()


def test_initial_values():
    config = ModelConfig(n_layers=2)
    params = initialise(config, 0)
    assert params.vector.dtype == np.float32
    for entry in params.table:
        values = params[entry.name]
        if entry.initialiser in ("zeros", "ones"):
            assert np.array_equal(values, np.full(entry.shape, entry.initialiser == "ones"))
            continue
        limit = 0.05 if entry.initialiser == "uniform" else math.sqrt(6 / sum(entry.shape))
        assert np.abs(values).max() <= limit
        # uniform numbers: their standard deviation is limit / sqrt(3), known to 0.45 / sqrt(n); five times that
        assert values.std() == pytest.approx(limit / math.sqrt(3), rel=2.5 / math.sqrt(values.size))


def test_initial_values_follow_the_seed_only():
    config = ModelConfig(n_layers=2, width=16, n_heads=2)
    first = initialise(config, 1)
    assert np.array_equal(first.vector, initialise(config, 1).vector)
    assert not np.array_equal(first.vector, initialise(config, 2).vector)
    assert not np.array_equal(first["layer0.query_w"], first["layer1.query_w"])
    np.testing.assert_array_equal(first.vector, initialise(config, 1, np.float64).vector.astype(np.float32))


@pytest.mark.parametrize("name", NETWORKS)
def test_weight_decay_applies_to_the_authors_kernels(name):
    """docs/authors_code.md section 4: kernels of attention, filter, residual block, after-layer, hidden layer."""
    params = initialise(NETWORKS[name], 0)
    decayed = {entry.name.rpartition(".")[2] for entry in params.table if entry.decay}
    expected = {"query_w", "key_w", "filter_w", "after_w", "global_query_w", "global_key_w", "hidden_w"}
    assert decayed == expected | ({"residual_w1", "residual_w2"} if NETWORKS[name].residual else set())
    mask = Parameters(params.table, params.decay_mask())
    assert all((mask[entry.name] == entry.decay).all() for entry in params.table)


def test_notation_names_every_parameter():
    text = (Path(__file__).parents[2] / "docs" / "notation.md").read_text(encoding="utf-8")
    for config in NETWORKS.values():
        for entry in parameter_table(config):
            name = entry.name.rpartition(".")[2]
            assert f"`{name}`{'*' * entry.decay}" in text, name


def test_arrays_by_name_in_any_order():
    config = ModelConfig(n_layers=1, width=8, n_heads=2)
    params = initialise(config, 3)
    arrays = {name: params[name] for name in reversed(list(params))}
    assert np.array_equal(from_arrays(config, arrays).vector, params.vector)
    assert from_arrays(config, arrays, np.float64).vector.dtype == np.float64
    with pytest.raises(ValueError, match=r"site_w has shape \(2, 2\)"):
        from_arrays(config, arrays | {"site_w": np.zeros((2, 2))})
    with pytest.raises(KeyError, match="site_w"):
        from_arrays(config, {name: array for name, array in arrays.items() if name != "site_w"})
