"""The loss of a batch on the device, and its slope; formulas: common/loss.py."""

import functools
import math

import numpy as np

from refattn.common.loss import Loss
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.dataset import Plan
from refattn.ops.cuda.launch import block_sum, launch, threads_of
from refattn.ops.cuda.memory import empty
from refattn.ops.cuda.toolchain import WARP, cuda, device, exp, kernel
from refattn.ops.types import Array, GlobalAttentionCache

ATTENTION_THREADS = WARP  # of a block, which takes a structure
LOSS_THREADS = 4 if toolchain.SIMULATED else 512


def loss_slope(
    totals: Array,
    prediction: Array,
    known: tuple[Array, Array],
    weights: tuple[float, ...],
    entropy: Array,
    plan: Plan,
    n_real: int,
    loss: Loss,
    delta: float,
) -> Array:
    """Derivative of the batch's loss by each prediction; loss and absolute errors are added to `totals`.

    totals[0] grows by the batch's loss times its structures, totals[1 + k] by the absolute errors of target k, and the
    last of them becomes the number of the first batch whose loss is not finite, where it is -1.

    Parameters
    ----------
    totals : (K + 2,) float64
    prediction : (S, K) float     of which the first n_real are structures; the slope of the others is zero
    known : (M, K), (M,) float    of every structure of the data set the labels, scaled, NaN where unknown, whose slope
                                  is zero; and the weight of its errors
    weights : K floats            of the targets' losses in their sum
    entropy : (K, S) float64      terms of the loss that attention_slope left
    plan : Plan                   see dataset.py
    loss : Loss
    delta : float                 of the Huber loss

    Returns
    -------
    slope : (S, K)

    Deterministic   one block, whose threads sum in float64
    Traffic         reads 2, writes 1 floats a structure and target
    """
    slope = empty(prediction.shape, prediction.dtype)
    threads = min(threads_of(min(len(slope), LOSS_THREADS)), LOSS_THREADS)
    arguments = slope, totals, prediction, *known, entropy, plan.order, plan.start, plan.cursor, n_real
    kernel_of_loss = _kernel_of(loss, weights, float(delta), prediction.dtype)
    toolchain.call(kernel_of_loss, 1, threads, 2 * threads * 8, arguments)
    return slope


@functools.cache
def _kernel_of(loss, weights, delta, dtype):
    """The kernel of a Loss, of the targets' weights and of delta in the type of the network, compiled into it."""
    delta = dtype.type(delta)
    point = device(loss.point)
    reduce = device(loss.reduce)
    of_class = loss.of_class

    @kernel
    def _loss_kernel(slope, totals, prediction, label, structure_weight, entropy, order, start, cursor, n_real):
        lane, threads = cuda.threadIdx.x, cuda.blockDim.x
        first = start[cursor[0]]
        buffer = cuda.shared.array(0, totals.dtype)
        batch_loss = np.float64(0)
        for k in range(len(weights)):
            total = absolute = weight = taught = np.float64(0)
            for s in range(lane, n_real, threads):
                row = order[first + s]
                slope[s, k] = slope.dtype.type(0)
                if not math.isnan(label[row, k]):
                    value, slope_of_point = point(prediction[s, k], label[row, k], delta)
                    total += structure_weight[row] * value
                    weight += structure_weight[row]
                    slope[s, k] = structure_weight[row] * slope_of_point
                    # of the probability of a class that is the slope
                    absolute += abs(slope_of_point) if of_class else abs(prediction[s, k] - label[row, k])
                taught += entropy[k, s]
            total = block_sum(buffer, total)
            absolute = block_sum(buffer, absolute)
            weight = block_sum(buffer, weight)
            batch_loss += block_sum(buffer, taught)
            factor = np.float64(0)
            if weight > 0:
                value_k, factor = reduce(total, weight)
                batch_loss += weights[k] * value_k
            for s in range(lane, len(slope), threads):
                slope[s, k] = slope[s, k] * slope.dtype.type(weights[k] * factor) if s < n_real else slope.dtype.type(0)
            if lane == 0:
                totals[1 + k] += absolute
        if lane == 0:
            totals[0] += batch_loss * n_real
            if not abs(batch_loss) < np.inf and totals[-1] < 0:
                totals[-1] = cursor[0]

    return _loss_kernel


