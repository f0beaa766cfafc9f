"""Training on ranks: the tree of sums without MPI, and the same bits, one end and one sentence with it."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import small_data
from click.testing import CliRunner
from simulator import smaller_config
from small_data import small_config, write_molecules
from test_training import same_state

from refattn.cli.main import COMMANDS, ON_RANKS, cli
from refattn.common import mpi
from refattn.common.environment import LAUNCHERS
from refattn.common.mpi import ALONE, Ranks, nodes_of, shards_of, tree_sum
from refattn.config import to_toml
from refattn.errors import ConfigError
from refattn.training.train import train


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 5, 8])
def test_every_number_of_ranks_makes_the_same_tree(n_ranks):
    """Whoever makes which of its nodes, and with fewer shards than ranks too."""
    for n_shards in (1, 2, 3, 5, 8, 18, 33):
        shards = np.random.default_rng(n_shards).normal(size=(n_shards, 7)).astype(np.float32)

        def of_shard(node, shards=shards, n_shards=n_shards):
            start, stop = shards_of(n_shards, node)
            return shards[start] if stop - start == 1 else None

        known = {}
        for index in range(n_ranks):
            ranks = Ranks()
            ranks.index, ranks.size = index, n_ranks
            share = ranks.share(n_shards)
            nodes = nodes_of(n_shards, share.start, share.stop)
            covered = [shard for node in nodes for shard in range(*shards_of(n_shards, node))]
            assert covered == list(range(n_shards))[share]
            assert len(nodes) <= 1 or n_ranks & (n_ranks - 1)
            known |= {node: tree_sum(n_shards, node, of_shard, np.add) for node in nodes}
        whole = tree_sum(n_shards, (0, 0), of_shard, np.add)
        assert np.array_equal(tree_sum(n_shards, (0, 0), known.get, np.add), whole)
        np.testing.assert_allclose(whole, shards.sum(axis=0), atol=1e-5)


def test_a_process_without_a_launcher_is_alone(monkeypatch):
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    mpi.open_ranks.cache_clear()
    assert mpi.open_ranks() is ALONE
    assert ALONE.map(map) is map and ALONE.gather([1]) == [1] and ALONE.any(True) and ALONE.n_threads() >= 1


@pytest.mark.parametrize("library", [None, "of another MPI"])
def test_ranks_that_do_not_see_each_other_are_refused(library, monkeypatch, tmp_path):
    """A launcher of another MPI, or none for mpi4py: each of them would train alone, in the same folder."""
    world = SimpleNamespace(Get_size=lambda: 1)
    found = SimpleNamespace(MPI=SimpleNamespace(COMM_WORLD=world, Get_library_version=lambda: library))
    monkeypatch.setitem(sys.modules, "mpi4py", found if library else None)
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    mpi.open_ranks.cache_clear()
    result = CliRunner().invoke(cli, ["train", "--data", "absent.h5", "--out", str(tmp_path / "run")])
    mpi.open_ranks.cache_clear()
    assert result.exit_code == 1
    assert result.stderr.startswith("refattn: 2 processes were started, but ") and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_commands_of_one_process_refuse_several(launcher, monkeypatch):
    """With one sentence of the first one: each would do all of the work, and write the same file."""
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(launcher, "3")
    for command in COMMANDS.keys() - set(ON_RANKS):
        monkeypatch.setenv(LAUNCHERS[launcher], "0")
        result = CliRunner().invoke(cli, [command, "absent.h5"])
        assert result.exit_code == 1 and not result.stdout
        assert result.stderr.startswith(f"refattn: 3 processes were started, and {command} works in one; ")
        assert len(result.stderr.splitlines()) == 1 and "--part K/N" in result.stderr
        monkeypatch.setenv(LAUNCHERS[launcher], "2")
        result = CliRunner().invoke(cli, [command, "absent.h5"])
        assert result.exit_code == 1 and not result.output
    monkeypatch.setenv(launcher, "1")  # a job step of one process
    result = CliRunner().invoke(cli, ["predict", "absent", "absent.xyz"])
    assert "processes" not in result.stderr


@pytest.mark.parametrize("option", ["--ensemble", "--folds"])
def test_members_and_folds_are_for_array_jobs(option, monkeypatch, tmp_path):
    several = Ranks()
    several.size = 2
    monkeypatch.setattr(mpi, "open_ranks", lambda: several)
    result = CliRunner().invoke(cli, ["train", option, "2", "--data", "absent.h5", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2 and "in an array job" in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


# ---- with the MPI of the extra `test` ------------------------------------------------------------------------------


needs_mpich = pytest.mark.skipif(sys.platform == "win32", reason="MPICH has no wheel for Windows")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A configuration whose batches are several shards, and the run of one process: (configuration, folder)."""
    folder = tmp_path_factory.mktemp("ranks")
    config = small_config(write_molecules(folder / "set.h5"), epochs=2, batch_size=24, edges_per_shard=60)
    (folder / "config.toml").write_text(to_toml(config))
    train(config, folder / "one", n_threads=1)
    return config, folder


