"""Every operation: both backends agree, in float64 and float32; shapes, types, dropout."""

import inspect

import numpy as np
import pytest
import tolerances

from refattn.ops import OPS, load_backend, operations
from refattn.ops.cases import (
    SHAPES,
    all_cases,
    argument_names,
    call,
    copied,
    make_grads,
    make_inputs,
    run_backward,
    run_forward,
)
from refattn.ops.random import item_keys, structure_keys
from refattn.structures.batch import cut_shards

REFERENCE, CPU = load_backend("reference"), load_backend("cpu")
ON_CPU = operations("cpu")
# The fused kernels take most of a minute to compile for a type and size of the heads: a closed list. Float64 with two
# heads of three channels is what the gradient check compiles, float32 with four of four what the small networks of
# other tests do; the published eight of sixteen are compiled once, by the run that compiles below.
SMALL = {"heads": 2, "channels": 3}
SMALL_32 = {"heads": 4, "channels": 4}
PUBLISHED = {"heads": 8, "channels": 16}
CASES = [case for case in all_cases(**SMALL) if case[1] in ON_CPU]
CASES_32 = [case for case in all_cases(**SMALL_32) if case[1] in ON_CPU]
OPERATIONS = {operation.name: operation for operation in OPS}
ROWS = [operation.name for operation in ON_CPU if operation.file not in ("edges", "sites")]


def big_graph(seed=0):
    """20 structures of 1 to 20 sites with 0 to 20 edges each: about 2,000 edges."""
    rng = np.random.default_rng(seed)
    sites = rng.integers(1, 21, 20)
    return sites, rng.integers(0, 21, sites.sum())


def run_all(operation, inputs, backend):
    """Outputs and gradients of an operation in one dict."""
    outputs = run_forward(operation, inputs, backend)
    if not operation.wrt:
        return outputs
    gradients = run_backward(operation, inputs, outputs, make_grads(operation, outputs), backend)
    return outputs | {f"grad_{name}": array for name, array in gradients.items()}


def as_float32(inputs):
    return {
        name: value.astype(np.float32) if getattr(value, "dtype", None) == np.float64 else value
        for name, value in inputs.items()
    }


def largest(arrays):
    """Largest number of all arrays of a case: what cancels in one of them was as large as another one."""
    return max((np.abs(array).max(initial=0) for array in arrays.values()), default=0)


def long_sum(operation, name, inputs):
    """Number of terms of a gradient that is a sum over all rows, such as a bias's or a kernel's; 1 for the others."""
    name = name.removeprefix("grad_")
    if SHAPES.get(f"{operation.name} {name}", SHAPES.get(name)) not in ("D", "DD", "GD"):
        return 1
    return max(len(value) for value in inputs.values() if isinstance(value, np.ndarray))


def composed(operation):
    return tolerances.COMPOSED if operation.file == "edges" else 1


def without_what_is_not_kept(expected, found):
    """All that is expected but the keys, which the CPU version does without."""
    assert {name for name in expected if found[name] is None} <= {"cache.k"}
    return {name: array for name, array in expected.items() if found[name] is not None}


def check_float64(operation, inputs, label):
    expected, found = (run_all(operation, inputs, backend) for backend in (REFERENCE, CPU))
    for name, array in without_what_is_not_kept(expected, found).items():
        assert (found[name].shape, found[name].dtype) == (array.shape, np.float64), (label, name)
        tolerance = max(tolerances.PARITY, long_sum(operation, name, inputs) * tolerances.EPS) * composed(operation)
        error = np.abs(found[name] - array).max(initial=0)
        assert error <= tolerance * largest(expected), (label, name, error)


def check_float32(operation, inputs, label):
    single = as_float32(inputs)
    exact = run_all(operation, {name: _as_float64(value) for name, value in single.items()}, REFERENCE)
    numpy32, found = run_all(operation, single, REFERENCE), run_all(operation, single, CPU)
    for name, array in without_what_is_not_kept(exact, found).items():
        assert found[name].dtype == numpy32[name].dtype == np.float32, (label, name)
        numpy_error, error = (np.abs(other[name] - array).max(initial=0) for other in (numpy32, found))
        floor = tolerances.PARITY_32_FLOOR * np.sqrt(long_sum(operation, name, inputs)) * largest(exact)
        floor *= composed(operation)
        assert error <= tolerances.PARITY_32_FACTOR * numpy_error + floor, (label, name, error, numpy_error)


def _as_float64(value):
    return value.astype(np.float64) if getattr(value, "dtype", None) == np.float32 else value


# ---- parity ------------------------------------------------------------------------------------------------------


@pytest.mark.indices
@pytest.mark.parametrize(("label", "operation", "inputs"), CASES, ids=[case[0] for case in CASES])
def test_backends_agree(label, operation, inputs):
    check_float64(operation, inputs, label)


@pytest.mark.parametrize(("label", "operation", "inputs"), CASES_32, ids=[case[0] for case in CASES_32])
def test_backends_agree_in_float32(label, operation, inputs):
    check_float32(operation, inputs, label)


