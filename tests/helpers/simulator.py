"""A network small enough for Numba's simulator, which runs a thread of Python for each thread of a GPU."""

import dataclasses

from small_data import small_config

SMALL = {"n_layers": 1, "width": 4, "global_width": 4, "head_width": 4, "embedding_width": 4, "n_radial": 4}


def smaller_config(path, model=None, **training):
    """small_config with one layer of width 4, and the changes of [model] in the dict `model`."""
    config = small_config(path, **training)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **{**SMALL, **(model or {})}))
