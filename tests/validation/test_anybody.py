"""refattn.validate: scores of anybody before any model, against sums by hand, SciPy, spglib and refattn's own study."""

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from ase.spacegroup import crystal
from explanation_cases import NAMES, network
from extras import needs_spglib
from scipy.stats import entropy

import refattn
from refattn.errors import DataError
from refattn.explanation.symmetry import equivalent_sites
from refattn.report.sentences import FAILS, HOLDS, UNTESTED, sentences
from refattn.validation.anybody import removed
from refattn.validation.faithfulness import STEPS
from refattn.validation.robustness import complexity, max_sensitivity, rattled_copies, relative_complexity
from refattn.validation.study import Settings, validate

WEIGHTS = np.array([0, 0.1, 0, 0, 0, 0, 3.0, 0, -2.0])  # of H, C and O


def structures():
    return [molecule(name) for name in NAMES]


def weight(atoms):
    return WEIGHTS[atoms.numbers]


def total(atoms):
    return weight(atoms).sum()


def verdict(result, topic):
    (found,) = [s.verdict for s in sentences(result.record) if s.topic == topic and s.verdict]
    return found


def test_a_faithful_score_of_an_additive_model():
    """Its curves are sums of weights by hand; every test that can be passed is passed."""
    result = refattn.validate(weight, total, structures(), randomised=[lambda a: -1.0 / (1 + a.numbers)], nothing=0.0)
    curves = []
    for atoms in structures():
        ordered = weight(atoms)[np.argsort(-np.abs(weight(atoms)))]
        first = [round(step * len(atoms) / STEPS) for step in range(STEPS + 1)]
        curves.append([[abs(ordered[:n].sum()), abs(ordered[n:].sum())] for n in first])
    deletion, insertion = np.mean(curves, axis=0).T
    np.testing.assert_allclose(result.pixel_flipping["curve"], deletion, atol=1e-12)
    np.testing.assert_allclose(result.insertion["curve"], insertion, atol=1e-12)
    topics = ("deletion and insertion", "random parameters", "stability", "equivalent sites")
    assert {topic: verdict(result, topic) for topic in topics} == {**dict.fromkeys(topics, HOLDS), topics[1]: FAILS}
    assert result.max_sensitivity["mean"] == result.symmetry["largest"] == 0
    assert verdict(result, "seeds") == UNTESTED and not result.seeds
    assert refattn.validate(weight, total, structures()).mprt == []
    assert "holds: The score: deleting its first sites" in str(result) and "<img" in result._repr_html_()


def test_a_score_that_is_none():
    result = refattn.validate(lambda a: np.arange(len(a)) + 1.0, total, structures(), nothing=0.0)
    assert verdict(result, "equivalent sites") == FAILS
    reverse = refattn.validate([1 / (0.05 + np.abs(weight(atoms))) for atoms in structures()], total, structures())
    assert verdict(reverse, "deletion and insertion") == FAILS
    assert verdict(reverse, "stability") == UNTESTED  # arrays cannot be computed again


def test_seeds_and_randomised_models():
    rng = np.random.default_rng(0)
    even = [np.ones(len(atoms)) for atoms in structures()]
    noise = [rng.random(len(atoms)) for atoms in structures()]
    result = refattn.validate(weight, total, structures(), seeds=[weight], randomised=[weight, noise, even])
    assert result.seeds["spearman"]["mean"] == pytest.approx(1) and result.seeds["top_overlap"]["mean"] == 1
    assert result.mprt[0] == pytest.approx(1) and abs(result.mprt[1]) < 0.5 and result.mprt[2] is None


def test_an_ase_calculator_and_a_user_s_deletion():
    """Energies of atoms by EMT; a deleted atom is moved far away, which for EMT is the same as none of it."""

    def far(atoms, sites):
        moved = atoms.copy()
        moved.positions[sites] += 50 * (1 + np.arange(len(sites)))[:, None]
        return moved

    def energies(atoms):
        return EMT().get_potential_energies(atoms)

    cluster = ase.Atoms(Octahedron("Cu", 3, 1))
    gone, apart = (refattn.validate(energies, EMT(), [cluster], delete=d) for d in (removed, far))
    lone = EMT().get_potential_energy(ase.Atoms("Cu"))
    n_deleted = np.rint(np.arange(STEPS) * len(cluster) / STEPS)
    found = np.abs(np.array(apart.pixel_flipping["curve"][:-1]) - n_deleted * lone)
    np.testing.assert_allclose(found, gone.pixel_flipping["curve"][:-1], atol=1e-8)


