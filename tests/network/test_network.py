"""The whole network: against the authors' numbers, against the formulas written down plainly, and its options."""

import dataclasses
import threading

import numpy as np
import pytest
import tolerances
from cases import VARIANTS, authors_network, authors_numbers, run_gradients, take
from plain_network import plain_forward

from refattn.gradient_check import configurations, small_network, small_shard
from refattn.network import inference
from refattn.network.dropout import Dropout
from refattn.network.inference import cut_blocks, infer
from refattn.network.model import forward
from refattn.ops import BACKENDS, load_backend

NETWORKS = dict(configurations())
GRADIENTS = [name for name in VARIANTS if name != "s_plus_scale"]  # that one is s_plus, bit for bit


def largest(array):
    return np.abs(array).max(initial=0)


def close(found, expected, tolerance):
    """Equal within `tolerance` of the largest entry."""
    assert found.shape == expected.shape
    assert largest(found - expected) <= tolerance * largest(expected)


def rmse_gradient(y):
    """Gradient of the published loss, the root of the batch's mean squared error."""
    return lambda prediction: (prediction - y[:, None]) / (len(y) * np.sqrt(np.mean((prediction - y[:, None]) ** 2)))


# ---- the authors' code -------------------------------------------------------------------------------------------


def geometry_of(layer, weights, shard):
    """Geometry features of a layer; those of SCANN are not kept, but what they are made of is."""
    if hasattr(layer.attention, "new_geo"):
        return layer.attention.new_geo
    v = layer.geo @ weights["filter_w"] + weights["filter_b"]
    return v / (1 + np.exp(-v)) * shard.weight[:, None]


def layer_outputs(tape, params, config):
    """What the fixtures hold of every layer, by their names."""
    found = {"site": tape.embedding.site, "after": tape.read_outs[0].site}
    found |= {"struct": tape.read_outs[0].struct, "hidden": tape.read_outs[0].head.hidden}
    for number in range(config.n_layers):
        layer, last = tape.layers[number], number == config.n_layers - 1
        weights = params.layer(number)
        after = tape.read_outs[0].site_before if last else tape.layers[number + 1].site
        found[f"layer{number}/geometry"] = geometry_of(layer, weights, tape.shard)
        found[f"layer{number}/alpha"] = tape.alpha[number]
        context = weights["context_gain"] * layer.block[0] + weights["context_offset"]
        found[f"layer{number}/context"] = context if config.residual else after
        if config.residual:
            found[f"layer{number}/residual"] = after
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_layer_equals_the_authors(name, backend):
    shard, params, config, y = authors_network(name)
    expected = authors_numbers(name)
    tape = forward(params, shard, config, load_backend(backend))
    np.testing.assert_allclose(tape.prediction[:, 0], expected["pred"], rtol=0, atol=tolerances.AUTHORS)
    np.testing.assert_allclose(tape.beta[0], expected["beta"], rtol=0, atol=tolerances.AUTHORS)
    loss = np.sqrt(np.mean((tape.prediction[:, 0] - y) ** 2))
    assert abs(loss - expected["loss_rmse"]) < tolerances.AUTHORS
    outputs = {key.removeprefix("outputs/"): array for key, array in expected.items() if key.startswith("outputs/")}
    found = layer_outputs(tape, params, config)
    assert set(found) == set(outputs) or name == "s_plus_drop"  # the one fixture without layers
    for key, array in outputs.items():
        assert largest(found[key] - array) <= tolerances.AUTHORS * max(1, largest(array)), key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_equal_the_authors(name, backend):
    shard, params, config, y = authors_network(name)
    _, grads, _ = run_gradients(shard, params, config, backend, rmse_gradient(y))
    expected = type(params)(params.table, authors_numbers(name)["grads"])
    close(grads.vector, expected.vector, tolerances.AUTHORS_GRADIENT)
    for key in params:
        # a gradient that is zero but for rounding has no scale of its own
        scale = max(largest(expected[key]), 1e-3 * largest(expected.vector))
        assert largest(grads[key] - expected[key]) <= tolerances.AUTHORS_GRADIENT * scale, key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", VARIANTS)
