"""Made-up structures of any size and degree: what a time depends on is varied here one thing at a time."""

import dataclasses
import types

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from refattn.config import Config, GraphConfig, TrainingConfig
from refattn.data.store import Dataset
from refattn.experiments import load_experiment
from refattn.structures.batch import GraphBatch

VOLUME = 20.0  # Å^3 an atom
CLOSEST = 1.0  # Å between two atoms


def network(**sizes):
    """Config of the published QM9 network without dropout of the attention, and other `sizes` of ModelConfig."""
    model = dataclasses.replace(load_experiment("qm9").model, attention_dropout=0.0, **sizes)
    return Config(model, GraphConfig(), training=TrainingConfig(batch_size=128))


def source(config, n_structures=128, n_sites=18, degree=4, seed=0):
    """What a peer reads its batches from: `n_structures` of `n_sites` sites with `degree` edges each, drawn at random.

    Returns
    -------
    namespace with dataset, config, label (S,) float32 and known (S,), the rows
    """
    rng, sites = np.random.default_rng(seed), n_structures * n_sites
    edges = sites * degree
    omega = rng.uniform(0.4, 3.0, (sites, degree))
    z = rng.choice([1, 6, 7, 8], sites).astype(np.int32)
    nbr = rng.integers(0, n_sites, edges, dtype=np.int32)
    graphs = GraphBatch(
        site_ptr=np.arange(n_structures + 1) * n_sites,
        edge_ptr=np.arange(sites + 1) * degree,
        nbr=nbr + np.repeat(np.arange(n_structures, dtype=np.int32) * n_sites, n_sites * degree),
        z=z,
        r=rng.uniform(1.0, 4.0, edges),
        omega=omega.ravel(),
        weight=(omega / omega.max(axis=1, keepdims=True)).ravel(),
        structure=np.arange(n_structures),
    )
    dataset = Dataset(
        graphs=graphs,
        position=None,
        cell=None,
        pbc=None,
        id=np.array([f"s{number}" for number in range(n_structures)]),
        labels={},
        label_attrs={},
        arrays={},
        graph_config=config.graph,
        attrs={},
    )
    label = rng.normal(size=n_structures).astype(np.float32)
    rows = np.arange(n_structures)
    return types.SimpleNamespace(dataset=dataset, config=config, label=label, known=rows)


def cluster(n_sites, seed=0):
    """`n_sites` carbon atoms at random in a cube of 20 Å^3 an atom, none closer than 1 Å, not periodic."""
    rng, edge = np.random.default_rng(seed), (VOLUME * n_sites) ** (1 / 3)
    positions = rng.random((n_sites, 3)) * edge
    while len(pairs := cKDTree(positions).query_pairs(CLOSEST, output_type="ndarray")):
        again = np.unique(pairs[:, 0])
        positions[again] = rng.random((len(again), 3)) * edge
    return Atoms(numbers=[6] * n_sites, positions=positions, info={"id": f"cluster of {n_sites}"})
