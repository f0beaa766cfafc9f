"""How time and memory grow: with edges, sites, width, layers, threads and batch.

    python benchmarks/bench_scaling.py --python tensorflow=PATH --json OUT

Steps are those of refattn at the published QM9 size on made-up structures (synthetic.py), one thing varied at a time,
after its gradients were held to the `reference` backend. Whole structures are predicted in processes of their own,
neighbours included, and so is the authors' code, with its memory limited: the data of a process (RLIMIT_DATA), where
the system has such a limit. It gets refattn's graph, not its own.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from bench_step import note

from refattn.benchmarks import synthetic
from refattn.benchmarks.driver import Stopped, Worker, environment_for, interpreters, python_of
from refattn.benchmarks.measures import operations, rates, summary, write_record
from refattn.benchmarks.peers.batch import Batch
from refattn.benchmarks.peers.own import Own
from refattn.benchmarks.worker import SAME, largest_difference, peak_memory
from refattn.common.environment import available_cores
from refattn.network.inference import predict_rows
from refattn.network.params import initialise
from refattn.ops import load_backend

SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
LIMIT_GIB = 4.0  # of memory, for the authors' code: what refattn may need at most
CHECKED = 1_000  # sites; up to here the authors' outputs are held to refattn's
PATIENCE = 300  # s for one structure
VARIED = {
    "edges of a site": [({"degree": degree}, {}) for degree in (1, 2, 4, 8, 16, 32)],
    "sites of a structure": [({"n_sites": n, "n_structures": 2304 // n}, {}) for n in (2, 6, 18, 72, 288, 1152)],
    "structures of a batch": [({"n_structures": n}, {}) for n in (16, 32, 64, 128, 256, 512)],
    "width": [({}, {"width": width}) for width in (32, 64, 128, 256)],
    "layers": [({}, {"n_layers": layers}) for layers in (1, 2, 4, 7, 14)],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each size")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="sites of the largest structure")
    parser.add_argument("--data", help="QM9's graphs, for the memory of training steps beside other frameworks")
    parser.add_argument("--target", default="xtb_homo")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="interpreters of peers")
    parser.add_argument("--quick", action="store_true", help="two steps of each size, at most 1,000 sites")
    parser.add_argument("--predict", nargs=2, metavar=("PEER", "SITES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        predict_one(arguments.predict[0], int(arguments.predict[1]))
        return
    if arguments.quick:
        arguments.rounds, arguments.largest = 2, min(arguments.largest, 1_000)
    try:
        pythons = interpreters(arguments.python)
    except ValueError as error:
        parser.error(str(error))
    cores = available_cores()
    record = {"rates": {n: rates(n) for n in sorted({1, cores})}, "largest_difference": check(), "steps": {}}
    for what, cases in VARIED.items():
        record["steps"][what] = series(what, cases, 1, arguments.rounds, record["rates"])
    record["steps"]["threads"] = [
        row for n in range(1, cores + 1) for row in series(f"{n} threads", [({}, {})], n, arguments.rounds, {})
    ]
    record["structures"] = structures("refattn", SIZES, sys.executable, arguments.largest)
    if failed := record["structures"]["failed"]:
        sys.exit(f"refattn, {failed['sites']} sites: {failed['reason']}; --largest makes it smaller")
    record["authors"] = structures("tensorflow", SIZES, python_of("tensorflow", pythons), arguments.largest)
    if arguments.data:
        record["memory"] = step_memory(arguments, pythons)
    if arguments.json:
        write_record(arguments.json, record)


def check():
    """The largest difference of the cpu backend from the reference. Exits where it is too large."""
    config = synthetic.network(dropout=0.0)
    source, peers = synthetic.source(config, n_structures=8), []
    for backend in ("reference", "cpu"):
        peers.append(Own(config, parameters(config), source, 1, backend))
    found = largest_difference(*peers, Batch.of(source.dataset.graphs, source.known, source.label))
    if not found < SAME:
        sys.exit(f"cpu and reference differ by {found:.1e}; nothing is timed")
    return found


def parameters(config):
    return initialise(config.model, 0)


def series(what, cases, n_threads, rounds, speed):
    """A row for each case of sizes: median of the training step, and fractions of sgemm where rates are known."""
    rows = []
    for graph, model in cases:
        config = synthetic.network(**model)
        source = synthetic.source(config, **graph)
        peer, batch = Own(config, parameters(config), source, n_threads), source.known
        seconds = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            peer.train(batch)
            seconds.append(time.perf_counter() - began)
        peer.pool.close()
        n_sites, n_edges = len(source.dataset.graphs.z), len(source.dataset.graphs.nbr)
        row = {"structures": len(batch), "sites": n_sites, "edges": n_edges, **model, "threads": n_threads}
        row |= {"width": config.model.width, "layers": config.model.n_layers, **summary(seconds[1:], len(batch))}
        row["gflops"] = operations(config.model, len(batch), n_sites, n_edges)["step"] / row["median"] / 1e9
        if n_threads in speed:
            row["fraction_of_sgemm"] = row["gflops"] / speed[n_threads]["sgemm_gflops"]
        rows.append(row)
        print(
            f"{what:22} structures {len(batch):5} sites {n_sites:6} edges {n_edges:6} width {row['width']:4} "
            f"layers {row['layers']:3}  step {1e3 * row['median']:8.1f} ms  {row['gflops']:6.1f} GFLOP/s",
            flush=True,
        )
    return rows


def structures(peer, sizes, python, largest):
    """Rows of ever larger structures, each in a process of its own, until one fails; and the exponent of a fit."""
    rows, failed = [], None
    for n_sites in (size for size in sizes if size <= largest):
        command = [python, __file__, "--predict", peer, str(n_sites)]
        try:
            options = {"capture_output": True, "text": True, "errors": "replace", "env": environment_for(python)}
            done = subprocess.run(command, timeout=PATIENCE, **options)
        except subprocess.TimeoutExpired:
            failed = {"sites": n_sites, "reason": f"took more than {PATIENCE} s"}
        except OSError as error:
            failed = {"sites": n_sites, "reason": f"{python} does not run ({error.strerror})"}
        else:
            if done.returncode == 0:
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{peer:10} {line_of(rows[-1])}", flush=True)
                continue
            failed = {"sites": n_sites, "reason": reason_of(done)}
        note(f"{peer}, {n_sites} sites: {failed['reason']}")
        break
    exponent = None
    if len(rows) > 2:  # of the upper half: at small sizes what does not grow is measured
        upper = rows[len(rows) // 2 - 1 :] if len(rows) > 4 else rows
        exponent = float(np.polyfit(*(np.log([row[key] for row in upper]) for key in ("sites", "seconds")), 1)[0])
        print(f"{peer:10} seconds ~ sites^{exponent:.2f}, from {upper[0]['sites']} sites on")
    return {"rows": rows, "exponent": exponent, "failed": failed, "limit_gib": None if peer == "refattn" else LIMIT_GIB}


def reason_of(done):
    """Why a process failed, in one line."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("Hint:")]
    telling = [line for line in lines if "Error" in line or "OOM" in line or "alloc" in line]
    return (telling or lines or [f"exit status {done.returncode}"])[-1][:160]


