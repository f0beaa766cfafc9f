"""Scores of the sites: against brute force, finite differences, and sums that must come out."""

import dataclasses

import ase
import numpy as np
import pytest
from ase.build import molecule
from cases import shard_of
from explanation_cases import (
    DIFFERENCE,
    MEAN,
    NETWORKS,
    OPS,
    SAME,
    SMALL,
    STD,
    STRUCTURES,
    apart,
    network,
    own_rows,
    subject,
)
from made_structures import rattled_salt

import refattn
from refattn.config import ModelConfig
from refattn.explanation.attribution import integrated_gradients
from refattn.explanation.explain import COSTLY
from refattn.explanation.flow import attention_flow, residual_share
from refattn.explanation.variants import ScoredInput
from refattn.gradient_check import central_difference, small_network, small_shard
from refattn.network.model import backward, forward, input_embedding
from refattn.structures.batch import GraphBatch

# ---- the hook in the model ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"variant": "scann"}, {"ring": True}, {"features": "cgcnn", "ring": True}])
def test_gradient_by_the_input_embedding(options):
    config = ModelConfig(**(SMALL | options))
    shard, params, weights = small_shard(config), small_network(config), np.array([[1.0], [-2.0], [0.5], [3.0]])
    c, found = input_embedding(params, shard, config, OPS), {}
    tape = forward(params, shard, config, OPS, embedding=c)
    assert np.array_equal(tape.prediction, forward(params, shard, config, OPS).prediction)
    backward(weights, tape, params, params.zeros_like(), config, OPS, grad_inputs=found)

    def weighted():
        return (weights * forward(params, shard, config, OPS, embedding=c).prediction).sum()

    steps = [central_difference(weighted, c, step) for step in (1e-5, 2e-5)]
    wanted = (4 * steps[0] - steps[1]) / 3  # Richardson: of fourth order
    np.testing.assert_allclose(found["embedding"], wanted, rtol=0, atol=DIFFERENCE * np.abs(wanted).max())


def test_copies_of_a_structure_are_that_structure():
    config = ModelConfig(**(SMALL | {"ring": True, "features": "cgcnn"}))
    atoms = rattled_salt()
    shard = dataclasses.replace(shard_of(atoms, config), ring=np.eye(2)[np.arange(len(atoms)) % 2])
    params = small_network(config)
    three, one = (forward(params, s, config, OPS) for s in (shard.repeat(3), shard))
    np.testing.assert_allclose(three.prediction, np.repeat(one.prediction, 3, axis=0), rtol=SAME)
    np.testing.assert_allclose(three.beta[0], np.tile(one.beta[0], 3), rtol=SAME)


# ---- attention and its flow --------------------------------------------------------------------------------------


