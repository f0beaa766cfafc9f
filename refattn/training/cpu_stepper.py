"""Optimiser steps on the CPU: a batch falls apart into shards, whose gradients are added up along a fixed tree."""

import dataclasses
import queue
import typing
from collections.abc import Callable

import numpy as np

from refattn.common.jit import jit
from refattn.common.loss import attention_loss, loss_of, mean
from refattn.common.mpi import ALONE, Ranks, nodes_of, shards_of, tree_sum
from refattn.config import Config
from refattn.errors import TrainingError
from refattn.network.cache import Tape
from refattn.network.dropout import Dropout
from refattn.network.inference import overflow_is_reported
from refattn.network.model import backward, forward
from refattn.network.params import Parameters
from refattn.ops.types import Ops
from refattn.structures.batch import GraphBatch, ragged_rows
from refattn.training.adam import Adam
from refattn.training.average import Average
from refattn.training.targets import Targets


class ForwardPass(typing.NamedTuple):
    """A shard between forward and backward.

    rows : (S,) int            structures
    dropout : Dropout
    tape : Tape                in the memory of `pool`
    slope : (S, K)             derivative of w l (see loss.py) by every output; 0 where the label is unknown
    attention_slope : list of (N,) or None, of each target: derivative of the attention's loss by its score
    sums : (3, K) float64      over the shard, of each target: of w l, of the attention's loss, of the absolute errors
    """

    rows: np.ndarray
    dropout: Dropout
    tape: Tape
    slope: np.ndarray
    attention_slope: list[np.ndarray | None]
    sums: np.ndarray


