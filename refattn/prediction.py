"""A trained model as people use it: structures in, properties and attention out."""

import dataclasses
import itertools

import ase
import numpy as np
from ase.data import chemical_symbols

from refattn.data.loader import Loader
from refattn.data.store import Dataset
from refattn.environment import available_cores
from refattn.errors import DataError, StructureError
from refattn.ops import load_backend
from refattn.structures.graph import Graph
from refattn.training.checkpoint import Checkpoint, load_checkpoint, model_file
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
        self.ops = load_backend(device)

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

        Raises StructureError for a structure that has no graph, DataError for an element that the model never saw. A
        structure is called by `id` in its info, else by its number.
        """
        structures = [structures] if isinstance(structures, ase.Atoms) else structures
        return self._predict(list(enumerate(structures)), n_threads)[1]

    def predict_stream(self, structures, block=256, n_threads=None, skip=None):
        """Like predict, for any number of structures in bounded memory: yields (list of ase.Atoms, Prediction).

        Where `skip` is given, structures that predict would refuse are left out, and skip(id, error) is called.
        """
        numbered = enumerate(structures)
        while chunk := list(itertools.islice(numbered, block)):
            kept, result = self._predict(chunk, n_threads, skip)
            if kept:
                yield kept, result

    def _predict(self, numbered, n_threads, skip=None):
        """The structures, of pairs (number, ase.Atoms), that have a prediction, and their Prediction."""
        with workers(n_threads or available_cores()) as run:
            kept = []
            for id, atoms, graph in run(self.graph, numbered):
                if not isinstance(graph, Graph):
                    if skip is None:
                        raise graph
                    skip(id, graph)
                    continue
                kept.append((id, atoms, graph))
            ids, structures, graphs = map(list, zip(*kept)) if kept else ([], [], [])
            loader = Loader(graph_dataset(ids, structures, graphs, self.config), self.config.model, self.dtype)
            rows = np.arange(len(kept))
            output, attention = predict_rows(self.checkpoint.params, self.config.model, self.ops, loader, rows, run)
        value = self.checkpoint.mean + self.checkpoint.std * output.astype(float)
        return structures, Prediction(value, attention, ids, self.target, self.unit)

    def graph(self, numbered):
        """Id, ase.Atoms and Graph of a pair (number, ase.Atoms); in the Graph's place the error where there is none."""
        number, atoms = numbered
        id = str(atoms.info.get("id", number))
        named = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info={"id": id})
        try:
            check_elements(self.checkpoint, id, atoms.numbers)
            return id, atoms, Graph.from_atoms(named, **dataclasses.asdict(self.config.graph))
        except (StructureError, DataError) as error:
            return id, atoms, error

    @property
    def dtype(self):
        return self.checkpoint.params.vector.dtype


def check_elements(checkpoint, id, z):
    """Raise DataError when structure `id`, of atomic numbers `z` (N,), has elements that the model was not trained on.

    A table of elements knows nothing of them; a model on element features (model.features "cgcnn") does.
    """
    model = checkpoint.config.model
    seen = checkpoint.elements or range(1, model.n_elements)  # the second for imported models
    unseen = sorted(set(z.tolist()).difference(seen))
    if model.features == "atomic" and unseen:
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
    return Model(load_checkpoint(model_file(run)), device)


def graph_dataset(ids, structures, graphs, config):
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
