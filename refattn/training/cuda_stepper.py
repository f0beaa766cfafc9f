"""Optimiser steps on a GPU, where data, parameters and optimiser stay; a batch is one shard.

A step is a fixed sequence of launches for arrays of fixed sizes: batches are filled up to a few sizes (filled_up), and
the sequence of each is captured once as a CUDA graph. Repeating it takes one call of the driver. The batch's number, in
device memory, leads to its structures, its learning rate and its dropout; the last launch increases it. So nothing
crosses the bus within an epoch, and nothing waits.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from refattn.common.loss import loss_of
from refattn.config import Config, ModelConfig
from refattn.errors import DeviceError, TrainingError
from refattn.network.model import backward, forward, radial_centres
from refattn.network.params import Parameters
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.adam import adam_update, advance, average_update
from refattn.ops.cuda.dataset import DeviceDataset, Plan, Size
from refattn.ops.cuda.loss import attention_slope, loss_slope
from refattn.ops.cuda.sums import PendingGradient, Sums
from refattn.ops.random import mix
from refattn.ops.types import Array, Ops
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam, step_size
from refattn.training.average import Average
from refattn.training.targets import Targets

STEPS_OF_SIZE = 16  # sizes between a number and its double: at most 1/16 of a batch is not of structures
EDGES_OF_A_PAD = 16  # of the sites that fill up, so that none takes long
SITES_OF_A_PAD = 512  # of the structures that fill up


@dataclasses.dataclass(eq=False)
class CudaStepper:
    """See refattn.training.stepper for what is asked of it and for the fields.

    `params`, `adam` and `average`, on the host, are those of the last `settle`; what a step changes is on the device.
    Steps are captured as graphs with `capture`; the simulator never does.
    """

    config: Config
    ops: Ops
    graphs: GraphBatch
    ids: np.ndarray
    targets: Targets
    params: Parameters
    adam: Adam
    average: Average | None = None
    capture: dataclasses.InitVar[bool] = True

    def __post_init__(self, capture):
        self.loss = loss_of(self.config.training.loss)
        self.plan = None
        self.replays = Replays(self.config, self.params, capture)
        with within_memory():
            self._to_device()

    def _to_device(self):
        to_device = self.ops.to_device
        params, adam = self.params, self.adam
        self.data = DeviceDataset.of(self.graphs, self.config.model, params.vector.dtype)
        config = self.config
        self.known, self.taught = known_on_device(config, self.targets, self.graphs, to_device)
        self.weights = config.data.weights
        radial_centres(self.config.model, params.vector.dtype, self.ops.xp)  # made here, not from a graph's memory
        self.device_params = Parameters(params.table, to_device(params.vector.copy()))
        self.grads = Gradients(params.table, to_device(np.zeros_like(params.vector)))
        self.m = to_device(adam.m.copy())
        self.v = to_device(adam.v.copy())
        self.decay = to_device(adam.decay.copy())
        self.device_average = to_device(self.average.vector.copy()) if self.average else None
        self.totals = to_device(np.zeros(2 + len(self.weights)))

    def begin(
        self, batches: list[np.ndarray], rates: list[float], first: int = 0, totals: np.ndarray | None = None
    ) -> None:
        training = self.config.training
        steps = np.arange(len(batches)) + self.adam.step - first
        streams = mix(mix(np.full(1, training.seed, np.uint64)) + steps.astype(np.uint64))
        starts = np.cumsum([0, *map(len, batches[:-1])])
        plan = Plan.of(np.concatenate(batches), starts, streams, first)
        sizes = [step_size(rate, int(step), training) for rate, step in zip(rates, steps, strict=True)]
        step_sizes = self.ops.to_device(np.array(sizes, self.params.vector.dtype))
        shares = self.ops.to_device(np.array([self.average.share(int(t) + 1) if self.average else 0.0 for t in steps]))
        factors = [self.ops.to_device(self._attention_factors(k, batches)) for k in self.taught]
        if self.plan is None:  # captured steps read these arrays, so they stay, and all epochs are as long
            self.plan = plan
            self.per_step = step_sizes, shares, *factors
        for mine, new in zip((*self.plan, *self.per_step), (*plan, step_sizes, shares, *factors), strict=True):
            mine[...] = new
        totals = np.zeros(1 + len(self.weights)) if totals is None else totals
        self.totals[...] = self.ops.to_device(np.array([*totals, -1.0]))
        self.batches = batches

    def _attention_factors(self, k, batches):
        """(n_batches,) derivative of each batch's loss by the sum of a target's cross entropies of the attention."""
        is_taught = self.ops.to_host(self.taught[k][1]) >= 0
        n_taught = np.array([np.count_nonzero(is_taught[rows]) for rows in batches])
        return self.config.attention_weights[k] / np.maximum(n_taught, 1)

    def step(self, batch: int, map_fn: Callable = map) -> None:
        size = filled_up(self.data.size(self.batches[batch]))
        self.replays.run(size, lambda: self._launch_step(size))
        self.adam.step += 1

    def _launch_step(self, size):
        training, model, ops = self.config.training, self.config.model, self.ops
        params = self.device_params
        shard = self.data.gather(self.plan, size)
        dropout = self.data.dropout(shard, self.plan, size)
        tape = forward(params, shard, model, ops, dropout)
        entropy = ops.xp.zeros(tape.prediction.shape[::-1], np.float64)
        grad_scores = [None] * len(self.weights)
        for (k, wanted), factor in zip(self.taught.items(), self.per_step[2:], strict=True):
            where = factor, shard.site_ptr, self.plan, size.n_real
            grad_scores[k] = attention_slope(entropy[k], tape.read_outs[k].attention, *wanted, *where)
        known = self.known, self.weights, entropy, self.plan, size.n_real
        slope = loss_slope(self.totals, tape.prediction, *known, self.loss, training.huber_delta)
        with self.grads.sums.collected():
            backward(slope, tape, params, self.grads, model, ops, dropout, grad_scores=grad_scores)
        self.grads.sums.add(size)
        cursor = self.plan.cursor
        adam_update(params.vector, self.m, self.v, self.grads.vector, self.decay, self.per_step[0], cursor, training)
        if self.average:
            average_update(self.device_average, params.vector, self.per_step[1], cursor)
        advance(cursor)

    def settle(self) -> np.ndarray:
        pairs = [(self.params.vector, self.device_params.vector), (self.adam.m, self.m), (self.adam.v, self.v)]
        if self.average:
            pairs.append((self.average.vector, self.device_average))
        for on_host, on_device in pairs:
            on_host[...] = self.ops.to_host(on_device)
        *totals, broken = self.ops.to_host(self.totals).tolist()
        if broken >= 0:
            batch = int(broken)
            names = ", ".join(self.ids[self.batches[batch]])
            raise TrainingError(f"batch {batch + 1}: the loss is not finite in one of the structures {names}")
        return np.array(totals)

    def gradient(self) -> Parameters:
        return Parameters(self.params.table, self.ops.to_host(self.grads.vector))


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Raise DeviceError where a data set does not fit."""
    try:
        yield
    except toolchain.OutOfMemory:
        raise DeviceError("the data set does not fit into the memory of the GPU; train on --device cpu") from None


