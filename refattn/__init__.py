"""refattn: the reference implementation of SCANN, an attention network for materials, in NumPy and Numba.

config          every hyper-parameter, its default, unit and source
structures      atoms in, graph out: Voronoi neighbours, ragged arrays
neighbours      Voronoi neighbours for any program: facets, areas, volumes, pymatgen's VoronoiNN
ops             the mathematics, every formula in NumPy (reference), in Numba (cpu) and in numba.cuda (cuda)
network         the table of parameters, forward and backward in nine numbered steps, inference, model files
training        Adam, schedules, the training loop, the run directory
prediction      a trained model as people use it: predictor, ensemble, intervals, embeddings, ASE calculator
explanation     what a prediction rests on: attention, attention flow, gradients, occlusion, symmetry
validation      whether that is to be believed
report          pictures, pages, tables and maps
data            data sets: the HDF5 file, splits; data/sources reads files and published sets
generate        molecular dynamics that makes a set
verification    a run trained once more, compared bit for bit
testing         an oracle for other implementations of the network
interop         the network as a module of PyTorch
gradient_check  every gradient against central differences
keras_import    reads the authors' Keras models
experiments     the authors' experiments and the built-in one, as TOML files
common          losses, metrics, threads, files, the machine, the compiler
"""

import importlib

__version__ = "0.1.0"

# Module -> what it gives to people; loaded when first used, so that `import refattn` and `refattn --help` stay quick.
_MODULES = {
    "config": "Config DataConfig GraphConfig ModelConfig TrainingConfig load_config",
    "data.prepare": "PrepareReport prepare",
    "data.sources.registry": "open_source",
    "data.splits": "Split",
    "data.store": "Dataset Record Source read_dataset",
    "data.writer": "DatasetWriter",
    "errors": (
        "BenchmarkError ConfigError DataError DeviceError MissingExtra OutputError RefattnError RunError "
        "StructureError TrainingError"
    ),
    "explanation.explain": "Edges Explanation explain explain_stream",
    "explanation.flow": "Flow",
    "gradient_check": "GradcheckResult gradcheck",
    "network.checkpoint": "Checkpoint load_checkpoint save_checkpoint",
    "network.params": "Parameters initialise",
    "prediction.calculator": "Calculator",
    "prediction.embedding": "Embedding embed embed_stream",
    "prediction.predictor": "Ensemble Model Prediction load",
    "structures.batch": "Graph GraphBatch",
    "training.train": "train",
    "training.train_ensemble": "train_ensemble",
    "validation.anybody": "ScoreValidation validate",
    "verification": "Verification verify",
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names.split()}
_PACKAGES = ("interop", "neighbours", "testing")  # with public names of their own
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return importlib.import_module(f"refattn.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'refattn' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"refattn.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *_PUBLIC, *_PACKAGES})
