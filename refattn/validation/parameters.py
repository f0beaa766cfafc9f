"""Randomised parameters: a score that says something of what was learned must change when the learned is taken away."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from refattn.config import ModelConfig
from refattn.network.params import initialise
from refattn.prediction.predictor import Model

OTHER = 1 << 64  # added to a seed: no training begins with such parameters


def stages(config: ModelConfig) -> list[tuple[str, str]]:
    """Groups of parameters from the output to the input, as (text, regular expression of their names).

    Returns
    -------
    list of (str, str)
    """
    layers = [(f"layer {layer + 1}", rf"layer{layer}\.") for layer in reversed(range(config.n_layers))]
    read_out = [("output", r"(target\d+\.)?(hidden_|output_)"), ("global attention", r"(target\d+\.)?(after_|global_)")]
    return [*read_out, *layers, ("input", "")]


def randomised(model: Model, seed: int) -> Iterator[tuple[str, Model]]:
    """The model again and again, each time with one group more of random parameters; the last one knows nothing.

    Yields
    ------
    (text, refattn.Model)     the group that was randomised last, and the model

    Source   Adebayo et al., NeurIPS 2018, arXiv 1810.03292: cascading randomisation
    """
    checkpoint = model.checkpoint
    fresh = initialise(checkpoint.config.model, OTHER + seed, checkpoint.params.vector.dtype)
    params = checkpoint.params.astype(checkpoint.params.vector.dtype)
    for text, pattern in stages(checkpoint.config.model):
        for name in params:
            if re.match(pattern, name):
                params[name][...] = fresh[name]
        copy = dataclasses.replace(checkpoint, config=model.config, params=params.astype(params.vector.dtype))
        yield text, Model(copy, model.device)


def untrained(model: Model, seed: int) -> Model:
    """The model with random parameters throughout, which are those that no run began with."""
    checkpoint = model.checkpoint
    params = initialise(checkpoint.config.model, OTHER + seed, np.dtype(checkpoint.params.vector.dtype))
    return Model(dataclasses.replace(checkpoint, config=model.config, params=params), model.device)
