"""Optimiser steps on the CPU: a batch falls apart into shards, whose sums are put together in their order."""

import dataclasses
import queue
from collections.abc import Callable

import numpy as np

from refattn.common.jit import jit
from refattn.common.loss import loss_of
from refattn.config import Config
from refattn.errors import TrainingError
from refattn.network.dropout import Dropout
from refattn.network.inference import overflow_is_reported
from refattn.network.model import backward, forward
from refattn.network.params import Parameters
from refattn.ops.types import Ops
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam


@dataclasses.dataclass(eq=False)
class CpuStepper:
    """See refattn.training.stepper for what is asked of it and for the fields."""

    config: Config
    ops: Ops
    graphs: GraphBatch
    ids: np.ndarray
    label: np.ndarray
    params: Parameters
    adam: Adam

    def __post_init__(self):
        self.graphs = dataclasses.replace(self.graphs, image=None, omega_max=None)  # which no network reads
        self.loss = loss_of(self.config.training.loss)
        self.grads = self.params.zeros_like()
        self._shard_grads = queue.SimpleQueue()  # arrays that are free

    def begin(
        self, batches: list[np.ndarray], rates: list[float], first: int = 0, totals: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.batches = batches
        self.rates = rates
        self.loss_sum, self.absolute_sum = totals

    def step(self, batch: int, map_fn: Callable = map) -> None:
        rows = self.batches[batch]
        try:
            loss, absolute = self.compute_gradient(rows, self.adam.step, map_fn)
        except TrainingError as error:
            raise TrainingError(f"batch {batch + 1}: {error}") from None
        self.adam.update(self.params.vector, self.grads.vector, self.rates[batch])
        self.loss_sum += loss * len(rows)
        self.absolute_sum += absolute

    def settle(self) -> tuple[float, float]:
        return self.loss_sum, self.absolute_sum

    def gradient(self) -> Parameters:
        return self.grads

    def compute_gradient(self, rows: np.ndarray, step: int, map_fn: Callable) -> tuple[float, float]:
        """Write the gradient of the batch `rows` by the loss without weight decay into `grads`.

        Parameters
        ----------
        rows : (S,) int     structures of the batch
        step : int          of the optimiser; keys the dropout

        Returns
        -------
        loss : float, of the batch
        absolute : float, the sum of the absolute errors in scaled units

        Raises TrainingError, naming structures, when a loss or a gradient is not finite.
        """
        total = self.grads.vector
        value = 0.0
        absolute = 0.0
        shards = self.graphs.cut(rows)
        results = map_fn(lambda shard_rows: self._shard_gradient(shard_rows, step), shards)
        for number, (shard_rows, (grads, shard_value, shard_absolute)) in enumerate(zip(shards, results)):
            with overflow_is_reported():
                np.add(total if number else 0, grads.vector, out=total)
            self._shard_grads.put(grads)
            if not np.isfinite(shard_value):
                raise TrainingError(f"the loss is not finite in the structures {', '.join(self.ids[shard_rows])}")
            value += shard_value
            absolute += shard_absolute
        loss, factor = self.loss.reduce(value, len(rows))
        if not scale(total, total.dtype.type(factor)):
            raise TrainingError(f"the gradient is not finite in the structures {', '.join(self.ids[rows])}")
        return loss, absolute

    def _shard_gradient(self, rows, step):
        """Gradient of the sum of l over a shard (see loss.py), that sum, and the sum of the absolute errors."""
        training = self.config.training
        model = self.config.model
        grads = self._free_grads()
        with self.ops.work_arrays(), overflow_is_reported():
            shard = self.graphs.take(rows).for_network(model, self.params.vector.dtype)
            dropout = Dropout(training.seed, step, shard)
            tape = forward(self.params, shard, model, self.ops, dropout)
            error = tape.prediction - self.label[rows]
            value, slope = self.loss.points(error, training.huber_delta)
            backward(slope, tape, self.params, grads, model, self.ops, dropout)
            return grads, float(value.sum(dtype=np.float64)), float(np.abs(error).sum(dtype=np.float64))

    def _free_grads(self):
        try:
            return self._shard_grads.get_nowait()
        except queue.Empty:
            return self.params.zeros_like()


@jit
def scale(vector: np.ndarray, factor: float) -> bool:
    """Multiply a vector by a number in place; returns whether all of it is finite: in one passage through memory."""
    finite = True
    for n in range(len(vector)):
        vector[n] *= factor
        finite &= abs(vector[n]) < np.inf
    return finite
