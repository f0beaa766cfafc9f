"""How a global attention agrees with the one that it was taught, structure by structure."""

import itertools

import numpy as np

from refattn.common.ranks import FEWEST, TIED, spearman, top_overlap

MEASURES = {
    "cross_entropy": "cross entropy",
    "total_variation": "total variation",
    "spearman": "rank correlation",
    "spearman_without_hydrogen": "without H",
    "top_1": "top-1",
    "top_1_without_hydrogen": "without H",
}
TINY = np.finfo(np.float32).tiny  # attention that rounds to 0 in float32


def attention_metrics(beta: np.ndarray, share: np.ndarray, site_ptr: np.ndarray, z: np.ndarray) -> dict:
    """Means over the structures whose attention is known.

    cross_entropy = -sum_i p_i log beta_i (nats),  total_variation = sum_i |beta_i - p_i| / 2
    spearman: rank correlation; 0 where beta is the same everywhere, left out where p is, or of fewer than three sites
    top_1: whether beta is largest where p is; sites that tie share that

    Parameters
    ----------
    beta, share : (N,) float     share is p; 0 at all sites of a structure where it is not known
    site_ptr : (S + 1,) int; z : (N,) int

    Returns
    -------
    dict of n, the number of these structures, and MEASURES; None where no structure can tell
    """
    rows = [
        _of_structure(beta[start:end].astype(float), share[start:end].astype(float), z[start:end] != 1)
        for start, end in itertools.pairwise(site_ptr)
        if share[start:end].any()
    ]
    values = np.array(rows).reshape(-1, len(MEASURES))
    known = ~np.isnan(values)
    means = [float(column[is_known].mean()) if is_known.any() else None for column, is_known in zip(values.T, known.T)]
    return {"n": len(rows), **dict(zip(MEASURES, means, strict=True))}


def _of_structure(beta, share, heavy):
    """The MEASURES of one structure, NaN where it cannot tell; heavy (N,) bool."""
    entropy = -(share * np.log(np.maximum(beta, TINY))).sum()
    everywhere = np.ones(len(heavy), dtype=bool)
    ranks = [_rank_correlation(beta[sites], share[sites]) for sites in (everywhere, heavy)]
    tops = [top_overlap(beta[sites], share[sites], 1) if sites.any() else np.nan for sites in (everywhere, heavy)]
    return [entropy, np.abs(beta - share).sum() / 2, *ranks, *tops]


def _rank_correlation(beta, share):
    if len(share) < FEWEST or np.ptp(share) <= TIED * share.max():
        return np.nan
    return 0.0 if np.ptp(beta) <= TIED * beta.max() else spearman(beta, share)


def element_weights(share: np.ndarray, site_ptr: np.ndarray, z: np.ndarray, n_elements: int) -> np.ndarray:
    """(n_elements,) mean of p times the number of sites, over the sites of each element; 1 where none is known."""
    n_sites = np.diff(site_ptr)
    known = np.repeat(np.add.reduceat(share, site_ptr[:-1]) > 0, n_sites)
    scaled = (share * np.repeat(n_sites, n_sites))[known]
    total, count = (np.bincount(z[known], w, minlength=n_elements) for w in (scaled, None))
    return np.divide(total, count, out=np.ones(n_elements), where=count > 0)


def attention_of(weight: np.ndarray, site_ptr: np.ndarray) -> np.ndarray:
    """(N,) weights divided by their sum over each structure."""
    return weight / np.repeat(np.add.reduceat(weight, site_ptr[:-1]), np.diff(site_ptr))
