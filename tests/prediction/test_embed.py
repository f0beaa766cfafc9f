"""refattn.embed and the principal components: against refattn.explain, the reference backend, SVD, and invariances."""

import dataclasses

import ase
import numpy as np
import pytest
import tolerances
from ase.build import molecule
from explanation_cases import STRUCTURES, network
from made_structures import ethanol, moved, rattled_salt
from small_data import molecules

import refattn
from refattn.errors import DataError, StructureError
from refattn.prediction.embedding import embed_stream
from refattn.prediction.predictor import Model
from refattn.report import embedding_file
from refattn.report.embedding_file import row_blocks
from refattn.report.projection import principal_components


@pytest.fixture(scope="module")
def many():
    """Enough edges for several shards of about 700."""
    return molecules(60)


@pytest.mark.parametrize("options", [{}, {"variant": "scann", "readout": "published"}], ids=["plus", "base"])
def test_vectors_are_those_of_explain(options):
    model, structures = network(options), [make() for make in STRUCTURES.values()]
    found = refattn.embed(model, structures, n_threads=1)
    wanted = refattn.explain(model, structures, scores=[], n_threads=1)
    assert found.structure_vector.shape == (len(structures), model.config.model.global_width)
    assert (found.id, found.target, found.unit) == ([e.id for e in wanted], "gap", "eV")
    for n, e in enumerate(wanted):
        np.testing.assert_array_equal(found.z[n], e.z)
        for one, other in (
            (found.structure_vector[n], e.structure_vector),
            (found.site_embedding[n], e.site_embedding),
            (found.beta[n], e.beta),
            (found.value[n], e.value),
        ):
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerances.COMPANY)


def test_the_structure_vector_is_the_sum_of_keys(model):
    """struct = sum beta k, k = site w_gk + b_gk, and the sites are those that the head's attention sees."""
    found, params = refattn.embed(model, molecule("CH3OH"), n_threads=1), model.checkpoint.params
    key = found.site_embedding[0] @ params["global_key_w"] + params["global_key_b"]
    np.testing.assert_allclose(found.structure_vector[0], found.beta[0] @ key, rtol=0, atol=tolerances.NETWORK)


def test_values_and_attention_are_those_of_predict(model, many):
    found, wanted = refattn.embed(model, many, n_threads=1), model.predict(many, n_threads=1)
    assert np.array_equal(found.value, wanted.value)
    assert all(map(np.array_equal, found.beta, wanted.attention))


def test_reference_backend_gives_the_same(model):
    structures = molecules(12)
    found = refattn.embed(model, structures, n_threads=1)
    wanted = refattn.embed(Model(model.checkpoint, "reference"), structures, n_threads=1)
    np.testing.assert_allclose(found.structure_vector, wanted.structure_vector, rtol=0, atol=tolerances.NETWORK)
    for one, other in zip(found.site_embedding, wanted.site_embedding, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerances.NETWORK)


@pytest.mark.parametrize("make", [ethanol, rattled_salt])
def test_motion_and_order_do_not_matter(model, make):
    atoms = make()
    order = np.random.default_rng(0).permutation(len(atoms))
    found = refattn.embed(model, [atoms, moved(atoms, order)], n_threads=1)
    close = {"rtol": 0, "atol": tolerances.SYMMETRY}
    np.testing.assert_allclose(found.structure_vector[1], found.structure_vector[0], **close)
    np.testing.assert_allclose(found.site_embedding[1], found.site_embedding[0][order], **close)
    assert np.ptp(found.structure_vector[0]) > 1e3 * tolerances.SYMMETRY


def test_threads_do_not_change_a_bit(many):
    model = network(dtype="float32")
    one, two = (refattn.embed(model, many, n_threads=n) for n in (1, 2))
    assert one.structure_vector.dtype == one.site_embedding[0].dtype == np.float32
    for name, values in dataclasses.asdict(one).items():
        others = getattr(two, name)
        assert all(map(np.array_equal, values, others)) if isinstance(values, list) else np.array_equal(values, others)


@pytest.mark.parametrize("block", [1, 7, 60])
def test_the_size_of_a_block_does_not_matter(model, many, block):
    wanted = refattn.embed(model, many, n_threads=1)
    blocks = list(embed_stream(model, iter(many), block=block, n_threads=1))
    assert [atoms for kept, _ in blocks for atoms in kept] == many
    assert [id for _, found in blocks for id in found.id] == wanted.id
    vectors = np.concatenate([found.structure_vector for _, found in blocks])
    np.testing.assert_allclose(vectors, wanted.structure_vector, rtol=0, atol=tolerances.COMPANY)