def test_float32_is_near_the_authors(name, backend):
    shard, params, config, _ = authors_network(name, np.float32)
    tape = forward(params, shard, config, load_backend(backend))
    assert tape.prediction.dtype == tape.beta[0].dtype == np.float32
    for expected in (authors_numbers(name)["pred"], authors_numbers(name, "f32")["pred"]):
        assert largest(tape.prediction[:, 0] - expected) <= tolerances.AUTHORS_32
    assert largest(tape.beta[0] - authors_numbers(name)["beta"]) <= tolerances.AUTHORS_32


@pytest.mark.parametrize("name", ["s_base", "s_plus"])
def test_float32_gradients_are_as_good_as_the_authors(name):
    shard, params, config, y = authors_network(name, np.float32)
    _, grads, _ = run_gradients(shard, params, config, "cpu", rmse_gradient(y))
    expected = authors_numbers(name)["grads"]
    error, authors_error = grads.vector - expected, authors_numbers(name, "f32")["grads"] - expected
    assert largest(error) <= tolerances.AUTHORS_GRADIENT_32 * largest(authors_error)


# ---- the formulas, written down once more ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_forward_is_the_plain_network(name, backend):
    config = NETWORKS[name]
    shard, params, ops = small_shard(config), small_network(config), load_backend(backend)
    dropout = Dropout(3, 4, shard, config.n_layers)
    masks = {"site": ops.dropout_forward(np.ones((9, config.width)), dropout.site_keys(0), config.dropout)}
    for layer in range(config.n_layers):
        key, rate = dropout.site_keys(2 * layer + 2), config.dropout
        masks["residual", layer] = ops.dropout_forward(np.ones((9, config.width)), key, rate)
        key, rate = dropout.edge_key[layer], config.attention_dropout
        masks["attention", layer] = ops.dropout_forward(np.ones((14, config.n_heads)), key, rate)
    for mask, drop in (({}, None), (masks, dropout)):
        tape = forward(params, shard, config, ops, drop)
        prediction, beta, alpha = plain_forward(params, shard, config, mask)
        np.testing.assert_allclose(tape.prediction, prediction, rtol=0, atol=tolerances.NETWORK)
        np.testing.assert_allclose(np.transpose(tape.beta), beta, rtol=0, atol=tolerances.NETWORK)
        for found, expected in zip(tape.alpha, alpha, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerances.NETWORK)


@pytest.mark.parametrize("name", NETWORKS)
def test_backends_agree(name):
    config = NETWORKS[name]
    shard, params = small_shard(config), small_network(config)
    weights = np.random.default_rng(5).normal(size=(len(shard), config.n_targets))
    dropout = Dropout(0, 1, shard, config.n_layers)
    tape, grads, inputs = run_gradients(shard, params, config, "reference", weights, dropout)
    cpu_tape, cpu_grads, cpu_inputs = run_gradients(shard, params, config, "cpu", weights, dropout)
    close(cpu_tape.prediction, tape.prediction, tolerances.NETWORK)
    close(cpu_grads.vector, grads.vector, tolerances.NETWORK)
    assert set(inputs) == set(cpu_inputs)
    for key in inputs:
        close(cpu_inputs[key], inputs[key], tolerances.NETWORK)


# ---- shards, batches, threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_company_does_not_matter(backend):
    """Another order of the structures, fewer of them, or one at a time: the same predictions and attention."""
    shard, params, config, _ = authors_network("s_plus")
    ops = load_backend(backend)
    whole = forward(params, shard, config, ops)
    for structures in ([8, 0, 3, 1, 2, 7, 6, 5, 4], [2, 5], *([s] for s in range(len(shard)))):
        part, site, edge = take(shard, structures)
        tape = forward(params, part, config, ops)
        np.testing.assert_allclose(tape.prediction, whole.prediction[structures], rtol=tolerances.COMPANY)
        np.testing.assert_allclose(tape.beta[0], whole.beta[0][site], rtol=0, atol=tolerances.COMPANY)
        np.testing.assert_allclose(tape.alpha[1], whole.alpha[1][edge], rtol=0, atol=tolerances.COMPANY)