def known_on_device(config: Config, targets: Targets, graphs: GraphBatch, to_device: Callable) -> tuple[tuple, dict]:
    """Labels and weights as loss_slope asks for them; number of a target -> share and first_site, as attention_slope
    does."""
    weight = targets.weight
    weight = np.ones(len(targets.label), targets.label.dtype) if weight is None else weight
    taught = {}
    for target, _ in config.training.attention:
        k = config.data.targets.index(target)
        share, first_site = targets.share[:, k].copy(), graphs.site_ptr[:-1].astype(np.int64)
        first_site[np.add.reduceat(share, first_site) <= 0] = -1
        taught[k] = to_device(share), to_device(first_site)
    return (to_device(targets.label), to_device(weight)), taught


class Replays:
    """The captured launches of batches, by a key that says their sizes; all of them share work arrays."""

    def __init__(self, config: Config, params: Parameters, capture: bool = True):
        self.config = config
        self.params = params
        self.capture = capture
        self.scratch = toolchain.Scratch()
        self.found = {}

    def run(self, size: Size, launch: Callable[[], None], *kind: object) -> None:
        """Launch what `launch` does for a batch of a Size. Raises DeviceError where the memory does not suffice."""
        if (size, *kind) not in self.found:
            self.found[size, *kind] = toolchain.Replay(launch, self.scratch, self.capture)
        try:
            self.found[size, *kind]()
        except toolchain.OutOfMemory:
            raise DeviceError(too_little_memory(self.config, size, self.params, toolchain.free_memory())) from None


