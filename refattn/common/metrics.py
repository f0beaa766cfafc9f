"""How far predictions are from labels."""

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 1 << 14  # structures
N_ATOMIC = 119  # atomic numbers, from 0
ROUNDING = 1e-12  # of the largest label: a spread below it is none


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
        "r2": 1 - float((error**2).sum()) / spread if spread > _rounding(label) else None,
    }


def class_metrics(label: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    """How well probabilities tell the structures of a class, label 1, from others, label 0.

    Parameters
    ----------
    label, probability : (S,) float

    Returns
    -------
    dict
        auc, the area under the ROC curve: the share of pairs, one of each label, in which the class is the more
        probable one, ties half, None where all labels are equal; accuracy, the share of structures on the right side
        of 1/2; cross_entropy, the mean of -log of the probability of what is the case. Without structures None

    Source   Hanley & McNeil, Radiology 143, 29 (1982), for the area as a share of pairs
    """
    if not len(label):
        return {"auc": None, "accuracy": None, "cross_entropy": None}
    one = label == 1
    n_pairs = int(one.sum()) * int((~one).sum())
    others = np.sort(probability[~one])
    n_ordered = sum(np.searchsorted(others, probability[one], side).sum() for side in ("left", "right")) / 2
    right = np.clip(np.where(one, probability, 1 - probability), np.finfo(float).tiny, None)
    return {
        "auc": float(n_ordered / n_pairs) if n_pairs else None,
        "accuracy": float(((probability > 0.5) == one).mean()),
        "cross_entropy": float(-np.log(right).mean()),
    }


def r2_against(label: np.ndarray, prediction: np.ndarray, baseline: np.ndarray) -> float | None:
    """1 - sum (label - prediction)^2 / sum (label - baseline)^2, all (S,); None where the baseline has no error."""
    error, spread = (float(((label - other) ** 2).sum()) for other in (prediction, baseline))
    return 1 - error / spread if spread > _rounding(label) else None


def _rounding(label):
    """What the squares of the errors of a mean may sum to where the labels (S,) are equal."""
    return len(label) * (ROUNDING * float(np.abs(label).max(initial=0))) ** 2


def element_counts(z: np.ndarray, site_ptr: np.ndarray, n_elements: int) -> np.ndarray:
    """(S, n_elements) int: how many sites of each element, z (N,) below n_elements, the structures have."""
    counts = np.zeros((len(site_ptr) - 1, n_elements), dtype=np.int32)
    np.add.at(counts, (np.repeat(np.arange(len(counts)), np.diff(site_ptr)), z), 1)
    return counts


def compositions(z: np.ndarray, site_ptr: np.ndarray) -> np.ndarray:
    """(S,) int32: the same number for structures with the same atoms, of atomic numbers z (N,)."""
    known = {}  # counts of the elements, as bytes -> a number in the order in which they are met
    numbers = np.zeros(len(site_ptr) - 1, np.int32)
    for first in range(0, len(numbers), BLOCK):
        ends = site_ptr[first : first + BLOCK + 1]
        elements, column = np.unique(z[ends[0] : ends[-1]], return_inverse=True)
        found, member = np.unique(element_counts(column, ends - ends[0], len(elements)), axis=0, return_inverse=True)
        rows = np.zeros((len(found), N_ATOMIC), np.int32)
        rows[:, elements] = found
        own = [known.setdefault(row.tobytes(), len(known)) for row in rows]
        numbers[first : first + BLOCK] = np.array(own, np.int32)[member.reshape(-1)]
    if not known:
        return numbers
    everything = np.frombuffer(b"".join(known), np.int32).reshape(len(known), N_ATOMIC)
    return np.unique(everything, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)[numbers]


def means_of_groups(group: np.ndarray, label: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(m,) mean label of every group in `wanted` (m,); the mean of all labels (S,) where none is of it.

    group : (S,) int     of every label
    """
    known, member = np.unique(group, return_inverse=True)
    means = np.append(np.bincount(member, label) / np.bincount(member), label.mean())
    place = np.searchsorted(known, wanted)
    return means[np.where(np.isin(wanted, known), place, len(known))]


def baselines(
    groups: Sequence[np.ndarray], train_label: np.ndarray, label: np.ndarray, prediction: np.ndarray
) -> dict[str, float | int | None]:
    """Errors on a test set of two means of training labels, and how much better than the second the predictions are.

    Parameters
    ----------
    groups : pair of (T,) and (S,) int      compositions of training and test structures
    train_label : (T,) float; label, prediction : (S,) float

    Returns
    -------
    dict
        baseline_mae of the mean of all; composition_mae of the mean of the structures with the same atoms, or of all
        where there are none; composition_known, the number of test structures where there are some; composition_r2,
        r2_against the latter
    """
    own_mean = means_of_groups(groups[0], train_label, groups[1])
    return {
        "baseline_mae": float(np.abs(label - train_label.mean()).mean()),
        "composition_mae": float(np.abs(label - own_mean).mean()),
        "composition_known": int(np.isin(groups[1], groups[0]).sum()),
        "composition_r2": r2_against(label, prediction, own_mean),
    }


def known_columns(label: np.ndarray, prediction: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labels and predictions of each target, from (S, K) arrays, of the structures whose label is known."""
    for of_label, of_prediction in zip(label.T, prediction.T, strict=True):
        known = ~np.isnan(of_label)
        yield of_label[known], of_prediction[known]
