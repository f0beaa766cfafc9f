"""What a training is to reach: scaled labels, and the attention that is taught."""

import typing

import numpy as np

from refattn.common.metrics import ROUNDING, element_counts
from refattn.config import Config
from refattn.data.splits import labels_of_targets
from refattn.data.store import Dataset
from refattn.data.taught_attention import taught_attention
from refattn.network.checkpoint import Checkpoint, Scale
from refattn.network.inference import element_sums
from refattn.ops.types import Array
from refattn.structures.batch import GraphBatch

N_ATOMIC = 119  # atomic numbers, from 0


class Targets(typing.NamedTuple):
    """Of every structure of a data set.

    label : (S, K) float     scaled; NaN where unknown
    share : (N, K) float     attention that is taught: sums to 1 over a structure, or is 0 at all of its sites; None
                             where none is taught
    weight : (S,) float      of the structure's errors in the loss; None where all have the same
    """

    label: Array
    share: Array | None = None
    weight: Array | None = None

    @classmethod
    def of(cls, dataset: Dataset, label: np.ndarray, checkpoint: Checkpoint) -> "Targets":
        """The Targets of a data set with the labels (S, K). Raises DataError as taught_attention does."""
        config = checkpoint.config
        zero = checkpoint.mean
        if checkpoint.reference is not None:
            zero = element_sums(checkpoint.reference, dataset.graphs, np.arange(len(dataset)))
        scaled = (label - zero) / checkpoint.std
        share = taught_attention(dataset, config)
        dtype = config.training.dtype
        weight = labels_of_targets(dataset, [config.data.weight])[:, 0].astype(dtype) if config.data.weight else None
        return cls(scaled.astype(dtype), None if share is None else share.astype(dtype), weight)


def label_scale(label: np.ndarray, graphs: GraphBatch, rows: np.ndarray, config: Config) -> Scale:
    """The Scale of structures `rows` (S,) with labels (S, K), NaN where unknown: of what is known, each target's own.

    mean and std of the labels; for the read-out "sum" the least squares of minimum norm of the labels on the numbers of
    atoms of each element, and the std of what is left, so that two copies of a structure have twice its property.
    A non-negative target is divided but not shifted, so that the clip at 0 keeps its meaning; a class is left as it is.
    """
    n_targets = label.shape[1]
    scale = Scale(np.zeros(n_targets), np.ones(n_targets))
    if not config.training.scale_target or config.of_class:
        return scale
    if config.model.readout == "sum" and not config.model.non_negative:
        scale = scale._replace(reference=np.zeros((n_targets, N_ATOMIC)))
        counts = np.concatenate([element_counts(b.z, b.site_ptr, N_ATOMIC) for b in graphs.blocks(rows)], dtype=float)
    for k, known in enumerate(~np.isnan(label).T):
        values = label[known, k]
        if scale.reference is not None:
            scale.reference[k] = np.linalg.lstsq(counts[known], values, rcond=None)[0]
            values = values - counts[known] @ scale.reference[k]
        elif not config.model.non_negative:
            scale.mean[k] = values.mean()
        spread = values.std()
        scale.std[k] = spread if spread > ROUNDING * np.abs(label[known, k]).max() else 1.0
    return scale
