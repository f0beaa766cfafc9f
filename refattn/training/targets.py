"""What a training is to reach: scaled labels, and the attention that is taught."""

import typing

import numpy as np

from refattn.config import Config
from refattn.data.store import Dataset
from refattn.network.checkpoint import Scale
from refattn.ops.types import Array


class Targets(typing.NamedTuple):
    """Of every structure of a data set.

    label : (S, K) float     scaled; NaN where unknown
    """

    label: Array

    @classmethod
    def of(cls, dataset: Dataset, label: np.ndarray, scale: Scale, config: Config) -> "Targets":
        """The Targets of a data set with the labels (S, K)."""
        return cls(((label - scale.mean) / scale.std).astype(config.training.dtype))


def label_scale(label: np.ndarray, config: Config) -> Scale:
    """The Scale of the training labels (S, K), NaN where unknown: mean and standard deviation of what is known.

    A non-negative target is divided but not shifted, so that the clip at 0 keeps its meaning.
    """
    n_targets = label.shape[1]
    if not config.training.scale_target:
        return Scale(np.zeros(n_targets), np.ones(n_targets))
    known = [column[~np.isnan(column)] for column in label.T]
    mean = [0.0 if config.model.non_negative else column.mean() for column in known]
    return Scale(np.array(mean), np.array([column.std() or 1.0 for column in known]))
