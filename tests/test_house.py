"""House rules 1 and 2: backends name their operations and arguments alike, and forward is followed by its backward."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import refattn.ops
from refattn.ops import BACKENDS, OPS, load_backend

FOLDER = Path(refattn.ops.__file__).parent
FORWARD_ONLY = {operation.name for operation in OPS if not operation.wrt}


def operations_of(path):
    """{name: argument names} of the public functions of a file that end in _forward or _backward, in their order."""
    functions = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    return {
        function.name: [argument.arg for argument in function.args.args]
        for function in functions
        if function.name.endswith(("_forward", "_backward")) and not function.name.startswith("_")
    }


def files_of(backend):
    return {path.name: operations_of(path) for path in sorted((FOLDER / backend).glob("*.py")) if operations_of(path)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_look_the_same(backend):
    found, expected = files_of(backend), files_of("reference")
    assert list(found) == list(expected)
    for file in expected:
        assert [*found[file].items()] == [*expected[file].items()], f"{backend}/{file}: names, order and arguments"


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_is_followed_by_backward(backend):
    for file, functions in files_of(backend).items():
        names = list(functions)
        for name, after in zip(names, [*names[1:], None], strict=True):
            operation, _, direction = name.rpartition("_")
            if direction == "forward" and operation not in FORWARD_ONLY:
                assert after == f"{operation}_backward", f"{backend}/{file}: {name} is followed by {after}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_table_of_operations_is_complete(backend):
    found = {(file, name) for file, functions in files_of(backend).items() for name in functions}
    expected = {(f"{operation.file}.py", f"{operation.name}_forward") for operation in OPS}
    expected |= {(f"{operation.file}.py", f"{operation.name}_backward") for operation in OPS if operation.wrt}
    assert found == expected
    assert all(hasattr(load_backend(backend), name) for _, name in found)


@pytest.mark.parametrize("operation", [o for o in OPS if o.wrt], ids=lambda operation: operation.name)
def test_backward_takes_gradients_first_and_then_in_the_order_of_forward(operation):
    """Rule 5: grad_ of the outputs, then what it needs of forward's inputs, then what forward saved; options follow."""
    ops = load_backend("reference")
    forward, backward = (
        inspect.signature(getattr(ops, f"{operation.name}_{direction}")).parameters
        for direction in ("forward", "backward")
    )
    options = [name for name, parameter in backward.items() if parameter.default is not parameter.empty]
    forward, backward = list(forward), list(backward)
    assert backward[len(backward) - len(options) :] == options
    backward = backward[: len(backward) - len(options)]
    known = [f"grad_{name}" for name in operation.outputs] + forward + list(operation.outputs)
    assert set(operation.wrt) <= set(forward)
    assert [name for name in known if name in backward] == backward


def test_every_reference_operation_states_shapes_and_its_source():
    for path in (FOLDER / "reference").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith(("_forward", "_backward")):
                text = ast.get_docstring(node)
                assert re.search(r"\([A-Z][^)]*\) float", text), f"{path.name}: {node.name} states no shapes"
                for word in ("Parameters", "Returns") + ("Source",) * node.name.endswith("_forward"):
                    assert word in text, f"{path.name}: {node.name} has no {word}"
