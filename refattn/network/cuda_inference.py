"""Inference on a GPU: a shard after the other, gathered and computed there."""

import types
from collections.abc import Callable

import numpy as np

from refattn.config import ModelConfig
from refattn.data.loader import Loader
from refattn.errors import DeviceError
from refattn.network.model import forward
from refattn.network.params import Parameters
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.dataset import DeviceDataset, Plan
from refattn.structures.graph import cut_shards

EDGES_TO_PREDICT = 1 << 18  # of a shard, which takes about 5 GB in the published network; less where there is less


def infer_shards(
    params: Parameters,
    config: ModelConfig,
    ops: types.SimpleNamespace,
    loader: Loader,
    rows: np.ndarray,
    map_fn: Callable = map,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """See infer_on_threads of inference.py; the shards are smaller where the memory does not suffice.

    Returns
    -------
    list of the fields of an Outcome

    Raises DeviceError when it does not suffice for 1/64 of EDGES_TO_PREDICT.
    """
    for part in (1, 8, 64):
        try:
            return _infer_shards(params, config, ops, loader, rows, EDGES_TO_PREDICT // part)
        except toolchain.OutOfMemory:
            continue
    raise DeviceError("the structures do not fit into the memory of the GPU; predict on --device cpu")


def _infer_shards(params, config, ops, loader, rows, max_edges):
    data = DeviceDataset.of(loader)
    params = Parameters(params.table, ops.to_device(params.vector))
    outcomes = []
    for part in cut_shards(data.n_edges[rows], max_edges):
        shard = data.gather(Plan.of(rows[part]), data.size(rows[part]))
        tape = forward(params, shard, config, ops)
        outcome = tape.prediction, tape.beta, tape.head.struct
        outcomes.append(tuple(map(ops.to_host, outcome)))
    return outcomes
