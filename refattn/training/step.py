"""One optimiser step and one evaluation: a batch falls apart into shards, and their sums are put together in order."""

import dataclasses
import itertools
import queue
import typing

import numpy as np

from refattn.dropout import Dropout
from refattn.errors import TrainingError
from refattn.inference import ROWS_PER_BLOCK, infer
from refattn.jit import jit
from refattn.model import backward, forward
from refattn.training.loss import batch_loss, point_loss

LARGE = 4 * ROWS_PER_BLOCK  # edges of a structure whose blocks are shared among the threads


def overflow_is_reported():
    """No warning where numbers overflow: losses, gradients and predictions are checked, and named with structures."""
    return np.errstate(over="ignore", invalid="ignore")


@dataclasses.dataclass
class Stepper:
    """What the shards of a training share: network, data, labels (S,) in scaled units, and buffers for gradients."""

    config: object
    ops: object
    loader: object
    ids: np.ndarray
    label: np.ndarray

    def __post_init__(self):
        self._buffers = queue.SimpleQueue()

    def gradient(self, params, total, rows, step, run):
        """Gradient of the batch `rows` by the loss without weight decay, written into `total`.

        Parameters
        ----------
        params, total : Parameters
        rows : (S,) int     structures of the batch
        step : int          of the optimiser; keys the dropout
        run : callable      like map; see refattn.training.parallel.workers

        Returns
        -------
        loss : float, of the batch
        absolute : float, the sum of the absolute errors in scaled units

        Raises TrainingError, naming structures, when a loss or a gradient is not finite.
        """
        training = self.config.training
        value = absolute = 0.0
        jobs = self.loader.cut(rows)
        results = run(lambda job: self._shard(params, job, step), jobs)
        for number, (part, (grads, shard_value, shard_absolute)) in enumerate(zip(jobs, results)):
            with overflow_is_reported():
                np.add(total.vector if number else 0, grads.vector, out=total.vector)
            self._buffers.put(grads)
            if not np.isfinite(shard_value):
                raise TrainingError(f"the loss is not finite in the structures {', '.join(self.ids[part])}")
            value += shard_value
            absolute += shard_absolute
        loss, factor = batch_loss(training.loss, value, len(rows))
        if not scale(total.vector, total.vector.dtype.type(factor)):
            raise TrainingError(f"the gradient is not finite in the structures {', '.join(self.ids[rows])}")
        return loss, absolute

    def _shard(self, params, rows, step):
        training, model = self.config.training, self.config.model
        grads = self._buffer(params)
        with self.ops.work_arrays(), overflow_is_reported():
            shard = self.loader.shard(rows)
            dropout = Dropout(training.seed, step, shard)
            tape = forward(params, shard, model, self.ops, dropout)
            error = tape.prediction - self.label[rows]
            value, slope = point_loss(training.loss, error, training.huber_delta)
            backward(slope, tape, params, grads, model, self.ops, dropout)
            return grads, float(value.sum(dtype=np.float64)), float(np.abs(error).sum(dtype=np.float64))

    def _buffer(self, params):
        try:
            return self._buffers.get_nowait()
        except queue.Empty:
            return params.zeros_like()


@jit
def scale(vector, factor):
    """Multiply a vector by a number in place; returns whether all of it is finite: in one passage through memory."""
    finite = True
    for n in range(len(vector)):
        vector[n] *= factor
        finite &= abs(vector[n]) < np.inf
    return finite


def predict_rows(params, config, ops, loader, rows, run):
    """Output (scaled units), global attention and representation of the structures `rows`.

    Returns
    -------
    output : (S,); beta : list of (N_s,) arrays; struct : (S, G); all in the order of rows
    """

    if ops.on_device:
        from refattn.training.device_step import predict_on_device  # asks for a GPU

        return predict_on_device(params, config, ops, loader, rows)

    def outcome(part, run=map):
        shard = loader.shard(part)
        found = infer(params, shard, config, ops, run)
        return found.prediction.copy(), np.split(found.beta.copy(), shard.site_ptr[1:-1]), found.struct.copy()

    def alone(part):
        with ops.work_arrays(), overflow_is_reported():
            return outcome(part)

    def outcomes(parts):
        """In order; a large structure is alone in its part, and has all threads for itself."""
        for large, some in itertools.groupby(parts, lambda part: len(part) == 1 and loader.n_edges[part[0]] > LARGE):
            some = list(some)
            yield from [outcome(part, run) for part in some] if large else run(alone, some)

    dtype = params.vector.dtype
    output, beta, struct = [np.zeros(0, dtype)], [], [np.zeros((0, config.global_width), dtype)]
    with overflow_is_reported():
        for prediction, attention, representation in outcomes(loader.cut(rows)):
            output.append(prediction)
            beta.extend(attention)
            struct.append(representation)
    return np.concatenate(output), beta, np.concatenate(struct)


class Answer(typing.NamedTuple):
    """What K networks say of S structures.

    value : (S,) float64         in the label's unit; the mean over the networks
    attention : list of (N_s,)   global attention; the mean, which sums to 1 too
    spread : (S,) float64        standard deviation of the K values, with K - 1 in the denominator; None for one network
    values : (K, S) float64      of each network
    structs : list of K (S, G + 1)
        Representation of the structures in each network, and their number of sites: global attention is a mean over
        the sites, from which the size of a structure cannot be told.
    """

    value: np.ndarray
    attention: list
    spread: np.ndarray | None
    values: np.ndarray
    structs: list


def ask(checkpoints, ops, loader, rows, run):
    """The Answer of the networks `checkpoints`, which differ in their parameters only, for the structures `rows`."""
    values, attentions, structs, n_sites = [], [], [], np.diff(loader.site_ptr)[rows]
    for checkpoint in checkpoints:
        output, beta, struct = predict_rows(checkpoint.params, checkpoint.config.model, ops, loader, rows, run)
        values.append(checkpoint.mean + checkpoint.std * output.astype(float))
        attentions.append(beta)
        structs.append(np.column_stack([struct, n_sites.astype(struct.dtype)]))
    if len(checkpoints) == 1:
        return Answer(values[0], attentions[0], None, np.array(values), structs)
    attention = [np.mean(of_members, axis=0) for of_members in zip(*attentions, strict=True)]
    return Answer(np.mean(values, axis=0), attention, np.std(values, axis=0, ddof=1), np.array(values), structs)