def line_of(row):
    return (
        f"{row['sites']:7} sites, {row['edges']:7} edges: {row['seconds']:7.2f} s, of which neighbours "
        f"{row['graph_seconds']:6.2f} s; peak {row['peak_mb']:6.0f} MB"
    )


def predict_one(peer, n_sites):
    """Predict one structure with attention and print a row; run in a process of its own."""
    from refattn.network.checkpoint import Checkpoint
    from refattn.prediction.predictor import Model
    from refattn.structures.batch import GraphBatch

    config = synthetic.network(readout="intensive" if peer == "refattn" else "published")
    params, atoms = parameters(config), synthetic.cluster(n_sites)
    model = Model(Checkpoint(config, params))
    model.predict(synthetic.cluster(100))
    began = time.perf_counter()
    graph = GraphBatch.from_atoms(atoms, config.graph)
    row = {"peer": peer, "sites": n_sites, "edges": len(graph.nbr), "graph_seconds": time.perf_counter() - began}
    if peer == "refattn":
        began = time.perf_counter()
        answer = model.predict(atoms)
        row["seconds"] = time.perf_counter() - began
        assert np.isfinite(answer.value).all() and abs(answer.attention[0].sum() - 1) < 1e-3
    else:
        row["seconds"] = authors_seconds(config, params, graph)
    print(json.dumps(row | {"peak_mb": peak_memory()}))


def authors_seconds(config, params, graph):
    """Seconds of the second call, compiled, of the authors' network on one structure."""
    import resource

    from refattn.benchmarks.peers.authors import Authors

    peer = Authors(config, params, n_threads=available_cores())
    limit = int(LIMIT_GIB * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    row = np.zeros(1, dtype=int)
    batch = Batch.of(graph, row, np.zeros(1, dtype=np.float32))
    value = peer.call(batch)
    if len(batch.z) <= CHECKED:
        own = predict_rows(params, config.model, load_backend("cpu"), graph, row).prediction[:, 0]
        assert abs(value - own).max() < SAME * abs(own).max(), "the authors' network gives another output"
    began = time.perf_counter()
    value = peer.call(batch)
    assert np.isfinite(value).all()
    return time.perf_counter() - began


def step_memory(arguments, pythons):
    """Peak memory in MB of a process that trains with batches of 128 molecules, by peer."""
    order = {"data": arguments.data, "target": arguments.target, "variant": "scann+", "n_batches": 2}
    found = {}
    for name in ("refattn", "tensorflow", "torch-padded", "torch-identities", "jax-identities"):
        try:
            worker = Worker({**order, "batch_size": 128, "threads": 1, "peer": name}, python_of(name, pythons))
            for form in worker.forms["step"]:
                worker.measure(form, 0, 4)
            found[name] = worker.ask({"what": "memory"})["peak_mb"]
            worker.close()
            print(f"training steps, {name:18} peak {found[name]:6.0f} MB", flush=True)
        except (Stopped, OSError) as error:
            note(f"{name}: {error}")
    return found


if __name__ == "__main__":
    main()
