"""Losses of a batch, in two halves, so that every shard can go from forward to backward on its own.

A loss is F(sum_s w_s l(z_s, y_s), sum_s w_s) of outputs z and labels y, both scaled, and weights w of the structures.
`point` is l and its slope, `reduce` is F and its slope. The gradient of a shard is taken with the slope of l; when all
shards are summed, the sum is multiplied by the slope of F.

The formulas are of one structure and of one batch: the CPU calls them, and a kernel of the GPU is compiled from them,
so an entry of LOSSES is all that a new loss takes. A constant in `point` is a float32, which takes the type of what it
meets.
"""

import math
import typing
from collections.abc import Callable

import numpy as np

from refattn.errors import ConfigError

HALF = np.float32(0.5)


class Loss(typing.NamedTuple):
    """The two halves of a loss.

    point : (output, label, delta) -> value, slope  l and its derivative; delta is TrainingConfig.huber_delta
    reduce : (total, weight) -> value, slope        F of the batch's sums of w l and w, and its derivative by the first
    of_class : bool                                 whether outputs are log odds, and labels 0 or 1
    """

    point: Callable[[float, float, float], tuple[float, float]]
    reduce: Callable[[float, float], tuple[float, float]]
    of_class: bool = False

    def points(self, output: np.ndarray, label: np.ndarray, delta: float) -> np.ndarray:
        """(2, S) l of every output (S,) and its label, and its derivative."""
        delta = output.dtype.type(delta)
        found = [self.point(z, y, delta) for z, y in zip(output, label, strict=True)]
        return np.array(found, output.dtype).reshape(-1, 2).T.copy()


def squared_error(output: float, label: float, delta: float) -> tuple[float, float]:
    """error^2, error = output - label"""
    error = output - label
    return error * error, error + error


def absolute_error(output: float, label: float, delta: float) -> tuple[float, float]:
    """|error|, error = output - label; the slope at 0 is 0"""
    error = output - label
    return abs(error), int(error > 0) - int(error < 0)


def huber_error(output: float, label: float, delta: float) -> tuple[float, float]:
    """error^2 / 2 within delta, delta (|error| - delta / 2) beyond, error = output - label

    Source   Huber, Ann. Math. Statist. 35, 73 (1964)
    """
    error = output - label
    slope = min(max(error, -delta), delta)
    return slope * (error - HALF * slope), slope


def cross_entropy(output: float, label: float, delta: float) -> tuple[float, float]:
    """-y log p - (1 - y) log(1 - p) of the probability p = 1 / (1 + exp(-z)) of a class, z = output and y = label

    As log(1 + exp(z)) - y z, which is finite where p rounds to 0 or 1; the slope is p - y. In float64.
    """
    small = math.exp(-abs(output))
    p = (1 if output > 0 else small) / (1 + small)
    return max(output, 0) - label * output + math.log1p(small), p - label


def mean(total: float, weight: float) -> tuple[float, float]:
    """total / weight"""
    return total / weight, 1 / weight


def root_mean(total: float, weight: float) -> tuple[float, float]:
    """sqrt(total / weight), as published: a root for every batch, not for the epoch

    Where it is 0 its derivative is taken as 0: every error is 0 there.
    """
    value = math.sqrt(total / weight)
    return value, 0.5 / (weight * value) if value != 0 else 0.0


LOSSES = {
    "rmse": Loss(squared_error, root_mean),
    "mse": Loss(squared_error, mean),
    "mae": Loss(absolute_error, mean),
    "huber": Loss(huber_error, mean),
    "cross_entropy": Loss(cross_entropy, mean, of_class=True),
}


def loss_of(name: str) -> Loss:
    """The Loss of that name. Raises ConfigError where there is none."""
    if name not in LOSSES:
        raise ConfigError(f"there is no loss {name!r}; choose one of {', '.join(LOSSES)}")
    return LOSSES[name]


def attention_loss(
    score: np.ndarray, beta: np.ndarray, share: np.ndarray, site_ptr: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cross entropy of a taught attention with the one of the network, and its derivative by the scores.

    l[s] = -sum_i p_i log beta_i,  beta = softmax(score) over the sites i of s

    With log beta_i = score_i - log Z and sum_i p_i = 1 this is log Z - sum_i p_i score_i, which is finite where beta_i
    rounds to 0; and d log Z / d score_i = beta_i, so that the derivative is beta_i - p_i.

    Parameters
    ----------
    score, beta, share : (N,) float     share is p; 0 at all sites of a structure that counts nothing
    site_ptr : (S + 1,) int

    Returns
    -------
    value : (S,) float64; slope : (N,) of the type of beta
    """
    n_sites, starts = np.diff(site_ptr), site_ptr[:-1]
    taught = np.add.reduceat(share, starts) > 0
    score = score.astype(float)
    top = np.maximum.reduceat(score, starts)
    log_z = top + np.log(np.add.reduceat(np.exp(score - np.repeat(top, n_sites)), starts))
    value = np.where(taught, log_z - np.add.reduceat(share * score, starts), 0)
    return value, np.where(np.repeat(taught, n_sites), beta - share, 0).astype(beta.dtype)
