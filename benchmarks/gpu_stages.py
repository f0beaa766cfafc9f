"""The stages of benchmarks/gpu.py. Each takes a Setting and returns a dict: `ok`, an `error` where that is False, and
whatever it found."""

import contextlib
import dataclasses
import functools
import importlib
import tempfile
import time
from pathlib import Path

import numpy as np

from refattn.config import Config, DataConfig, GraphConfig, ModelConfig, TrainingConfig
from refattn.data.store import read_dataset
from refattn.experiments import load_experiment
from refattn.gradient_check import (
    SmallLoss,
    check_network,
    check_operation,
    configurations,
    predict_with_gradients,
    small_network,
    small_shard,
)
from refattn.network.dropout import Dropout
from refattn.network.inference import predict_rows
from refattn.network.params import initialise
from refattn.ops import load_backend, operations
from refattn.ops.cases import all_cases, argument_names, call, make_grads, make_inputs, run_backward, run_forward
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.graph import transposed
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam
from refattn.training.cuda_stepper import CudaStepper
from refattn.training.schedule import epoch_batches
from refattn.training.targets import Targets
from refattn.training.train import Interrupted, Trainer

BATCHES, EPOCH = (128, 1024), 110_000
QUICK_BATCHES, QUICK_EPOCH = (2,), 4
# of the largest entry of an array: rounding, times the length of the longest sum of the cases and of the network
SAME = {"float64": 1e-11, "float32": 5e-5}
PEERS_DIFFER = 1e-3  # loss and gradient, of their norm: float32 with sums in other orders, through seven layers
PEERS = (  # those that are likely to be the best first
    ("torch-identities-compiled", "torch_ragged", "TorchRagged", {"identities": True, "compiled": True}),
    ("torch-identities", "torch_ragged", "TorchRagged", {"identities": True}),
    ("torch-ragged-compiled", "torch_ragged", "TorchRagged", {"compiled": True}),
    ("torch-ragged", "torch_ragged", "TorchRagged", {}),
    ("torch-padded-compiled", "torch_padded", "TorchPadded", {"compiled": True}),
    ("torch-padded", "torch_padded", "TorchPadded", {}),
)
SMALL = {"n_layers": 1, "width": 4, "n_heads": 2, "global_width": 4}
SMALL |= {"head_width": 4, "embedding_width": 4, "n_radial": 4}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a stage is given: the data set's path and label, whether to be quick, a variant, and report(result).

    A stage hands what it has so far to `report`, should it be stopped before its end.
    """

    data: str
    target: str | None
    quick: bool
    variant: str
    report: object

    @property
    def batches(self):
        return QUICK_BATCHES if self.quick else BATCHES

    def model(self):
        """The network of QM9's experiment; a small one when quick."""
        model = dataclasses.replace(load_experiment("qm9").model, variant=self.variant or "scann+")
        return dataclasses.replace(model, **SMALL) if self.quick else model

    @functools.cached_property
    def dataset(self):
        return read_dataset(self.data, with_positions=False)

    @property
    def label_name(self):
        return self.target or next(iter(self.dataset.labels))

    def labels(self):
        """Rows with a label, and the scaled labels (S,) of all rows."""
        label = self.dataset.labels[self.label_name]
        known = np.flatnonzero(np.isfinite(label))
        return known, ((label - label[known].mean()) / label[known].std()).astype(np.float32)


def outcome(found, tolerance, **rest):
    """A result from differences by name: whether all are within the tolerance, or the worst as the error."""
    worst = max(found, key=found.get)
    result = {"ok": bool(found[worst] <= tolerance), "worst": found[worst], "at": worst, "tolerance": tolerance, **rest}
    return result | {"error": None if result["ok"] else f"{worst} differs by {found[worst]:.1e} of {tolerance:.0e}"}


