"""One optimiser step and one evaluation: a batch falls apart into shards, and their sums are put together in order."""

import dataclasses
import queue

import numpy as np

from refattn.common.jit import jit
from refattn.errors import TrainingError
from refattn.network.dropout import Dropout
from refattn.network.inference import overflow_is_reported
from refattn.network.model import backward, forward
from refattn.training.loss import batch_loss, point_loss


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
        run : callable      like map; see refattn.network.threads.workers

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
