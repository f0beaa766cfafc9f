"""How a score of the sites agrees with an orbital's populations, and what must be beaten: scores without a network."""

import numpy as np

from refattn.common.ranks import TIED, spearman, top_overlap
from refattn.explanation.symmetry import symmetrised

TOP = 3  # sites; a frontier orbital of a small molecule lives on a few
MEASURES = {
    "spearman": "Spearman's rank correlation",
    "top_overlap": f"overlap of the {TOP} first sites",
    "divergence": "Jensen-Shannon divergence (bits)",
}
BASELINES = {
    "element": "element only",
    "neighbours": "number of neighbours only",
    "element_and_neighbours": "element and number of neighbours",
    "even": "the same for every site",
}


def agreement(score: np.ndarray, population: np.ndarray) -> np.ndarray:
    """The three MEASURES of one structure.

    A score that is the same everywhere ranks nothing: its rank correlation counts as 0.

    Parameters
    ----------
    score : (N,) float         of a signed one the magnitude
    population : (N,) float

    Returns
    -------
    (3,) float64 in the order of MEASURES; NaN where the structure cannot tell: fewer than TOP + 1 sites, or a
    population that is the same everywhere
    """
    score = np.abs(score)
    population = np.asarray(population, dtype=float)
    if len(score) <= TOP or not np.isfinite(score).all() or np.ptp(population) <= TIED * np.abs(population).max():
        return np.full(len(MEASURES), np.nan)
    rho = spearman(score, population)
    return np.array([
        0.0 if np.isnan(rho) else rho,
        top_overlap(score, population, TOP),
        divergence(score, population),
    ])  # fmt: skip


def both_alike(
    x: np.ndarray, y: np.ndarray, classes: np.ndarray, sites: np.ndarray | slice = slice(None)
) -> tuple[float, float]:
    """Spearman correlation, and overlap of the TOP first sites, of the magnitudes of two scores of one structure.

    Parameters
    ----------
    x, y : (N,) float
    classes : (N,) int        of equivalent sites, over which both are averaged
    sites : (N,) bool, optional     those that are compared

    Returns
    -------
    float, float; NaN where undefined
    """
    x, y = (np.abs(symmetrised(values, classes)[sites]) for values in (x, y))
    return (np.nan, np.nan) if len(x) <= TOP else (spearman(x, y), top_overlap(x, y, TOP))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two scores, each divided by its sum.

    JS = (KL(p | m) + KL(q | m)) / 2,  m = (p + q) / 2,  KL(p | m) = sum_i p[i] log2(p[i] / m[i])

    Parameters
    ----------
    p, q : (N,) float; negative entries, which populations have by rounding, count as zero

    Returns
    -------
    float in 0 (the same) to 1 bit (apart); NaN for a score of zeros

    Source   Lin, IEEE Trans. Inf. Theory 37, 145 (1991), Eq. (3.1)
    """
    p, q = np.clip(p, 0, None), np.clip(q, 0, None)
    if not (p.sum() > 0 and q.sum() > 0):
        return float("nan")
    p, q = p / p.sum(), q / q.sum()
    m = (p + q) / 2
    parts = (np.sum(x[x > 0] * np.log2(x[x > 0] / m[x > 0])) for x in (p, q))
    return float(sum(parts) / 2)


def baseline_scores(keys: list[np.ndarray], populations: list[np.ndarray]) -> list[np.ndarray]:
    """What is known of a site from its key alone: the mean population, times N, of that key in the OTHER structures.

    score[s,i] = (sum of populations[t,j] N[t] over t != s, key[t,j] = key[s,i]) / (their number)

    Leaving the structure itself out keeps its own populations out of its score. Where no other structure has the key,
    the score is 1, the mean over all sites.

    Parameters
    ----------
    keys : list of (N_s,) int
    populations : list of (N_s,) float

    Returns
    -------
    list of (N_s,) float64
    """
    _, key = np.unique(np.concatenate(keys), return_inverse=True)
    sizes = np.array([len(values) for values in keys])
    scaled = np.concatenate(populations) * np.repeat(sizes, sizes)
    total = np.bincount(key, weights=scaled)
    count = np.bincount(key)
    scores = []
    for own, values in zip(np.split(key, np.cumsum(sizes)[:-1]), np.split(scaled, np.cumsum(sizes)[:-1]), strict=True):
        own_total, own_count = (np.bincount(own, weights=w, minlength=len(total)) for w in (values, None))
        others = (count - own_count)[own]
        rest = (total - own_total)[own]
        scores.append(np.divide(rest, others, out=np.ones(len(own)), where=others > 0))
    return scores


def mean_and_error(values: np.ndarray) -> dict:
    """Mean over the structures that can tell, half the width of its 95 % interval (normal), and their number.

    Parameters
    ----------
    values : (S,) float, NaN where a structure cannot tell

    Returns
    -------
    dict with mean, error, n; mean is None without structures, error with fewer than two
    """
    known = values[~np.isnan(values)]
    n = len(known)
    error = 1.96 * known.std(ddof=1) / np.sqrt(n) if n > 1 else None
    return {"mean": float(known.mean()) if n else None, "error": None if error is None else float(error), "n": n}


def agreement_of_runs(both: list) -> dict:
    """Means over pairs of runs, then over structures, of (pairs, S, 2) rank correlations and overlaps."""
    mean = np.array(both).mean(axis=0)
    return {"spearman": mean_and_error(mean[:, 0]), "top_overlap": mean_and_error(mean[:, 1])}
