"""The network wherever its operations compute: NumPy arrays in, NumPy arrays out, on the CPU and on a GPU.

For what runs it once or some hundred times on arrays of its own: explanations, embeddings, the gradient check. Training
and prediction keep their arrays on the device (training/device_step.py).
"""

import copy
import dataclasses
import inspect
import types

import numpy as np

from refattn.network.model import backward, forward, input_embedding
from refattn.network.params import Parameters


def run_forward(params, shard, config, ops, dropout=None, embedding=None):
    """See refattn.network.model.forward; what the Tape holds are NumPy arrays."""
    if not ops.on_device:
        return forward(params, shard, config, ops, dropout, embedding)
    return on_host(forward(*_placed(params, shard, config, ops, dropout, embedding)), ops)


def on_host(value, ops):
    """A copy of nested tuples, lists, dicts and dataclasses whose arrays are NumPy's; other values as they are."""
    if isinstance(value, ops.array_type):
        return ops.to_host(value)
    if isinstance(value, tuple):
        items = [on_host(item, ops) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [on_host(item, ops) for item in value]
    if isinstance(value, dict):
        return {name: on_host(item, ops) for name, item in value.items()}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **on_host(fields, ops))
    return value


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
    return ops.to_host(tape.prediction), grads, on_host(grad_inputs, ops)


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


def hosted(ops):
    """The operations of a backend for NumPy arrays: each brings its arrays to the device, and its results back.

    Slow, and meant for checks. Arrays that an operation writes over stay as they are.
    """
    if not ops.on_device:
        return ops
    names = [name for name in vars(ops) if name.endswith(("_forward", "_backward"))]
    return types.SimpleNamespace(**{name: _hosted(getattr(ops, name), ops) for name in names})


def _hosted(function, ops):
    def call(*arguments, **keywords):
        placed = {name: _on_device(value, ops) for name, value in keywords.items()}
        return on_host(function(*(_on_device(value, ops) for value in arguments), **placed), ops)

    call.__signature__ = inspect.signature(function)
    return call


def _on_device(value, ops):
    """A copy of an array, or of a named tuple of arrays, on the device; another value as it is."""
    if isinstance(value, tuple):
        return type(value)(*(_on_device(item, ops) for item in value))
    return ops.to_device(value.copy()) if isinstance(value, np.ndarray) else value
