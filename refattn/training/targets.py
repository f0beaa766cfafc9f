"""What a training is to reach: scaled labels, and the attention that is taught."""

import typing

import numpy as np

from refattn.common.metrics import N_ATOMIC, ROUNDING, element_counts
from refattn.config import Config
from refattn.data.splits import labels_of_targets
from refattn.data.store import Dataset
from refattn.data.taught_attention import taught_attention
from refattn.network.checkpoint import Checkpoint, Scale
from refattn.network.inference import element_sums
from refattn.ops.types import Array
from refattn.structures.batch import BLOCK, GraphBatch

MANY = 200_000  # structures whose numbers of atoms are in memory at once


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
            every = np.arange(len(dataset))
            blocks = (every[first : first + BLOCK] for first in range(0, len(every), BLOCK))
            zero = np.concatenate([element_sums(checkpoint.reference, dataset.graphs, rows) for rows in blocks])
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
    for k, known in enumerate(~np.isnan(label).T):
        values = label[known, k]
        if scale.reference is not None:
            scale.reference[k], values = _fit_elements(graphs, rows[known], values)
        elif not config.model.non_negative:
            scale.mean[k] = values.mean()
        spread = values.std()
        scale.std[k] = spread if spread > ROUNDING * np.abs(label[known, k]).max() else 1.0
    return scale


def _fit_elements(graphs, rows, values):
    """The least squares (119,) of minimum norm of `values` (S,) on the numbers of atoms of each element in the
    structures `rows`, and what is left of the values; of many structures by the normal equations, in bounded memory."""

    def counts_of(part):
        found = [element_counts(block.z, block.site_ptr, N_ATOMIC) for block in graphs.blocks(rows[part])]
        return np.concatenate(found, dtype=float)

    parts = [slice(first, first + MANY) for first in range(0, len(rows), MANY)]
    if len(parts) == 1:
        counts = counts_of(parts[0])
        reference = np.linalg.lstsq(counts, values, rcond=None)[0]
        return reference, values - counts @ reference
    square = np.zeros((N_ATOMIC, N_ATOMIC))  # whole numbers, which are exact
    product = np.zeros(N_ATOMIC)
    for part in parts:
        counts = counts_of(part)
        square += counts.T @ counts
        product += counts.T @ values[part]
    reference = np.linalg.lstsq(square, product, rcond=None)[0]
    return reference, np.concatenate([values[part] - counts_of(part) @ reference for part in parts])
