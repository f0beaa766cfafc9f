"""How a global attention agrees with the one that it was taught, structure by structure."""

import numpy as np

from refattn.common.ranks import FEWEST, TIED, spearman_of_each

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
    known = np.logical_or.reduceat(share != 0, site_ptr[:-1])
    sites = np.repeat(known, np.diff(site_ptr))
    beta, share, heavy = beta[sites].astype(float), share[sites].astype(float), z[sites] != 1
    n = np.diff(site_ptr)[known]
    run = np.repeat(np.arange(len(n)), n)
    entropy = -np.bincount(run, share * np.log(np.maximum(beta, TINY)), len(n))
    columns = [entropy, np.bincount(run, np.abs(beta - share), len(n)) / 2]
    parts = [(beta, share, n), (beta[heavy], share[heavy], np.bincount(run[heavy], minlength=len(n)))]
    columns += [measure(*part) for measure in (_rank_correlation, _top_1) for part in parts]
    tells = [column[~np.isnan(column)] for column in columns]
    means = [float(column.mean()) if len(column) else None for column in tells]
    return {"n": len(n), **dict(zip(MEASURES, means, strict=True))}


def _rank_correlation(beta, share, n):
    """(S,) of runs of n (S,) sites; NaN where p is the same everywhere, 0 where beta is."""
    found = spearman_of_each(beta, share, np.append(0, np.cumsum(n)))
    found[(n >= FEWEST) & ~_even(share, n) & _even(beta, n)] = 0
    return found


def _even(x, n):
    """(S,) bool: whether the largest and the smallest of each run of n (S,) sites are the same, up to rounding."""
    even = np.ones(len(n), dtype=bool)
    start = (np.cumsum(n) - n)[n > 0]
    if len(start):
        largest = np.maximum.reduceat(x, start)
        even[n > 0] = largest - np.minimum.reduceat(x, start) <= TIED * largest
    return even


def _top_1(beta, share, n):
    """(S,) float: top_overlap of the one site that is first, of runs of n (S,) sites; NaN of none."""
    start = (np.cumsum(n) - n)[n > 0]
    found = np.full(len(n), np.nan)
    if len(start):
        found[n > 0] = np.add.reduceat(np.minimum(*(_first(x, start, n[n > 0]) for x in (beta, share))), start)
    return found


def _first(x, start, n):
    """(N,) float: 1 where a run's largest is, shared by those that tie."""
    largest = np.repeat(np.maximum.reduceat(x, start), n)
    tie = (largest - x <= TIED * largest).astype(float)
    return tie / np.repeat(np.add.reduceat(tie, start), n)


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
