"""Global attention: how much each site contributes to the property of its structure."""

import numpy as np

from refattn.ops.types import Array, GlobalAttentionCache


def global_attention_forward(
    q: Array, k: Array, site_ptr: Array, intensive: bool, normalise: bool
) -> tuple[Array, GlobalAttentionCache]:
    """Attention of a structure over its sites; the values are the keys.

    published:  s[i] = k[i] . (Q - q[i]),  Q = sum_j q[j] over the structure;  norm = |s|
    intensive:  s[i] = k[i] . Q / N;  norm = root mean square of s
    score = s / norm where `normalise`, else s;  beta = softmax of score over the structure
    struct = sum_i beta[i] k[i]

    The paper's sum over j != i is Q - q[i]: linear in the number of sites, no N x N matrix. Exact.
    Where norm is 0 (a structure of one site, published) the score is 0, so that beta = 1; the authors' code
    divides 0 by 0 there.

    Parameters
    ----------
    q, k : (N, G) float
    site_ptr : (S + 1,) int32
    intensive, normalise : bool

    Returns
    -------
    struct : (S, G); cache : GlobalAttentionCache, with the attention beta (N,)

    Source   Vu et al. 2023; intensive: this project, docs/design.md section 3
    """
    n_structures = len(site_ptr) - 1
    struct, q_sum = np.zeros((2, n_structures, q.shape[1]), dtype=q.dtype)
    beta, score = np.zeros((2, len(q)), dtype=q.dtype)
    norm = np.ones(n_structures, dtype=q.dtype)
    for s in range(n_structures):
        sites = slice(site_ptr[s], site_ptr[s + 1])
        n_sites = sites.stop - sites.start
        q_sum[s] = q[sites].sum(axis=0)
        others = q_sum[s] / n_sites if intensive else q_sum[s] - q[sites]
        score[sites] = (k[sites] * others).sum(axis=1)
        if normalise:
            square = (score[sites] ** 2).sum()
            size = np.sqrt(square / n_sites) if intensive else np.sqrt(square)
            norm[s] = size if size > 0 else 1
        score[sites] /= norm[s]
        exponential = np.exp(score[sites] - score[sites].max())
        beta[sites] = exponential / exponential.sum()
        struct[s] = beta[sites] @ k[sites]
    return struct, GlobalAttentionCache(beta, score, norm, q_sum)


def global_attention_backward(
    grad_struct: Array,
    q: Array,
    k: Array,
    site_ptr: Array,
    intensive: bool,
    normalise: bool,
    cache: GlobalAttentionCache,
    grad_beta: Array | None = None,
    grad_score: Array | None = None,
) -> tuple[Array, Array]:
    """Backward of global_attention_forward.

    grad_beta[i] += grad_struct . k[i];  grad_score += beta (grad_beta - sum beta grad_beta)
    grad_s = (grad_score - score sum(score grad_score) [/ N if intensive]) / norm
    published:  grad_q[j] = sum_i grad_s[i] k[i] - grad_s[j] k[j];  others[i] = Q - q[i]
    intensive:  grad_q[j] = sum_i grad_s[i] k[i] / N;  others[i] = Q / N
    grad_k[i] = beta[i] grad_struct + grad_s[i] others[i]

    Parameters
    ----------
    grad_struct : (S, G) float; q, k : (N, G) float; site_ptr : (S + 1,) int32; intensive, normalise : bool
    cache : GlobalAttentionCache
    grad_beta, grad_score : (N,) float, optional
        What is known of these gradients already, from where beta and score are read but for struct.

    Returns
    -------
    grad_q, grad_k : (N, G)
    """
    beta, score, norm, q_sum = cache
    known_beta = np.zeros_like(beta) if grad_beta is None else grad_beta
    known_score = np.zeros_like(beta) if grad_score is None else grad_score
    grad_q = np.zeros_like(q)
    grad_k = np.zeros_like(k)
    for s in range(len(site_ptr) - 1):
        sites = slice(site_ptr[s], site_ptr[s + 1])
        n_sites = sites.stop - sites.start
        # forward: struct = sum beta k, beta = softmax(score)
        grad_beta = known_beta[sites] + k[sites] @ grad_struct[s]
        grad_score = known_score[sites] + beta[sites] * (grad_beta - beta[sites] @ grad_beta)
        if normalise:  # forward: score = s / norm
            projection = score[sites] @ grad_score
            grad_score = (grad_score - score[sites] * (projection / n_sites if intensive else projection)) / norm[s]
        # forward: s = k . (Q - q), or k . Q / N
        weighted = grad_score @ k[sites]
        if intensive:
            grad_q[sites] = weighted / n_sites
            others = q_sum[s] / n_sites
        else:
            grad_q[sites] = weighted - grad_score[:, None] * k[sites]
            others = q_sum[s] - q[sites]
        grad_k[sites] = beta[sites][:, None] * grad_struct[s] + grad_score[:, None] * others
    return grad_q, grad_k


def site_sum_forward(f: Array, weight: Array, site_ptr: Array) -> Array:
    """Weighted sum of a value of every site.

    y[s] = sum over the sites i of s of weight[i] f[i]

    Parameters
    ----------
    f, weight : (N,) float; site_ptr : (S + 1,) int32

    Returns
    -------
    y : (S,)

    Source   this project, docs/design.md section 3
    """
    structures = range(len(site_ptr) - 1)
    y = [weight[site_ptr[s] : site_ptr[s + 1]] @ f[site_ptr[s] : site_ptr[s + 1]] for s in structures]
    return np.array(y, dtype=f.dtype)


def site_sum_backward(grad_y: Array, f: Array, weight: Array, site_ptr: Array) -> tuple[Array, Array]:
    """Backward of site_sum_forward.

    grad_f[i] = grad_y[s] weight[i];  grad_weight[i] = grad_y[s] f[i]

    Parameters
    ----------
    grad_y : (S,) float; f, weight : (N,) float; site_ptr : (S + 1,) int32

    Returns
    -------
    grad_f, grad_weight : (N,)
    """
    grad = np.repeat(grad_y, np.diff(site_ptr))
    return grad * weight, grad * f
