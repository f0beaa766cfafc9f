"""Training steps and predictions on a GPU, where data, parameters and optimiser stay; a batch is one shard.

A step is a fixed sequence of launches for arrays of fixed sizes: batches are filled up to a few sizes (filled_up), and
the sequence of each is captured once as a CUDA graph. Repeating it takes one call of the driver. The batch's number, in
device memory, leads to its structures, its learning rate and its dropout; the last launch increases it. So nothing
crosses the bus within an epoch, and nothing waits.
"""

import numpy as np

from refattn.errors import DeviceError
from refattn.network.model import backward, forward, radial_centres
from refattn.network.params import Parameters
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.adam import adam_update, advance, loss_slope
from refattn.ops.cuda.dataset import DeviceDataset, Plan, Size
from refattn.ops.cuda.sums import Gradients
from refattn.ops.random import mix
from refattn.training.adam import step_size

STEPS_OF_SIZE = 16  # sizes between a number and its double: at most 1/16 of a batch is not of structures
EDGES_OF_A_PAD, SITES_OF_A_PAD = 16, 512  # of the sites and structures that fill up, so that none takes long


class DeviceStep:
    """The training step: parameters, moments and gradients on the device, and the data set's batches.

    Parameters
    ----------
    config : Config
    ops : namespace of operations    of "cuda" or "cuda-tf32"
    loader : Loader
    label : (S,) float               of every structure of the data set, scaled
    params : Parameters, adam : Adam
        On the host; `pull` brings them up to date.
    n_rows, n_batches : int          of an epoch
    capture : bool                   whether steps are captured as graphs; the simulator never does
    """

    def __init__(self, config, ops, loader, label, params, adam, n_rows, n_batches, capture=True):
        self.config, self.ops, self.capture = config, ops, capture
        self.data, self.label = DeviceDataset.of(loader), ops.to_device(label)
        radial_centres(config.model, params.vector.dtype, ops.xp)  # made here, and not from a graph's memory
        self.params = Parameters(params.table, ops.to_device(params.vector.copy()))
        self.grads = Gradients(params.table, ops.to_device(np.zeros_like(params.vector)))
        self.m, self.v, self.decay = (ops.to_device(array.copy()) for array in (adam.m, adam.v, adam.decay))
        self.plan = Plan.of(*(np.zeros(n, np.int64) for n in (n_rows, n_batches, n_batches)))
        self.rate, self.totals = ops.to_device(np.zeros(n_batches, label.dtype)), ops.to_device(np.zeros(3))
        self.scratch, self.replays = toolchain.Scratch(), {}

    def begin(self, batches, first, step, rates):
        """Send the batches of an epoch to the device.

        Parameters
        ----------
        batches : list of (S,) int   structures of every batch
        first : int                  number of the next batch
        step : int                   of the optimiser, at that batch
        rates : (n_batches,) float   of the schedule
        """
        seed, steps = self.config.training.seed, np.arange(len(batches)) + step - first
        streams = mix(mix(np.full(1, seed, np.uint64)) + steps.astype(np.uint64))
        sizes = [step_size(rate, int(t), self.config.training) for rate, t in zip(rates, steps, strict=True)]
        start = np.cumsum([0, *map(len, batches[:-1])])
        for mine, new in zip(self.plan, Plan.of(np.concatenate(batches), start, streams, first), strict=True):
            mine[...] = new
        self.rate[...] = self.ops.to_device(np.array(sizes, self.rate.dtype))
        self.totals[...] = self.ops.to_device(np.array([0.0, 0.0, -1.0]))

    def run(self, rows):
        """The next step, whose batch has the structures `rows` (S,); returns before the device has done it.

        Raises DeviceError when the memory does not suffice.
        """
        size = filled_up(self.data.size(rows))
        if size not in self.replays:
            self.replays[size] = toolchain.Replay(lambda: self._step(size), self.scratch, self.capture)
        try:
            self.replays[size]()
        except toolchain.OutOfMemory:
            raise DeviceError(too_little_memory(self.config, size, self.params, toolchain.free_memory())) from None

    def _step(self, size):
        training, model, ops = self.config.training, self.config.model, self.ops
        shard = self.data.gather(self.plan, size)
        dropout = self.data.dropout(shard, self.plan, size)
        tape = forward(self.params, shard, model, ops, dropout)
        loss = training.loss, training.huber_delta
        slope = loss_slope(self.totals, tape.prediction, self.label, self.plan, size.n_real, *loss)
        with self.grads.sums.collected():
            backward(slope, tape, self.params, self.grads, model, ops, dropout)
        self.grads.sums.add(size)
        state = self.params.vector, self.m, self.v, self.grads.vector, self.decay
        adam_update(*state, self.rate, self.plan.cursor, training)
        advance(self.plan.cursor)

    def gradient(self):
        """Gradient of the last step, of the loss without weight decay, as Parameters on the host."""
        return Parameters(self.params.table, self.ops.to_host(self.grads.vector))

    def pull(self, params, adam):
        """Wait for the device, and bring parameters and moments to the host.

        Returns
        -------
        loss : float       sum over the steps since `begin` of the batch's loss times its structures
        absolute : float   sum of the absolute errors, in scaled units
        broken : int       number of the first batch whose loss was not finite, or -1
        """
        pairs = (params.vector, self.params.vector), (adam.m, self.m), (adam.v, self.v)
        for host, mine in pairs:
            host[...] = self.ops.to_host(mine)
        loss, absolute, broken = self.ops.to_host(self.totals).tolist()
        return loss, absolute, int(broken)


def filled_up(size):
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


def step_bytes(config, size, itemsize):
    """Bytes that the work arrays of a training step take; an estimate, held to what a step asks for by the tests.

    Counted in rows of width D: a layer keeps of every edge v, geo and k (SCANN: k), and of every site eight; the
    backward of a layer adds six of an edge and eight of a site; the expansions are two.
    """
    edges = (3 if config.variant == "scann+" else 1) * config.n_layers + 8
    sites = 8 * config.n_layers + 14
    rows = size.n_edges * (edges * config.width + 4 * config.n_radial + 3 * config.n_heads * config.n_layers)
    return itemsize * (rows + size.n_sites * sites * config.width)


def too_little_memory(config, size, params, free):
    """One sentence on a batch that does not fit, and on one that would."""
    needed = step_bytes(config.model, size, params.vector.itemsize)
    batch = f"a batch of {size.n_real} structures takes about {needed / 1e9:.1f} GB"
    if free is None:
        return f"{batch}, more than there is; set training.batch_size to less"
    fits = int(0.8 * size.n_real * free / needed)
    batch += f", and the GPU has {free / 1e9:.1f} GB free"
    return f"{batch}; " + (
        f"set training.batch_size to {fits} or less" if fits else "not even one structure would fit; use --device cpu"
    )
