"""Rank correlations, and measures of attention over many structures, beside SciPy and one structure at a time."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from refattn.common.attention_metrics import MEASURES, attention_metrics, attention_of
from refattn.common.ranks import spearman, spearman_of_each, top_overlap

RNG = np.random.default_rng(0)
LENGTHS = np.array([5, 0, 3, 1, 12, 2, 7, 4])
PTR = np.append(0, np.cumsum(LENGTHS))
RUNS = [slice(start, stop) for start, stop in itertools.pairwise(PTR)]


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize("values", [1000, 3], ids=["distinct", "many ties"])
def test_ranks_of_every_run_are_scipys(values):
    x, y = RNG.integers(values, size=(2, PTR[-1])) / 7
    wanted = [spearmanr(x[run], y[run])[0] if run.stop - run.start > 2 else np.nan for run in RUNS]
    np.testing.assert_allclose(spearman_of_each(x, y, PTR), wanted, atol=1e-12)
    np.testing.assert_allclose([spearman(x[run], y[run]) for run in RUNS], wanted, atol=1e-12)


def test_what_ties_up_to_rounding_shares_a_rank():
    x = np.array([1.0, 1.0 + 1e-12, 2.0, 0.5])
    assert spearman(x, np.array([3.0, 3.0, 7.0, 1.0])) == pytest.approx(1)


def test_a_score_that_is_not_finite_or_is_even_has_no_rank_correlation():
    x, y = RNG.random((2, PTR[-1]))
    x[RUNS[0]], x[RUNS[2].start], x[RUNS[4].start] = 0.3, np.nan, np.inf
    found = spearman_of_each(x, y, PTR)
    assert np.isnan(found[[0, 2, 4]]).all() and np.isfinite(found[[6, 7]]).all()


def test_attention_of_many_structures_is_the_mean_of_each():
    """Those that are not taught count nowhere, nor hydrogen molecules where hydrogen is left out."""
    lengths = RNG.integers(1, 9, 60)
    ptr = np.append(0, np.cumsum(lengths))
    z = RNG.choice([1, 6, 8], ptr[-1])
    beta = attention_of(RNG.integers(1, 4, ptr[-1]).astype(float), ptr)
    share = attention_of(RNG.integers(1, 4, ptr[-1]).astype(float), ptr)
    for row in range(0, 60, 5):
        share[ptr[row] : ptr[row + 1]] = 0
    alone = []
    for row in (row for row in range(60) if row % 5):
        run = slice(*ptr[row : row + 2])
        alone.append(attention_metrics(beta[run], share[run], np.array([0, lengths[row]]), z[run]))
        assert alone[-1]["top_1"] == pytest.approx(top_overlap(beta[run], share[run], 1))
    found = attention_metrics(beta, share, ptr, z)
    assert found["n"] == len(alone) == 48
    for name in MEASURES:
        known = [one[name] for one in alone if one[name] is not None]
        assert known and found[name] == pytest.approx(np.mean(known)), name
