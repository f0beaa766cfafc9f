"""The end of a training step on the device: loss, its slope, and Adam; formulas: common/loss.py, training/adam.py."""

import functools
import math

import numpy as np

from refattn.common.loss import Loss
from refattn.config import TrainingConfig
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.dataset import Plan
from refattn.ops.cuda.launch import block_sum, launch_flat, threads_of
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import cuda, device, kernel
from refattn.ops.types import Array

LOSS_THREADS = 4 if toolchain.SIMULATED else 1024


def loss_slope(
    totals: Array, prediction: Array, label: Array, weights: Array, plan: Plan, n_real: int, loss: Loss, delta: float
) -> Array:
    """Derivative of the batch's loss by each prediction; loss and absolute errors are added to `totals`.

    totals[0] grows by the batch's loss times its structures, totals[1 + k] by the absolute errors of target k, and the
    last of them becomes the number of the first batch whose loss is not finite, where it is -1.

    Parameters
    ----------
    totals : (K + 2,) float64
    prediction : (S, K) float     of which the first n_real are structures; the slope of the others is zero
    label : (M, K) float          of every structure of the data set, scaled; NaN where unknown, whose slope is zero
    weights : (K,) float64        of the targets' losses in their sum
    plan : Plan                   see dataset.py
    loss : Loss
    delta : float                 of the Huber loss

    Returns
    -------
    slope : (S, K)

    Deterministic   one block, whose threads sum in float64
    Traffic         reads 2, writes 1 floats a structure and target
    """
    slope = empty(prediction.shape, prediction.dtype)
    threads = min(threads_of(min(len(slope), LOSS_THREADS)), LOSS_THREADS)
    arguments = slope, totals, prediction, label, weights, plan.order, plan.start, plan.cursor, n_real
    toolchain.call(_kernel_of(loss), 1, threads, 2 * threads * 8, (*arguments, prediction.dtype.type(delta)))
    return slope


@functools.cache
def _kernel_of(loss):
    """The kernel of a Loss, into which its formulas are compiled."""
    point = device(loss.point)
    reduce = device(loss.reduce)

    @kernel
    def _loss_kernel(slope, totals, prediction, label, weights, order, start, cursor, n_real, delta):
        lane, threads = cuda.threadIdx.x, cuda.blockDim.x
        first = start[cursor[0]]
        buffer = cuda.shared.array(0, totals.dtype)
        batch_loss = np.float64(0)
        for k in range(len(weights)):
            total = absolute = count = np.float64(0)
            for s in range(lane, n_real, threads):
                error = prediction[s, k] - label[order[first + s], k]
                slope[s, k] = slope.dtype.type(0)
                if not math.isnan(label[order[first + s], k]):
                    value, slope[s, k] = point(error, delta)
                    total += value
                    absolute += abs(error)
                    count += 1
            total = block_sum(buffer, total)
            absolute = block_sum(buffer, absolute)
            n_known = int(block_sum(buffer, count))
            factor = np.float64(0)
            if n_known > 0:
                value_k, factor = reduce(total, n_known)
                batch_loss += weights[k] * value_k
            for s in range(lane, len(slope), threads):
                slope[s, k] = slope[s, k] * slope.dtype.type(weights[k] * factor) if s < n_real else slope.dtype.type(0)
            if lane == 0:
                totals[1 + k] += absolute
        if lane == 0:
            totals[0] += batch_loss * n_real
            if not abs(batch_loss) < np.inf and totals[-1] < 0:
                totals[-1] = cursor[0]

    return _loss_kernel


def adam_update(
    vector: Array, m: Array, v: Array, grad: Array, decay: Array, rate: Array, cursor: Array, config: TrainingConfig
) -> None:
    """Change `vector`, `m` and `v` (P,) in place by one step; see training/adam.py.

    Parameters
    ----------
    grad, decay : (P,) float     gradient without weight decay; 2 weight_decay times the mask
    rate : (n_batches,) float    with the bias correction, of each step of the epoch
    cursor : (1,) int64          number of the step in the epoch
    config : TrainingConfig

    Traffic   reads 5, writes 3 floats a parameter
    """
    constants = (vector.dtype.type(x) for x in (config.beta_1, config.beta_2, config.epsilon))
    launch_flat(_adam_kernel, len(vector), vector, m, v, grad, decay, rate, cursor, *constants)


@kernel
def _adam_kernel(w, m, v, grad, decay, rate, cursor, beta_1, beta_2, epsilon):
    one = w.dtype.type(1)
    step_size = rate[cursor[0]]
    for p in range(cuda.grid(1), len(w), cuda.gridsize(1)):
        g = grad[p] + decay[p] * w[p]
        m_p = beta_1 * m[p] + (one - beta_1) * g
        v_p = beta_2 * v[p] + (one - beta_2) * g * g
        m[p] = m_p
        v[p] = v_p
        w[p] -= step_size * m_p / (math.sqrt(v_p) + epsilon)


def advance(cursor: Array) -> None:
    """Add 1 to the number of the batch: the last launch of a step."""
    toolchain.call(_advance_kernel, 1, 1, 0, (cursor,))


@kernel
def _advance_kernel(cursor):
    cursor[0] += 1
