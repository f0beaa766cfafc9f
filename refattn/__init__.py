"""refattn: the reference implementation of SCANN, an attention network for materials, in NumPy and Numba.

config         every hyper-parameter, its default, unit and source
structures     atoms in, graph out: Voronoi neighbours, ragged arrays
data           data sets: sources, the HDF5 file, splits, the loader, molecular dynamics that makes a set
ops            the mathematics, every formula in NumPy (reference), in Numba (cpu) and in numba.cuda (cuda)
params, model  the table of parameters; the network forward and backward in nine numbered steps
training       loss, Adam, schedules, threads, checkpoints, the run directory
placement      the network for NumPy arrays on any device
prediction     a trained model as people use it; calculator makes it an ASE calculator
gradient_check every gradient against central differences
explanation    what a prediction rests on: attention, attention flow, gradients, occlusion, symmetry; maps of a set
validation     whether that is to be believed
ensemble       the same network from several seeds
upstream       reads the authors' Keras models
experiments    the authors' experiments and the built-in one, as TOML files
"""

import importlib

__version__ = "0.1.0"

# Loaded when first used, so that `import refattn` and `refattn --help` stay quick.
_PUBLIC = {
    "Calculator": "calculator",
    "Config": "config",
    "Graph": "structures.graph",
    "Model": "prediction",
    "embed": "explanation.embedding",
    "explain": "explanation.explain",
    "gradcheck": "gradient_check",
    "load": "prediction",
    "load_config": "config",
    "read_dataset": "data.store",
    "train": "training.train",
    "train_ensemble": "training.train_ensemble",
}
__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'refattn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"refattn.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value
