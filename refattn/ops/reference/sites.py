"""A layer's work on the sites, from their context to their new features, composed of the operations of layers.py."""

from refattn.ops.reference.layers import (
    dropout_backward,
    dropout_forward,
    residual_layernorm_backward,
    residual_layernorm_forward,
    swish_backward,
    swish_forward,
    written,
)
from refattn.ops.types import Array, RowDropout, SiteBlockCache, SiteBlockWeights


def site_block_forward(
    context: Array, q: Array, dropout: RowDropout, weights: SiteBlockWeights, save_for_backward: bool = True
) -> tuple[Array, SiteBlockCache | None]:
    """The query as residual, and the residual block.

    x = LN(context + q)
    site = LN(drop(swish(v) w_2 + b_2) + x),  v = x w_1 + b_1

    Parameters
    ----------
    context, q : (N, D) float
    dropout : RowDropout      none where its key is None
    weights : SiteBlockWeights
    save_for_backward : bool  if not, the cache is None

    Returns
    -------
    site : (N, D); cache : SiteBlockCache

    Source   Vu et al. 2023; authors' code, LocalAttention (its residual) and ResidualNorm
    """
    x, context_hat, context_rstd = residual_layernorm_forward(context, q, weights.gain, weights.offset)
    hidden, v = swish_forward(x @ weights.w_1, weights.b_1)
    update = hidden @ weights.w_2 + weights.b_2
    if dropout.key is not None:
        update = dropout_forward(update, dropout.key, dropout.rate)
    site, site_hat, site_rstd = residual_layernorm_forward(update, x, weights.gain_2, weights.offset_2)
    cache = SiteBlockCache(context_hat, context_rstd, v, site_hat, site_rstd)
    return site, cache if save_for_backward else None


def site_block_backward(
    grad_site: Array,
    dropout: RowDropout,
    weights: SiteBlockWeights,
    cache: SiteBlockCache,
    out: SiteBlockWeights | None = None,
) -> tuple[Array, SiteBlockWeights]:
    """Backward of site_block_forward: those of its operations, last to first; x and swish(v) are made again.

    grad_sum = LN'(grad_site);  grad_v = (drop(grad_sum) w_2^T) swish'(v);  grad_context = LN'(grad_sum + grad_v w_1^T)
    grad_w_2 = swish(v)^T drop(grad_sum);  grad_w_1 = x^T grad_v

    Parameters
    ----------
    grad_site : (N, D) float
    dropout, weights, cache     as of site_block_forward
    out : SiteBlockWeights, optional
        Where to write grad_weights, overwriting what is there.

    Returns
    -------
    grad_context : (N, D), the gradient by context and by q alike; grad_weights : SiteBlockWeights
    """
    grad_sum, grad_gain_2, grad_offset_2 = residual_layernorm_backward(
        grad_site, weights.gain_2, cache.site_hat, cache.site_rstd
    )
    # forward: update = drop(hidden w_2 + b_2), hidden = swish(v)
    grad_update = grad_sum if dropout.key is None else dropout_backward(grad_sum, dropout.key, dropout.rate)
    hidden, _ = swish_forward(cache.v, 0)
    grad_v, grad_b_1 = swish_backward(grad_update @ weights.w_2.T, cache.v)
    # forward: v = x w_1 + b_1
    x = weights.gain * cache.context_hat + weights.offset
    grad_context, grad_gain, grad_offset = residual_layernorm_backward(
        grad_sum + grad_v @ weights.w_1.T, weights.gain, cache.context_hat, cache.context_rstd
    )
    grad_weights = SiteBlockWeights(
        grad_gain, grad_offset, x.T @ grad_v, grad_b_1, hidden.T @ grad_update, grad_update.sum(axis=0), grad_gain_2,
        grad_offset_2,
    )  # fmt: skip
    return grad_context, written(out, grad_weights)