def brute_force_flow(found, share):
    """The product of dense matrices, entry by entry."""
    n, product = len(found.z), np.eye(len(found.z))
    for alpha, own in zip(found.alpha, np.broadcast_to(np.float64(share), (len(found.alpha), n))):
        matrix = np.diag([own[i] if i in found.edges.site else 1.0 for i in range(n)])
        for e, (i, j) in enumerate(zip(found.edges.site, found.edges.nbr)):
            matrix[i, j] += (1 - own[i]) * sum(alpha[e]) / len(alpha[e])
        product = matrix @ product
    return product


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("options", NETWORKS[::2], ids=str)
def test_flow_and_impact_are_the_dense_products(options, make):
    model, atoms = network({**options, "n_layers": 3}), make()
    found = refattn.explain(model, atoms, scores=())
    wanted = brute_force_flow(found, 0.5)
    flow = found.flow.dense()
    np.testing.assert_allclose(flow, wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(flow.sum(axis=1), 1, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.impact, found.beta @ wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.flow.columns(np.arange(len(atoms))), wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.concatenate([rows for _, rows in found.flow.blocks(3)]), wanted, rtol=0, atol=1e-14)
    assert found.impact.sum() == pytest.approx(1, abs=1e-14)


def test_flow_with_shares_by_norm():
    """|q| / (|q| + |sum alpha k|), from the tape in loops; the share of a site without edges is 1."""
    model, atoms = network(), apart()
    one = subject(model, atoms)
    tape = forward(one.params, one.graph, one.config, OPS)
    share = residual_share(tape, OPS)
    for layer in range(2):
        saved, weights = tape.layers[layer], one.params.layer(layer)
        x = saved.site[one.graph.nbr] * saved.attention.new_geo
        k = (x @ weights["key_w"] + weights["key_b"]).reshape(-1, *saved.q.shape[1:])
        for i in range(len(atoms)):
            edges = range(one.graph.edge_ptr[i], one.graph.edge_ptr[i + 1])
            heads = [sum(tape.alpha[layer][e, h] * k[e, h] for e in edges) * np.ones(4) for h in range(4)]
            own = np.linalg.norm(saved.q[i])
            assert share[layer, i] == pytest.approx(own / (own + np.linalg.norm(np.concatenate(heads))), abs=1e-14)
    assert (share[:, :2] == 1).all()
    assert ((share[:, 2:] > 0) & (share[:, 2:] < 1)).all()
    found = refattn.explain(model, atoms, scores=(), share="norm")
    np.testing.assert_allclose(found.flow.dense(), brute_force_flow(found, share), rtol=0, atol=1e-14)
    assert np.array_equal(found.flow.dense()[:2], np.eye(4)[:2])


@pytest.mark.parametrize("share", [0, 1, 0.25])
def test_shares_of_the_residual_path(share):
    found = refattn.explain(network(), rattled_salt(), scores=(), share=share)
    flow = found.flow.dense()
    np.testing.assert_allclose(flow, np.eye(8) if share == 1 else brute_force_flow(found, share), rtol=0, atol=1e-14)


def test_flow_of_a_large_structure():
    """3,000 sites of a ring of neighbours: known in closed form, and never dense."""
    n, n_layers = 3000, 5
    i = np.arange(n)
    nbr = np.stack([i - 1, i + 1], axis=1).reshape(-1) % n
    flow = attention_flow(np.full((n_layers, 2 * n, 2), 0.5, dtype=np.float32), 2 * np.arange(n + 1), nbr)
    binomial = np.poly1d([1.0])
    for _ in range(n_layers):
        binomial = binomial * np.poly1d([0.25, 0.5, 0.25])
    expected = np.roll(np.append(binomial.coeffs, np.zeros(n - 2 * n_layers - 1)), 7 - n_layers)
    np.testing.assert_allclose(flow.rows(np.array([7]))[0], expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(flow.columns(np.array([7]))[:, 0], expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(flow.impact(np.full(n, 1 / n)), 1 / n, rtol=1e-12)


def test_edges_and_attention_are_those_of_the_graph_and_the_network():
    model, atoms = network(), rattled_salt()
    found = refattn.explain(model, atoms, scores=())
    tape = forward(model.checkpoint.params, shard_of(atoms, model.config.model), model.config.model, OPS)
    edges = found.edges
    vector = atoms.positions[edges.nbr] + edges.image @ atoms.cell.array - atoms.positions[edges.site]
    np.testing.assert_allclose(np.linalg.norm(vector, axis=1), edges.r, rtol=1e-12)
    assert edges.omega.min() >= model.config.graph.omega_min
    np.testing.assert_allclose(found.alpha, tape.alpha, rtol=SAME)
    assert found.alpha.shape == (2, len(edges.site), 4)
    np.testing.assert_allclose(found.site_embedding, tape.read_outs[0].site, rtol=SAME)
    key = found.site_embedding @ model.checkpoint.params["global_key_w"] + model.checkpoint.params["global_key_b"]
    np.testing.assert_allclose(found.structure_vector, found.beta @ key, rtol=SAME)
    np.testing.assert_allclose(found.scaled_beta, 8 * found.beta, rtol=SAME)


# ---- gradients, integrated gradients, occlusion, removal ---------------------------------------------------------


@pytest.mark.parametrize("options", NETWORKS, ids=str)
@pytest.mark.parametrize("make", [*STRUCTURES.values()], ids=STRUCTURES)
def test_gradient_times_input_by_central_differences(make, options):
    """d y / d s, where s scales the embedding of a site."""
    model, atoms = network(options), make()
    table, output = own_rows(model, atoms)
    rows, wanted, step = table.copy(), [], 1e-5
    for i in range(len(atoms)):
        table[i] = (1 + step) * rows[i]
        above = output()
        table[i] = (1 - step) * rows[i]
        wanted.append((above - output()) / (2 * step))
        table[i] = rows[i]
    found = refattn.explain(model, atoms, scores=()).gradient_times_input
    np.testing.assert_allclose(found, wanted, rtol=0, atol=DIFFERENCE)


@pytest.mark.parametrize("options", NETWORKS, ids=str)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_integrated_gradients_are_complete(seed, options):
    model = network(options, seed)
    for atoms in (molecule("CH3OH"), molecule("C6H6"), rattled_salt(), apart(), ase.Atoms("O")):
        found = refattn.explain(model, atoms, scores=["integrated_gradients"])
        table, output = own_rows(model, atoms)
        whole = output()
        table[...] = 0
        change = whole - output()
        assert abs(found.integrated_gradients.sum() - change) <= 1e-3 * abs(change)
        assert abs(found.completeness_error) <= 1e-3
        assert found.settled
        assert found.value == pytest.approx(whole, abs=SAME)
        assert found.baseline_value == pytest.approx(whole - change, abs=SAME)


def test_integrated_gradients_by_brute_force():
    """A midpoint sum of central differences."""
    model, atoms = network(seed=3), molecule("H2O")
    table, output = own_rows(model, atoms)
    rows, wanted, step, n = table.copy(), np.zeros(3), 1e-5, 100
    for t in (np.arange(n) + 0.5) / n:
        for i in range(3):
            for sign in (1, -1):
                table[...] = t * rows
                table[i] = (t + sign * step) * rows[i]
                wanted[i] += sign * output() / (2 * step * n)
    found = refattn.explain(model, atoms, scores=["integrated_gradients"])
    np.testing.assert_allclose(found.integrated_gradients, wanted, rtol=0, atol=1e-3 * np.abs(wanted).sum())


def test_integrated_gradients_of_a_steep_network():
    """Embeddings ten times as large: more nodes, and complete all the same."""
    model, atoms = network(seed=1), molecule("C6H6")
    easy = refattn.explain(model, atoms, scores=["integrated_gradients"])
    model.checkpoint.params["embed"][...] *= 10
    steep = refattn.explain(model, atoms, scores=["integrated_gradients"])
    assert steep.n_nodes > easy.n_nodes
    assert steep.settled
    total = steep.integrated_gradients.sum()
    assert total == pytest.approx(steep.value - steep.baseline_value, rel=1e-3)
    fine = STD * integrated_gradients(subject(model, atoms), tolerance=1e-9).score
    np.testing.assert_allclose(steep.integrated_gradients, fine, rtol=0, atol=1e-3 * np.abs(fine).sum())


@pytest.mark.parametrize(
    ("scores", "n_nodes", "settled"),
    [
        ({8: [0.5, 0.5], 16: [0.9, 0.1], 32: [0.8, 0.2], 64: [0.8, 0.2]}, 64, True),  # complete from the first on
        ({8: [0.8, 0.1], 16: [0.8, 0.1], 32: [0.8, 0.1], 64: [0.8, 0.1]}, 64, False),  # at rest and never complete
    ],
)
def test_integrated_gradients_settle_when_complete_and_at_rest(monkeypatch, scores, n_nodes, settled):
    one = subject(network(), molecule("H2"))
    change = np.diff(one.outputs(lambda part: part[:, None, None] * one.difference, 2))[0]
    monkeypatch.setattr("refattn.explanation.attribution.MAX_NODES", 64)
    monkeypatch.setattr("refattn.explanation.attribution._quadrature", lambda _, n, run: change * np.array(scores[n]))
    result = integrated_gradients(one)
    assert (result.n_nodes, result.settled) == (n_nodes, settled)
    assert abs(result.error) == pytest.approx(0 if settled else 0.1, abs=1e-12)


def test_integrated_gradients_say_where_they_do_not_settle(monkeypatch):
    monkeypatch.setattr("refattn.explanation.attribution.MAX_NODES", 8)
    result = integrated_gradients(subject(network(), molecule("CH3OH")), tolerance=1e-12)
    assert not result.settled
    assert result.n_nodes == 8


def test_integrated_gradients_of_a_large_structure_have_fewer_nodes(monkeypatch):
    one = subject(network(), molecule("CH3OH"))
    monkeypatch.setattr("refattn.explanation.attribution.PATH_SITES", 20 * 6)  # 6 sites: 32 nodes are too many
    result = integrated_gradients(one, tolerance=1e-15)
    assert (result.n_nodes, result.settled) == (16, False)


def test_integrated_gradients_from_another_baseline():
    """From the embedding of nitrogen: complete again, and nothing is attributed to nitrogen itself."""
    model, atoms = network(), molecule("NH3")
    one = subject(model, atoms)
    nitrogen = model.checkpoint.params["embed"][7]
    other = ScoredInput.of(one.params, one.config, OPS, one.graph, nitrogen)
    result = integrated_gradients(other)
    table, output = own_rows(model, atoms)
    whole = output()
    table[...] = nitrogen
    assert STD * result.score.sum() == pytest.approx(whole - output(), rel=1e-3)
    assert (result.score[atoms.numbers == 7] == 0).all()


@pytest.mark.parametrize("options", NETWORKS, ids=str)
@pytest.mark.parametrize("make", [*STRUCTURES.values()], ids=STRUCTURES)
def test_occlusion_by_brute_force(make, options):
    model, atoms = network(options), make()
    table, output = own_rows(model, atoms)
    rows, wanted, whole = table.copy(), [], output()
    for i in range(len(atoms)):
        table[i] = 0
        wanted.append(whole - output())
        table[i] = rows[i]
    found = refattn.explain(model, atoms, scores=["occlusion"]).occlusion
    np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME)


@pytest.mark.parametrize("make", [STRUCTURES["methanol"], rattled_salt, apart])
def test_removal_is_the_prediction_without_the_atom(make):
    model, atoms = network(), make()
    rest = [atoms[np.arange(len(atoms)) != i] for i in range(len(atoms))]
    wanted = model.predict(atoms).value - model.predict(rest).value
    found = refattn.explain(model, atoms, scores=["removal"]).removal
    np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME)
    assert np.isnan(refattn.explain(model, ase.Atoms("C"), scores=["removal"]).removal).all()


def test_the_cut_into_jobs_does_not_matter(monkeypatch):
    """As for a structure larger than a shard: one copy at a time, one graph at a time."""
    model, atoms, sizes = network(), molecule("CH3OH"), []
    wanted = refattn.explain(model, atoms, scores=COSTLY).site_scores()
    monkeypatch.setattr("refattn.explanation.variants.EDGES_PER_SHARD", 1)
    monkeypatch.setattr("refattn.explanation.attribution.EDGES_PER_SHARD", 0)
    repeat = GraphBatch.repeat
    monkeypatch.setattr(GraphBatch, "repeat", lambda batch, n: sizes.append(n) or repeat(batch, n))
    for name, values in refattn.explain(model, atoms, scores=COSTLY).site_scores().items():
        np.testing.assert_allclose(values, wanted[name], rtol=0, atol=SAME, err_msg=name)
    assert set(sizes) == {1}


@pytest.mark.parametrize("options", NETWORKS[::3])
def test_a_large_structure_computes_its_layers_again(monkeypatch, options):
    model, atoms = network(options), molecule("CH3CHO")
    kept = refattn.explain(model, atoms, share="norm")
    monkeypatch.setattr("refattn.explanation.variants.LARGE", 0)
    again = refattn.explain(model, atoms, share="norm")
    for name, score in kept.site_scores().items():
        np.testing.assert_allclose(again.site_scores()[name], score, rtol=SAME, atol=SAME)
    assert np.array_equal(again.alpha, kept.alpha)


def test_a_clipped_prediction_is_explained_before_the_clip():
    clipped, free = network({"non_negative": True}), network()
    for model in (clipped, free):
        model.checkpoint.params["output_b"][...] -= 10
    atoms = molecule("CH3OH")
    one, other = (refattn.explain(model, atoms, scores=COSTLY) for model in (clipped, free))
    assert one.value == MEAN > other.value
    for name, score in one.site_scores().items():
        assert np.array_equal(score, other.site_scores()[name])
    assert np.abs(one.occlusion).max() > 0
