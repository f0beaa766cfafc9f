"""The CUDA backend: its kernels in Numba's simulator, in a process of their own; and what it says without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from refattn.cli.main import cli
from refattn.config import Config
from refattn.errors import MissingExtra, RefattnError
from refattn.network.checkpoint import Checkpoint, save_checkpoint
from refattn.network.params import initialise
from refattn.ops import load_backend

TESTS = Path(__file__).parents[1]
SIMULATED = sorted(TESTS.glob("*/cuda_*.py"))


def test_kernels_in_the_simulator(tmp_path):
    """NUMBA_ENABLE_CUDASIM is read when Numba is imported. A process a file, side by side: the simulator is slow."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    runs = {}
    for path in SIMULATED:
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", str(path)]
        with open(tmp_path / path.stem, "w") as log:
            runs[path.stem] = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=TESTS)
    codes = {name: run.wait() for name, run in runs.items()}  # of all, so that none is left behind
    for name, code in codes.items():
        said = (tmp_path / name).read_text(encoding="utf-8")
        assert code == 0, said[-5000:]
        assert " passed" in said


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it now fails, installed or not
    for name in [name for name in sys.modules if name.startswith("refattn.ops.cuda")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtra, match=r"refattn\[cuda\].*--device cpu"):
        load_backend.__wrapped__("cuda")


@pytest.mark.parametrize("words", [["gradcheck"], ["train", "--data", "fullerene"], ["predict", "run", "x.xyz"]])
def test_commands_say_it_in_one_sentence(monkeypatch, tmp_path, words):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith(("refattn.ops.cuda", "refattn.training.cuda"))]:
        monkeypatch.delitem(sys.modules, name)
    load_backend.cache_clear()
    if words[0] == "predict":
        save_checkpoint(tmp_path / "run", Checkpoint(Config(), initialise(Config().model, 0)))
    result = CliRunner().invoke(cli, [*words, "--device", "cuda"])
    assert result.exit_code == 1
    assert result.output.startswith("refattn: the device cuda needs CuPy and numba-cuda")
    assert result.output.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_gpu_is_asked_for_where_there_is_none(monkeypatch):
    cuda = pytest.importorskip("numba.cuda")
    monkeypatch.setitem(sys.modules, "cupy", type(sys)("cupy"))
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    for name in [name for name in sys.modules if name.startswith("refattn.ops.cuda")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(RefattnError, match="an NVIDIA GPU and its driver.*--device cpu"):
        load_backend.__wrapped__("cuda")
