"""Cages that tools/make_cages.py makes: rings, rotations of bonds, shapes."""

import make_cages
import numpy as np
import pytest
from ase.build import molecule


@pytest.fixture(scope="module")
def c60():
    atoms = molecule("C60")
    return make_cages.neighbours_of(atoms), atoms.positions


def sizes_of(nbr):
    """The size of the ring beside every directed bond; a ring of n atoms comes n times."""
    return np.array([len(make_cages.ring(nbr, a, b)) for a in range(len(nbr)) for b in nbr[a]])


def adjacency(nbr):
    found = np.zeros((len(nbr), len(nbr)), int)
    found[np.repeat(np.arange(len(nbr)), 3), nbr.ravel()] = 1
    return found


def test_rings_of_c60(c60):
    assert np.unique(sizes_of(c60[0]), return_counts=True)[1].tolist() == [12 * 5, 20 * 6]


def test_a_bond_turned_twice_has_its_ends_exchanged(c60):
    nbr = c60[0]
    a, b = next((a, b) for a in range(60) for b in nbr[a] if make_cages.rotated(nbr, a, b) is not None)
    once = make_cages.rotated(nbr, a, b)
    twice = make_cages.rotated(once, a, b)
    exchanged = np.arange(60)
    exchanged[[a, b]] = b, a
    assert (adjacency(once) != adjacency(nbr)).sum() == 8  # two bonds go, two come, each in both directions
    np.testing.assert_array_equal(adjacency(twice)[exchanged][:, exchanged], adjacency(nbr))


def test_rotations_keep_a_closed_cage(c60):
    """Three mutual neighbours, rings of 5 to 7, and Euler's 12: the sum of 6 - n over the rings of n atoms."""
    nbr = c60[0]
    random = np.random.default_rng(0)
    n_turned = 0
    while n_turned < 40:
        a = random.integers(60)
        new = make_cages.rotated(nbr, a, random.choice(nbr[a]))
        if new is not None:
            nbr = new
            n_turned += 1
        table = adjacency(nbr)
        assert (table == table.T).all() and (table.sum(axis=0) == 3).all()
        sizes = sizes_of(nbr)
        assert sizes.min() >= 5 and sizes.max() <= 7
        assert ((6 - sizes) / sizes).sum() == pytest.approx(12)


def test_springs_make_c60(c60):
    """Bonds between hexagons are the short ones: 1.401 and 1.458 Å by gas-phase electron diffraction (Hedberg et al.,
    Science 254, 410, 1991), within what the springs promise."""
    nbr, positions = c60
    made = make_cages.shaped(nbr, positions + np.random.default_rng(0).normal(0, 0.05, positions.shape))
    bonds = np.linalg.norm(made[:, None] - made[nbr], axis=2).ravel()
    is_in_pentagon = np.array(
        [min(len(make_cages.ring(nbr, a, b)), len(make_cages.ring(nbr, b, a))) == 5 for a in range(60) for b in nbr[a]]
    )
    assert bonds[is_in_pentagon].mean() == pytest.approx(1.458, abs=0.02)
    assert bonds[~is_in_pentagon].mean() == pytest.approx(1.401, abs=0.03)
    assert make_cages.is_cage(nbr, made)
