"""Ranks beside threads: steps of either, what holds the GIL, the cost of sums along the tree, a model of many nodes.

    python benchmarks/bench_ranks.py --mpiexec mpiexec [--rounds 5] [--json OUT]       on a machine without other work
    python benchmarks/bench_ranks.py --model                                           the model alone, without MPI
    python benchmarks/bench_ranks.py --busy 2500 20 & py-spy record --gil -r 200 -d 8 -f raw -o OUT -p $!   shares of it

A step is one of made-up structures of QM9's size (18 sites, 72 edges) at the published size of the network, float32.
One rank with one and two threads and two ranks with a thread each take turns, each in processes of their own.

Share of the GIL: a thread sleeps for half a millisecond, again and again, and how late it wakes is how long the GIL was
held from then on (sys.setswitchinterval keeps it from being taken away). Late is what is later than 99 % of the times
without work beside it.

The model has its assumptions below, in Assumptions; docs/scaling.md has what came out.
"""

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import threading
import time

import numpy as np

LAYOUTS = ((1, 1), (1, 2), (2, 1))  # ranks, threads of each
BATCHES = (32, 128, 512)
EDGES_PER_SHARD = (2500, 625)
STEPS = 8
SHARDS = (4, 16, 62)  # of a sum that is timed
PAUSE = 5e-4  # seconds


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What the model of a step rests on; seconds and bytes a second.

    edges : of a structure;  edge : seconds of a core for one, in shards of 2,500;  smaller : how much longer a core
    needs with so many edges a shard;  gil : share of a thread's time that holds the GIL, by edges a shard;  speed : of
    a core where all work;  add : to add one gradient to another;  serial : Adam and the rest of a step
    """

    cores: int = 64
    ranks: int = 8
    edges: int = 78
    edge: float = 0.028 / 2500
    smaller: tuple = ((2500, 1.0), (1250, 1.08), (625, 1.13), (312, 1.35))
    gil: tuple = ((2500, 0.034), (1250, 0.076), (625, 0.11), (312, 0.19))
    speed: float = 0.8
    add: float = 2e-4
    serial: float = 8e-4
    gradient: float = 3.56e6
    bandwidth: float = 12.5e9
    memory: float = 10e9
    latency: float = 5e-6


def step_seconds(nodes, batch, edges_per_shard, known):
    """Seconds of a step on `nodes`, by the Assumptions `known`."""
    n_shards = batch * known.edges / edges_per_shard
    n_shards = 1 if n_shards <= 1 else 2 * math.ceil(n_shards / 2)
    shard = batch * known.edges / n_shards * known.edge * dict(known.smaller)[edges_per_shard] / known.speed
    ranks = nodes * known.ranks
    threads = min(known.cores / known.ranks, 1 / dict(known.gil)[edges_per_shard])
    of_rank = math.ceil(n_shards / ranks)
    waves = max(math.ceil(of_rank / math.floor(threads)), of_rank / threads)
    wire = known.bandwidth if nodes > 1 else known.memory
    total = 0.0
    if ranks > 1:
        total = 2 * known.gradient / wire + 2 * math.ceil(math.log2(ranks)) * known.latency
        total += known.add * math.log2(ranks) / ranks
    return waves * shard + of_rank * known.add + total + known.serial


def model():
    """Print milliseconds of a step for 1 to 512 nodes, with one rank a node and with several."""
    known = Assumptions()
    print(known)
    print("milliseconds of a step, with the best edges a shard in brackets, by the number of nodes")
    nodes = [2**k for k in range(10)]
    print(f"{'batch':>6} ranks " + " ".join(f"{n:>11}" for n in nodes))
    for batch in (128, 512, 2048, 8192, 32768):
        for ranks in (1, 8):
            cells = []
            for n in nodes:
                own = dataclasses.replace(known, ranks=ranks)
                seconds, limit = min((step_seconds(n, batch, limit, own), limit) for limit, _ in known.smaller)
                cells.append(f"{1e3 * seconds:6.1f} ({limit:4d})")
            print(f"{batch:>6} {ranks:>5} " + " ".join(cells))


class GilWatch(threading.Thread):
    """Notes how late it wakes from short sleeps, until `stop` is set."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late = []
        self.end = threading.Event()

    def run(self):
        while not self.end.is_set():
            began = time.perf_counter()
            time.sleep(PAUSE)
            self.late.append(time.perf_counter() - began - PAUSE)

    def of(self, function):
        """(n,) seconds, while the function runs."""
        self.start()
        function()
        self.end.set()
        self.join()
        return np.array(self.late)


