"""Deletion and insertion: does the prediction hang on the sites that a score names?"""

from collections.abc import Callable

import numpy as np

from refattn.explanation.variants import ScoredInput

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


def deletion_and_insertion(subject: ScoredInput, order: np.ndarray, run: Callable = map) -> np.ndarray:
    """How far the output is from the full one while sites are deleted, or inserted, in an order.

    deletion[t]  = |y(c with b at the first n_t sites of the order) - y(c)|
    insertion[t] = |y(b with c at the first n_t sites of the order) - y(c)|,  n_t = round(t N / STEPS)

    c is the input embedding, b the baseline, y the output (attribution.py); the geometry stays. A faithful score makes
    deletion rise at once, and insertion fall at once.

    Parameters
    ----------
    subject : ScoredInput      of N sites
    order : (n, N) int     orders, over which the curves are averaged
    run : callable, optional, like map

    Returns
    -------
    (2, STEPS + 1) float64     deletion and insertion, in standard deviations of the label

    Source   Samek et al., IEEE Trans. Neural Netw. Learn. Syst. 28, 2660 (2017); Petsiuk et al., BMVC 2018,
             arXiv 1806.07421, for images
    """
    n_orders, n_sites = order.shape
    first = np.rint(np.arange(STEPS + 1) * n_sites / STEPS)
    place = np.argsort(order, axis=1)  # of each site in each order
    deleted = place[:, None, :] < first[:, None]  # (n, STEPS + 1, N)
    absent = np.concatenate([deleted, ~deleted], axis=1).reshape(-1, n_sites)

    def variants(part):
        return np.where(absent[part][:, :, None], subject.baseline, subject.embedding)

    change = np.abs(subject.outputs(variants, len(absent), run) - subject.output())
    return change.reshape(n_orders, 2, STEPS + 1).mean(axis=0)


def area(curve: np.ndarray) -> float:
    """Area under curves (..., STEPS + 1) over the fraction of sites, by the trapezoidal rule."""
    return (curve[..., 1:] + curve[..., :-1]).sum(axis=-1) / (2 * STEPS)
