"""The CUDA backend: its kernels in Numba's simulator, in a process of their own; and what it says without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refattn.errors import MissingExtra, RefattnError
from refattn.ops import load_backend

FOLDER = Path(__file__).parent
SIMULATED = [FOLDER / name for name in ("cuda_simulated.py", "cuda_device.py", "cuda_training.py", "cuda_benchmark.py")]


def test_kernels_in_the_simulator():
    """NUMBA_ENABLE_CUDASIM is read when Numba is imported."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *map(str, SIMULATED)]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=FOLDER)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]
    assert " passed" in run.stdout


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it now fails, installed or not
    for name in [name for name in sys.modules if name.startswith("refattn.ops.cuda")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=r"refattn\[cuda\].*--device cpu"):
        load_backend.__wrapped__("cuda")


def test_the_gpu_is_asked_for_where_there_is_none(monkeypatch):
    cuda = pytest.importorskip("numba.cuda")
    monkeypatch.setitem(sys.modules, "cupy", type(sys)("cupy"))
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    for name in [name for name in sys.modules if name.startswith("refattn.ops.cuda")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(RefattnError, match="an NVIDIA GPU and its driver.*--device cpu"):
        load_backend.__wrapped__("cuda")
