"""A trained model as people use it: structures in, properties and attention out."""

import dataclasses
import itertools
from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols

from refattn.data.loader import Loader
from refattn.data.store import Dataset
from refattn.environment import available_cores
from refattn.errors import DataError
from refattn.ops import load_backend
from refattn.structures.graph import Graph
from refattn.training.checkpoint import Checkpoint, load_checkpoint
from refattn.training.parallel import workers
from refattn.training.step import predict_rows


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Properties of S structures and the attention of their sites.

    value : (S,) float64           in `unit`
    attention : list of (N_s,)     global attention of each structure's sites; each sums to 1
    id : list of str
    target, unit : str
    """

    value: np.ndarray
    attention: list
    id: list
    target: str
    unit: str


class Model:
    """Network, label scaling and neighbour rule in one.

    Attributes
    ----------
    config : Config
    target, unit : str       the label it predicts
    checkpoint : Checkpoint  parameters, scaling, elements and split
    """

    def __init__(self, checkpoint: Checkpoint, device="cpu"):
        self.checkpoint, self.config, self.device = checkpoint, checkpoint.config, device
        self.target, self.unit = checkpoint.config.data.target, checkpoint.unit
        self._ops = load_backend(device)

    def predict(self, structures, n_threads=None):
        """Property and attention of one ase.Atoms or of an iterable of them.

        Parameters
        ----------
        structures : ase.Atoms, or iterable of ase.Atoms
            With `ring` (N, 2) in `arrays` where the network uses ring features.
        n_threads : int, optional
            By default one for each core.

        Returns
        -------
        Prediction

        Raises StructureError for a structure that has no graph, DataError for an element that the model never saw.
        """
        structures = [structures] if isinstance(structures, ase.Atoms) else list(structures)
        ids = [str(atoms.info.get("id", number)) for number, atoms in enumerate(structures)]
        for id, atoms in zip(ids, structures, strict=True):
            self._check_elements(id, atoms)
        with workers(n_threads or available_cores()) as run:
            graphs = list(
                run(lambda atoms: Graph.from_atoms(atoms, **dataclasses.asdict(self.config.graph)), structures)
            )
            loader = Loader(_dataset(ids, structures, graphs, self.config), self.config.model, self._dtype)
            rows = np.arange(len(structures))
            output, attention = predict_rows(self.checkpoint.params, self.config.model, self._ops, loader, rows, run)
        value = self.checkpoint.mean + self.checkpoint.std * output.astype(float)
        return Prediction(value, attention, ids, self.target, self.unit)

    def predict_stream(self, structures, block=256, n_threads=None):
        """Like predict, for any number of structures in bounded memory: yields (list of ase.Atoms, Prediction)."""
        structures = iter(structures)
        while chunk := list(itertools.islice(structures, block)):
            yield chunk, self.predict(chunk, n_threads)

    @property
    def _dtype(self):
        return self.checkpoint.params.vector.dtype

    def _check_elements(self, id, atoms):
        unseen = sorted(set(atoms.numbers.tolist()) - set(self.checkpoint.elements))
        if self.checkpoint.elements and unseen:
            names = ", ".join(chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z = {z}" for z in unseen)
            raise DataError(
                f"structure {id} holds {names}, which the model never saw in training; leave the structure out, or "
                "train on a set that has the element"
            )


def load(run, device="cpu"):
    """Load a trained model.

    Parameters
    ----------
    run : path     a run directory (its best model) or a model file

    Returns
    -------
    Model

    Raises RunError for a run that is missing, incomplete or damaged.
    """
    path = Path(run)
    return Model(load_checkpoint(path / "model.h5" if path.is_dir() else path), device)


def _dataset(ids, structures, graphs, config):
    """The graphs as a Dataset in memory, without labels."""

    def joined(name, dtype):
        return np.concatenate([np.zeros((0,), dtype), *(getattr(graph, name) for graph in graphs)]).astype(dtype)

    def pointers(sizes):
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)

    degrees = np.concatenate([np.zeros(0, dtype=np.int64), *(np.diff(graph.edge_ptr) for graph in graphs)])
    arrays = {}
    if config.model.ring and all("ring" in atoms.arrays for atoms in structures) and structures:
        arrays["ring"] = np.concatenate([atoms.arrays["ring"] for atoms in structures])
    return Dataset(
        site_ptr=pointers([len(graph.z) for graph in graphs]),
        edge_ptr=pointers(degrees),
        z=joined("z", np.uint8),
        nbr=joined("nbr", np.int32),
        r=joined("r", float),
        omega=joined("omega", float),
        omega_max=joined("omega_max", float),
        image=None,
        position=None,
        cell=None,
        pbc=None,
        id=np.array(ids, dtype=str),
        labels={},
        label_attrs={},
        arrays=arrays,
        graph_config=config.graph,
        attrs={},
    )