@pytest.mark.indices
@pytest.mark.parametrize("name", [operation.name for operation in ON_CPU])
def test_backends_agree_on_larger_graphs(name):
    check_float64(OPERATIONS[name], make_inputs(OPERATIONS[name], big_graph(), **SMALL), name)


@pytest.mark.parametrize("name", [operation.name for operation in ON_CPU])
def test_backends_agree_on_larger_graphs_in_float32(name):
    check_float32(OPERATIONS[name], make_inputs(OPERATIONS[name], big_graph(), **SMALL_32), name)


@pytest.mark.parametrize("width", [1, 17, 128])
@pytest.mark.parametrize("name", ROWS)
def test_backends_agree_on_odd_widths(name, width):
    """Rows that no vector fits into; those of the fused kernels have six numbers in SMALL."""
    inputs = make_inputs(OPERATIONS[name], big_graph(), heads=1, channels=width)
    check_float64(OPERATIONS[name], inputs, name)
    check_float32(OPERATIONS[name], inputs, name)


@pytest.mark.parametrize("operation", OPS, ids=lambda operation: operation.name)
def test_inputs_are_not_written_over_by_the_reference_or_by_backward(operation):
    """The CPU version may write over what its docstring names under Memory, and over nothing else."""
    for backend in (REFERENCE, CPU) if operation in ON_CPU else (REFERENCE,):
        forward = getattr(backend, f"{operation.name}_forward")
        inputs = make_inputs(operation)
        before = copied(inputs)
        call(forward, inputs)
        changed = {name for name, value in inputs.items() if not np.array_equal(value, before[name])}
        stated = inspect.getdoc(forward).partition("Memory")[2]
        assert not changed if backend is REFERENCE else all(name in stated for name in changed)
        if operation.wrt:
            inputs = make_inputs(operation)
            outputs = run_forward(operation, inputs, backend)
            grads = {f"grad_{name}": array for name, array in make_grads(operation, outputs).items()}
            known, backward = {**inputs, **outputs, **grads}, getattr(backend, f"{operation.name}_backward")
            before = copied(known)
            call(backward, known)
            taken = [name for name in argument_names(backward) if name in known]
            changed = {name for name in taken if not np.array_equal(known[name], before[name])}
            stated = inspect.getdoc(backward).partition("Memory")[2]
            assert not changed if backend is REFERENCE else all(f"written over {name}," in stated for name in changed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_swish_survives_large_arguments(dtype):
    u = np.array([[-1e4, -700, -90, -50, 0, 50, 90, 700, 1e4]], dtype=dtype)
    # float32: what is beyond +-87 counts as that, and a sigmoid's last bits are multiplied by u
    allowed = (2e-7 if dtype == np.float32 else 1e-19) * np.maximum(np.abs(u[0]), 1)
    for backend in (REFERENCE, CPU):
        y, v = backend.swish_forward(u.copy(), np.zeros(9, dtype))
        grad, _ = backend.swish_backward(np.ones_like(u), v)
        assert (np.abs(y[0] - np.maximum(u[0], 0)) <= allowed).all()
        assert (np.abs(grad[0] - [0, 0, 0, 0, 0.5, 1, 1, 1, 1]) <= allowed).all()


@pytest.mark.parametrize("backend", [REFERENCE, CPU], ids=["reference", "cpu"])
def test_softmax_survives_large_scores(backend):
    for operation in operations(backend.name):
        name = operation.name
        if name not in ("local_attention", "filtered_attention", "global_attention"):
            continue
        inputs = make_inputs(operation)
        large = "q" if name == "filtered_attention" else "k"
        inputs |= {large: 1e4 * inputs[large]} | ({"normalise": False} if name == "global_attention" else {})
        found = [array for array in run_all(operation, inputs, backend).values() if array is not None]
        assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize("backend", [REFERENCE, CPU], ids=["reference", "cpu"])
def test_nan_goes_through(backend):
    """A loss that is not finite must be seen, so no kernel may turn NaN into a number."""
    for operation in operations(backend.name):
        inputs = make_inputs(operation, "one site, its own neighbour")
        for name, value in inputs.items():
            if isinstance(value, np.ndarray) and value.dtype == np.float64:
                broken = inputs | {name: np.full_like(value, np.nan)}
                first = next(iter(run_forward(operation, broken, backend).values()))
                assert np.isnan(first).any(), (operation.name, name)


# ---- dropout -----------------------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_scales():
    keys = structure_keys(0, 0, np.arange(2000))
    for rate in (0.0, 0.05, 0.1, 0.5):
        y = REFERENCE.dropout_forward(np.ones((2000, 100)), keys, rate)
        kept = y != 0
        assert np.array_equal(y[kept], np.full(kept.sum(), 1 / (1 - rate)))
        # 200,000 draws: five standard deviations
        assert abs(kept.mean() - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / 200_000)
        # neighbours, by row and by column, do not know each other
        for other in (kept[1:] & kept[:-1], kept[:, 1:] & kept[:, :-1]):
            assert abs(other.mean() - (1 - rate) ** 2) <= 10 * np.sqrt(rate / 200_000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_is_the_same_bits_in_every_backend(dtype):
    rng = np.random.default_rng(0)
    x, keys = rng.normal(size=(50, 33)).astype(dtype), rng.integers(0, 1 << 63, 50, dtype=np.uint64)
    for rate in (0.05, 0.1, 1 / 3):
        masked = REFERENCE.dropout_forward(x, keys, rate)
        assert masked.dtype == dtype
        for function in (CPU.dropout_forward, CPU.dropout_backward, REFERENCE.dropout_backward):
            assert np.array_equal(masked, function(x, keys, rate))


def test_dropout_keys_follow_the_structure():
    """The same keys for a structure in any company; others for another seed, step, structure or site."""
    ptr = np.array([0, 3, 4, 9])
    keys = item_keys(structure_keys(1, 2, np.array([5, 6, 7])), ptr)
    assert np.array_equal(keys[4:9], item_keys(structure_keys(1, 2, np.array([7])), np.array([0, 5])))
    others = [item_keys(structure_keys(*other, np.array([5, 6, 7])), ptr) for other in ((2, 2), (1, 3), (2, 1))]
    assert len(np.unique(np.concatenate([keys, *others]))) == 4 * 9


def test_shards_are_runs_of_whole_structures():
    n_edges = np.random.default_rng(0).integers(0, 300, 50)
    slices = cut_shards(n_edges, 700)
    assert [s for part in slices for s in range(50)[part]] == list(range(50))
    assert len(slices) == 10  # the even number that keeps the 6,858 edges that there are below 700 on average
    assert all(0 < n_edges[part].sum() <= n_edges.sum() / 10 + n_edges.max() for part in slices)
    assert cut_shards([]) == []
    assert cut_shards([300, 50], 700) == [slice(0, 2)]
    assert cut_shards([300, 51], 700) == [slice(0, 1), slice(1, 2)]
    assert cut_shards([0, 0, 0], 700) == [slice(0, 3)]
    assert [list(range(3)[part]) for part in cut_shards([900, 900, 1], 700)] == [[0], [1], [2]]


@pytest.mark.parametrize("backend", [REFERENCE, CPU], ids=["reference", "cpu"])
@pytest.mark.parametrize("name", ["updated_attention", "site_block"])
def test_what_is_not_kept_changes_nothing(name, backend):
    inputs = make_inputs(OPERATIONS[name], big_graph(), **SMALL)
    kept = run_forward(OPERATIONS[name], inputs, backend)
    forward = getattr(backend, f"{name}_forward")
    lean = call(forward, copied(inputs | {"save_for_backward": False}))
    lean = dict(zip(OPERATIONS[name].outputs, lean, strict=False))
    wanted = [output for output in ("context", "cache.alpha", "new_geo", "site") if output in kept]
    assert all(np.array_equal(lean[output], kept[output]) for output in wanted)
    assert all(lean.get(output) is None for output in kept if output not in wanted)


@pytest.mark.parametrize("backend", [REFERENCE, CPU], ids=["reference", "cpu"])
@pytest.mark.parametrize("name", ["updated_attention", "filtered_attention", "site_block"])
def test_gradients_go_into_given_arrays(name, backend):
    """The same bits in arrays that held something else; grad_q, added to what is there, within rounding."""
    operation = OPERATIONS[name]
    inputs = make_inputs(operation, big_graph(), **SMALL)
    outputs = run_forward(operation, inputs, backend)
    grads = make_grads(operation, outputs)
    expected = run_backward(operation, inputs, outputs, grads, backend)
    weights = [name for name in operation.wrt if name.startswith("weights.")]
    out = {name: np.full_like(expected[name], 7) for name in weights}
    backward = getattr(backend, f"{name}_backward")
    known = copied(inputs | outputs) | {f"grad_{name}": grad.copy() for name, grad in grads.items()}
    known["out"] = inspect.signature(backward).parameters["weights"].annotation(*out.values())
    if "q" in operation.wrt:  # the query is the residual too, so that grad_context is where grad_q is added
        known["accumulate_into"] = known["grad_context"]
    found = dict(zip(operation.wrt, call(backward, known), strict=True))
    assert [id(found[name]) for name in weights] == [id(out[name]) for name in weights]
    assert all(np.array_equal(found[name], expected[name]) for name in found if name != "q")
    if "q" in operation.wrt:
        assert found["q"] is known["accumulate_into"]
        allowed = 1e-14 * np.abs(expected["q"]).max()
        np.testing.assert_allclose(found["q"] - grads["context"], expected["q"], rtol=0, atol=allowed)


@pytest.mark.parametrize("name", ["updated_attention", "filtered_attention"])
def test_keys_that_were_not_kept_are_made_again(name):
    operation, inputs = OPERATIONS[name], make_inputs(OPERATIONS[name], big_graph(), **SMALL)
    outputs = run_forward(operation, inputs, REFERENCE)
    grads = make_grads(operation, outputs)
    kept, again = (run_backward(operation, inputs, outputs | k, grads, REFERENCE) for k in ({}, {"cache.k": None}))
    assert all(np.array_equal(again[name], kept[name]) for name in kept)
