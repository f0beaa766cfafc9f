"""The network wherever its operations compute: NumPy arrays in, NumPy arrays out, on the CPU and on a GPU.

For what runs it once or some hundred times on arrays of its own: explanations, embeddings, the gradient check. Training
and prediction keep their arrays on the device (training/device_step.py).
"""

import copy
import inspect
import types

import numpy as np

from refattn.network.model import Tape, backward, forward, input_embedding
from refattn.network.params import Parameters


def run_forward(params, shard, config, ops, dropout=None, embedding=None):
    """See refattn.network.model.forward; what the Tape holds are NumPy arrays."""
    if not ops.on_device:
        return forward(params, shard, config, ops, dropout, embedding)
    tape = forward(*_placed(params, shard, config, ops, dropout, embedding))
    saved = {step: types.SimpleNamespace(**_on_host(vars(values), ops)) for step, values in tape.saved.items()}
    alpha = [ops.to_host(array) for array in tape.alpha]
    return Tape(shard, saved, alpha, ops.to_host(tape.prediction), ops.to_host(tape.beta))


def run_gradients(grad_prediction, params, shard, config, ops, dropout=None, embedding=None):
    """Forward and backward.

    Parameters
    ----------
    grad_prediction : (S,) float
    dropout : Dropout, optional; embedding : (N, W) float, optional     as of refattn.network.model.forward

    Returns
    -------
    prediction : (S,); grads : Parameters; grad_inputs : dict of name -> array, as model.backward fills it
    """
    params, shard, config, ops, dropout, embedding = _placed(params, shard, config, ops, dropout, embedding)
    tape, grads, grad_inputs = forward(params, shard, config, ops, dropout, embedding), params.zeros_like(), {}
    backward(ops.to_device(grad_prediction), tape, params, grads, config, ops, dropout, grad_inputs)
    grads = Parameters(grads.table, ops.to_host(grads.vector))
    return ops.to_host(tape.prediction), grads, _on_host(grad_inputs, ops)


def run_input_embedding(params, shard, config, ops):
    """See refattn.network.model.input_embedding."""
    params, shard, *_ = _placed(params, shard, config, ops, None, None)
    return ops.to_host(input_embedding(params, shard, config, ops))


def _placed(params, shard, config, ops, dropout, embedding):
    """The arguments of forward, on the device of `ops`."""
    if not ops.on_device:
        return params, shard, config, ops, dropout, embedding
    from refattn.ops.cuda.graph import device_shard  # asks for a GPU

    params = Parameters(params.table, ops.to_device(params.vector))
    if dropout is not None:
        dropout = placed_dropout(dropout, ops)
    return params, device_shard(shard), config, ops, dropout, None if embedding is None else ops.to_device(embedding)


def placed_dropout(dropout, ops):
    """A Dropout whose keys are on the device."""
    placed = copy.copy(dropout)
    placed.keys, placed.edge_key = {}, ops.to_device(dropout.edge_key)
    placed.site_key = ops.to_device(dropout.site_key)
    return placed


def _on_host(values, ops):
    """A dict whose arrays are NumPy's; what are no arrays stays as it is."""
    return {name: ops.to_host(x) if isinstance(x, ops.array_type) else x for name, x in values.items()}


def hosted(ops):
    """The operations of a backend for NumPy arrays: each brings its arrays to the device, and its results back.

    Slow, and meant for checks. Arrays to write into (grad_w, grad_b of dense_backward) are written; others that an
    operation writes over stay as they are.
    """
    if not ops.on_device:
        return ops
    names = [name for name in vars(ops) if name.endswith(("_forward", "_backward"))]
    return types.SimpleNamespace(**{name: _hosted(getattr(ops, name), ops) for name in names})


def _hosted(function, ops):
    signature = inspect.signature(function)

    def call(*arguments, **keywords):
        given = signature.bind(*arguments, **keywords).arguments
        placed = {name: ops.to_device(x.copy()) if isinstance(x, np.ndarray) else x for name, x in given.items()}
        results = function(**placed)
        for name in ("grad_w", "grad_b"):
            if given.get(name) is not None:
                given[name][...] = ops.to_host(placed[name])
        if isinstance(results, tuple):
            return tuple(map(ops.to_host, results))
        return ops.to_host(results)

    call.__signature__ = signature
    return call
