"""Symmetry: equivalent sites and their scores, order, supercells; and the public function refattn.explain."""

import ase
import numpy as np
import pytest
from ase.build import bulk, molecule
from explanation_cases import EQUIVALENT, NETWORKS, SAME, STRUCTURES, apart, benzene, network
from made_structures import c60, rattled_salt, rutile

import refattn
from refattn.errors import ConfigError, DataError, StructureError
from refattn.explanation.explain import COSTLY, SITE_SCORES, explain_stream
from refattn.explanation.symmetry import class_spread, equivalent_sites

# ---- symmetry ----------------------------------------------------------------------------------------------------

CLASSES = {
    "benzene": (benzene, [0] * 6 + [1] * 6),
    "C60": (c60, [0] * 60),
    "ethene": (lambda: molecule("C2H4"), [0, 0, 1, 1, 1, 1]),
    "methanol": (lambda: molecule("CH3OH"), [0, 1, 2, 3, 4, 4]),
    "diamond": (lambda: bulk("C"), [0, 0]),
    "diamond, 64 sites": (lambda: bulk("C", cubic=True).repeat(2), [0] * 64),
    "rutile": (rutile, [0, 0, 1, 1, 1, 1]),
    "atom": (lambda: ase.Atoms("C"), [0]),
    "nothing": (lambda: ase.Atoms(), []),
    "apart": (apart, [0, 1, 2, 3]),
    "slab, its third vector unknown": (
        lambda: ase.Atoms("H4", [[0, 0, z] for z in range(4)], cell=[2, 2, np.inf], pbc=[1, 1, 0]),
        [0, 1, 1, 0],
    ),
    "slab": (lambda: ase.Atoms("H4", [[0, 0, z] for z in range(4)], cell=[2, 2, 9], pbc=[1, 1, 0]), [0, 1, 1, 0]),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_known_structures(name):
    make, wanted = CLASSES[name]
    assert equivalent_sites(make()).tolist() == wanted


def test_classes_do_not_depend_on_rounding_and_order():
    """Distances stand at the edge of every bin that one could cut; the rounding moves them to both sides."""
    atoms, rng = c60(), np.random.default_rng(0)
    atoms.positions += rng.normal(0, 1e-5, (60, 3))
    assert set(equivalent_sites(atoms)) == {0}
    methanol, order = molecule("CH3OH"), rng.permutation(6)
    classes, permuted = equivalent_sites(methanol), equivalent_sites(methanol[order])
    same = classes[order][:, None] == classes[order]
    assert np.array_equal(permuted[:, None] == permuted, same)


def test_classes_see_far_through_near_neighbours():
    """A chain looked at 1.1 Å far: the rounds carry the ends to the middle. A displaced site breaks the symmetry."""
    chain = ase.Atoms("C9", [[x, 0, 0] for x in range(9)])
    assert equivalent_sites(chain, radius=1.1).tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    chain.positions[8, 0] += 0.01
    assert equivalent_sites(chain, radius=1.1).tolist() == list(range(9))


def test_a_distance_at_the_radius_may_be_there_or_not():
    """Some bonds of this diamond are within the radius, some are not, by the rounding of the coordinates."""
    atoms = bulk("C", a=3.57, cubic=True).repeat(2)
    atoms.positions += np.random.default_rng(0).normal(0, 1e-6, atoms.positions.shape)
    assert equivalent_sites(atoms, radius=3.57 * np.sqrt(3) / 4).tolist() == [0] * 64


def test_spread_within_classes():
    classes = np.array([0, 0, 1])
    assert class_spread(np.array([1.0, 1.5, -4.0]), classes) == pytest.approx(0.125)
    assert class_spread(np.array([[1.0, 0], [1.0, 1], [0, 2]]), classes) == pytest.approx(0.5)
    assert class_spread(np.zeros(3), classes) == 0


@pytest.mark.parametrize("options", [NETWORKS[1], NETWORKS[2]], ids=str)
@pytest.mark.parametrize("name", ["benzene", "C60", "ethene", "diamond"])
def test_equivalent_atoms_get_equal_scores(name, options):
    atoms = CLASSES[name][0]()
    classes, found = (
        equivalent_sites(atoms),
        refattn.explain(network(options | {"head": "additive"}), atoms, scores=COSTLY),
    )
    scores = found.site_scores()
    assert list(scores) == [score.name for score in SITE_SCORES]
    for score, values in (scores | {"site_embedding": found.site_embedding}).items():
        assert class_spread(values, classes) <= EQUIVALENT, score


def test_a_displaced_atom_is_seen():
    """The classes of benzene do not fit the scores of one with a bond that is 0.02 Å longer."""
    atoms, classes = benzene(), equivalent_sites(benzene())
    atoms.positions[6, 0] += 0.02
    assert equivalent_sites(atoms).tolist() == [0, 1, 2, 3, 2, 1, 4, 5, 6, 7, 6, 5]
    for name, values in refattn.explain(network(), atoms, scores=COSTLY).site_scores().items():
        assert class_spread(values, classes) > 100 * EQUIVALENT, name


@pytest.mark.parametrize("make", [STRUCTURES["methanol"], rattled_salt])
def test_order_of_the_atoms_permutes_the_scores(make):
    model, atoms = network(), make()
    order = np.random.default_rng(0).permutation(len(atoms))
    still, moved = (refattn.explain(model, a, scores=COSTLY) for a in (atoms, atoms[order]))
    for name, values in still.site_scores().items():
        np.testing.assert_allclose(moved.site_scores()[name], values[order], rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(moved.flow.dense(), still.flow.dense()[np.ix_(order, order)], rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved.site_embedding, still.site_embedding[order], rtol=0, atol=1e-9)


def test_scores_of_a_supercell():
    """Intensive readout: beta N is that of the cell, gradients are shared out among the images of a site."""
    model, atoms = network({"readout": "intensive"}), rattled_salt()
    one, two = (refattn.explain(model, a, scores=["integrated_gradients"]) for a in (atoms, atoms.repeat((2, 1, 1))))
    assert two.value == pytest.approx(one.value, abs=1e-9)
    for name in ("scaled_beta", "impact", "gradient_times_input", "integrated_gradients"):
        factor = 1 if name == "scaled_beta" else 0.5
        wanted = np.tile(factor * one.site_scores()[name], 2)
        np.testing.assert_allclose(two.site_scores()[name], wanted, rtol=0, atol=1e-9, err_msg=name)


# ---- the public function -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", NETWORKS, ids=str)
def test_float32_is_near_float64(options):
    """A model in float32 is explained in float64 by default; in float32 the scores are those but for rounding."""
    atoms, model = molecule("CH3OH"), network(options, 1, "float32")
    one, other = (refattn.explain(model, atoms, scores=COSTLY, dtype=dtype) for dtype in ("float32", "float64"))
    assert one.settled
    assert (one.alpha.dtype, other.alpha.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(one.flow.dense().sum(axis=1), 1, rtol=0, atol=1e-14)
    for name, values in other.site_scores().items():
        np.testing.assert_allclose(one.site_scores()[name], values, rtol=0, atol=2e-5, err_msg=name)
    assert abs(one.completeness_error) <= 1e-3
    assert model.predict(atoms).value[0] == pytest.approx(one.value, abs=1e-6) == pytest.approx(other.value, abs=1e-6)


def test_one_structure_a_list_and_threads():
    """No thread and no company changes a bit."""
    model = network()
    structures = [molecule(name) for name in ("CH3OH", "H2O", "C6H6")]
    structures[1].info["id"] = "water"
    together = refattn.explain(model, structures, scores=COSTLY, n_threads=2)
    assert [found.id for found in together] == ["0", "water", "2"]
    np.testing.assert_allclose([found.value for found in together], model.predict(structures).value, rtol=SAME)
    for atoms, found, beta in zip(structures, together, model.predict(structures).attention, strict=True):
        np.testing.assert_allclose(found.beta, beta, rtol=SAME)
        assert (found.target, found.unit) == ("gap", "eV")
        for n_threads in (1, 2):
            alone = refattn.explain(model, atoms, scores=COSTLY, n_threads=n_threads)
            assert all(map(np.array_equal, alone.site_scores().values(), found.site_scores().values()))
    assert refattn.explain(model, []) == []


def test_networks_with_ring_and_element_features():
    model, atoms = network({"ring": True, "features": "cgcnn"}), molecule("CH3OH")
    with pytest.raises(DataError, match="asks for ring features"):
        refattn.explain(model, atoms)
    atoms.set_array("ring", np.eye(2)[[0, 1, 0, 1, 0, 1]])
    found = refattn.explain(model, atoms, scores=COSTLY)
    assert abs(found.completeness_error) <= 1e-3
    rest = [atoms[np.arange(6) != i] for i in range(6)]
    np.testing.assert_allclose(found.removal, found.value - model.predict(rest).value, rtol=0, atol=SAME)


def test_what_explain_refuses():
    model, broken = network(), molecule("H2O")
    broken.positions[1] = np.nan
    with pytest.raises(StructureError, match="1: the position of atom 1"):
        refattn.explain(model, [molecule("H2O"), broken])
    skipped = []
    stream = explain_stream(model, [molecule("H2O"), broken, ase.Atoms("Au")], skip=lambda *args: skipped.append(args))
    assert [found.id for _, found in stream] == ["0"]
    assert [(id, type(error)) for id, error in skipped] == [("1", StructureError), ("2", DataError)]
    with pytest.raises(ConfigError, match="no score 'beta'"):
        refattn.explain(model, broken, scores=["beta"])
    for share in (2, "half"):
        with pytest.raises(ConfigError, match="share of the residual path"):
            refattn.explain(model, broken, share=share)
