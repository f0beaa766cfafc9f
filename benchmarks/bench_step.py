"""Training steps and inference of refattn and its peers in turns: python benchmarks/bench_step.py DATA.h5 --json OUT

Every peer runs in a process of its own (worker.py) and is checked against refattn's outputs and gradients before a
clock starts. The peers take turns, a few steps each, so that a slow minute of the machine falls on all of them. The
rates of matrix products (sgemm) and of copying are measured in the same run.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from refattn.benchmarks.worker import PEERS

WHAT = ("step", "predict")


class Worker:
    """A peer in its process."""

    def __init__(self, order):
        command = [sys.executable, "-m", "refattn.benchmarks.worker", json.dumps(order)]
        self.order = order
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds = {what: [] for what in WHAT}
        line = self.process.stdout.readline()
        self.ready = json.loads(line) if line else None

    def measure(self, what, first, times, keep=True):
        """Let it run `times` batches from number `first` on."""
        self.process.stdin.write(json.dumps({"what": what, "first": first, "times": times}) + "\n")
        self.process.stdin.flush()
        seconds = json.loads(self.process.stdout.readline())["seconds"]
        if keep:
            self.seconds[what] += seconds

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def rates(n_threads):
    """GFLOP/s of a product (4096 x 128) (128 x 128), and GB/s of a copy, reading and writing counted."""
    code = (
        "import numpy as np, time, json\n"
        "def best(f):\n"
        "    t = []\n"
        "    for _ in range(50):\n"
        "        began = time.perf_counter(); f(); t.append(time.perf_counter() - began)\n"
        "    return min(t)\n"
        "a, b, c = np.ones((4096, 128), 'f'), np.ones((128, 128), 'f'), np.empty((4096, 128), 'f')\n"
        "x, y = np.ones(2**24, 'f'), np.ones(2**24, 'f')\n"
        "s, d = best(lambda: np.matmul(a, b, out=c)), best(lambda: np.copyto(y, x))\n"
        "print(json.dumps([2 * 4096 * 128 * 128 / s / 1e9, 2 * x.nbytes / d / 1e9]))"
    )
    environment = {**__import__("os").environ, "OPENBLAS_NUM_THREADS": str(n_threads)}
    sgemm, copy = json.loads(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True).stdout)
    return {"sgemm_gflops": sgemm, "copy_gb_per_second": copy}


def operations(config, n_sites, n_edges):
    """Floating-point operations of a forward pass with the fewest products: dense layers only, 2 for a multiply-add.

    Per site and layer query, two of the filter and two of the residual block; per edge and layer filter and key; the
    same again twice for backward. Gaussians, embedding, read-out and head are counted too.
    """
    d, g = config.width, config.n_radial
    plus = config.variant == "scann+"
    site = config.n_layers * (5 if plus else 3) * d * d + config.embedding_width * d + 3 * d * config.global_width
    edge = config.n_layers * (2 * d * d if plus else d * d + g * d) + (2 * g * d if plus else 0)
    return 2 * (site * n_sites + edge * n_edges)


def summary(seconds, batch_size):
    """Median, quartiles and structures per second."""
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {"median": median, "quartiles": [low, high], "n": len(seconds), "structures_per_second": batch_size / median}


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="QM9's graphs, made by refattn prepare")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--target", default="xtb_homo")
    parser.add_argument("--variants", nargs="+", default=["scann+", "scann"])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--turn", type=int, default=3, help="batches in a turn")
    arguments = parser.parse_args()
    record = {"data": Path(arguments.data).name, "batch_size": arguments.batch_size, "rates": {}, "results": []}
    for n_threads in arguments.threads:
        record["rates"][n_threads] = rates(n_threads)
    for variant in arguments.variants:
        record["results"] += compare(arguments, variant)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def compare(arguments, variant):
    """Rows of one variant, printed as they come."""
    order = {"data": arguments.data, "target": arguments.target, "variant": variant, "seed": 0}
    order |= {"batch_size": arguments.batch_size, "n_batches": 8}
    workers = []
    for name in arguments.peers:
        for n_threads in arguments.threads:
            began, worker = time.perf_counter(), Worker({**order, "peer": name, "threads": n_threads})
            if worker.ready is None:
                print(f"{variant} {name}, {n_threads} threads: did not start", flush=True)
                continue
            for what in WHAT:
                worker.measure(what, 0, 8, keep=False)  # every shape once: compilation and first touches
            print(f"{variant} {name}, {n_threads} threads: ready in {time.perf_counter() - began:.0f} s", flush=True)
            workers.append(worker)
    for number in range(arguments.rounds):
        for worker in workers:
            for what in WHAT:
                worker.measure(what, number * arguments.turn, arguments.turn)
    rows = []
    for worker in workers:
        worker.close()
        row = {"variant": variant, "peer": worker.order["peer"], "threads": worker.order["threads"]}
        row["largest_difference"] = worker.ready["largest_difference"]
        row |= {what: summary(worker.seconds[what], arguments.batch_size) for what in WHAT}
        rows.append(row)
        print(
            f"{variant:7} {row['peer']:28} {row['threads']} threads  step {row['step']['median'] * 1e3:7.1f} ms  "
            f"{row['step']['structures_per_second']:6.0f}/s  predict {row['predict']['median'] * 1e3:7.1f} ms  "
            f"{row['predict']['structures_per_second']:6.0f}/s"
        )
    return rows


if __name__ == "__main__":
    main()