def difference(mine, theirs):
    """Largest difference of two dicts of arrays, of the largest entry of all of them; NaN counts as infinite."""
    scale = max(np.abs(array).max(initial=0) for array in theirs.values()) or 1.0
    apart = [np.abs(mine[name].astype(float) - array).max(initial=0) / scale for name, array in theirs.items()]
    return float(max(apart)) if np.isfinite(apart).all() else float("inf")


def device(setting):
    """The device, and the versions of what drives it."""
    return {"ok": True, **toolchain.device_facts()}


def rates(setting):
    """Bytes a second of a copy, reading and writing counted, and operations a second of a product of float32."""
    xp, less = load_backend("cuda").xp, 1024 if setting.quick else 1
    source, target = (xp.ones(2**28 // less, np.float32) for _ in range(2))
    m, wide, n = 65536 // less, 64 if setting.quick else 1024, 81920 // less
    a, b, out = (xp.ones(shape, np.float32) for shape in ((m, wide), (wide, wide), (m, wide)))
    row, square, narrow = (xp.ones(shape, np.float32) for shape in ((n, 128), (128, 128), (n, 128)))
    found = {}
    for name, function, amount in (
        ("copy_bytes", lambda: target.__setitem__(..., source), 2 * source.nbytes),
        ("sgemm", lambda: toolchain.multiply(a, b, out), 2 * m * wide * wide),
        ("sgemm_128", lambda: toolchain.multiply(row, square, narrow), 2 * n * 128 * 128),
        ("tf32_128", lambda: toolchain.in_tf32(toolchain.multiply)(row, square, narrow), 2 * n * 128 * 128),
    ):
        toolchain.seconds(function, 5)
        found[f"{name}_per_second"] = amount / min(toolchain.seconds(function, 20) for _ in range(5))
    return {"ok": True, **found}


def operations_parity(setting):
    """Every operation with every case against the reference, forward and backward."""
    cuda, reference, found = load_backend("cuda"), load_backend("reference"), {}
    for dtype in (np.float64, np.float32):
        for label, operation, inputs in all_cases(dtype):
            if "cuda" not in operation.backends:
                continue
            if setting.quick and "one edge" not in label:
                continue
            both = [outputs_and_gradients(operation, inputs, ops) for ops in (cuda, reference)]
            name = f"{operation.name}, {np.dtype(dtype).name}"
            # float32 is measured in units of its own tolerance
            apart = difference(*both) * SAME["float64"] / SAME[np.dtype(dtype).name]
            found[name] = max(found.get(name, 0.0), apart)
    return outcome(found, SAME["float64"], differences=found)


def outputs_and_gradients(operation, inputs, ops):
    found = run_forward(operation, inputs, ops)
    if operation.wrt:
        gradients = run_backward(operation, inputs, found, make_grads(operation, found), ops)
        found = found | {f"grad_{name}": array for name, array in gradients.items()}
    return found


def networks_parity(setting):
    """Predictions and gradients of networks with every option against the CPU's, in float64."""
    found = {}
    networks = configurations()
    for name, config in networks[::10] if setting.quick else networks:
        shard, params = small_shard(config), small_network(config)
        loss, dropout = SmallLoss.of(name, shard, config), Dropout(0, 0, shard, config.n_layers)
        both = []
        for device_name in ("cuda", "cpu"):
            ops = load_backend(device_name)
            tape, gradients = predict_with_gradients(loss, params, shard, config, ops, dropout)
            both.append({"prediction": ops.to_host(tape.prediction)} | {key: gradients[key] for key in params})
        found[name] = difference(*both)
    return outcome(found, SAME["float64"], differences=found)


def gradient_check(setting):
    """Central differences against the gradients of the device, in float64; networks as far as the time goes."""
    rows, began, networks = [], time.monotonic(), configurations()
    checked = [operation for operation in operations("cuda") if operation.wrt]
    for operation in checked[:1] if setting.quick else checked:
        rows.append(check_operation(operation, "cuda"))
    for name, config in networks[-1:] if setting.quick else [*networks[10:], *networks[:10]]:
        if time.monotonic() - began < 50:
            rows += check_network(name, config, ["cuda"])
    worst = max(rows, key=lambda row: row.worst)
    return {
        "ok": bool(all(row.ok for row in rows)),
        "error": None if all(row.ok for row in rows) else f"{worst.name}: {worst.worst:.1e} at {worst.where}",
        "checked": len(rows), "entries": sum(row.entries for row in rows),
        "worst": float(worst.worst), "at": worst.name,
        "left_out": 2 * len(networks) + len(checked) - len(rows),
    }  # fmt: skip


def new_step(setting, model, batch_size, n_batches, capture=True, device_name="cuda", repeat=1):
    """A CudaStepper on the data set's graphs, batches for it, and the parameters and the optimiser that it began with.

    There are n_batches batches, `repeat` times.
    """
    config = Config(model, None, DataConfig(target=setting.label_name), TrainingConfig(batch_size=batch_size))
    known, label = setting.labels()
    rng, params = np.random.default_rng(0), initialise(model, 0)
    batches = [rng.choice(known, batch_size) for _ in range(n_batches)] * repeat
    adam = Adam(params.vector, params.decay_mask(), config.training)
    ops, ids = load_backend(device_name), setting.dataset.id
    targets = Targets(label[:, None])
    stepper = CudaStepper(config, ops, setting.dataset.graphs, ids, targets, params, adam, capture=capture)
    return stepper, batches, params, adam


def run_steps(stepper, batches):
    """An epoch of the batches."""
    stepper.begin(batches, [5e-4] * len(batches))
    for batch in range(len(batches)):
        stepper.step(batch)


def same_bits(setting):
    """Steps of two sizes, three times each, twice as captured graphs and once as single launches: the parameters' bits.

    So graphs are launched again after others were captured.
    """
    found = []
    for capture in (True, True, False):
        sizes = (2, 1) if setting.quick else (64, 3)
        stepper, batches, params, adam = new_step(setting, setting.model(), *sizes, capture)
        run_steps(stepper, [*batches, batches[0][: max(len(batches[0]) // 4, 1)]] * 3)
        loss = stepper.settle()[0]
        found.append((params.vector.tobytes(), adam.m.tobytes(), loss))
    several = setting.quick or len(stepper.replays.found) > 1
    ok = found[0] == found[1] == found[2] and several
    error = None if ok else "two runs have other bits" if several else "all batches have one size"
    return {"ok": ok, "error": error, "loss": found[0][2], "graphs": len(stepper.replays.found)}


def operations_time(setting):
    """Time of every operation at the sizes of a batch of 1,024 molecules, its bytes, and bytes a second."""
    ops, found = load_backend("cuda"), {}
    n, heads, channels = (1, 2, 2) if setting.quick else (1024, 8, 16)
    edges = np.tile([4, 4, 5], 6 * n)
    for operation in operations("cuda"):
        inputs = make_inputs(operation, ([18] * n, edges), np.float32, heads=heads, channels=channels)
        place = {name: ops.to_device(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        for name in {"nbr", "edges.nbr"} & place.keys():  # made once for a batch, and not within an operation
            place[name] = transposed(place[name], len(edges))
        forward = functools.partial(call, getattr(ops, f"{operation.name}_forward"), place)
        found[f"{operation.name} forward"] = timed(forward, place)
        if operation.wrt:
            outputs = dict(zip(operation.outputs, forward(), strict=True))
            host = {name: ops.to_host(x) for name, x in outputs.items()}
            place |= outputs | {f"grad_{n}": ops.to_device(g) for n, g in make_grads(operation, host).items()}
            backward = getattr(ops, f"{operation.name}_backward")
            own = {name: place[name] for name in argument_names(backward) if name in place}
            found[f"{operation.name} backward"] = timed(functools.partial(call, backward, own), own)
    return {"ok": True, "operations": found}


def timed(function, inputs):
    """Seconds of one captured run of an operation, and the bytes of its arrays."""
    outputs = function()
    inputs = [part for x in inputs.values() for part in (x if isinstance(x, tuple) else (x,))]
    moved = sum(x.nbytes for x in (*inputs, *outputs) if hasattr(x, "nbytes"))
    replay = toolchain.Replay(function, toolchain.Scratch())
    replay()
    times = 1 if toolchain.SIMULATED else 20
    taken = min(toolchain.seconds(replay, times) for _ in range(times // 5 + 1))
    return {"seconds": taken, "bytes": int(moved), "bytes_per_second": moved / taken}


def step(setting):
    """The training step of a variant beside PyTorch's on the same batches."""
    result = {"ok": True, "error": None, "steps": {}}
    sizes = (1, 1) if setting.quick else (10, 5)  # batches, and how often
    for batch_size in setting.batches:
        for device_name in ("cuda", "cuda-tf32"):
            own, batches, *_ = new_step(setting, setting.model(), batch_size, sizes[0], True, device_name, sizes[1])
            run_steps(own, batches)
            every = functools.partial(run_steps, own, batches)
            taken = min(toolchain.seconds(every) / len(batches) for _ in range(sizes[1]))
            result["steps"][f"refattn {device_name}, {batch_size}"] = {
                "seconds": taken,
                "graphs": len(own.replays.found),
            }
        setting.report(result)
    for peer in PEERS:
        running = None
        for batch_size in setting.batches:
            try:
                running = running or new_peer(setting, peer)  # one for all sizes: it is compiled once
                found = peer_step(setting, running, batch_size)
            except (RuntimeError, ImportError) as error:  # PyTorch's: of compilation, of memory; or no PyTorch
                found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            result["steps"][f"{peer[0]}, {batch_size}"] = found
            failed = [name for name, entry in result["steps"].items() if entry.get("error")]
            result |= {"ok": not failed, "error": f"failed: {', '.join(failed)}" if failed else None}
            setting.report(result)
    return result


def new_peer(setting, peer):
    """A network of PyTorch, on the GPU (in the simulator on the CPU)."""
    _, module, cls, options = peer
    config = Config(setting.model(), None, DataConfig(), TrainingConfig())
    peer_class = getattr(importlib.import_module(f"refattn.benchmarks.peers.{module}"), cls)
    return peer_class(config, initialise(config.model, 0), device="cpu" if toolchain.SIMULATED else "cuda", **options)


def peer_step(setting, running, batch_size):
    """Seconds of a step of a peer, after a look at its gradient without dropout."""
    import torch

    from refattn.benchmarks.peers.batch import Batch

    still = dataclasses.replace(setting.model(), dropout=0.0, attention_dropout=0.0)
    own, rows, params, _ = new_step(setting, still, batch_size, 1 if setting.quick else 10)
    batches = [Batch.of(setting.dataset.graphs, batch, setting.labels()[1]) for batch in rows]
    running.load(params)
    _, theirs = running.gradient(batches[0])
    own.begin(rows, [0.0] * len(rows))
    own.step(0)
    mine = own.gradient()
    norm = np.sqrt(sum((array.astype(float) ** 2).sum() for array in theirs.values()))
    apart = float(np.sqrt(sum(((mine[key].astype(float) - theirs[key]) ** 2).sum() for key in theirs)) / norm)
    if not apart < PEERS_DIFFER:
        return {"error": f"its gradient differs from refattn's by {apart:.1e}", "difference": apart}
    taken, wait = [], (lambda: None) if toolchain.SIMULATED else torch.cuda.synchronize
    for _ in range(4):
        wait()
        began = time.perf_counter()
        for batch in batches:
            running.train_step(batch)
        wait()
        taken.append((time.perf_counter() - began) / len(batches))
    return {"seconds": min(taken[1:]), "difference": apart, "error": None}


def epoch(setting):
    """An epoch over 110,000 molecules, drawn with repetition; from the host's batches to its numbers."""
    found = {}
    known, label = setting.labels()
    rows = np.random.default_rng(0).choice(known, QUICK_EPOCH if setting.quick else EPOCH)
    for batch_size in setting.batches:
        batches = epoch_batches(rows, batch_size, 0, 1)
        config = Config(setting.model(), None, DataConfig(), TrainingConfig(batch_size=batch_size))
        params, ops = initialise(config.model, 0), load_backend("cuda")
        adam = Adam(params.vector, params.decay_mask(), config.training)
        own = CudaStepper(
            config, ops, setting.dataset.graphs, setting.dataset.id, Targets(label[:, None]), params, adam
        )
        taken = []
        for _ in range(2):  # the first one captures
            began = time.perf_counter()
            run_steps(own, batches)
            own.settle()
            taken.append(time.perf_counter() - began)
        found[str(batch_size)] = {"first_seconds": taken[0], "seconds": taken[1], "graphs": len(own.replays.found)}
    return {"ok": True, "molecules": len(rows), "batch": found}


def train(setting):
    """Some epochs of the real training, with validation."""
    n, began, history = len(setting.labels()[0]), time.monotonic(), []
    training = TrainingConfig(epochs=1 if setting.quick else 5, batch_size=min(128, n // 2), learning_rate=5e-4)
    data = DataConfig(path=setting.data, target=setting.label_name)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer.start(Config(setting.model(), None, data, training), Path(folder) / "run", None, "cuda")

        def progress(record):
            if "valid_mae" in record:
                history.append(record)
                setting.report(result())

        def result():
            unit = setting.dataset.label_attrs[setting.label_name].get("unit", "")
            falls = len(history) < 2 or history[-1]["valid_mae"] < history[0]["valid_mae"]
            error = None if falls else "the validation error does not fall"
            return {"ok": falls, "error": error, "label": setting.label_name, "unit": unit, "history": history}

        # Interrupted: what was learned until then is the result
        with contextlib.suppress(Interrupted):
            trainer.fit(map, progress, lambda: time.monotonic() - began > 70)
        return result()


def sanitize():
    """Losses of small steps, one by one and as captured graphs, and of a prediction after them.

    Of both variants, with everything that can be dropped.
    """
    losses, n_sites = [], 2 if toolchain.SIMULATED else 18
    for variant in ("scann+", "scann"):
        model = ModelConfig(variant=variant, attention_dropout=0.1, ring=False, **SMALL)
        config = Config(model, GraphConfig(), DataConfig(), TrainingConfig(batch_size=4))
        graphs, params = random_graphs(6, n_sites), initialise(model, 0)
        adam, rows = Adam(params.vector, params.decay_mask(), config.training), np.arange(4)
        ops, ids, label = load_backend("cuda"), np.arange(6), np.ones(6, np.float32)
        for capture in (False, True):
            own = CudaStepper(config, ops, graphs, ids, Targets(label[:, None]), params, adam, capture=capture)
            run_steps(own, [rows] if toolchain.SIMULATED else [rows, rows[:1]] * 3)
            losses.append(own.settle()[0])
        losses.append(float(predict_rows(params, model, own.ops, graphs, np.arange(6)).prediction[0, 0]))
    return losses


def random_graphs(n, n_sites=18, degrees=(4, 4, 5)):
    """`n` structures of `n_sites` sites, with as many edges a site as QM9's graphs have (4.3) and random numbers."""
    rng, graphs = np.random.default_rng(0), []
    for _ in range(n):
        edges = np.resize(degrees, n_sites)
        ptr, total = np.concatenate([[0], np.cumsum(edges)]).astype(np.int32), int(edges.sum())
        nbr, r, omega = rng.integers(0, n_sites, total), rng.uniform(1, 3, total), rng.uniform(1, 3, total)
        arrays = nbr.astype(np.int32), np.zeros((total, 3), np.int8), r, omega, np.full(n_sites, 3.0)
        graphs.append(GraphBatch.of_structure(rng.integers(1, 9, n_sites).astype(np.int32), ptr, *arrays))
    return GraphBatch.concatenate(graphs)
