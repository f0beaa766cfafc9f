"""Optimiser steps on the CPU: a batch falls apart into shards, whose sums are put together in their order."""

import dataclasses
import queue
import typing
from collections.abc import Callable

import numpy as np

from refattn.common.jit import jit
from refattn.common.loss import loss_of
from refattn.config import Config
from refattn.errors import TrainingError
from refattn.network.cache import Tape
from refattn.network.dropout import Dropout
from refattn.network.inference import overflow_is_reported
from refattn.network.model import backward, forward
from refattn.network.params import Parameters
from refattn.ops.types import Ops
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam
from refattn.training.targets import Targets


class ForwardPass(typing.NamedTuple):
    """A shard between forward and backward.

    rows : (S,) int            structures
    dropout : Dropout
    tape : Tape                in the memory of `pool`
    slope : (S, K)             derivative of l (see loss.py) by every prediction; 0 where the label is unknown
    sums : (2, K) float64      over the shard, of each target: of l, and of the absolute errors
    """

    rows: np.ndarray
    dropout: Dropout
    tape: Tape
    slope: np.ndarray
    sums: np.ndarray


@dataclasses.dataclass(eq=False)
class CpuStepper:
    """See refattn.training.stepper for what is asked of it and for the fields."""

    config: Config
    ops: Ops
    graphs: GraphBatch
    ids: np.ndarray
    targets: Targets
    params: Parameters
    adam: Adam

    def __post_init__(self):
        self.graphs = dataclasses.replace(self.graphs, image=None, omega_max=None)  # which no network reads
        self.loss = loss_of(self.config.training.loss)
        self.n_targets = self.config.model.n_targets
        self.grads = self.params.zeros_like()
        self._shard_grads = queue.SimpleQueue()  # arrays that are free
        self._pools = []  # of the shards of a batch, where their tapes have to wait for each other

    def begin(
        self, batches: list[np.ndarray], rates: list[float], first: int = 0, totals: np.ndarray | None = None
    ) -> None:
        self.batches = batches
        self.rates = rates
        self.totals = np.zeros(1 + self.n_targets) if totals is None else totals.copy()

    def step(self, batch: int, map_fn: Callable = map) -> None:
        rows = self.batches[batch]
        try:
            loss, absolute = self.compute_gradient(rows, self.adam.step, map_fn)
        except TrainingError as error:
            raise TrainingError(f"batch {batch + 1}: {error}") from None
        self.adam.update(self.params.vector, self.grads.vector, self.rates[batch])
        self.totals += [loss * len(rows), *absolute]

    def settle(self) -> np.ndarray:
        return self.totals.copy()

    def gradient(self) -> Parameters:
        return self.grads

    def compute_gradient(self, rows: np.ndarray, step: int, map_fn: Callable) -> tuple[float, np.ndarray]:
        """Write the gradient of the batch `rows` by the loss without weight decay into `grads`.

        Parameters
        ----------
        rows : (S,) int     structures of the batch
        step : int          of the optimiser; keys the dropout

        Returns
        -------
        loss : float, of the batch
        absolute : (K,) float, the sums of the absolute errors in scaled units

        Raises TrainingError, naming structures, when a loss or a gradient is not finite.
        """
        total = self.grads.vector
        sums = np.zeros((2, self.n_targets))
        shards = self.graphs.cut(rows)
        counts = (~np.isnan(self.targets.label[rows])).sum(axis=0)
        one_term = self.n_targets == 1
        if one_term:
            results = map_fn(lambda shard_rows: self._shard_gradient(shard_rows, step), shards)
        else:
            results = self._gradients_of_terms(shards, step, counts, map_fn)
        for number, (shard_rows, (grads, shard_sums)) in enumerate(zip(shards, results)):
            with overflow_is_reported():
                np.add(total if number else 0, grads.vector, out=total)
            self._shard_grads.put(grads)
            self._check_loss(shard_rows, shard_sums)
            sums += shard_sums
        loss, factors = self._loss(sums, counts)
        if not scale(total, total.dtype.type(factors[0] if one_term else 1)):
            raise TrainingError(f"the gradient is not finite in the structures {', '.join(self.ids[rows])}")
        return loss, sums[1]

    def _check_loss(self, rows, sums):
        if not np.isfinite(sums).all():
            raise TrainingError(f"the loss is not finite in the structures {', '.join(self.ids[rows])}")

    def _loss(self, sums, counts):
        """The batch's loss from its sums, and the derivative by the sum of l of each target."""
        loss = 0.0
        factors = np.zeros(self.n_targets)
        for k, weight in enumerate(self.config.data.weights):
            if counts[k]:
                value, factor = self.loss.reduce(float(sums[0, k]), int(counts[k]))
                loss += weight * value
                factors[k] = weight * factor
        return loss, factors

    def _shard_gradient(self, rows, step):
        """Gradient of the sum of l over a shard (see loss.py), and the shard's sums: one target alone."""
        grads = self._free_grads()
        with self.ops.work_arrays(), overflow_is_reported():
            shard = self._forward(rows, step)
            backward(shard.slope, shard.tape, self.params, grads, self.config.model, self.ops, shard.dropout)
            return grads, shard.sums

    def _gradients_of_terms(self, shards, step, counts, map_fn):
        """Gradient of the loss over each shard, and its sums: of several terms, whose factors the whole batch decides.

        All shards go forward first; the tapes wait in pools of their own for the shards' backward.
        """
        self._pools += [self.ops.Pool() for _ in shards[len(self._pools) :]]

        def go_forward(number):
            with self.ops.work_arrays(self._pools[number]), overflow_is_reported():
                return self._forward(shards[number], step)

        def go_backward(number):
            shard = passes[number]
            grads = self._free_grads()
            with self.ops.work_arrays(self._pools[number]), overflow_is_reported():
                slope = shard.slope * factors.astype(shard.slope.dtype)
                backward(slope, shard.tape, self.params, grads, self.config.model, self.ops, shard.dropout)
            self._pools[number].release(0)
            return grads, shard.sums

        passes = list(map_fn(go_forward, range(len(shards))))
        for shard in passes:
            self._check_loss(shard.rows, shard.sums)
        _, factors = self._loss(sum(shard.sums for shard in passes), counts)
        return map_fn(go_backward, range(len(shards)))

    def _forward(self, rows, step):
        """The ForwardPass of a shard."""
        training = self.config.training
        model = self.config.model
        shard = self.graphs.take(rows).for_network(model, self.params.vector.dtype)
        dropout = Dropout(training.seed, step, shard)
        tape = forward(self.params, shard, model, self.ops, dropout)
        error = tape.prediction - self.targets.label[rows]
        slope = np.zeros_like(error)
        sums = np.zeros((2, self.n_targets))
        for k, known in enumerate(~np.isnan(self.targets.label[rows]).T):
            value, slope[known, k] = self.loss.points(error[known, k], training.huber_delta)
            sums[:, k] = value.sum(dtype=np.float64), np.abs(error[known, k]).sum(dtype=np.float64)
        return ForwardPass(rows, dropout, tape, slope, sums)

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
