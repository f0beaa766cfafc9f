"""A training step on the CPU calls no BLAS, whose bits depend on its version."""

import ast
import dis
import sys
from pathlib import Path

import pytest
from small_data import small_config, write_molecules

import refattn.ops.cpu
from refattn.training.cpu_stepper import CpuStepper
from refattn.training.train import train

# What NumPy gives to BLAS or LAPACK
PRODUCTS = {"dot", "vdot", "matmul", "inner", "outer", "tensordot", "einsum", "linalg", "norm"}
PACKAGE = str(Path(refattn.__file__).parent)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.h5", n=20)


def code_of_a_step(config, out, monkeypatch, device):
    """The code of refattn that Python runs in the steps of a training."""
    step, found = CpuStepper.step, set()

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            found.add(frame.f_code)

    def watched(*arguments):
        sys.setprofile(watch)
        try:
            step(*arguments)
        finally:
            sys.setprofile(None)

    with monkeypatch.context() as patch:
        patch.setattr(CpuStepper, "step", watched)
        train(config, out, n_threads=1, device=device)
    return found


def products(code):
    """Names of what a function calls of PRODUCTS, and its operators @."""
    names = PRODUCTS & {*code.co_names}
    return names | {"@" for line in dis.get_instructions(code) if line.opname == "BINARY_OP" and "@" in line.argrepr}


@pytest.mark.parametrize("variant", ["scann", "scann+"])
def test_no_function_of_a_training_step_multiplies_by_blas(data, variant, tmp_path, monkeypatch):
    config = small_config(data, epochs=1, loss="rmse")
    config = refattn.config.override(config, [f"model.variant={variant}"])
    found = code_of_a_step(config, tmp_path / "cpu", monkeypatch, "cpu")
    assert {"compute_gradient", "forward", "backward", "dense_backward", "update"} <= {code.co_name for code in found}
    assert not {code.co_qualname: products(code) for code in found if products(code)}
    reference = code_of_a_step(config, tmp_path / "reference", monkeypatch, "reference")
    assert {"dense_forward", "dense_backward"} <= {code.co_name for code in reference if products(code)}


def test_no_kernel_multiplies_by_blas():
    """Inside of kernels, which Python does not run, NumPy's products would be SciPy's BLAS."""
    for path in Path(refattn.ops.cpu.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        if path.name != "meaning.py":  # what the intrinsics mean, in NumPy; for NUMBA_DISABLE_JIT
            assert not [node.lineno for node in nodes if isinstance(node, ast.MatMult)], path
            assert not PRODUCTS & {node.attr for node in nodes if isinstance(node, ast.Attribute)}, path
