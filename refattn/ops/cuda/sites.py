"""A layer's work on the sites, composed of kernels and products; equations in reference/sites.py."""

from refattn.ops.cuda.launch import launch
from refattn.ops.cuda.layers import (
    dense_backward,
    dense_forward,
    dropout_backward,
    dropout_forward,
    residual_layernorm_backward,
    residual_layernorm_forward,
    swish_backward,
    swish_forward,
)
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.sigmoid import sigmoid
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.reference.layers import written
from refattn.ops.types import Array, DenseWeights, RowDropout, SiteBlockCache, SiteBlockWeights


def site_block_forward(
    context: Array, q: Array, dropout: RowDropout, weights: SiteBlockWeights, save_for_backward: bool = True
) -> tuple[Array, SiteBlockCache | None]:
    """See the reference."""
    x, context_hat, context_rstd = residual_layernorm_forward(context, q, weights.gain, weights.offset)
    hidden, v = swish_forward(dense_forward(x, weights.w_1), weights.b_1)
    update = dense_forward(hidden, weights.w_2, weights.b_2)
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
    """See the reference.

    Traffic   of the kernel that makes x and swish(v) again: reads 2 D, writes 2 D floats a row
    """
    v, gain, offset = cache.v, weights.gain, weights.offset
    x, hidden = (empty(v.shape, v.dtype) for _ in range(2))
    launch(_inputs_of_products_kernel, *v.shape, x, hidden, cache.context_hat, v, gain, offset)
    grad_sum, grad_gain_2, grad_offset_2 = residual_layernorm_backward(
        grad_site, weights.gain_2, cache.site_hat, cache.site_rstd
    )
    # forward: update = drop(hidden w_2 + b_2), hidden = swish(v)
    grad_update = grad_sum if dropout.key is None else dropout_backward(grad_sum, dropout.key, dropout.rate)
    grad_hidden, grad_w_2, grad_b_2 = dense_backward(grad_update, hidden, weights.w_2)
    grad_v, grad_b_1 = swish_backward(grad_hidden, v)
    # forward: v = x w_1 + b_1, which is done with grad_update, so that grad_sum may grow
    product = DenseWeights(empty(weights.w_1.shape, v.dtype))
    grad_x, grad_w_1, _ = dense_backward(grad_v, x, weights.w_1, grad_sum, product)
    grad_context, grad_gain, grad_offset = residual_layernorm_backward(
        grad_x, gain, cache.context_hat, cache.context_rstd
    )
    grad_weights = SiteBlockWeights(
        grad_gain, grad_offset, grad_w_1, grad_b_1, grad_w_2, grad_b_2, grad_gain_2, grad_offset_2
    )
    return grad_context, written(out, grad_weights)


@kernel
def _inputs_of_products_kernel(x, hidden, context_hat, v, gain, offset):
    n_rows, width = v.shape
    d = cuda.threadIdx.x
    if d < width:
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            x[n, d] = gain[d] * context_hat[n, d] + offset[d]
            hidden[n, d] = v[n, d] * sigmoid(v[n, d])
