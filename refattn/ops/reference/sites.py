"""A layer's work on the sites, from their context to their new features, composed of the operations."""

from refattn.ops.into import fill
from refattn.ops.reference.norm import (
    dropout_backward,
    dropout_forward,
    residual_layernorm_backward,
    residual_layernorm_forward,
    swish_backward,
    swish_forward,
)


def site_block_forward(context, q, key, rate, gain, offset, w_1, b_1, w_2, b_2, gain_2, offset_2, keep=True):
    """The query as residual, and the residual block.

    x = LN(context + q)
    site = LN(drop(swish(v) w_2 + b_2) + x),  v = x w_1 + b_1

    Parameters
    ----------
    context, q : (N, D) float
    key : (N,) uint64 or None, rate : float     of the dropout; none without a key, see dropout_forward
    w_1, w_2 : (D, D) float; gain, offset, b_1, b_2, gain_2, offset_2 : (D,) float
    keep : bool   whether there will be a backward; if not, all but site is None

    Returns
    -------
    site : (N, D); context_hat : (N, D), context_rstd : (N,) of the first norm; v : (N, D)
    site_hat : (N, D), site_rstd : (N,) of the second norm

    Source   Vu et al. 2023; authors' code, LocalAttention (its residual) and ResidualNorm
    """
    x, context_hat, context_rstd = residual_layernorm_forward(context, q, gain, offset)
    hidden, v = swish_forward(x @ w_1, b_1)
    update = hidden @ w_2 + b_2
    if key is not None:
        update = dropout_forward(update, key, rate)
    site, site_hat, site_rstd = residual_layernorm_forward(update, x, gain_2, offset_2)
    return (site, context_hat, context_rstd, v, site_hat, site_rstd) if keep else (site, *[None] * 5)


def site_block_backward(
    grad_site, key, rate, gain, offset, w_1, w_2, gain_2, context_hat, context_rstd, v, site_hat, site_rstd, into=None
):
    """Backward of site_block_forward: those of its operations, last to first; x and swish(v) are made again.

    grad_sum = LN'(grad_site);  grad_v = (drop(grad_sum) w_2^T) swish'(v);  grad_context = LN'(grad_sum + grad_v w_1^T)
    grad_w_2 = swish(v)^T drop(grad_sum);  grad_w_1 = x^T grad_v

    Parameters
    ----------
    grad_site, context_hat, v, site_hat : (N, D) float; key : (N,) uint64 or None; rate : float
    gain, offset, gain_2 : (D,) float; w_1, w_2 : (D, D) float; context_rstd, site_rstd : (N,) float
    into : arrays, optional
        Where to write grad_gain and what follows it, overwriting what is there.

    Returns
    -------
    grad_context : (N, D), the gradient by context and by q alike; grad_gain, grad_offset : (D,)
    grad_w_1 : (D, D); grad_b_1 : (D,); grad_w_2 : (D, D); grad_b_2, grad_gain_2, grad_offset_2 : (D,)
    """
    grad_sum, grad_gain_2, grad_offset_2 = residual_layernorm_backward(grad_site, gain_2, site_hat, site_rstd)
    # forward: update = drop(hidden w_2 + b_2), hidden = swish(v)
    grad_update = grad_sum if key is None else dropout_backward(grad_sum, key, rate)
    hidden, _ = swish_forward(v, 0)
    grad_v, grad_b_1 = swish_backward(grad_update @ w_2.T, v)
    # forward: v = x w_1 + b_1
    x = gain * context_hat + offset
    grad_context, *norm = residual_layernorm_backward(grad_sum + grad_v @ w_1.T, gain, context_hat, context_rstd)
    of_second = hidden.T @ grad_update, grad_update.sum(axis=0), grad_gain_2, grad_offset_2
    return grad_context, *fill(into, (*norm, x.T @ grad_v, grad_b_1, *of_second))
