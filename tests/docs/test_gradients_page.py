"""The formulas of docs/gradients.md, written down as they stand there, against those of the reference."""

import numpy as np
import pytest

from refattn.ops import OPS, load_backend
from refattn.ops.cases import make_inputs

OPERATION = next(operation for operation in OPS if operation.name == "local_attention")


@pytest.fixture
def case():
    """Inputs of local attention, the features x (E, D) of the edges, and kernel and bias of the key."""
    rng = np.random.default_rng(0)
    inputs = make_inputs(OPERATION)
    n_edges, width = len(inputs["k"]), inputs["q"][0].size
    x, w_k, b_k = rng.normal(size=(n_edges, width)), rng.normal(size=(width, width)), rng.normal(size=width)
    inputs["k"] = (x @ w_k + b_k).reshape(inputs["k"].shape)
    return inputs, x, w_k, b_k, rng.normal(size=inputs["q"].shape)


def test_section_7_is_section_6(case):
    """The key's product at the sites gives the gradients of the one at the edges."""
    inputs, x, w_k, b_k, grad_context = case
    q, edge_ptr, mask = inputs["q"], inputs["edge_ptr"], inputs["mask"]
    ops = load_backend("reference")
    context, alpha = ops.local_attention_forward(**inputs)
    found_context, found_alpha = np.zeros_like(context), np.zeros_like(alpha)
    grad_x, grad_w_k, grad_b_k, grad_q = (np.zeros_like(array) for array in (x, w_k, b_k, q))
    n_sites, n_heads, channels = q.shape
    scale = channels**-0.5
    for i in range(n_sites):
        edges = slice(edge_ptr[i], edge_ptr[i + 1])
        for h in range(n_heads if edges.start < edges.stop else 0):
            head = slice(h * channels, (h + 1) * channels)
            w, b, own = w_k[:, head], b_k[head], x[edges]
            # forward
            q_absorbed = w @ q[i, h]
            score = scale * own @ q_absorbed
            exponential = np.exp(score - score.max())
            attention = exponential / exponential.sum()
            kept = attention * mask[edges, h]
            value_sum = kept @ own
            found_alpha[edges, h] = attention
            found_context[i, h] = value_sum @ w + kept.sum() * b
            # backward
            grad_absorbed = w @ grad_context[i, h]
            grad_alpha = mask[edges, h] * (own @ grad_absorbed + b @ grad_context[i, h])
            grad_score = attention * (grad_alpha - attention @ grad_alpha)
            score_sum = scale * grad_score @ own
            grad_x[edges] += np.outer(kept, grad_absorbed) + scale * np.outer(grad_score, q_absorbed)
            grad_w_k[:, head] += np.outer(value_sum, grad_context[i, h]) + np.outer(score_sum, q[i, h])
            grad_q[i, h] = score_sum @ w
            grad_b_k[head] += kept.sum() * grad_context[i, h]
            assert abs(grad_score.sum()) < 1e-12  # (5.1)
    np.testing.assert_allclose(found_alpha, alpha, atol=1e-12)
    np.testing.assert_allclose(found_context, context, atol=1e-12)

    expected_q, grad_k = ops.local_attention_backward(grad_context, q, inputs["k"], edge_ptr, mask, alpha)
    grad_k = grad_k.reshape(x.shape)
    np.testing.assert_allclose(grad_q, expected_q, atol=1e-12)
    np.testing.assert_allclose(grad_x, grad_k @ w_k.T, atol=1e-12)
    np.testing.assert_allclose(grad_w_k, x.T @ grad_k, atol=1e-12)
    np.testing.assert_allclose(grad_b_k, grad_k.sum(axis=0), atol=1e-12)


def test_section_4_takes_away_two_directions():
    """The gradient of a layer norm has no part along the vector of ones, and next to none along x_hat."""
    rng = np.random.default_rng(0)
    ops = load_backend("reference")
    x, gain = rng.normal(size=(3, 8)), rng.normal(size=8)
    _, x_hat, rstd = ops.residual_layernorm_forward(x, np.zeros_like(x), gain, gain)
    grad_u, _, _ = ops.residual_layernorm_backward(rng.normal(size=x.shape), gain, x_hat, rstd)
    assert np.abs(grad_u.sum(axis=1)).max() < 1e-12
    assert np.abs((grad_u * x_hat).sum(axis=1)).max() < 1e-4  # epsilon


def test_section_6_the_query_of_a_single_edge_gets_nothing_from_the_score(case):
    """One edge: alpha is 1, and no gradient reaches the query by way of the score."""
    inputs, _, _, _, grad_context = case
    ops = load_backend("reference")
    alone = np.flatnonzero(np.diff(inputs["edge_ptr"]) == 1)
    _, alpha = ops.local_attention_forward(**inputs)
    grad_q, _ = ops.local_attention_backward(grad_context, *(inputs[n] for n in ("q", "k", "edge_ptr", "mask")), alpha)
    assert len(alone)
    assert not grad_q[alone].any()
