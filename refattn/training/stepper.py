"""What the training loop asks of a device."""

import typing
from collections.abc import Callable

import numpy as np

from refattn.common.mpi import ALONE, Ranks
from refattn.config import Config
from refattn.errors import ConfigError
from refattn.network.params import Parameters
from refattn.ops.types import Ops
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam
from refattn.training.average import Average
from refattn.training.cpu_stepper import CpuStepper
from refattn.training.targets import Targets


class Stepper(typing.Protocol):
    """Optimiser steps on one device, which changes the Parameters, the Adam and the Average that it was made with.

    An epoch is `begin`, `step` for each of its batches, and `settle`.
    """

    def begin(
        self, batches: list[np.ndarray], rates: list[float], first: int = 0, totals: np.ndarray | None = None
    ) -> None:
        """Take the batches of an epoch.

        Parameters
        ----------
        batches : list of (S,) int     structures of every batch, by their rows in the data set
        rates : (n_batches,) float     learning rate of every batch, without Adam's bias correction
        first : int                    the batch to go on with
        totals : (1 + K,) float, optional     what `settle` gave when the epoch was left before that batch
        """

    def step(self, batch: int, map_fn: Callable = map) -> None:
        """One optimiser step on the next batch, number `batch`; may return before the device is done.

        map_fn : callable    like map, for what can be computed side by side; see refattn.common.threads.workers

        Raises TrainingError, which names batch and structures, when a loss or a gradient is not finite, and
        DeviceError when the memory does not suffice.
        """

    def settle(self) -> np.ndarray:
        """Wait until Parameters, Adam and Average are up to date.

        Returns
        -------
        totals : (1 + K,) float64
            Sum over the epoch's batches so far of the loss times its structures; sum of the absolute errors of each of
            the K targets, in scaled units.

        Raises TrainingError, as `step` does.
        """

    def gradient(self) -> Parameters:
        """Gradient of the last batch's loss, without weight decay."""


def make_stepper(
    config: Config,
    ops: Ops,
    graphs: GraphBatch,
    ids: np.ndarray,
    targets: Targets,
    params: Parameters,
    adam: Adam,
    average: Average | None = None,
    ranks: Ranks = ALONE,
) -> Stepper:
    """The Stepper of the device that `ops` computes on.

    Parameters
    ----------
    ops : namespace of operations    see refattn.ops.load_backend
    graphs : GraphBatch              of the data set
    ids : (S,) str                   of every structure of the data set
    targets : Targets
    average : Average, optional      of the parameters
    ranks : Ranks                    that share out the shards of a batch

    Raises ConfigError for an unknown loss, DeviceError where the memory of a GPU does not suffice for the data set.
    """
    if not ops.on_device:
        return CpuStepper(config, ops, graphs, ids, targets, params, adam, average, ranks)
    if config.training.gpu_shards > 1:
        from refattn.training.cuda_shards import CudaShardStepper  # asks for a GPU

        return CudaShardStepper(config, ops, graphs, ids, targets, params, adam, average, ranks)
    from refattn.training.cuda_stepper import CudaStepper

    return CudaStepper(config, ops, graphs, ids, targets, params, adam, average)


def check_ranks(config: Config, ops: Ops, ranks: Ranks) -> None:
    """Raise ConfigError where ranks cannot train together on GPUs: without a shard, or two of them on one GPU."""
    if ranks.size == 1 or not ops.on_device:
        return
    n_shards = config.training.gpu_shards
    if ranks.size > n_shards:
        raise ConfigError(
            f"{ranks.size} ranks have no part each of a batch that is training.gpu_shards = {n_shards}; give "
            f"--set training.gpu_shards={ranks.size} or a multiple of it, or --device cpu"
        )
    from refattn.ops.cuda import toolchain

    gpus = ranks.gather([toolchain.identity() or ranks.index])
    for index, gpu in enumerate(gpus):
        if gpus.index(gpu) < index:
            raise ConfigError(
                f"ranks {gpus.index(gpu)} and {index} compute on the same GPU; give each its own by "
                "CUDA_VISIBLE_DEVICES before it starts"
            )