def test_entropy_and_sensitivity():
    values = np.random.default_rng(1).normal(size=7)
    assert complexity(values) == pytest.approx(entropy(np.abs(values)), abs=1e-14)
    assert complexity(np.eye(4)[2]) == 0 and relative_complexity(np.full(5, -2.0)) == pytest.approx(1)
    assert np.isnan(
        [complexity(np.zeros(3)), relative_complexity(np.ones(1)), max_sensitivity(0 * values, [values])]
    ).all()
    assert max_sensitivity(np.array([3.0, 4]), [np.array([3.0, 4.5]), np.array([3.0, 3])]) == pytest.approx(0.2)
    copies = rattled_copies(bulk("Cu", cubic=True).repeat(6), 0.01, 2, np.random.default_rng(2))
    moves = [copy.positions - bulk("Cu", cubic=True).repeat(6).positions for copy in copies]
    assert np.std(moves) == pytest.approx(0.01, rel=0.05)


def test_the_same_numbers_as_refattn_s_own_study():
    model, few = network(), structures()[:3]
    own = validate([model], few, Settings(scores=(), n_costly=1, n_threads=1))

    def beta(atoms):
        return refattn.explain(model, atoms, ()).beta

    found = refattn.validate(beta, lambda atoms: model.predict(atoms).value[0], few, n_rattled=1)
    assert found.complexity == own["complexity"]["beta"]
    assert found.symmetry["largest"] == own["equivalence"]["data"]["beta"]["largest"]
    assert 0 < found.max_sensitivity["mean"] < 0.1 and 0 < own["max_sensitivity"]["beta"]["mean"] < 0.1


@needs_spglib
def test_equivalent_sites_are_those_of_spglib():
    import spglib

    spinel = crystal(
        "MgAlO", [(1 / 8,) * 3, (0.5,) * 3, (0.2624,) * 3], spacegroup=227, setting=2, cellpar=[8.083] * 3 + [90] * 3
    )
    corundum = crystal(
        "AlO", [(0, 0, 0.3522), (0.3064, 0, 0.25)], spacegroup=167, cellpar=[4.759, 4.759, 12.991, 90, 90, 120]
    )
    places = [(0, 0, 0), (0.9915, 0.2774, 0.25), (0.4262, 0.094, 0.25), (0.7657, 0.0913, 0.25), (0.2215, 0.4474, 0.25)]
    forsterite = crystal(
        "Mg2SiO3", [*places, (0.2777, 0.1628, 0.0331)], spacegroup=62, cellpar=[4.756, 10.207, 5.98, 90, 90, 90]
    )
    for atoms in (spinel, corundum, forsterite, bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))):
        oracle = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), 1e-4)
        _, wanted = np.unique(oracle.equivalent_atoms, return_inverse=True)
        found = equivalent_sites(atoms)
        assert len({*zip(found, wanted)}) == len({*found}) == len({*wanted})


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([np.ones(3)], "the score is of 1 structures, and there are 9"),
        (lambda atoms: np.ones(2), r"the score has shape \(2,\) in structure 0; it has 6 sites"),
        (lambda atoms: np.full(len(atoms), np.nan), "the score is no finite number at a site of structure 0"),
    ],
)
def test_refused(scores, said):
    with pytest.raises(DataError, match=said):
        refattn.validate(scores, total, structures())


def test_refused_models_and_no_structures():
    with pytest.raises(DataError, match="predict gave 6 numbers of one structure"):
        refattn.validate(weight, weight, structures())
    with pytest.raises(DataError, match="no structure to validate with"):
        refattn.validate(weight, total, [])
    with pytest.raises(DataError, match="structure 1 has no atoms"):
        refattn.validate(weight, total, [molecule("H2O"), ase.Atoms()])
    with pytest.raises(DataError, match="n_rattled is 0"):
        refattn.validate(weight, total, structures(), n_rattled=0)


def test_a_score_of_zeros_is_not_called_missing():
    result = refattn.validate(lambda atoms: np.zeros(len(atoms)), total, structures())
    assert "zero, or unknown, in all structures" in str(result) and verdict(result, "stability") == UNTESTED