def test_memory_is_bounded_by_the_block(model):
    """As many structures are read ahead as a block holds."""
    read = []
    structures = (read.append(n) or molecule("H2O") for n in range(20))
    for n, _ in enumerate(embed_stream(model, structures, block=4, n_threads=1), 1):
        assert len(read) == 4 * n


def test_no_structures(model):
    found = refattn.embed(model, [])
    assert found.structure_vector.shape == (0, model.config.model.global_width)
    assert found.value.shape == (0,) and found.site_embedding == found.id == []
    assert list(embed_stream(model, [])) == []


def test_bad_structures_are_refused_or_left_out(model):
    bad = molecule("H2O")
    bad.positions[1] = np.nan
    with pytest.raises(StructureError, match="1: the position"):
        refattn.embed(model, [molecule("H2O"), bad])
    skipped, structures = [], [bad, molecule("H2O"), ase.Atoms("U")]
    blocks = list(embed_stream(model, structures, skip=lambda id, error: skipped.append(id)))
    assert (skipped, [found.id for _, found in blocks]) == (["0", "2"], [["1"]])


def test_vectors_that_are_not_finite_are_refused():
    """The embedding of nitrogen is no number; structures without nitrogen keep their vectors."""
    model, structures, skipped = network(), [molecule("NH3"), molecule("H2O")], []
    wanted = refattn.embed(model, structures[1])
    model.checkpoint.params["embed"][7] = np.nan
    with pytest.raises(DataError, match="vectors of structure 0 are not finite"):
        refattn.embed(model, structures)
    [(kept, found)] = embed_stream(model, structures, skip=lambda id, error: skipped.append(id))
    assert (skipped, kept, found.id) == (["0"], structures[1:], ["1"])
    np.testing.assert_allclose(found.structure_vector, wanted.structure_vector, rtol=0, atol=tolerances.COMPANY)


# ---- principal components ------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(embedding_file, "BLOCK", 7)


def cloud(n=40, width=6, dtype=np.float64):
    """Far from the origin, so that a covariance of numbers that were not centred would lose its digits."""
    rng = np.random.default_rng(3)
    return (1e3 + rng.normal(size=(n, width)) @ np.diag(np.arange(width, 0, -1.0))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_principal_components_are_those_of_the_svd(small_blocks, dtype):
    x = cloud(dtype=dtype)
    found, exact = principal_components(x), x.astype(float)
    _, singular, axes = np.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.axes, axes, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.variance_fraction, (singular**2 / (singular**2).sum())[:2], rtol=1e-11)
    np.testing.assert_allclose(found(x), (exact - exact.mean(axis=0)) @ axes.T, rtol=0, atol=1e-10)
    assert np.var(found(x), axis=0) == pytest.approx(found.variance_fraction * np.var(exact, axis=0).sum())


def test_the_sign_of_an_axis_is_a_convention():
    """Mirrored vectors have the same axes and a mirrored map."""
    x = cloud()
    one, other = principal_components(x), principal_components(-x)
    np.testing.assert_allclose(other.axes, one.axes, rtol=0, atol=1e-12)
    np.testing.assert_allclose(other(-x), -one(x), rtol=0, atol=1e-9)
    assert (one.axes[np.arange(2), np.abs(one.axes).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("x", [np.ones((1, 4)), np.ones((3, 4)), np.arange(3.0)[:, None]], ids=["one", "same", "width"])
def test_principal_components_where_there_are_fewer_than_two(x):
    found = principal_components(x)
    assert found.variance_fraction.tolist() == ([1, 0] if x.shape[1] == 1 else [0, 0])
    np.testing.assert_allclose(found(x), [[n - 1, 0] for n in range(3)] if x.shape[1] == 1 else np.zeros((len(x), 2)))


def test_rows_in_blocks(small_blocks):
    x, rows = cloud(), np.array([0, 6, 7, 30, 39])
    assert [len(block) for block in row_blocks(x)] == [7, 7, 7, 7, 7, 5]
    assert np.array_equal(np.concatenate(list(row_blocks(x, rows))), x[rows])
    assert np.array_equal(np.concatenate(list(row_blocks(x))), x)
