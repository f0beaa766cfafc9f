"""The end of a training step on the device: Adam and the moving average; formulas: training/adam.py and average.py."""

import math

from refattn.config import TrainingConfig
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.launch import launch_flat
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.types import Array


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


def average_update(average: Array, vector: Array, share: Array, cursor: Array) -> None:
    """average += share (vector - average), both (P,), in place; see training/average.py.

    Parameters
    ----------
    average : (P,) float64
    share : (n_batches,) float64     of each step of the epoch
    cursor : (1,) int64              number of the step in the epoch

    Traffic   reads 1 float and 1 double, writes 1 double a parameter
    """
    launch_flat(_average_kernel, len(vector), average, vector, share, cursor)


@kernel
def _average_kernel(average, w, share, cursor):
    part = share[cursor[0]]
    for p in range(cuda.grid(1), len(w), cuda.gridsize(1)):
        average[p] += part * (w[p] - average[p])


def advance(cursor: Array) -> None:
    """Add 1 to the number of the batch: the last launch of a step."""
    toolchain.call(_advance_kernel, 1, 1, 0, (cursor,))


@kernel
def _advance_kernel(cursor):
    cursor[0] += 1