@pytest.mark.parametrize("variant", ["s_plus", "s_base"])
def test_gradients_of_shards_add_up(variant):
    """With dropout on: its masks are a function of the structure, not of the cut."""
    shard, params, config, _ = authors_network(variant)
    config = dataclasses.replace(config, attention_dropout=0.2)
    weights = np.random.default_rng(0).normal(size=len(shard))
    whole, grads, _ = run_gradients(shard, params, config, "cpu", weights, Dropout(0, 7, shard, config.n_layers))
    total, predictions = np.zeros_like(params.vector), []
    for structures in ([0, 1, 2], [3], [4, 5, 6, 7, 8]):
        part, _, _ = take(shard, structures)
        tape, part_grads, _ = run_gradients(
            part, params, config, "cpu", weights[structures], Dropout(0, 7, part, config.n_layers)
        )
        total += part_grads.vector
        predictions += tape.prediction.tolist()
    np.testing.assert_allclose(predictions, whole.prediction, rtol=tolerances.COMPANY)
    close(total, grads.vector, tolerances.NETWORK)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_inference_equals_forward(name, backend):
    """With its products made once an element, and its blocks, of which there are some."""
    config, ops = NETWORKS[name], load_backend(backend)
    shard, params = small_shard(config), small_network(config)
    tape = forward(params, shard, config, ops)
    for found in (infer(params, shard, config, ops), in_blocks(params, shard, config, ops)):
        close(found.prediction, tape.prediction, tolerances.COMPANY)
        close(found.beta, np.transpose(tape.beta), tolerances.COMPANY)
        close(found.struct, np.hstack([cache.struct for cache in tape.read_outs]), tolerances.COMPANY)


def in_blocks(params, shard, config, ops):
    """Inference in blocks of few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "cut_blocks", lambda shard: cut_blocks(shard, 9))
        return infer(params, shard, config, ops)


@pytest.mark.parametrize("name", ["s_plus_crys", "s_base_noganorm"])
def test_order_of_the_sites_does_not_matter(name):
    shard, params, config, _ = authors_network(name)
    rng = np.random.default_rng(0)
    permuted, site, edge = take(shard, range(len(shard)), rng.permutation)
    assert not np.array_equal(site, np.arange(len(site)))
    whole, tape = (forward(params, s, config, load_backend("cpu")) for s in (shard, permuted))
    np.testing.assert_allclose(tape.prediction, whole.prediction, rtol=tolerances.NETWORK)
    np.testing.assert_allclose(tape.beta[0], whole.beta[0][site], rtol=0, atol=tolerances.NETWORK)
    np.testing.assert_allclose(tape.alpha[1], whole.alpha[1][edge], rtol=0, atol=tolerances.NETWORK)


def test_work_arrays_do_not_change_a_bit():
    """Inside the pool of work arrays, twice, and in two threads at once: the same bits as outside."""
    shard, params, config, _ = authors_network("s_plus")
    ops = load_backend("cpu")
    tape, grads, _ = run_gradients(shard, params, config, ops)
    found = []

    def compute():
        for _ in range(3):
            with ops.work_arrays():
                pooled, pooled_grads, _ = run_gradients(shard, params, config, ops)
                found.append((pooled.prediction.copy(), pooled.beta[0].copy(), pooled_grads.vector))

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for prediction, beta, vector in found:
        assert np.array_equal(prediction, tape.prediction) and np.array_equal(beta, tape.beta[0])
        assert np.array_equal(vector, grads.vector)


# ---- single properties -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("readout", ["published", "intensive"])
@pytest.mark.parametrize("normalise", [True, False])
def test_a_single_site_has_all_the_attention(backend, readout, normalise):
    """The authors' code divides zero by zero here (docs/authors_code.md section 2, step 8)."""
    config = dataclasses.replace(NETWORKS["scann+, default"], readout=readout, normalise_attention=normalise)
    shard, _, _ = take(small_shard(config), [1, 2])
    tape, grads, _ = run_gradients(shard, small_network(config), config, backend)
    assert np.array_equal(tape.beta[0], [1, 1])
    assert np.isfinite(tape.prediction).all() and np.isfinite(grads.vector).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_sums_to_one(backend):
    shard, params, config, _ = authors_network("s_plus")
    tape = forward(params, shard, config, load_backend(backend))
    np.testing.assert_allclose(np.add.reduceat(tape.beta[0], shard.site_ptr[:-1]), 1, rtol=tolerances.PARITY)
    with_edges = shard.edge_ptr[:-1][np.diff(shard.edge_ptr) > 0]
    for alpha in tape.alpha:
        np.testing.assert_allclose(np.add.reduceat(alpha, with_edges), 1, rtol=tolerances.PARITY)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].head == "additive"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_contributions_sum_to_the_prediction(backend, name, dtype, tolerance):
    config = NETWORKS[name]
    shard, params = small_shard(config, dtype), small_network(config).astype(dtype)
    tape = forward(params, shard, config, load_backend(backend))
    for k, cache in enumerate(tape.read_outs):
        sums = np.add.reduceat(cache.head.contribution.astype(float), shard.site_ptr[:-1])
        np.testing.assert_allclose(sums, tape.prediction[:, k], rtol=0, atol=tolerance * largest(tape.prediction))
        assert np.array_equal(cache.head.weight, np.ones(9) if config.readout == "sum" else tape.beta[k])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("options", "times"), [({}, 1), ({"head": "additive"}, 1), ({"readout": "sum"}, 2)])
