"""The gradient check: every gradient passes it, and a wrong one does not."""

import functools
import importlib
import itertools
import json

import numpy as np
import pytest
from click.testing import CliRunner

import refattn
from refattn import gradient_check
from refattn.config import CHOICES, Config, DataConfig, ModelConfig, TrainingConfig
from refattn.gradient_check import (
    TOLERANCE,
    GradcheckResult,
    Row,
    SmallLoss,
    central_difference,
    check_network,
    check_operation,
    check_operations,
    configurations,
    gradcheck,
    small_shard,
    worst_difference,
)
from refattn.network.params import parameter_table
from refattn.ops import BACKENDS, OPS, load_backend, operations
from refattn.ops.cases import make_inputs

COMMAND = importlib.import_module("refattn.cli.gradcheck").gradcheck
NETWORKS = dict(configurations())


@functools.cache
def rows_of(name):
    return list(check_network(name, NETWORKS[name]))


@pytest.fixture(scope="module")
def operation_rows():
    return list(check_operations())


@pytest.fixture
def known_operations(monkeypatch, operation_rows):
    """The rows of the operations, which are right, are not computed again."""
    monkeypatch.setattr(gradient_check, "check_operations", lambda backends: operation_rows)


@pytest.fixture
def small_operations(monkeypatch):
    """Operations are checked with one small graph."""
    monkeypatch.setattr(gradient_check, "cases_of", lambda operation: [("", make_inputs(operation, "one edge"))])


