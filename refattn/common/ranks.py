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
    return float(spearman_of_each(x, y, np.array([0, len(x)]))[0])


def spearman_of_each(x: np.ndarray, y: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """(S,) float64: `spearman` of each run x[ptr[s]:ptr[s + 1]], y[ptr[s]:ptr[s + 1]]; ptr (S + 1,) int."""
    n = np.diff(ptr)
    found = np.full(len(n), np.nan)
    long = n >= FEWEST
    if long.any():
        x, y, n = x[np.repeat(long, n)], y[np.repeat(long, n)], n[long]
        start = np.cumsum(n) - n
        x_rank, y_rank = (_ranks(np.asarray(score, dtype=float), start, n) for score in (x, y))
        xy, xx, yy = (np.add.reduceat(a * b, start) for a, b in ((x_rank, y_rank), (x_rank, x_rank), (y_rank, y_rank)))
        norm = np.sqrt(xx * yy)
        tells = (norm > 0) & np.logical_and.reduceat(np.isfinite(x) & np.isfinite(y), start)
        found[long] = np.divide(xy, norm, out=np.full(len(n), np.nan), where=tells)
    return found


def _ranks(x, start, n):
    """(N,) float64: ranks about their mean in each run of n (S,) from `start` (S,) on; neighbours in the order that
    differ by less than TIED share theirs."""
    run = np.repeat(np.arange(len(n)), n)
    order = np.lexsort((x, run))
    apart = np.diff(x[order], prepend=x[order[0]]) > TIED * np.maximum.reduceat(np.abs(x), start)[run]
    apart[start] = True
    group = np.cumsum(apart) - 1
    place = np.arange(len(x)) - (start + (n - 1) / 2)[run]
    mean = np.bincount(group, weights=place) / np.bincount(group)
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