def start(n_ranks, code, *arguments, **variables):
    """Python code on ranks; what it prints on stderr. Arguments are sys.argv[1:], variables of the environment."""
    files = {file.name: str(file.locate()) for file in importlib.metadata.files("mpich")}
    paths = [str(Path(small_data.__file__).parent), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(filter(None, paths))  # an empty one would be the sources of an unpacked sdist
    environment = {**os.environ, "MPI4PY_LIBMPI": files["libmpi.so.12"], "PYTHONPATH": path, **variables}
    command = [files["mpiexec"], "-n", str(n_ranks), sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    return result.returncode, result.stdout, result.stderr


STOP_ON_ONE = """
import sys
from refattn.common.mpi import open_ranks
from refattn.config import load_config
from refattn.training.train import Interrupted, train
ranks, calls = open_ranks(), []
def stop():
    calls.append(1)
    return len(calls) == 3 and ranks.index == 1
try:
    train(load_config(sys.argv[1]), sys.argv[2], n_threads=1, stop=stop, ranks=ranks)
except Interrupted as reached:
    sys.stdout.write(f"{reached}\\n")  # print would write the end of the line apart, and ranks share the pipe
"""
COMMAND = "import sys; from refattn.cli.main import cli; cli(sys.argv[1:])"
FAIL_ON_ONE = """
import os, sys
from refattn.cli.main import cli
cli(["train", "--data", "absent.h5" if os.environ["PMI_RANK"] == "1" else sys.argv[1], "--out", sys.argv[2],
     "--target", "spread"])
"""


@needs_mpich
def test_ranks_do_not_change_a_bit_and_others_go_on(run):
    """Three ranks, of which one is asked to stop; two go on to the end, with the same command and one voice."""
    folder = run[1]
    status, output, error = start(3, STOP_ON_ONE, folder / "config.toml", folder / "several")
    assert status == 0, error
    assert sorted(output.splitlines()) == 3 * ["epoch 2, batch 1 of 2"]
    command = ["train", folder / "config.toml", "--out", folder / "several", "--resume", "--threads", 1]
    status, output, error = start(2, COMMAND, *command)
    assert status == 0, error
    assert error.count("resuming in") == error.count("epoch   2/") == output.count("always the training mean") == 1
    one, several = folder / "one", folder / "several"
    assert same_state(one / "last.h5", several / "last.h5")
    assert (one / "predictions.csv").read_bytes() == (several / "predictions.csv").read_bytes()
    with h5py.File(one / "calibration.h5") as first, h5py.File(several / "calibration.h5") as second:
        assert first.attrs["sha256"] == second.attrs["sha256"]
    assert {path.name for path in one.iterdir()} == {path.name for path in several.iterdir()}


def test_a_sum_in_another_order_has_other_bits():
    """The control: what the ranks would do to a training without the tree."""
    shards = np.random.default_rng(0).normal(size=(9, 1000)).astype(np.float32)
    leaves = [node for shard in range(9) for node in nodes_of(9, shard, shard + 1)]
    assert not np.array_equal(tree_sum(9, (0, 0), dict(zip(leaves, shards)).get, np.add), sum(shards))


@needs_mpich
def test_ranks_with_a_gpu_each_do_not_change_a_bit(tmp_path):
    """In Numba's simulator: two shards a batch by one rank and by two. More ranks than shards are refused."""
    config = smaller_config(write_molecules(tmp_path / "set.h5", 10), epochs=2, batch_size=6, gpu_shards=2)
    (tmp_path / "config.toml").write_text(to_toml(config))
    for n_ranks, out in ((1, "1"), (2, "2"), (3, "1")):
        command = ["train", tmp_path / "config.toml", "--out", tmp_path / out, "--overwrite", "--device", "cuda"]
        status, _, error = start(n_ranks, COMMAND, *command, "--threads", 1, NUMBA_ENABLE_CUDASIM="1")
        assert (status == 0) == (n_ranks < 3), error
    assert "3 ranks have no part each of a batch that is training.gpu_shards = 2; give --set" in error
    assert same_state(tmp_path / "1" / "last.h5", tmp_path / "2" / "last.h5")
    assert (tmp_path / "1" / "predictions.csv").read_bytes() == (tmp_path / "2" / "predictions.csv").read_bytes()


@pytest.mark.parametrize(
    ("named", "found", "taken"),
    [
        (None, [], "1"),
        (None, ["nvidia0", "nvidia1", "nvidiactl"], "1"),
        ("4,7,5", [], "7"),
        ("GPU-3f", [], "GPU-3f"),
        ("", ["nvidia0"], ""),
    ],
)
def test_the_ranks_of_a_machine_share_out_its_gpus(named, found, taken, monkeypatch, tmp_path):
    """The third of three ranks, the second one here."""
    ranks = Ranks()
    ranks.index, ranks.size = 2, 3
    monkeypatch.setattr(ranks, "gather", lambda items: [*items, "elsewhere", *items])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named or "")  # what is taken is taken back at the end
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in found:
        (tmp_path / name).touch()
    monkeypatch.setattr(mpi, "DEVICES", tmp_path)
    mpi.take_gpu(ranks)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken


def test_a_machine_with_fewer_gpus_than_ranks_is_refused(monkeypatch, tmp_path):
    ranks = Ranks()
    monkeypatch.setattr(ranks, "gather", lambda items: 3 * items)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ConfigError, match="has 3 ranks and 2 GPUs, and every rank needs its own; start fewer"):
        mpi.take_gpu(ranks)


@needs_mpich
def test_an_error_on_one_rank_ends_all_with_one_sentence(run):
    status, output, error = start(2, FAIL_ON_ONE, run[0].data.path, run[1] / "wrong")
    assert status != 0 and not output
    sentences = [line for line in error.splitlines() if line.startswith("refattn: ")]
    assert len(sentences) == 1 and "rank 1 on " in sentences[0] and "absent.h5" in sentences[0], error
