"""Kernels are compiled once, and again when a file changes that their code comes from."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.caching import FunctionCache, NullCache

from refattn.common import jit, notices

HELPERS = """
from refattn.common.jit import jit
from refattn.numbers import FACTOR

@jit
def scaled(x):
    return FACTOR * x
"""
KERNELS = """
from refattn import (
    helpers,
)
from refattn.common.jit import jit

scaled = helpers.scaled

@jit
def kernel(x):
    return scaled(x + 1)
"""
PACKAGE = {
    "__init__.py": "",
    "common/__init__.py": "",
    "common/jit.py": Path(jit.__file__).read_text(encoding="utf-8"),
    "numbers.py": "FACTOR = 3\n",
    "helpers.py": HELPERS,
    "kernels.py": KERNELS,
    "other.py": "UNUSED = 1\n",
}
RUN = "from refattn.kernels import kernel; print(kernel(1), sum(kernel.stats.cache_misses.values()))"


@pytest.fixture
def package(tmp_path):
    """A package of this name with the decorator, and a kernel whose helper and constant stand in other files."""
    for name, text in PACKAGE.items():
        path = tmp_path / "refattn" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "refattn"


def run(package, **environment):
    """What the kernel returns in a new process, and how often it was compiled there."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "NUMBA_CACHE_DIR": "", **environment}
    options = {"env": environment, "cwd": package.parent, "text": True, "check": True}
    said = subprocess.run([sys.executable, "-c", RUN], stdout=subprocess.PIPE, **options).stdout
    value, n_compiled = said.split()
    return int(value), int(n_compiled)


def test_a_change_of_a_helper_or_of_its_constant_compiles_its_callers_anew(package):
    assert run(package) == (6, 1)
    assert list((package / "__pycache__").glob("kernels.kernel*.nbc"))
    (package / "other.py").write_text("UNUSED = 2\n", encoding="utf-8")
    assert run(package) == (6, 0)
    (package / "numbers.py").write_text("FACTOR = 5\n", encoding="utf-8")
    assert run(package) == (10, 1)
    (package / "helpers.py").write_text(HELPERS.replace("FACTOR * x", "FACTOR - x"), encoding="utf-8")
    assert run(package) == (3, 1)


def test_the_cache_stands_where_numba_is_told(package):
    assert run(package, NUMBA_CACHE_DIR=str(package.parent / "cache")) == (6, 1)
    assert list((package.parent / "cache").rglob("kernels.kernel*.nbc"))
    assert not list(package.rglob("*.nbc"))


def test_files_that_a_file_imports_are_found():
    own = Path(jit.__file__).parents[1] / "ops/cpu/edges.py"
    _, imported = jit._read(own)
    names = {path.relative_to(own.parent).as_posix() for path in imported if path.is_relative_to(own.parent)}
    assert {"heads.py", "memory.py", "simd/gemm.py", "simd/vector.py"} <= names


def test_kernels_that_cannot_be_kept_are_compiled(monkeypatch):
    """No folder for them, a full disk, a file that is none: the kernel is compiled, and everything else goes on.

    What is not kept is said once.
    """
    said = []
    numbers = itertools.count()
    monkeypatch.setattr(notices, "tell", said.append)
    monkeypatch.setattr(jit, "_not_kept", [])

    def refuse(*_):
        raise OSError(28, "No space left on device", f"file {next(numbers)}")

    def add(a, b):
        return a + b

    for name in ("save_overload", "load_overload"):
        with monkeypatch.context() as patch:
            patch.setattr(FunctionCache, name, refuse)
            assert jit.jit(add)(1, 2) == 3
    monkeypatch.setattr(jit, "_kept_by", lambda kind: refuse)
    kernel = jit.jit(add)
    assert isinstance(kernel._cache, NullCache)
    assert kernel(1.5, 2) == 3.5
    assert len(said) == 1 and "No space left on device: 'file " in said[0]
