"""Made-up structures of any size and degree: what a time depends on is varied here one thing at a time."""

import dataclasses
import types

import numpy as np
from ase import Atoms

from refattn.config import Config, GraphConfig, TrainingConfig
from refattn.data.loader import Loader
from refattn.data.store import Dataset
from refattn.experiments import load_experiment

VOLUME = 20.0  # Å^3 an atom


def network(**sizes):
    """Config of the published QM9 network without dropout of the attention, and other `sizes` of ModelConfig."""
    model = dataclasses.replace(load_experiment("qm9").model, attention_dropout=0.0, **sizes)
    return Config(model, GraphConfig(), training=TrainingConfig(batch_size=128))


def source(config, n_structures=128, n_sites=18, degree=4, seed=0):
    """What a peer reads its batches from: `n_structures` of `n_sites` sites with `degree` edges each, drawn at random.

    Returns
    -------
    namespace with dataset, loader, config, label (S,) float32 and known (S,), the rows
    """
    rng, sites = np.random.default_rng(seed), n_structures * n_sites
    edges = sites * degree
    omega = rng.uniform(0.4, 3.0, (sites, degree))
    dataset = Dataset(
        site_ptr=np.arange(n_structures + 1) * n_sites,
        edge_ptr=np.arange(sites + 1) * degree,
        z=rng.choice([1, 6, 7, 8], sites).astype(np.uint8),
        nbr=rng.integers(0, n_sites, edges, dtype=np.int32),
        r=rng.uniform(1.0, 4.0, edges),
        omega=omega.ravel(),
        omega_max=omega.max(axis=1),
        image=None,
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
    loader = Loader(dataset, config.model, "float32")
    rows = np.arange(n_structures)
    return types.SimpleNamespace(dataset=dataset, loader=loader, config=config, label=label, known=rows)


def cluster(n_sites, seed=0):
    """`n_sites` carbon atoms at random in a cube of 20 Å^3 an atom, without periodic directions."""
    positions = np.random.default_rng(seed).random((n_sites, 3)) * (VOLUME * n_sites) ** (1 / 3)
    return Atoms(numbers=[6] * n_sites, positions=positions, info={"id": f"cluster of {n_sites}"})