class Gradients(Parameters):
    """Parameters for the gradients of a step; those of one dimension are noted in `sums`, and written by its `add`."""

    def __init__(self, table: tuple, vector: Array):
        super().__init__(table, vector)
        self.sums = Sums(vector, sum(entry.size for entry in table if len(entry.shape) == 1))
        start = 0
        for entry in table:
            if len(entry.shape) == 1:
                layer, dot, name = entry.name.partition(".")
                views = self._layers[layer] if dot else self._views
                views[name if dot else layer] = PendingGradient(self.sums, start)
            start += entry.size


def filled_up(size: Size) -> Size:
    """The Size that a batch is filled up to: one of few, so that few graphs serve all batches."""
    n_structures, n_sites, n_edges, _ = size
    all_edges = _rounded_up(n_edges)
    pad_sites = max(2 + n_sites // (SITES_OF_A_PAD // 2), -(-(all_edges - n_edges) // EDGES_OF_A_PAD))
    all_sites = _rounded_up(n_sites + pad_sites)
    n_pads = 1 + all_sites // SITES_OF_A_PAD  # fewer than pad_sites
    return Size(n_structures + n_pads, all_sites, all_edges, n_pads)


def _rounded_up(n):
    """The next number that has at most as many binary digits other than 0 as STEPS_OF_SIZE asks for."""
    unit = max(1, (1 << n.bit_length()) // (2 * STEPS_OF_SIZE))
    return -(-n // unit) * unit


def step_bytes(config: ModelConfig, size: Size, itemsize: int) -> int:
    """Bytes that the work arrays of a training step take; an estimate, held to what a step asks for by the tests.

    Counted in rows of width D: a layer keeps of every edge v, geo and k (SCANN: k), and of every site eight; the
    backward of a layer adds six of an edge and eight of a site; the expansions are two. A second target keeps six more
    of a site, and so on.
    """
    edges = (3 if config.variant == "scann+" else 1) * config.n_layers + 8
    sites = 8 * config.n_layers + 14 + 6 * (config.n_targets - 1)
    gaussians = 4 * (config.n_radial + config.angular_width)
    rows = size.n_edges * (edges * config.width + gaussians + 3 * config.n_heads * config.n_layers)
    return itemsize * (rows + size.n_sites * sites * config.width)


def too_little_memory(config: Config, size: Size, params: Parameters, free: int | None) -> str:
    """One sentence on a batch that does not fit, and on one that would."""
    needed = step_bytes(config.model, size, params.vector.itemsize)
    n_shards = config.training.gpu_shards
    batch = f"a {'shard' if n_shards > 1 else 'batch'} of {size.n_real} structures takes about {needed / 1e9:.1f} GB"
    if free is None:
        return f"{batch}, more than there is; set training.batch_size to less"
    fits = n_shards * int(0.8 * size.n_real * free / needed)
    batch += f", and the GPU has {free / 1e9:.1f} GB free"
    return f"{batch}; " + (
        f"set training.batch_size to {fits} or less" if fits else "not even one structure would fit; use --device cpu"
    )
