"""Cold start: `refattn --help`, and the first training step after an installation and from the second run on.

    python benchmarks/bench_cold_start.py --python tensorflow=PATH --json OUT

Every run is a fresh process, timed from its start to the end of its first step of 128 made-up structures at the
published QM9 size, imports included. "First" begins without the caches that Numba and PyTorch keep, "later" with them.
After its step every process is held to refattn's outputs and gradients; one that differs ends the benchmark.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_step import note

from refattn.benchmarks.driver import interpreters, python_of
from refattn.benchmarks.measures import write_record
from refattn.benchmarks.peers import PEERS

MEASURED = ("refattn", "tensorflow", "torch-identities", "torch-identities-compiled", "jax-identities")
CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
LIMIT = 600  # s for one process
HELP_RUNS = 15


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peers", nargs="+", default=list(MEASURED), choices=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3, help="later runs")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="interpreters of peers")
    parser.add_argument("--quick", action="store_true", help="one later run")
    parser.add_argument("--first-step", choices=list(PEERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.first_step:
        first_step(arguments.first_step)
        return
    try:
        pythons = interpreters(arguments.python)
    except ValueError as error:
        parser.error(str(error))
    rounds = 1 if arguments.quick else arguments.rounds
    record = {"help": help_seconds(), "first_step": {}, "missing": {}}
    print(f"refattn --help: {record['help']['median']:.3f} s, median of {record['help']['n']}")
    for name in [peer for peer in PEERS if peer in {*arguments.peers, "refattn"}]:
        python = python_of(name, pythons)
        if not has(python, PEERS[name].needs):
            record["missing"][name] = f"not installed: {PEERS[name].install}"
            note(f"{name}: {record['missing'][name]}")
            continue
        record["first_step"][name] = row = starts(name, python, rounds)
        print(f"{name:26} first run {row['first']:6.2f} s, later {row['later']:6.2f} s", flush=True)
    if arguments.json:
        write_record(arguments.json, record)


def help_seconds():
    """Times of `refattn --help` in fresh processes."""
    script = Path(sys.executable).with_name("refattn")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "refattn.cli.main"]
    seconds = []
    for _ in range(HELP_RUNS):
        began = time.perf_counter()
        subprocess.run([*command, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - began)
    return {"median": float(np.median(seconds)), "seconds": seconds, "n": HELP_RUNS}


def has(python, package):
    """Whether the interpreter finds the package that a peer needs; without importing it."""
    if not package:
        return True
    if python == sys.executable:
        return importlib.util.find_spec(package) is not None
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", code, package], capture_output=True).returncode == 0


def starts(name, python, rounds):
    """Seconds of the first run with empty caches, and the median of later ones. Raises SystemExit when one fails."""
    with tempfile.TemporaryDirectory(prefix="refattn-cold-") as folder:
        environment = {**os.environ, **{cache: str(Path(folder) / cache) for cache in CACHES}}
        seconds = [one_start(name, python, environment) for _ in range(rounds + 1)]
    return {"first": seconds[0], "later": float(np.median(seconds[1:])), "seconds": seconds}


def one_start(name, python, environment):
    """Seconds from the start of a process to its word that the first step is done."""
    began = time.perf_counter()
    command = [python, __file__, "--first-step", name]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        word = process.stdout.readline()
        took = time.perf_counter() - began
        try:
            _, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SystemExit(f"{name}: its check took more than {LIMIT} s") from None
    if process.returncode or not word.startswith("{"):
        last = errors.strip().splitlines()[-1:] or ["it printed no reason"]
        raise SystemExit(f"{name}: the first step failed: {last[0]}")
    return took


def first_step(name):
    """Import, one step, a word to the parent; then the check, which exits with 1 where the peer differs."""
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    from refattn.benchmarks import synthetic
    from refattn.benchmarks.peers.batch import Batch
    from refattn.benchmarks.worker import NotTheSame, build, make
    from refattn.common.environment import available_cores

    source = synthetic.source(synthetic.network())
    batch = Batch.of(source.dataset.graphs, source.known, source.label)
    order = {"peer": name, "threads": available_cores()}
    peer = make(name, source.config, source, order)
    form = getattr(peer, "FORMS", {"step": ("step",)})["step"][0]
    loss = getattr(peer, form)(batch)
    print(json.dumps({"loss": loss}), file=stdout, flush=True)
    try:
        build(order, source, batch)
    except NotTheSame as error:
        sys.exit(f"{name} {error}")


if __name__ == "__main__":
    main()