def test_two_copies_in_one_structure(backend, options, times):
    """Far apart, so that no edge joins them: the same property, and twice the one that is a sum."""
    config = dataclasses.replace(NETWORKS["scann+, default"], **options)
    shard, params = small_shard(config), small_network(config)
    copies = take(shard, [0, 0, 1, 1, 2, 2, 3, 3])[0]
    copies = dataclasses.replace(copies, site_ptr=copies.site_ptr[::2], structure=shard.structure)
    one, two = (forward(params, s, config, load_backend(backend)).prediction for s in (shard, copies))
    np.testing.assert_allclose(two, times * one, rtol=tolerances.COMPANY)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_negative_head_clips_forward_only(backend):
    config = NETWORKS["scann+, default"]
    clipped = dataclasses.replace(config, non_negative=True)
    shard, params = small_shard(config), small_network(config)
    params["output_b"][...] -= forward(params, shard, config, load_backend(backend)).prediction.mean()
    tape, grads, _ = run_gradients(shard, params, config, backend)
    clipped_tape, clipped_grads, _ = run_gradients(shard, params, clipped, backend)
    assert tape.prediction.min() < 0 < tape.prediction.max()
    assert np.array_equal(clipped_tape.prediction, np.maximum(tape.prediction, 0))
    assert np.array_equal(clipped_grads.vector, grads.vector)


@pytest.mark.parametrize("backend", BACKENDS)
def test_input_gradients_explain_the_embedding(backend):
    """The gradient by a row of the element table is the sum over the sites of that element."""
    config = NETWORKS["scann+, default"]
    shard = small_shard(config)
    _, grads, inputs = run_gradients(shard, small_network(config), config, backend)
    for z in range(config.n_elements):
        np.testing.assert_allclose(grads["embed"][z], inputs["embedded"][shard.z == z].sum(axis=0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_overwrites_its_accumulator(backend):
    """Gradients are written, not added: what stood there before does not matter, not even NaN."""
    config = NETWORKS["scann, CGCNN and ring features"]
    shard, params, ops = small_shard(config), small_network(config), load_backend(backend)
    _, grads, _ = run_gradients(shard, params, config, ops)
    full = type(params)(params.table, np.full_like(params.vector, np.nan))
    params.zeros_like = lambda: full
    _, again, _ = run_gradients(shard, params, config, ops)
    assert again is full and np.array_equal(again.vector, grads.vector)
