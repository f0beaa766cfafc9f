"""One peer in a process of its own, which waits for orders on stdin and answers on stdout, a line of JSON each.

So every peer has its own threads and its own cores, and a benchmark can let them take turns.
Started by bench_step.py: python -m refattn.benchmarks.worker '{"peer": "torch-ragged", "threads": 1, ...}'
"""

import dataclasses
import json
import os
import sys
import time

# Of float32 sums in another order, relative to the largest output and to the norm of the gradient; measured 1e-6.
SAME = 1e-4
PEERS = {
    "refattn": ("own", "Own", {}),
    "torch-padded": ("torch_padded", "TorchPadded", {}),
    "torch-padded-compiled": ("torch_padded", "TorchPadded", {"compiled": True}),
    "torch-ragged": ("torch_ragged", "TorchRagged", {}),
    "torch-ragged-compiled": ("torch_ragged", "TorchRagged", {"compiled": True}),
    "torch-identities": ("torch_ragged", "TorchRagged", {"identities": True}),
    "torch-identities-compiled": ("torch_ragged", "TorchRagged", {"identities": True, "compiled": True}),
    "jax-ragged": ("jax_ragged", "JaxRagged", {"identities": False}),
    "jax-identities": ("jax_ragged", "JaxRagged", {"identities": True}),
}


def main():
    """Build the peer, check it, and time what is ordered: {"what": "step" or "predict", "times": n}."""
    order = json.loads(sys.argv[1])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: order["threads"]])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(order["threads"])
    peer, batches, check = build(order)
    answer({"ready": order["peer"], "largest_difference": check})
    for line in sys.stdin:
        wanted = json.loads(line)
        function, seconds = getattr(peer, wanted["what"]), []
        for number in range(wanted["first"], wanted["first"] + wanted["times"]):
            batch, began = batches[number % len(batches)], time.perf_counter()
            function(batch)
            seconds.append(time.perf_counter() - began)
        answer({"seconds": seconds})


def answer(record):
    print(json.dumps(record), flush=True)


def build(order):
    """The peer, its batches, and the largest difference from refattn's numbers; exits where it is too large."""
    import importlib

    import numpy as np

    from refattn.benchmarks.peers.batch import Batch
    from refattn.benchmarks.peers.own import Own
    from refattn.config import Config, DataConfig, TrainingConfig
    from refattn.data.loader import Loader
    from refattn.data.store import read_dataset
    from refattn.experiments import load_experiment
    from refattn.params import initialise

    dataset = read_dataset(order["data"], with_positions=False)
    model = dataclasses.replace(load_experiment("qm9").model, variant=order["variant"], attention_dropout=0.0)
    config = Config(model, dataset.graph_config, DataConfig(target=order["target"]), TrainingConfig())
    label = dataset.labels[order["target"]]
    known = np.flatnonzero(np.isfinite(label))
    label = ((label - label[known].mean()) / label[known].std()).astype(np.float32)
    rng = np.random.default_rng(order["seed"])
    rows = [rng.choice(known, order["batch_size"], replace=False) for _ in range(order["n_batches"])]
    batches = [Batch.of(Loader(dataset, model, "float32"), own, label) for own in rows]

    def made(config, name):
        module, cls, options = PEERS[name]
        params = initialise(model, 0)
        params.vector += 0.02 * np.random.default_rng(1).standard_normal(params.vector.size, dtype=np.float32)
        if cls == "Own":
            return Own(config, params, dataset, label, order["threads"])
        if name.startswith("torch"):
            import torch

            torch.set_num_threads(order["threads"])
        return getattr(importlib.import_module(f"refattn.benchmarks.peers.{module}"), cls)(config, params, **options)

    still = dataclasses.replace(config, model=dataclasses.replace(model, dropout=0.0))
    own, peer = made(still, "refattn"), made(still, order["peer"])
    check = largest_difference(own, peer, batches[0])
    if not check < SAME:
        sys.exit(f"{order['peer']} differs from refattn by {check:.1e}; nothing was timed")
    return made(config, order["peer"]), batches, check


def largest_difference(own, peer, batch):
    """Of the outputs, relative to the largest, and of the gradients, relative to their norm."""
    import numpy as np

    outputs, (_, a), (_, b) = (own.predict(batch), peer.predict(batch)), own.gradient(batch), peer.gradient(batch)
    norm = np.sqrt(sum((value.astype(float) ** 2).sum() for value in a.values()))
    gradient = np.sqrt(sum(((a[name].astype(float) - b[name]) ** 2).sum() for name in a)) / norm
    return float(max(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max(), gradient))


if __name__ == "__main__":
    main()
