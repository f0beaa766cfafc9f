"""Whether ranks, threads, stops and kills change a bit of a training: python tools/try_ranks.py [COMMAND]

    python tools/try_ranks.py                                              # the MPICH of this environment
    python tools/try_ranks.py "mpiexec --oversubscribe --bind-to none"     # Open MPI, where mpi4py finds its library

A small network is trained by 1 to 4 ranks of 1 and 2 threads, then by two ranks that get SIGTERM, three that are killed
and one that goes on to the end. Each prints one digest of parameters, moments, history, predictions and calibration.
Exit status 1 where two of them differ.
"""

import hashlib
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase
import h5py
import numpy as np
from ase.build import molecule

import refattn
from refattn.config import GraphConfig
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.structures.batch import GraphBatch

MODEL = "n_layers = 2, width = 16, n_heads = 4, global_width = 16, head_width = 16, embedding_width = 8"
CODE = "from refattn.cli.main import cli; cli()"
TIMES = ("seconds", "structures_per_second")


def shaken_molecules(n):
    """Small molecules, each with an id and a label `spread` in its info."""
    rng = np.random.default_rng(0)
    for number in range(n):
        atoms = molecule(("H2O", "CH4", "NH3", "C2H6", "CH3OH", "C2H4")[number % 6])
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info = {"id": f"m{number}", "spread": float(np.ptp(atoms.positions))}
        yield atoms


def config_text(data, epochs, target="spread", options="batch_size = 24\nedges_per_shard = 60"):
    """Of a small network; by default for shaken molecules, of which even a small batch falls apart into shards."""
    sections = f'[data]\npath = "{data}"\ntarget = "{target}"\n[training]\nepochs = {epochs}\n{options}\n'
    return f"model = {{ {MODEL}, n_elements = 10 }}\n{sections}"


def write_set(path):
    with DatasetWriter(path, GraphConfig()) as writer:
        for atoms in shaken_molecules(60):
            writer.add([Record(atoms.info["id"], atoms, {"spread": atoms.info["spread"]}, {})], [graph_of(atoms)])


def graph_of(atoms: ase.Atoms) -> GraphBatch:
    return GraphBatch.from_atoms(atoms)


def digest(run):
    """Of everything that a training makes but for how long it took."""
    found = hashlib.sha256()
    with h5py.File(run / "last.h5") as file:
        names = [*(f"parameters/{name}" for name in sorted(file["parameters"])), "state/adam_m", "state/adam_v"]
        for name in names:
            found.update(file[name][()].tobytes())
        history = json.loads(file["state/history"].asstr()[()])
    found.update(json.dumps([{k: v for k, v in record.items() if k not in TIMES} for record in history]).encode())
    found.update((run / "predictions.csv").read_bytes())
    with h5py.File(run / "calibration.h5") as file:
        found.update(file.attrs["sha256"].encode())
    return found.hexdigest()[:16]


def launcher():
    """The command that starts ranks, and what it needs in the environment."""
    if len(sys.argv) > 1:
        return shlex.split(sys.argv[1]), {}
    files = {file.name: str(file.locate()) for file in importlib.metadata.files("mpich")}
    return [files["mpiexec"]], {"MPI4PY_LIBMPI": files["libmpi.so.12"]}


def start(n_ranks, folder, out, *options):
    command, environment = launcher()
    train = ["train", folder / "config.toml", "--out", folder / out, "--resume", *options]
    command = [*command, "-n", n_ranks, sys.executable, "-P", "-c", CODE, *train]
    environment = {**os.environ, **environment, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([str(part) for part in command], env=environment, start_new_session=True, **quiet)


def ended(process, wanted=0):
    if process.wait(600) != wanted and wanted == 0:
        raise RuntimeError(f"{shlex.join(process.args)} ended with {process.returncode}")


def reached(run, epoch):
    """Wait until a run has ended so many epochs."""
    log = run / "log.jsonl"
    while not log.exists() or log.read_text().count("\n") < epoch:
        time.sleep(0.05)


def main():
    print(refattn.__version__, shlex.join(launcher()[0]))
    found = set()
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        folder = Path(folder)
        write_set(folder / "set.h5")
        (folder / "config.toml").write_text(config_text(folder / "set.h5", 40))
        for n_ranks in (1, 2, 3, 4):
            for n_threads in (1, 2):
                out = f"ranks_{n_ranks}_{n_threads}"
                ended(start(n_ranks, folder, out, "--threads", n_threads))
                found.add(digest(folder / out))
                print(f"{n_ranks} ranks of {n_threads} threads: {digest(folder / out)}", flush=True)
        stopped = start(2, folder, "stopped", "--threads", 1)
        reached(folder / "stopped", 8)
        stopped.terminate()
        ended(stopped, None)
        killed = start(3, folder, "stopped", "--threads", 1)
        reached(folder / "stopped", 20)
        os.killpg(killed.pid, signal.SIGKILL)
        ended(killed, None)
        time.sleep(3)  # its children, if they outlive it
        ended(start(1, folder, "stopped", "--threads", 1))
        found.add(digest(folder / "stopped"))
        print(f"stopped on 2, killed on 3, ended on 1: {digest(folder / 'stopped')}")
    sys.exit(len(found) > 1)


if __name__ == "__main__":
    main()
