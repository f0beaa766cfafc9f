"""refattn: the reference implementation of SCANN, an attention network for materials, in NumPy and Numba.

config          every hyper-parameter, its default, unit and source
structures      atoms in, graph out: Voronoi neighbours, ragged arrays
ops             the mathematics, every formula in NumPy (reference), in Numba (cpu) and in numba.cuda (cuda)
network         the table of parameters, forward and backward in nine numbered steps, inference, model files
training        loss, Adam, schedules, the training loop, the run directory
prediction      a trained model as people use it: predictor, ensemble, intervals, embeddings, ASE calculator
explanation     what a prediction rests on: attention, attention flow, gradients, occlusion, symmetry
validation      whether that is to be believed
report          pictures, pages, tables and maps
data            data sets: the HDF5 file, splits; data/sources reads files and published sets
generate        molecular dynamics that makes a set
gradient_check  every gradient against central differences
keras_import    reads the authors' Keras models
experiments     the authors' experiments and the built-in one, as TOML files
common          files, JSON, the machine, the compiler
"""

import importlib

__version__ = "0.1.0"

# Loaded when first used, so that `import refattn` and `refattn --help` stay quick.
_PUBLIC = {
    "Calculator": "prediction.calculator",
    "Config": "config",
    "Graph": "structures.graph",
    "Model": "prediction.predictor",
    "embed": "prediction.embedding",
    "explain": "explanation.explain",
    "gradcheck": "gradient_check",
    "load": "prediction.predictor",
    "load_config": "config",
    "read_dataset": "data.store",
    "train": "training.train",
    "train_ensemble": "training.train_ensemble",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'refattn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"refattn.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value
