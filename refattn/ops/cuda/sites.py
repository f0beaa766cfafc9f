"""A layer's work on the sites, composed of kernels and products; equations in reference/sites.py."""

from refattn.ops.cuda.launch import launch
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.norm import (
    dropout_backward,
    dropout_forward,
    residual_layernorm_backward,
    residual_layernorm_forward,
    swish_backward,
    swish_forward,
)
from refattn.ops.cuda.products import column_total, dense, dense_gradients
from refattn.ops.cuda.sigmoid import sigmoid
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.into import fill


def site_block_forward(context, q, key, rate, gain, offset, w_1, b_1, w_2, b_2, gain_2, offset_2, keep=True):
    """See the reference."""
    x, context_hat, context_rstd = residual_layernorm_forward(context, q, gain, offset)
    hidden, v = swish_forward(dense(x, w_1), b_1)
    update = dense(hidden, w_2, b_2)
    if key is not None:
        update = dropout_forward(update, key, rate)
    site, site_hat, site_rstd = residual_layernorm_forward(update, x, gain_2, offset_2)
    return (site, context_hat, context_rstd, v, site_hat, site_rstd) if keep else (site, *[None] * 5)


def site_block_backward(
    grad_site, key, rate, gain, offset, w_1, w_2, gain_2, context_hat, context_rstd, v, site_hat, site_rstd, into=None
):
    """See the reference.

    Traffic   of the kernel that makes x and swish(v) again: reads 2 D, writes 2 D floats a row
    """
    x, hidden, grad_w_1, grad_w_2 = (empty(array.shape, v.dtype) for array in (v, v, w_1, w_2))
    launch(_inputs_of_products_kernel, *v.shape, x, hidden, context_hat, v, gain, offset)
    grad_sum, grad_gain_2, grad_offset_2 = residual_layernorm_backward(grad_site, gain_2, site_hat, site_rstd)
    # forward: update = drop(hidden w_2 + b_2), hidden = swish(v)
    grad_update = grad_sum if key is None else dropout_backward(grad_sum, key, rate)
    grad_v, grad_b_1 = swish_backward(dense_gradients(grad_update, hidden, w_2, grad_w_2), v)
    grad_b_2 = column_total(grad_update)
    # forward: v = x w_1 + b_1, which is done with grad_update, so that grad_sum may grow
    grad_x = dense_gradients(grad_v, x, w_1, grad_w_1, add_to=grad_sum)
    grad_context, *norm = residual_layernorm_backward(grad_x, gain, context_hat, context_rstd)
    of_weights = *norm, grad_w_1, grad_b_1, grad_w_2, grad_b_2, grad_gain_2, grad_offset_2
    return grad_context, *fill(into, of_weights)


@kernel
def _inputs_of_products_kernel(x, hidden, context_hat, v, gain, offset):
    n_rows, width = v.shape
    d = cuda.threadIdx.x
    if d < width:
        for n in range(cuda.blockIdx.x, n_rows, cuda.gridDim.x):
            x[n, d] = gain[d] * context_hat[n, d] + offset[d]
            hidden[n, d] = v[n, d] * sigmoid(v[n, d])
