"""One peer in a process of its own, which waits for orders on stdin and answers on stdout, a line of JSON each.

So every peer has its own threads and its own cores, and a benchmark can let them take turns.
Started by driver.py: python -m refattn.benchmarks.worker '{"peer": "torch-ragged", "threads": 1, ...}'
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import time

from refattn.benchmarks.peers import FORMS, PEERS

# Of float32 sums in another order, relative to the largest output and to the norm of the gradient; measured 1e-6.
SAME = 1e-4
# s at the beginning of a turn that are not timed: the system takes 60 ms to give threads that have slept a core each.
WAKING = 0.15
MAX_STRUCTURES = 5000  # structures to draw from: every peer holds them, and two dozen peers share the memory


class NotTheSame(Exception):
    """A peer whose outputs or gradients are not refattn's; it must not be timed."""


class Source:
    """What batches are made of: the data set, scaled labels (S,), and the rows of structures that have a label."""

    def __init__(self, order):
        import numpy as np

        from refattn.config import Config, TrainingConfig, override
        from refattn.data.builtin import open_data
        from refattn.data.splits import labels_of_target
        from refattn.experiments import load_experiment

        self.dataset = open_data(order["data"], None)
        if len(self.dataset) > MAX_STRUCTURES:
            labelled = np.flatnonzero(np.isfinite(labels_of_target(self.dataset, order["target"])))
            some = np.random.default_rng(0).permutation(labelled)[:MAX_STRUCTURES]
            self.dataset = self.dataset.select(np.sort(some))
        label, graph = labels_of_target(self.dataset, order["target"]), self.dataset.graph_config
        model = dataclasses.replace(
            load_experiment("qm9").model,
            variant=order["variant"],
            attention_dropout=0.0,
            n_elements=max(10, int(self.dataset.graphs.z.max()) + 1),
            radial_max=max(4.0, graph.r_max),
        )
        sizes = [f"model.{assignment}" for assignment in order.get("set", [])]
        self.config = override(Config(model, graph, training=TrainingConfig(batch_size=order["batch_size"])), sizes)
        self.known = np.flatnonzero(np.isfinite(label))
        scaled = (label - label[self.known].mean()) / (label[self.known].std() or 1.0)
        self.label = scaled.astype(np.float32)

    def batches(self, order):
        """Random batches, the same in every process."""
        import numpy as np

        from refattn.benchmarks.peers.batch import Batch

        rng, size = np.random.default_rng(order.get("seed", 0)), min(order["batch_size"], len(self.known))
        rows = [rng.choice(self.known, size, replace=False) for _ in range(order["n_batches"])]
        return [Batch.of(self.dataset.graphs, own, self.label) for own in rows]

    def sample(self, n):
        """Rows of `n` structures at random, the same at every call: every shape of a second epoch is known by then."""
        import numpy as np

        return np.random.default_rng(2).permutation(self.known)[:n]


def main():
    """Build the peer, check it, and time what is ordered: {"what": a form, "first": n, "times": n}, and so on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print: Keras the summary of its model
    order = json.loads(sys.argv[1])

    def answer(record):
        print(json.dumps(record), file=answers, flush=True)

    peer = PEERS[order["peer"]]
    if peer.needs and importlib.util.find_spec(peer.needs) is None:
        answer({"problem": f"not installed: {peer.install}"})
        return
    bind(order["threads"])
    source = Source(order)
    batches = source.batches(order)
    try:
        made, check = build(order, source, batches[0])
    except NotTheSame as error:
        answer({"problem": str(error)})
        return
    forms = getattr(made, "FORMS", FORMS)
    sizes = [(len(batch.label), len(batch.z), len(batch.nbr)) for batch in batches]
    facts = {"forms": forms, "epochs": getattr(made, "EPOCHS", ("epoch",)), "sizes": sizes}
    facts |= {"model": dataclasses.asdict(source.config.model), "version": version(peer.needs)}
    answer({"ready": order["peer"], "largest_difference": check, **facts})
    for line in sys.stdin:
        answer(serve(made, source, batches, json.loads(line)))


def bind(n_threads):
    """Take `n_threads` cores only, and tell every library so before it is loaded."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(n_threads)


def version(package):
    """Version of the framework behind a peer; None for refattn, whose own stands with the machine."""
    package = {"scann": "tensorflow"}.get(package, package)
    return f"{package} {importlib.metadata.version(package)}" if package else None


def build(order, source, batch):
    """The peer and the largest difference from refattn's numbers; raises NotTheSame where it is too large."""
    still = dataclasses.replace(source.config, model=dataclasses.replace(source.config.model, dropout=0.0))
    own, peer = make("refattn", still, source, order), make(order["peer"], source.config, source, order)
    judge = make("refattn", still, source, order, "reference") if order["peer"] == "refattn" else peer
    check = largest_difference(own, judge, batch)
    if not check < SAME:
        raise NotTheSame(f"differs from refattn by {check:.1e}; it was not timed")
    return peer, check


def make(name, config, source, order, *backend):
    """A peer with the parameters that all peers begin with; for refattn a backend can be named."""
    import numpy as np

    from refattn.network.params import initialise

    params = initialise(config.model, 0)
    params.vector += 0.02 * np.random.default_rng(1).standard_normal(params.vector.size, dtype=np.float32)
    peer = PEERS[name]
    cls = getattr(importlib.import_module(peer.module), peer.cls)
    return cls(config, params, source, order["threads"], *backend, **dict(peer.options))


def largest_difference(own, peer, batch):
    """Of the outputs, relative to the largest, and of the gradients, relative to their norm; NaN counts as infinite."""
    import numpy as np

    (_, a), (_, b), expected = own.gradient(batch), peer.gradient(batch), own.predict(batch)
    norm = np.sqrt(sum((value.astype(float) ** 2).sum() for value in a.values()))
    found = [np.sqrt(sum(((a[name].astype(float) - b[name]) ** 2).sum() for name in a)) / norm]
    for form in getattr(peer, "FORMS", FORMS)["predict"]:
        found.append(np.abs(getattr(peer, form)(batch) - expected).max() / np.abs(expected).max())
    return float(np.nan_to_num(np.max(found), nan=np.inf))


def serve(peer, source, batches, wanted):
    """Do what is ordered; returns times in s, or a size of memory in MB."""
    if wanted["what"] == "memory":
        return {"peak_mb": peak_memory()}
    seconds = []
    if wanted["what"] == "epoch":
        function, rows = getattr(peer, wanted.get("form", "epoch")), source.sample(wanted["n"])
        if hasattr(peer, "prepare_epoch"):
            peer.prepare_epoch(source, rows)
        for _ in range(wanted["times"]):
            began = time.perf_counter()
            function(source, rows)
            seconds.append(time.perf_counter() - began)
        return {"seconds": seconds}
    function, began = getattr(peer, wanted["what"]), time.perf_counter()
    while time.perf_counter() < began + WAKING:
        function(batches[wanted["first"] % len(batches)])
    for number in range(wanted["first"], wanted["first"] + wanted["times"]):
        batch, began = batches[number % len(batches)], time.perf_counter()
        function(batch)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def peak_memory():
    """Largest resident memory of this process so far, MB; the system's own word, which a child does not inherit."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3
    except OSError:  # not Linux
        from refattn.common.environment import peak_memory_mb

        return peak_memory_mb()


if __name__ == "__main__":
    main()
