"""Predictions on a GPU: a shard after the other, gathered and computed there."""

import numpy as np

from refattn.errors import DeviceError
from refattn.network.model import forward
from refattn.network.params import Parameters
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.dataset import DeviceDataset, Plan
from refattn.structures.graph import cut_shards

EDGES_TO_PREDICT = 1 << 18  # of a shard, which takes about 5 GB in the published network; less where there is less


def predict_on_device(params, config, ops, loader, rows):
    """See predict_rows; a shard after the other, which are smaller where the memory does not suffice.

    Raises DeviceError when it does not suffice for 1/64 of EDGES_TO_PREDICT.
    """
    for part in (1, 8, 64):
        try:
            return _predict_in_shards(params, config, ops, loader, rows, EDGES_TO_PREDICT // part)
        except toolchain.OutOfMemory:
            continue
    raise DeviceError("the structures do not fit into the memory of the GPU; predict on --device cpu")


def _predict_in_shards(params, config, ops, loader, rows, limit):
    dtype = params.vector.dtype
    output, beta, struct = [np.zeros(0, dtype)], [], [np.zeros((0, config.global_width), dtype)]
    data, params = DeviceDataset.of(loader), Parameters(params.table, ops.to_device(params.vector))
    for part in cut_shards(data.n_edges[rows], limit):
        shard = data.gather(Plan.of(rows[part]), data.size(rows[part]))
        tape = forward(params, shard, config, ops)
        output.append(ops.to_host(tape.prediction))
        beta.extend(np.split(ops.to_host(tape.beta), np.cumsum(data.n_sites[rows[part]])[:-1]))
        struct.append(ops.to_host(tape.saved["head"].struct))
    return np.concatenate(output), beta, np.concatenate(struct)
