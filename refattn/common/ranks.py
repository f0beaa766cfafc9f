"""How two scores of the same sites agree: by their ranks, and by the sites where they are largest."""

import numpy as np

FEWEST = 3  # sites: two always correlate perfectly
TIED = 1e-9  # of the largest magnitude; scores of equivalent atoms of C60 differ by 4e-13 (refattn.explain, dtype)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of two scores.

    rho = Pearson correlation of the ranks; ties, up to rounding, share the mean of their ranks

    Parameters
    ----------
    x, y : (N,) float

    Returns
    -------
    float in -1 to 1; NaN for fewer than three sites, a score that is the same everywhere, or NaN among them

    Source   Spearman, Am. J. Psychol. 15, 72 (1904)
    """
    if len(x) < FEWEST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    x, y = (ranks - ranks.mean() for ranks in (_ranks(x), _ranks(y)))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def _ranks(x):
    """(N,) float64: ranks from 0; neighbours in the order that differ by less than TIED share theirs."""
    order = np.argsort(x, kind="stable")
    group = np.cumsum(np.diff(x[order], prepend=x[order[0]]) > TIED * np.abs(x).max())
    mean = np.bincount(group, weights=np.arange(len(x))) / np.bincount(group)
    ranks = np.empty(len(x))
    ranks[order] = mean[group]
    return ranks


def top_overlap(x: np.ndarray, y: np.ndarray, n: int) -> float:
    """Overlap of the n first sites of two scores: sum_i min(u[i], v[i]) / n.

    u[i] is 1 for a site among the n largest of x; sites that tie for the last places share them, so that the result
    does not hang on the order of the sites. For a score that is even it is n / N, as for a random order on average.

    Parameters
    ----------
    x, y : (N,) float

    Returns
    -------
    float in 0 to 1
    """
    return float(np.minimum(_membership(x, n), _membership(y, n)).sum() / n)


def _membership(x, n):
    """(N,) float64: how far each site belongs to the n largest; sums to n."""
    edge = np.sort(x)[-n]
    tie = np.abs(x - edge) <= TIED * np.abs(x).max()
    above = (x > edge) & ~tie
    return above + tie * (n - above.sum()) / tie.sum()