@dataclasses.dataclass(eq=False)
class CpuStepper:
    """See refattn.training.stepper for what is asked of it and for the fields.

    Every one of the `ranks` has a stepper, computes its share of a batch's shards, and makes the same step.
    """

    config: Config
    ops: Ops
    graphs: GraphBatch
    ids: np.ndarray
    targets: Targets
    params: Parameters
    adam: Adam
    average: Average | None = None
    ranks: Ranks = ALONE

    def __post_init__(self):
        self.graphs = dataclasses.replace(self.graphs, image=None, omega_max=None)  # which no shard needs
        self.loss = loss_of(self.config.training.loss)
        self.n_targets = self.config.model.n_targets
        self.taught = [self.config.data.targets.index(target) for target, _ in self.config.training.attention]
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
        if self.average:
            self.average.update(self.adam.step)
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
        all_shards = self._cut(rows)
        shards = all_shards[self.ranks.share(len(all_shards))]
        counts = self._counts(rows)
        one_term = self.n_targets == 1 and not self.taught
        if one_term:
            results = map_fn(lambda shard_rows: self._shard_gradient(shard_rows, step), shards)
        else:
            results = self._gradients_of_terms(shards, step, counts, map_fn)
        sums = self._add_up(len(all_shards), zip(shards, results))
        loss, factors = self._loss(sums, counts)
        if not scale(total, total.dtype.type(factors[0, 0] if one_term else 1)):
            raise TrainingError(f"the gradient is not finite in the structures {', '.join(self.ids[rows])}")
        return loss, sums[2]

    def _cut(self, rows):
        return self.graphs.cut(rows, self.config.training.edges_per_shard)

    def _add_up(self, n_shards, results):
        """Write the sum of all shards' gradients into `grads`; (3, K) their sums.

        results : iterator of (rows, (gradient, sums)), of the shards of this rank
        """
        sums = []

        def of_shard(node):
            start, stop = shards_of(n_shards, node)
            if stop - start > 1:
                return None
            rows, (grads, shard_sums) = next(results)
            self._check_loss(rows, shard_sums)
            sums.append(shard_sums)
            return grads

        def add(a, b):
            np.add(a.vector, b.vector, out=a.vector)
            self._shard_grads.put(b)
            return a

        share = self.ranks.share(n_shards)
        with overflow_is_reported():
            nodes = nodes_of(n_shards, share.start, share.stop)
            parts = [tree_sum(n_shards, node, of_shard, add) for node in nodes]
            self.ranks.total(n_shards, [part.vector for part in parts], self.grads.vector)
        for part in parts:
            self._shard_grads.put(part)
        return sum(self.ranks.gather(sums))

    def _check_loss(self, rows, sums):
        if not np.isfinite(sums).all():
            raise TrainingError(f"the loss is not finite in the structures {', '.join(self.ids[rows])}")

    def _counts(self, rows):
        """(2, K) float: of each target, the weight of the structures with a label and how many are taught attention."""
        counts = np.zeros((2, self.n_targets))
        weight = 1.0 if self.targets.weight is None else self.targets.weight[rows, None].astype(float)
        counts[0] = (weight * ~np.isnan(self.targets.label[rows])).sum(axis=0)
        if self.taught:
            site_ptr, sites = ragged_rows(self.graphs.site_ptr, rows)
            counts[1] = (np.add.reduceat(self.targets.share[sites], site_ptr[:-1]) > 0).sum(axis=0)
        return counts

    def _loss(self, sums, counts):
        """The batch's loss from its sums, and (2, K) its derivatives by the sums of l and of the attention's loss."""
        loss = 0.0
        factors = np.zeros((2, self.n_targets))
        terms = (
            (self.config.data.weights, self.loss.reduce),
            (self.config.attention_weights, mean),
        )
        for term, (weights, reduce) in enumerate(terms):
            for k, weight in enumerate(weights):
                if counts[term, k]:
                    value, factor = reduce(float(sums[term, k]), float(counts[term, k]))
                    loss += weight * value
                    factors[term, k] = weight * factor
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
                slope, *grad_scores = scaled_slopes(shard, factors.astype(shard.slope.dtype))
                options = self.config.model, self.ops, shard.dropout
                backward(slope, shard.tape, self.params, grads, *options, grad_scores=grad_scores)
            self._pools[number].release(0)
            return grads, shard.sums

        passes = list(map_fn(go_forward, range(len(shards))))
        factors = self._factors(shards, [shard.sums for shard in passes], counts)
        return map_fn(go_backward, range(len(shards)))

    def _factors(self, shards, sums, counts):
        """(2, K) as of _loss, of the batch to which the shards of this rank, with these sums, belong."""
        for rows, shard_sums in zip(shards, sums, strict=True):
            self._check_loss(rows, shard_sums)
        return self._loss(sum(self.ranks.gather(sums)), counts)[1]

    def _forward(self, rows, step):
        """The ForwardPass of a shard."""
        training = self.config.training
        model = self.config.model
        shard = self.graphs.take(rows).for_network(model, self.params.vector.dtype)
        dropout = Dropout(training.seed, step, shard, model.n_layers)
        tape = forward(self.params, shard, model, self.ops, dropout)
        label = self.targets.label[rows]
        slope = np.zeros_like(tape.prediction)
        attention_slope = [None] * self.n_targets
        sums = np.zeros((3, self.n_targets))
        for k, known in enumerate(~np.isnan(label).T):
            output, y = tape.prediction[known, k], label[known, k]
            points = self.loss.points(output, y, training.huber_delta)
            error = points[1] if self.loss.of_class else output - y  # of the probability that is the slope
            if self.targets.weight is not None:
                points = points * self.targets.weight[rows[known]]
            slope[known, k] = points[1]
            sums[::2, k] = points[0].sum(dtype=np.float64), np.abs(error).sum(dtype=np.float64)
        for k in self.taught:
            share = self.targets.share[ragged_rows(self.graphs.site_ptr, rows)[1], k]
            attention = tape.read_outs[k].attention
            value, attention_slope[k] = attention_loss(attention.score, attention.beta, share, shard.site_ptr)
            sums[1, k] = value.sum()
        return ForwardPass(rows, dropout, tape, slope, attention_slope, sums)

    def _free_grads(self):
        try:
            return self._shard_grads.get_nowait()
        except queue.Empty:
            return self.params.zeros_like()


def scaled_slopes(shard: ForwardPass, factors: np.ndarray) -> list[np.ndarray | None]:
    """Gradients by the predictions (S, K), and by each target's scores, of a shard; factors (2, K) as of the loss."""
    found = [shard.slope * factors[0]]
    for slope, factor in zip(shard.attention_slope, factors[1], strict=True):
        found.append(None if slope is None else slope * factor)
    return found


@jit
def scale(vector: np.ndarray, factor: float) -> bool:
    """Multiply a vector by a number in place; returns whether all of it is finite: in one passage through memory."""
    finite = True
    for n in range(len(vector)):
        vector[n] *= factor
        finite &= abs(vector[n]) < np.inf
    return finite
