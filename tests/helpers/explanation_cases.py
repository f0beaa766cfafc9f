"""Networks and structures of the tests of refattn.explain, and the network rebuilt for brute force."""

import dataclasses

import ase
import numpy as np
from ase.build import molecule
from cases import shard_of
from made_structures import rattled_salt

from refattn.config import Config, DataConfig, GraphConfig, ModelConfig, TrainingConfig
from refattn.explanation.comparison import POPULATIONS
from refattn.explanation.variants import ScoredInput
from refattn.gradient_check import small_network
from refattn.network.checkpoint import Checkpoint
from refattn.network.model import forward
from refattn.network.params import Parameters, parameter_table
from refattn.ops import load_backend
from refattn.prediction.predictor import Model

SMALL = {"n_layers": 2, "width": 16, "n_heads": 4, "global_width": 6, "head_width": 5, "embedding_width": 4}
SMALL |= {"n_elements": 30, "n_radial": 6}
OPS = load_backend("cpu")
# The same numbers by two routes in float64; measured 1e-14.
SAME = 1e-11
# Central differences of order 1 outputs, h = 1e-5 (see refattn/gradient_check.py).
DIFFERENCE = 1e-8
# Issue 5: equivalent sites.
EQUIVALENT = 1e-6
MEAN, STD = -3.0, 0.5
NETWORKS = [
    {"variant": variant, "readout": readout}
    for variant in ("scann", "scann+")
    for readout in ("intensive", "published")
]

NAMES = ("CH3OH", "CH3CHO", "C2H4", "CH3OCH3", "H2CO", "C6H6", "CH3CH2OH", "C4H4O", "CH3COCH3")


def network(options=None, seed=0, dtype="float64", **graph):
    """A Model with random parameters, none of them zero."""
    config = ModelConfig(**(SMALL | (options or {})))
    config = Config(config, GraphConfig(**graph), DataConfig(target="gap"), TrainingConfig(dtype=dtype))
    return Model(Checkpoint(config, small_network(config.model, seed).astype(dtype), "eV", MEAN, STD))


def subject(model, atoms):
    shard = shard_of(atoms, model.config.model, **dataclasses.asdict(model.config.graph))
    return ScoredInput.of(model.checkpoint.params, model.config.model, OPS, shard)


def own_rows(model, atoms):
    """A network whose table has a row for every site, and the shard that points there; the output is the same.

    Returns
    -------
    table : (N, W)     the rows, to be changed in place
    output : function () -> float, in the label's unit
    """
    shard = shard_of(atoms, model.config.model, **dataclasses.asdict(model.config.graph))
    config = dataclasses.replace(model.config.model, n_elements=len(atoms))
    params = model.checkpoint.params
    rest = params.vector[params["embed"].size :]
    own = Parameters(parameter_table(config), np.append(params["embed"][shard.z], rest))
    shard = dataclasses.replace(shard, z=np.arange(len(atoms), dtype=np.int32))
    return own["embed"], lambda: MEAN + STD * forward(own, shard, config, OPS).prediction[0, 0]


def apart():
    """Two atoms out of reach of each other, and a pair: sites without edges among sites with edges."""
    return ase.Atoms("CNOH", [[0, 0, 0], [0, 30, 0], [0, 60, 0], [0, 60, 1]])


def benzene():
    """Exact D6h, 1.395 and 1.087 Å."""
    angle = np.arange(6) * np.pi / 3
    circle = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    return ase.Atoms("C6H6", np.concatenate([1.395 * circle, 2.482 * circle]))


STRUCTURES = {
    "methanol": lambda: molecule("CH3OH"),
    "salt": rattled_salt,
    "apart": apart,
    "atom": lambda: ase.Atoms("C"),
}


def populated_structures(populations):
    """Molecules with a population made by populations(atoms), for both orbitals."""
    found = []
    for name in NAMES:
        atoms = molecule(name)
        atoms.info["id"] = name
        share = populations(atoms)
        for orbital in POPULATIONS:
            atoms.set_array(orbital, share / share.sum())
        found.append(atoms)
    return found


def n_colours(pixels):
    """How many colours there are; a pixel (R, G, B, A) is one number, because rows are slow to sort."""
    return len(np.unique(np.round(255 * pixels).astype(np.uint8).view(np.uint32)))
