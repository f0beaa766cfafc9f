"""Inference on a GPU: a shard after the other, gathered and computed there."""

from collections.abc import Callable

import numpy as np

from refattn.config import ModelConfig
from refattn.errors import DeviceError
from refattn.network.inference import NetworkOutput, network_output
from refattn.network.model import forward
from refattn.network.params import Parameters
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.dataset import DeviceDataset, Plan
from refattn.ops.types import Ops
from refattn.structures.batch import GraphBatch

EDGES_TO_PREDICT = 1 << 18  # of a shard, which takes about 5 GB in the published network; less where there is less


def infer_shards(
    params: Parameters, config: ModelConfig, ops: Ops, graphs: GraphBatch, rows: np.ndarray, map_fn: Callable = map
) -> list[NetworkOutput]:
    """See infer_on_threads of inference.py; the shards are smaller where the memory does not suffice.

    Raises DeviceError when it does not suffice for 1/64 of EDGES_TO_PREDICT.
    """
    for part in (1, 8, 64):
        try:
            return _infer_shards(params, config, ops, graphs, rows, EDGES_TO_PREDICT // part)
        except toolchain.OutOfMemory:
            continue
    raise DeviceError("the structures do not fit into the memory of the GPU; predict on --device cpu")


def _infer_shards(params, config, ops, graphs, rows, max_edges):
    data = DeviceDataset.of(graphs, config, params.vector.dtype)
    params = params.to(ops)
    outputs = []
    for shard_rows in graphs.cut(rows, max_edges):
        batch = data.gather(Plan.of(shard_rows), data.size(shard_rows))
        tape = forward(params, batch, config, ops)
        outputs.append(NetworkOutput(*map(ops.to_host, network_output(tape.read_outs, tape.prediction, ops))))
        del tape, batch  # the next ones need their memory
    return outputs
