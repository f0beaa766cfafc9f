"""Deletion and insertion: does the prediction hang on the sites that a score names?"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from refattn.validation.agreement import mean_and_error

STEPS = 10
N_RANDOM = 5  # random orders of a structure, averaged


def orders(scores: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The sites of a structure by falling magnitude of each score, ties in random order, and random orders.

    Parameters
    ----------
    scores : dict of name -> (N,) float
    rng : numpy.random.Generator

    Returns
    -------
    dict of name -> (n, N) int; n = 1, and N_RANDOM under "random"
    """
    n_sites = len(next(iter(scores.values())))
    found = {}
    for name, values in scores.items():
        shuffled = rng.permutation(n_sites)
        found[name] = shuffled[np.argsort(-np.abs(values[shuffled]), kind="stable")][None]
    found["random"] = np.stack([rng.permutation(n_sites) for _ in range(N_RANDOM)])
    return found


class Subject(Protocol):
    """One structure before a model: ScoredInput before a network of refattn, anybody.AnyModel before any other."""

    def without(self, absent: np.ndarray, map_fn: Callable = map) -> np.ndarray:
        """(n,) float64: the model's output without the sites that are True in each row of absent (n, N)."""


def deletion_and_insertion(subject: Subject, order: np.ndarray, run: Callable = map) -> np.ndarray:
    """How far the output is from the full one while sites are deleted (pixel flipping), or inserted, in an order.

    deletion[t]  = |y(without the first n_t sites of the order) - y|
    insertion[t] = |y(without all but the first n_t sites of the order) - y|,  n_t = round(t N / STEPS)

    y is the output. A faithful score makes deletion rise at once, and insertion fall at once. Before a network of
    refattn a site that is taken away has the baseline for its input embedding, and keeps its place.

    Parameters
    ----------
    subject : Subject      of N sites
    order : (n, N) int     orders, over which the curves are averaged
    run : callable, optional, like map

    Returns
    -------
    (2, STEPS + 1) float64     deletion and insertion, in the unit of the subject's output

    Source   Samek et al., IEEE Trans. Neural Netw. Learn. Syst. 28, 2660 (2017); Petsiuk et al., BMVC 2018,
             arXiv 1806.07421, for images
    """
    n_orders, n_sites = order.shape
    first = np.rint(np.arange(STEPS + 1) * n_sites / STEPS)
    place = np.argsort(order, axis=1)  # of each site in each order
    deleted = place[:, None, :] < first[:, None]  # (n, STEPS + 1, N)
    absent = np.concatenate([deleted, ~deleted], axis=1).reshape(-1, n_sites)
    full = subject.without(np.zeros((1, n_sites), dtype=bool))
    change = np.abs(subject.without(absent, run) - full)
    return change.reshape(n_orders, 2, STEPS + 1).mean(axis=0)


def area(curve: np.ndarray) -> float:
    """Area under curves (..., STEPS + 1) over the fraction of sites, by the trapezoidal rule."""
    return (curve[..., 1:] + curve[..., :-1]).sum(axis=-1) / (2 * STEPS)


def against_random(curves: np.ndarray, random: np.ndarray) -> dict:
    """What the curves of a score say beside those of random orders, means over structures.

    Parameters
    ----------
    curves, random : (S, 2, STEPS + 1) float     deletion_and_insertion of every structure

    Returns
    -------
    dict of `deletion` and `insertion`, each with the mean curve, its area, and the area less that of random orders and
    over it
    """
    record = {}
    for kind, text in enumerate(("deletion", "insertion")):
        own = area(curves[:, kind])
        chance = area(random[:, kind])
        ratio = own.mean() / chance.mean() if chance.mean() > 0 else None
        record[text] = {
            "curve": curves[:, kind].mean(axis=0).tolist(),
            "area": mean_and_error(own),
            "over_random": None if ratio is None else float(ratio),
            "minus_random": mean_and_error(own - chance),
        }
    return record