def test_every_operation_passes(operation_rows):
    expected = {(o.name, backend) for backend in BACKENDS for o in operations(backend) if o.wrt}
    assert {(row.name, row.backend) for row in operation_rows} == expected
    assert all(row.ok for row in operation_rows), [row for row in operation_rows if not row.ok]
    assert all(row.entries > 30 for row in operation_rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_passes(name):
    config = NETWORKS[name]
    rows = rows_of(name)
    kinds = ("parameters", "inputs")
    assert [(row.kind, row.backend) for row in rows] == [(kind, backend) for backend in BACKENDS for kind in kinds]
    for row in rows:
        assert row.ok, row
        if row.kind == "parameters":
            assert row.entries == sum(entry.size for entry in parameter_table(config))


def test_the_table_covers_every_option():
    """Every switch of ModelConfig has all its values in some network, in both variants."""
    for variant in ("scann", "scann+"):
        configs = [config for config in NETWORKS.values() if config.variant == variant]
        switches = ("ring", "features", "residual", "normalise_attention", "readout", "head", "non_negative")
        for switch in switches:
            n_values = len(CHOICES.get(f"model.{switch}", (True, False)))
            assert len({getattr(config, switch) for config in configs}) == n_values, switch
        taught = {name: SmallLoss.of(name, small_shard(config), config).taught for name, config in NETWORKS.items()}
        heads = [(c.readout == "sum", c.n_targets) for name, c in NETWORKS.items()
                 if (c.variant, c.head) == (variant, "additive") and taught[name]]  # fmt: skip
        assert set(heads) == set(itertools.product((False, True), (1, 2, 3)))
        assert {config.n_targets for config in configs if config.head == "published"} == {1, 3}
        for rate in ("dropout", "attention_dropout"):
            assert {getattr(config, rate) > 0 for config in configs} == {True, False}


def test_all_inputs_are_checked():
    """The names that backward fills in are the names that are checked: none is left out."""
    n_sites, n_edges, n_radial, embedding_width = 9, 14, 4, 3
    for name, expected in {
        "scann+, CGCNN and ring features": n_sites * (92 + 2) + n_edges * 2 * n_radial,
        "scann, default": n_sites * embedding_width + n_edges * (n_radial + 1),
    }.items():
        assert {row.entries for row in rows_of(name) if row.kind == "inputs"} == {expected}


# ---- it can fail -------------------------------------------------------------------------------------------------


def break_backward(monkeypatch, backend, name, output, change):
    """Change one gradient that a backward returns."""
    ops = load_backend(backend)
    right = getattr(ops, name)

    @functools.wraps(right)
    def wrong(*args, **named):
        result = list(right(*args, **named))
        result[output] = change(result[output])
        return tuple(result)

    monkeypatch.setattr(ops, name, wrong)


def off_by_1e_6(gradient):
    gradient = gradient.copy()
    if gradient.size:
        gradient.flat[0] += 1e-6 * np.abs(gradient).max()
    return gradient


WRONG = [("swish", 1), ("global_attention", 0), ("filtered_attention", 3), ("updated_attention", 2)]
CHANGES = [np.negative, off_by_1e_6, lambda gradient: np.nan * gradient]


@pytest.mark.parametrize(
    ("operation", "output", "change", "backend"),  # every pair of an operation, a change and a backend
    [(*where, CHANGES[n], BACKENDS[(m + n) % 2]) for m, where in enumerate(WRONG) for n in range(len(CHANGES))],
)
def test_a_wrong_gradient_is_found(monkeypatch, operation, output, change, backend):
    break_backward(monkeypatch, backend, f"{operation}_backward", output, change)
    checked = next(o for o in OPS if o.name == operation)
    assert [b for b in BACKENDS if not check_operation(checked, b).ok] == [backend]


@pytest.mark.usefixtures("small_operations")
def test_a_wrong_gradient_is_found_in_the_network(monkeypatch):
    break_backward(monkeypatch, "cpu", "swish_backward", 0, np.negative)
    result = gradcheck(ModelConfig(variant="scann", ring=True))
    assert not result.ok
    wrong = {(row.kind, row.backend) for row in result.rows if not row.ok}
    assert wrong == {(kind, "cpu") for kind in ("operation", "parameters", "inputs")}


def test_a_missing_term_between_operations_is_found(monkeypatch):
    """Operations may all be right and the network wrong: here model.py forgets the bias of the key."""
    model = importlib.import_module("refattn.network.model")
    right = model._attend_backward

    def wrong(grad_context, grad_geo, weights, grads, *others):
        result = right(grad_context, grad_geo, weights, grads, *others)
        grads["key_b"][...] = 0
        return result

    monkeypatch.setattr(model, "_attend_backward", wrong)
    rows = list(check_network("scann", NETWORKS["scann, default"]))
    assert [row.ok for row in rows] == [False, True, False, True]
    assert "key_b" in rows[0].where


# ---- its parts ---------------------------------------------------------------------------------------------------


def test_central_difference_of_a_cubic():
    """The third derivative of x^3 is 6, so that the quotient is off by h^2."""
    x = np.array([[0.5, -2.0], [0.0, 3.0]])
    before = x.copy()
    found = central_difference(lambda: (x**3).sum(), x, step=1e-3)
    np.testing.assert_allclose(found, 3 * before**2 + 1e-6, rtol=0, atol=1e-10)
    assert np.array_equal(x, before)


def test_differences_are_relative_to_the_array_and_nan_is_the_worst():
    numerical = {"a": np.array([1.0, 100.0]), "b": np.array([2.0]), "zero": np.zeros(2), "none": np.zeros((0, 3))}
    analytic = {name: array.copy() for name, array in numerical.items()}
    assert worst_difference(analytic, numerical) == (5, 0.0, "-")
    analytic["a"][0] += 1
    assert worst_difference(analytic, numerical) == (5, 0.01, "a[0]")
    analytic["zero"][1] = 0.5  # relative to a hundredth of the largest gradient
    assert worst_difference(analytic, numerical) == (5, 0.5, "zero[1]")
    assert worst_difference(analytic, numerical, ["a", "none"]) == (2, 0.01, "a[0]")
    analytic["b"][0] = np.nan
    assert worst_difference(analytic, numerical)[2] == "b[0]"


@pytest.mark.usefixtures("known_operations")
def test_refattn_gradcheck_is_the_function():
    """Whether the module was imported before or not; a Config will do as well as a ModelConfig."""
    model = ModelConfig(variant="scann", n_layers=5, readout="published")
    result = refattn.gradcheck(Config(model=model))
    assert result.ok
    assert {row.name for row in result.rows if row.kind == "parameters"} == {"this configuration"}
    taught = Config(model=model, data=DataConfig(target=["a", "b"]), training=TrainingConfig(attention={"b": "c"}))
    ((name, found),) = configurations(taught)
    assert (name, found.n_targets, SmallLoss.of(name, small_shard(found), found).taught) == (
        "this configuration, taught attention", 2, (0,)
    )  # fmt: skip


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[model]\nvariant = "scann"\nreadout = "published"\nring = true\n')
    return str(path)


@pytest.mark.usefixtures("known_operations")
def test_the_command_prints_tables(config_file):
    result = CliRunner().invoke(COMMAND, [config_file])
    assert result.exit_code == 0, result.output
    for word in (*(operation.name for operation in OPS if operation.wrt), *BACKENDS, "parameters", "inputs"):
        assert word in result.stdout
    assert "Every gradient is right" in result.stdout
    assert "ok" in result.stderr


@pytest.mark.usefixtures("small_operations")
def test_the_command_fails_on_a_wrong_gradient(monkeypatch, config_file):
    break_backward(monkeypatch, "reference", "swish_backward", 0, np.negative)
    result = CliRunner().invoke(COMMAND, [config_file])
    assert result.exit_code == 1
    assert "A gradient is WRONG" in result.stdout


@pytest.mark.parametrize(("worst", "printed"), [(1e-8, 1e-8), (2e-7, 2e-7), (float("nan"), None)])
def test_the_command_prints_json(monkeypatch, worst, printed):
    row = Row("operation", "swish", "cpu", 3, worst, "u[0, 1]")
    module = importlib.import_module("refattn.cli.gradcheck")
    monkeypatch.setattr(module, "check_gradients", lambda config, report, backends: GradcheckResult((row,)))
    result = CliRunner().invoke(COMMAND, ["--json"])
    report = json.loads(result.stdout, parse_constant=pytest.fail)
    ok = worst <= TOLERANCE
    assert result.exit_code == (not ok)
    assert report["ok"] == report["rows"][0]["ok"] == ok
    assert report["tolerance"] == TOLERANCE
    assert report["rows"][0]["worst"] == printed