def gil_share(function):
    """Share of the time in which the function holds the GIL, and the mean seconds that it then goes on holding it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1.0)
    try:
        threshold = np.quantile(GilWatch().of(lambda: time.sleep(2)), 0.99)
        late = GilWatch().of(function)
    finally:
        sys.setswitchinterval(interval)
    held = late[late > threshold]
    return len(held) / len(late), float(held.mean()) if len(held) else 0.0


def stepper_of(batch, edges_per_shard, ranks):
    """A stepper with the published network, and the rows of its batch."""
    from refattn.benchmarks.synthetic import network, source
    from refattn.network.params import initialise
    from refattn.ops import load_backend
    from refattn.training.adam import Adam
    from refattn.training.stepper import make_stepper
    from refattn.training.targets import Targets

    config = network()
    training = dataclasses.replace(config.training, batch_size=batch, edges_per_shard=edges_per_shard)
    config = dataclasses.replace(config, training=training)
    made = source(config, n_structures=batch)
    params = initialise(config.model, 0, "float32")
    adam = Adam(params.vector, params.decay_mask(), training)
    targets = Targets(made.label[:, None])
    data = made.dataset.graphs, made.dataset.id, targets
    stepper = make_stepper(config, load_backend("cpu"), *data, params, adam, ranks=ranks)
    stepper.begin(4 * STEPS * [made.known], 4 * STEPS * [1e-4])
    return stepper


def work(n_threads, watch):
    """In the processes of a layout: print as JSON the seconds of steps, and of sums where there are several ranks."""
    from refattn.common.mpi import open_ranks
    from refattn.common.threads import workers

    ranks = open_ranks()
    found = {}
    with workers(n_threads) as map_fn:
        for limit in EDGES_PER_SHARD:
            for batch in BATCHES:
                stepper = stepper_of(batch, limit, ranks)
                stepper.step(0, map_fn)  # compiles
                times = []
                for number in range(1, STEPS):
                    ranks.wait()
                    began = time.perf_counter()
                    stepper.step(number, map_fn)
                    ranks.wait()
                    times.append(time.perf_counter() - began)
                found[f"step {batch} {limit}"] = times
                if watch and batch == BATCHES[-1]:

                    def steps(stepper=stepper):
                        for number in range(STEPS, 2 * STEPS):
                            stepper.step(number, map_fn)

                    found[f"gil {limit}"] = gil_share(steps)
    if ranks.size > 1:
        found |= sums(ranks)
    if ranks.first:
        print(json.dumps(found))


def busy(edges_per_shard, seconds):
    """Steps of one thread with 128 structures, for somebody who watches."""
    from refattn.common.mpi import ALONE

    stepper = stepper_of(128, edges_per_shard, ALONE)
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end:
        stepper.step(number % (4 * STEPS), map)
        number += 1


def sums(ranks):
    """Seconds of the tree's sum and of MPI's own, of gradients of the published size, the best of some."""
    from mpi4py import MPI

    from refattn.common.mpi import nodes_of

    vector = np.ones(890_977, np.float32)
    out = np.empty_like(vector)
    found = {}
    for n_shards in SHARDS:
        share = ranks.share(n_shards)
        nodes = [vector.copy() for _ in nodes_of(n_shards, share.start, share.stop)]
        found[f"tree {n_shards}"] = best(ranks, lambda nodes=nodes, n=n_shards: ranks.total(n, nodes, out))
    found["Allreduce"] = best(ranks, lambda: MPI.COMM_WORLD.Allreduce(vector, out))
    return found


def best(ranks, function):
    times = []
    for _ in range(20):
        ranks.wait()
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(mpiexec, rounds):
    """{layout: {what: values of all rounds}}; the layouts take turns."""
    found = {f"{ranks} x {threads}": {} for ranks, threads in LAYOUTS}
    for number in range(rounds):
        for ranks, threads in LAYOUTS:
            launcher = [*mpiexec.split(), "-n", str(ranks)] if ranks > 1 else []
            options = ["--work", str(threads)] + ["--watch"] * (number == 0 and (ranks, threads) == (1, 1))
            command = [*launcher, sys.executable, __file__, *options]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                sys.exit(result.stderr)
            for name, values in json.loads(result.stdout.splitlines()[-1]).items():
                found[f"{ranks} x {threads}"].setdefault(name, []).append(values)
    return found


def main():
    """Print medians of steps, their ratios to one thread, the GIL's shares, sums, and the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mpiexec", help="the command that starts processes, such as 'mpiexec'")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write all numbers to this file")
    parser.add_argument("--model", action="store_true", help="print the model of many nodes")
    parser.add_argument("--busy", nargs=2, type=int, metavar=("EDGES", "SECONDS"), help="steps with so many a shard")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.watch)
        return
    if arguments.busy:
        busy(*arguments.busy)
        return
    if arguments.mpiexec:
        found = measure(arguments.mpiexec, arguments.rounds)
        if arguments.json:
            from refattn.common.files import write_text

            write_text(arguments.json, json.dumps(found, indent=1))
        one = found["1 x 1"]
        for name in (name for name in one if name.startswith("step")):
            middle = {layout: np.median(values[name]) for layout, values in found.items()}
            cells = [f"{layout}: {1e3 * t:.1f} ms ({middle['1 x 1'] / t:.2f})" for layout, t in middle.items()]
            print(f"{name:14} " + "   ".join(cells))
        for name in (name for name in one if name.startswith("gil")):
            share, held = one[name][0]
            print(f"{name:14} {100 * share:.1f} % of the time held, {1e6 * held:.0f} us more each time")
        for name, values in found["2 x 1"].items():
            if not name.startswith("step"):
                print(f"{name:14} {1e3 * min(values):.2f} ms")
    if arguments.model or not arguments.mpiexec:
        model()


if __name__ == "__main__":
    main()