def shard_slope(
    sums: Array,
    prediction: Array,
    known: tuple[Array, Array],
    entropy: Array,
    factors: Array,
    plan: Plan,
    n_real: int,
    loss: Loss,
    delta: float,
) -> Array:
    """As loss_slope, of a shard, whose sums are to be added to those of the batch's other shards.

    Parameters
    ----------
    sums : (3, K) float64        output: of each target the sums of w l, of `entropy`, of the absolute errors
    factors : (2, K) float64     in its first row, derivatives of the batch's loss by the sums of w l
    plan : Plan                  of one batch
    others                       of loss_slope

    Returns
    -------
    slope : (S, K)
    """
    slope = empty(prediction.shape, prediction.dtype)
    threads = min(threads_of(min(len(slope), LOSS_THREADS)), LOSS_THREADS)
    arguments = slope, sums, prediction, *known, entropy, factors, plan.order, n_real
    toolchain.call(_kernel_of_shard(loss, float(delta), prediction.dtype), 1, threads, 2 * threads * 8, arguments)
    return slope


@functools.cache
def _kernel_of_shard(loss, delta, dtype):
    """The kernel of a Loss and of delta in the type of the network, which are compiled into it."""
    delta = dtype.type(delta)
    point = device(loss.point)
    of_class = loss.of_class

    @kernel
    def _shard_loss_kernel(slope, sums, prediction, label, structure_weight, entropy, factors, order, n_real):
        lane, threads = cuda.threadIdx.x, cuda.blockDim.x
        buffer = cuda.shared.array(0, sums.dtype)
        for k in range(slope.shape[1]):
            total = absolute = taught = np.float64(0)
            factor = slope.dtype.type(factors[0, k])
            for s in range(lane, len(slope), threads):
                slope[s, k] = slope.dtype.type(0)
                if s < n_real:
                    row = order[s]
                    if not math.isnan(label[row, k]):
                        value, slope_of_point = point(prediction[s, k], label[row, k], delta)
                        total += structure_weight[row] * value
                        slope[s, k] = structure_weight[row] * slope_of_point * factor
                        absolute += abs(slope_of_point) if of_class else abs(prediction[s, k] - label[row, k])
                    taught += entropy[k, s]
            total = block_sum(buffer, total)
            taught = block_sum(buffer, taught)
            absolute = block_sum(buffer, absolute)
            if lane == 0:
                sums[0, k] = total
                sums[1, k] = taught
                sums[2, k] = absolute

    return _shard_loss_kernel


def attention_slope(
    entropy: Array,
    attention: GlobalAttentionCache,
    share: Array,
    first_site: Array,
    factor: Array,
    site_ptr: Array,
    plan: Plan,
    n_real: int,
) -> Array:
    """Derivative of the loss of a target's attention by the scores; its terms of the loss go into `entropy`.

    Parameters
    ----------
    entropy : (S,) float64               output: `factor` times the cross entropy, 0 where none is taught
    attention : GlobalAttentionCache     of the target
    share : (N,) float                   of every site of the data set; see training/targets.py
    first_site : (M,) int64              of every structure of the data set; -1 where it is not taught
    factor : (n_batches,) float64        of every batch of the plan, derivative of the loss by the sum of the entropies
    site_ptr : (S + 1,) int32            of the batch

    Returns
    -------
    grad_score : (N,)

    Traffic   reads 3, writes 1 floats a site
    """
    grad_score = empty(attention.beta.shape, attention.beta.dtype)
    where = site_ptr, plan.order, plan.start, plan.cursor, n_real
    arguments = grad_score, entropy, attention.score, attention.beta, share, first_site, factor, *where
    launch(_attention_kernel, len(site_ptr) - 1, ATTENTION_THREADS, *arguments)
    return grad_score


@kernel
def _attention_kernel(
    grad_score, entropy, score, beta, share, first_site, factor, site_ptr, order, start, cursor, n_real
):
    """A block takes a structure."""
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    first = start[cursor[0]]
    buffer = cuda.shared.array(0, entropy.dtype)
    for s in range(cuda.blockIdx.x, len(site_ptr) - 1, cuda.gridDim.x):
        scale, shift = np.float64(0), np.int64(0)
        if s < n_real and first_site[order[first + s]] >= 0:
            scale = factor[cursor[0]]
            shift = first_site[order[first + s]] - site_ptr[s]
        top = score[site_ptr[s]]
        total = product = np.float64(0)
        for i in range(site_ptr[s], site_ptr[s + 1]):
            top = max(top, score[i])
        for i in range(site_ptr[s] + lane, site_ptr[s + 1], threads):
            p = share[i + shift] if scale > 0 else beta.dtype.type(0)
            total += exp(score[i] - top)
            product += p * score[i]
            grad_score[i] = (beta[i] - p) * beta.dtype.type(scale)
        total, product = block_sum(buffer, total), block_sum(buffer, product)
        if lane == 0 and s < n_real:
            entropy[s] = scale * (top + math.log(total) - product)
