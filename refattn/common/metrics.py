"""How far predictions are from labels."""

from collections.abc import Iterator

import numpy as np


def metrics(label: np.ndarray, prediction: np.ndarray) -> dict[str, float | int | None]:
    """Mean absolute error, root mean square error and coefficient of determination.

    r2 = 1 - sum (label - prediction)^2 / sum (label - mean label)^2; None where all labels are equal.

    Parameters
    ----------
    label, prediction : (S,) float

    Returns
    -------
    dict with n, mae, rmse (in the label's unit) and r2; without structures all but n are None
    """
    error = np.asarray(prediction, dtype=float) - np.asarray(label, dtype=float)
    if not len(error):
        return {"n": 0, "mae": None, "rmse": None, "r2": None}
    spread = float(((label - np.mean(label)) ** 2).sum())
    return {
        "n": len(error),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": 1 - float((error**2).sum()) / spread if spread > 0 else None,
    }


def known_columns(label: np.ndarray, prediction: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labels and predictions of each target, from (S, K) arrays, of the structures whose label is known."""
    for of_label, of_prediction in zip(label.T, prediction.T, strict=True):
        known = ~np.isnan(of_label)
        yield of_label[known], of_prediction[known]
