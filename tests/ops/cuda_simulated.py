"""The CUDA kernels in Numba's simulator, or on a GPU. Run by test_cuda.py in a process of its own:

NUMBA_ENABLE_CUDASIM=1 pytest tests/ops/cuda_simulated.py
"""

import dataclasses
import inspect

import numpy as np
import pytest
import test_house
import test_ops
import tolerances

from refattn import gradient_check
from refattn.gradient_check import (
    SmallLoss,
    check_operation,
    configurations,
    predict_with_gradients,
    small_network,
    small_shard,
    worst_difference,
)
from refattn.network.dropout import Dropout
from refattn.ops import load_backend, operations
from refattn.ops.cases import all_cases, call, make_inputs
from refattn.ops.cuda import launch
from refattn.ops.cuda.graph import Neighbours, transposed

REFERENCE, CUDA = load_backend("reference"), load_backend("cuda")
ON_CUDA = operations("cuda")
CASES = [case for case in all_cases() if case[1] in ON_CUDA]
NETWORKS = dict(configurations())
# A uint64 that wraps around, as those of the generator do, is a NumPy number in the simulator, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def on_device(value):
    return CUDA.to_device(value) if isinstance(value, np.ndarray) else value


@pytest.fixture(autouse=True)
def cuda_against_the_reference(monkeypatch):
    """The checks of test_ops hold its `CPU` to the reference: here that is CUDA."""
    monkeypatch.setattr(test_ops, "CPU", CUDA)


# ---- operations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "operation", "inputs"), CASES, ids=[case[0] for case in CASES])
def test_cuda_agrees_with_the_reference(label, operation, inputs):
    test_ops.check_float64(operation, inputs, label)
    test_ops.check_float32(operation, inputs, label)


@pytest.mark.parametrize("name", ["updated_attention", "local_attention", "residual_layernorm"])
def test_cuda_agrees_for_one_column_and_for_one_that_is_wider_than_the_parts_of_a_sum(name):
    for heads, channels in ((1, 1), (2, 4), (3, 7)):
        inputs = make_inputs(test_ops.OPERATIONS[name], "one edge", heads=heads, channels=channels)
        test_ops.check_float64(test_ops.OPERATIONS[name], inputs, name)


def test_no_block_order_changes_a_sum(monkeypatch):
    """Blocks write sums of their own, so that results repeat; their number is fixed, and may be any."""
    operation = test_ops.OPERATIONS["swish"]
    inputs = make_inputs(operation)
    first, again = (test_ops.run_all(operation, inputs, CUDA) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for limit in (1, 3, 100):
        monkeypatch.setattr(launch, "MAX_BLOCKS", limit)
        test_ops.check_float64(operation, inputs, f"{limit} blocks")


def test_files_and_arguments_are_those_of_the_reference():
    test_house.test_backends_look_the_same("cuda")
    test_house.test_forward_is_followed_by_backward("cuda")
    test_house.test_the_table_of_operations_is_complete("cuda")


def test_forward_writes_over_what_its_docstring_names_only():
    for operation in ON_CUDA:
        inputs = {name: on_device(value) for name, value in make_inputs(operation, "one edge").items()}
        before = {name: CUDA.to_host(value).copy() for name, value in inputs.items() if np.ndim(value)}
        forward_of = getattr(CUDA, f"{operation.name}_forward")
        call(forward_of, inputs)
        stated = inspect.getdoc(forward_of).partition("Memory")[2]
        changed = {name for name, value in before.items() if not np.array_equal(CUDA.to_host(inputs[name]), value)}
        assert all(name in stated for name in changed), operation.name


def test_the_transposed_graph_names_the_edges_to_each_site_in_order():
    nbr = np.array([2, 0, 2, 1, 2, 0], dtype=np.int32)
    found = transposed(CUDA.to_device(nbr), 4)
    assert CUDA.to_host(found.ptr).tolist() == [0, 2, 3, 6, 6]
    assert CUDA.to_host(found.edge).tolist() == [1, 5, 3, 0, 2, 4]
    assert isinstance(found, Neighbours)
    assert transposed(found, 4) is found


# ---- the network -------------------------------------------------------------------------------------------------


def run_on_device(name, dtype):
    """Predictions, attention and gradients of a small network, by NumPy and on the device, as dicts of arrays."""
    config = NETWORKS[name]
    shard, params = small_shard(config, dtype), small_network(config).astype(dtype)
    loss = SmallLoss.of(name, shard, config)
    loss = dataclasses.replace(loss, weights=loss.weights.astype(dtype), share=loss.share.astype(dtype))
    found = []
    for ops in (REFERENCE, CUDA):
        dropout = Dropout(0, 0, shard, config.n_layers)
        tape, gradients = predict_with_gradients(loss, params, shard, config, ops, dropout)
        arrays = {"prediction": tape.prediction, "beta": tape.beta[-1], "alpha": tape.alpha[-1]}
        found.append(gradients | {key: ops.to_host(array) for key, array in arrays.items()})
    return found


NAMES = [
    "scann, CGCNN and ring features",
    "scann+, dropout",
    "scann+, published readout",
    "scann, non-negative",
    "scann+, angles",
]
NAMES += ["scann, additive head, two targets", "scann, sum over sites, two targets"]


@pytest.mark.parametrize("name", NAMES)
def test_network_gives_the_numbers_of_the_reference(name):
    expected, found = run_on_device(name, np.float64)
    assert found.keys() == expected.keys()
    largest = max(test_ops.largest({name: array}) for name, array in expected.items())
    for key, array in expected.items():
        assert (found[key].shape, found[key].dtype) == (array.shape, np.float64)
        assert np.abs(found[key] - array).max() <= tolerances.NETWORK * largest, key


def test_network_gives_the_numbers_of_the_reference_in_float32():
    expected, found = run_on_device("scann+, default", np.float32)
    assert all(array.dtype == np.float32 for array in found.values())
    assert worst_difference(found, expected)[1] <= tolerances.NETWORK_32


@pytest.mark.parametrize("name", ["scann, ring features", "scann+, dropout"])
def test_gradients_of_a_network_pass_the_gradient_check(name):
    rows = list(gradient_check.check_network(name, NETWORKS[name], ["cuda"]))
    assert [(row.kind, row.backend) for row in rows] == [("parameters", "cuda"), ("inputs", "cuda")]
    assert all(row.ok for row in rows), rows


def test_gradients_of_operations_pass_the_gradient_check(monkeypatch):
    monkeypatch.setattr(gradient_check, "cases_of", lambda operation: [("", make_inputs(operation, "one edge"))])
    rows = [check_operation(test_ops.OPERATIONS[name], "cuda") for name in ("dense", "swish", "edge_product")]
    assert all(row.ok and row.backend == "cuda" for row in rows), rows
