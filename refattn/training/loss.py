"""Losses of a batch, in two halves, so that every shard can go from forward to backward on its own.

A loss is F(sum_s l(error_s)): `point_loss` gives l and its slope, `batch_loss` gives F and its slope. The gradient
of a shard is taken with the slope of l; when all shards are summed, the sum is multiplied by the slope of F.
"""

import numpy as np

from refattn.errors import ConfigError


def point_loss(name, error, delta=1.0):
    """l(error) of every structure, and its derivative.

    rmse, mse: error^2;  mae: |error|;  huber: error^2 / 2 within delta, delta (|error| - delta / 2) beyond

    Parameters
    ----------
    name : "rmse", "mse", "mae" or "huber"
    error : (S,) float    prediction minus label, scaled
    delta : float         of huber, in the same unit

    Returns
    -------
    value, slope : (S,)

    Source   huber: Huber, Ann. Math. Statist. 35, 73 (1964)
    """
    if name in ("rmse", "mse"):
        return error**2, 2 * error
    if name == "mae":
        return np.abs(error), np.sign(error)
    if name == "huber":
        slope = np.clip(error, -delta, delta)
        return slope * (error - slope / 2), slope
    raise ConfigError(f"there is no loss {name!r}; choose rmse, mse, mae or huber")


def batch_loss(name, total, n):
    """F(sum of l) of a batch, and its derivative by the sum.

    rmse: sqrt(total / n), as published (a root for every batch, not for the epoch); otherwise total / n.
    Where the rmse is 0 its derivative is taken as 0: every error is 0 there.

    Parameters
    ----------
    total : float    sum of point_loss over the batch
    n : int          structures in the batch
    """
    if name == "rmse":
        value = np.sqrt(total / n)
        return value, (0.5 / (n * value) if value != 0 else 0.0)
    return total / n, 1 / n
