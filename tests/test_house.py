"""House rules 1 and 2: backends name their operations and arguments alike, and forward is followed by its backward."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import refattn.ops
from refattn.ops import BACKENDS, OPS, load_backend
from refattn.ops.cases import argument_names

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
    """{file as in the table of operations: its operations}, of all that a backend has."""
    found = {}
    for path in sorted((FOLDER / backend).rglob("*.py")):
        if operations_of(path):
            found[".".join(path.relative_to(FOLDER / backend).with_suffix("").parts)] = operations_of(path)
    return found


def table_of(backend):
    """The operations of the table that a backend has."""
    return [operation for operation in OPS if backend in operation.backends or backend == "cuda"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_look_the_same(backend):
    found, expected = files_of(backend), files_of("reference")
    assert set(found) == {operation.file for operation in table_of(backend)}
    for file in found:
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
    expected = {(operation.file, f"{operation.name}_forward") for operation in table_of(backend)}
    expected |= {(operation.file, f"{operation.name}_backward") for operation in table_of(backend) if operation.wrt}
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
    inputs = argument_names(getattr(ops, f"{operation.name}_forward"))
    forward, backward = list(forward), list(backward)
    assert backward[len(backward) - len(options) :] == options
    backward = backward[: len(backward) - len(options)]
    outputs = list(dict.fromkeys(name.partition(".")[0] for name in operation.outputs))
    known = [f"grad_{name}" for name in outputs] + forward + outputs
    assert set(operation.wrt) <= set(inputs)
    assert [name for name in known if name in backward] == backward


def test_every_reference_operation_states_shapes_and_its_source():
    for path in (FOLDER / "reference").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith(("_forward", "_backward")):
                text = ast.get_docstring(node)
                assert re.search(r"\([A-Z][^)]*\) float", text), f"{path.name}: {node.name} states no shapes"
                for word in ("Parameters", "Returns") + ("Source",) * node.name.endswith("_forward"):
                    assert word in text, f"{path.name}: {node.name} has no {word}"
