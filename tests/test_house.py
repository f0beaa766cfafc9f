"""House rules: what the backends have in common, which package stands on which, and how the code is written."""

import ast
import configparser
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import refattn.cli
import refattn.ops
from refattn.ops import BACKENDS, OPS, load_backend, operations
from refattn.ops.cases import argument_names

PACKAGE = Path(refattn.__file__).parent
FOLDER = PACKAGE / "ops"
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_look_the_same(backend):
    found, expected = files_of(backend), files_of("reference")
    assert set(found) == {operation.file for operation in operations(backend)}
    names = {f"{operation.name}_{way}" for operation in operations(backend) for way in ("forward", "backward")}
    for file in found:
        wanted = [(name, arguments) for name, arguments in expected[file].items() if name in names]
        assert [*found[file].items()] == wanted, f"{backend}/{file}: names, order and arguments"


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
    expected = {(operation.file, f"{operation.name}_forward") for operation in operations(backend)}
    expected |= {(operation.file, f"{operation.name}_backward") for operation in operations(backend) if operation.wrt}
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


# ---- the package as a whole --------------------------------------------------------------------------------------

# A package may import those before it; modules beside the packages stand among them under their own names.
FLOORS = (
    *("errors", "common", "config", "structures", "neighbours", "ops", "data", "experiments", "models", "generate"),
    *("network", "gradient_check", "keras_import", "prediction", "explanation", "validation"),
    *("report", "training", "verification", "testing", "interop", "benchmarks", "cli", "__main__"),
)
COMPILED = {"jit", "kernel", "device", "intrinsic", "vector_intrinsic", "overload"}  # what Numba compiles
ANNOTATED = 0.95  # at least this part of the public functions


@cache
def modules():
    """Dotted name -> syntax tree of every module of the package, the command line included."""
    found = {}
    for root, prefix in ((PACKAGE, "refattn"), (Path(refattn.cli.__file__).parent, "refattn.cli")):
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join([prefix, *parts]).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree):
    """Modules of refattn that a module imports when it is loaded, not those that a function of it imports."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("refattn"))
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("refattn"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else node.module


def test_every_package_is_installed():
    """A folder that setup.cfg does not name is missing from the wheel, but not from the sources."""
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[1] / "setup.cfg")
    folders = {path.parent.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} <= {*settings["options"]["packages"].split()}


def test_few_modules_lie_beside_the_packages():
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= 6


def test_packages_import_only_what_stands_below_them():
    floors = {"refattn": -1, **{f"refattn.{name}": floor for floor, name in enumerate(FLOORS)}}
    for name, tree in modules().items():
        for other in imported(tree):
            above, below = (".".join(module.split(".")[:2]) for module in (name, other))
            assert above == below or floors[above] > floors[below], f"{name} imports {other}"


def test_no_modules_import_each_other():
    left = {name: {other for other in imported(tree) if other != name} for name, tree in modules().items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, "each of these imports, directly or not, itself"


def test_modules_of_numpy_are_imported_by_their_names():
    """`np.typing` is there by chance: NumPy 1.26 loads these only where somebody imports them."""
    for name, tree in modules().items():
        used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not used & {"np.typing", "np.testing", "np.f2py", "np.distutils"}, name


def decorators(function):
    """Every name in the decorators of a function."""
    nodes = [node for decorator in function.decorator_list for node in ast.walk(decorator)]
    return {getattr(node, "attr", getattr(node, "id", "")) for node in nodes}


def public_functions(body):
    """Functions and methods that Python code calls: not those of the command line, whose options say their types."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and re.match(r"[^_]|__", node.name):
            yield from [] if decorators(node) & (COMPILED | {"command", "group"}) else [node]


def is_annotated(function):
    signature = function.args
    arguments = [*signature.posonlyargs, *signature.args, *signature.kwonlyargs, signature.vararg, signature.kwarg]
    arguments = [argument for argument in arguments if argument and argument.arg not in ("self", "cls")]
    return all(argument.annotation for argument in arguments) and (function.returns or function.name == "__init__")


def test_public_functions_are_annotated():
    functions = [(name, function) for name, tree in modules().items() for function in public_functions(tree.body)]
    bare = [f"{name}: {function.name}" for name, function in functions if not is_annotated(function)]
    assert len(bare) <= (1 - ANNOTATED) * len(functions), "\n".join(bare)


def test_few_assignments_are_packed():
    """`a, b = x, y` is for what belongs together: a statement says one thing."""
    assignments = [node for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    packed = [n for n in assignments if isinstance(n.targets[0], ast.Tuple) and isinstance(n.value, ast.Tuple)]
    assert len(packed) < 0.05 * len(assignments)


def test_every_public_name_is_there():
    assert refattn.__all__ == sorted(set(refattn.__all__))
    for name in refattn.__all__:
        assert getattr(refattn, name).__name__ == {"Graph": "GraphBatch"}.get(name, name)
        assert name in dir(refattn)
    with pytest.raises(AttributeError, match="nonsense"):
        refattn.nonsense  # noqa: B018
    assert (PACKAGE / "py.typed").is_file()


def test_help_needs_no_numpy():
    """So `import refattn`, `refattn --help` and `refattn train --help` are quick."""
    code = """if True:
        import sys
        from refattn.cli.main import cli
        for arguments in (["--help"], ["train", "--help"]):
            try:
                cli(arguments)
            except SystemExit as end:
                assert not end.code
        slow = {"numpy", "numba", "scipy", "h5py", "ase", "matplotlib", "importlib.metadata"} & sys.modules.keys()
        assert not slow, slow
    """
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_signatures_are_short():
    """What travels together is a named tuple or a dataclass; see refattn/ops/types.py."""
    sizes = []
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not decorators(node) & {"command", "group"}:
                signature = node.args
                sizes.append(len(signature.posonlyargs) + len(signature.args) + len(signature.kwonlyargs))
    assert max(sizes) <= 12
    assert sum(size > 10 for size in sizes) <= 8


def test_the_core_stays_small():
    """The network by hand, which a reader can point at; ops/cpu/simd stands apart from its formulas."""
    files = [
        path for name in ("network", "training", "ops/reference", "ops/cpu") for path in (PACKAGE / name).rglob("*.py")
    ]
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in files if "simd" not in path.parts)
    assert lines < 6010
