"""Optimiser steps of ranks with a GPU each: a batch is training.gpu_shards shards, whose gradients the GPUs compute.

The sum of the gradients along its tree, Adam and the moving average are those of cpu_stepper.py, in the memory of the
host, so that one rank or several come to the same bits. The parameters cross the bus once a step, a gradient once a
shard.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from refattn.network.model import backward, forward, radial_centres
from refattn.network.params import Parameters
from refattn.ops.cuda.dataset import DeviceDataset, Plan
from refattn.ops.cuda.loss import attention_slope, shard_slope
from refattn.ops.random import mix
from refattn.training.cpu_stepper import CpuStepper
from refattn.training.cuda_stepper import Gradients, Replays, filled_up, known_on_device, within_memory


@dataclasses.dataclass(eq=False)
class CudaShardStepper(CpuStepper):
    """See refattn.training.stepper for what is asked of it and for the fields."""

    def __post_init__(self):
        to_device = self.ops.to_device
        config = self.config
        vector = self.params.vector
        n_targets = config.model.n_targets
        radial_centres(config.model, vector.dtype, self.ops.xp)  # made here, not from a graph's memory
        with within_memory():
            self.data = DeviceDataset.of(self.graphs, config.model, vector.dtype)
            self.known, self.taught_sites = known_on_device(config, self.targets, self.graphs, to_device)
            self.device_params = Parameters(self.params.table, to_device(vector.copy()))
            self.device_grads = Gradients(self.params.table, to_device(np.zeros_like(vector)))
            self.plan = Plan.of(np.zeros(-(-config.training.batch_size // config.training.gpu_shards)))
            self.factors, self.sums = (to_device(np.zeros((n, n_targets))) for n in (2, 3))
        self.replays = Replays(config, self.params)
        super().__post_init__()

    def step(self, batch: int, map_fn: Callable = map) -> None:
        self.device_params.vector[...] = self.ops.to_device(self.params.vector)
        super().step(batch)  # a GPU computes one shard after the other

    def _cut(self, rows):
        return np.array_split(rows, min(self.config.training.gpu_shards, len(rows)))

    def _shard_gradient(self, rows, step, factors=1.0):
        self._launch(rows, step, factors, True)
        grads = self._free_grads()
        grads.vector[...] = self.ops.to_host(self.device_grads.vector)
        return grads, self.ops.to_host(self.sums).copy()

    def _gradients_of_terms(self, shards, step, counts, map_fn):
        """As in CpuStepper; the forward pass is repeated for the gradient, since no tape waits on the device."""
        sums = []
        for rows in shards:
            self._launch(rows, step, 1.0, False)
            sums.append(self.ops.to_host(self.sums).copy())
        factors = self._factors(shards, sums, counts)
        gradients = (self._shard_gradient(rows, step, factors)[0] for rows in shards)
        return zip(gradients, sums, strict=True)

    def _launch(self, rows, step, factors, with_gradient):
        to_device = self.ops.to_device
        stream = mix(mix(np.full(1, self.config.training.seed, np.uint64)) + np.full(1, step, np.uint64))
        self.plan.order[: len(rows)] = to_device(rows.astype(np.int32))
        self.plan.stream[...] = to_device(stream)
        self.factors[...] = to_device(np.full(self.factors.shape, factors))
        size = filled_up(self.data.size(rows))
        self.replays.run(size, lambda: self._launch_shard(size, with_gradient), with_gradient)

    def _launch_shard(self, size, with_gradient):
        config, model, ops = self.config, self.config.model, self.ops
        shard = self.data.gather(self.plan, size)
        dropout = self.data.dropout(shard, self.plan, size)
        tape = forward(self.device_params, shard, model, ops, dropout)
        entropy = ops.xp.zeros(tape.prediction.shape[::-1], np.float64)
        grad_scores = [None] * self.n_targets
        for k, wanted in self.taught_sites.items():
            where = self.factors[1, k : k + 1], shard.site_ptr, self.plan, size.n_real
            grad_scores[k] = attention_slope(entropy[k], tape.read_outs[k].attention, *wanted, *where)
        known = self.known, entropy, self.factors, self.plan, size.n_real, self.loss, config.training.huber_delta
        slope = shard_slope(self.sums, tape.prediction, *known)
        if with_gradient:
            with self.device_grads.sums.collected():
                backward(
                    slope, tape, self.device_params, self.device_grads, model, ops, dropout, grad_scores=grad_scores
                )
            self.device_grads.sums.add(size)
