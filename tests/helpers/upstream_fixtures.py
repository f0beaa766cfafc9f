"""Access to tests/data/network.h5 and tests/data/keras: numbers made with the authors' code (tests/data/README.md)."""

import gzip
import json
import tomllib
from pathlib import Path

import h5py
import numpy as np

from refattn.config import config_from_dict

DATA = Path(__file__).parents[1] / "data"
FULL = "full_plus"  # the published size: no weights, which would be 3.5 MB
VARIANTS = tuple(
    f"s_{name}"
    for name in (
        *("base", "base_cgcnn", "base_eb_cgcnn", "base_noganorm", "base_ring", "plus", "plus_crys", "plus_drop"),
        *("plus_eb", "plus_noattnnorm", "plus_ring", "plus_scale"),
    )
)


class Variant:
    """One network of the authors: its graph, inputs, parameters, and what their code computes with it.

    `group` is the HDF5 group; the attributes below are in memory: `config` (Config), `graph` (dict of the arrays of
    docs/design.md section 2, with `structures` and `y`), `ring` (N, 2) or None, `features` (N, 92) or None.
    """

    def __init__(self, group):
        self.group = group
        self.config = config_from_dict(tomllib.loads(group.attrs["config"]))
        self.shapes = json.loads(group.attrs["parameters"])
        self.graph = {name: dataset[()] for name, dataset in group["graph"].items()}
        self.ring = group["ring"][()] if "ring" in group else None
        self.features = group["features"][()] if "features" in group else None

    def arrays(self, name="parameters"):
        """{parameter name: array} of "parameters", "f64/grads", "f64/adam3" or "f32/grads"."""
        vector, arrays, start = self.group[name][()], {}, 0
        for key, shape in self.shapes.items():
            arrays[key] = vector[start : start + int(np.prod(shape))].reshape(shape)
            start += arrays[key].size
        assert start == vector.size
        return arrays


def variant(file, name):
    """The variant of an open network.h5."""
    return Variant(file[f"variants/{name}"])


def open_network():
    return h5py.File(DATA / "network.h5", "r")


def unpack_model(name, folder):
    """Write one of the authors' Keras models into a folder; its path."""
    path = Path(folder) / f"{name}.h5"
    path.write_bytes(gzip.decompress((DATA / "keras" / f"{name}.h5.gz").read_bytes()))
    return path
