"""A trained model as people use it: structures in, properties and attention out."""

import dataclasses
import functools
import itertools

import ase
import numpy as np
from ase.data import chemical_symbols

from refattn.common.environment import available_cores
from refattn.data.loader import Loader
from refattn.data.store import Dataset
from refattn.errors import DataError, RunError, StructureError
from refattn.network.inference import ask
from refattn.network.threads import workers
from refattn.ops import load_backend
from refattn.prediction.calibration import calibration_file, read_conformal
from refattn.prediction.ensemble import is_ensemble, load_members, members_of
from refattn.structures.graph import Graph


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Properties of S structures and the attention of their sites.

    value : (S,) float64           in `unit`
    attention : list of (N_s,)     global attention of each structure's sites; each sums to 1
    id : list of str
    target, unit : str
    spread : (S,) float64          standard deviation over the members, in `unit`; None where there is one network
    distance : (S,) float64        to the training set, see TrainingSet; None where it was not asked for
    lower, upper : (S,) float64    ends of the interval, see Conformal; None without a coverage
    """

    value: np.ndarray
    attention: list
    id: list
    target: str
    unit: str
    spread: np.ndarray | None = None
    distance: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None


class Predictor:
    """One network or the members of an ensemble, with label scaling and neighbour rule.

    Attributes
    ----------
    checkpoints : list of Checkpoint     of the networks
    config : Config                      theirs; they differ in the seed at most
    target, unit : str                   the label it predicts
    """

    def __init__(self, checkpoints, device, calibrations):
        self.checkpoints, self.calibrations, self.device = checkpoints, calibrations, device
        self.config, self.unit = checkpoints[0].config, checkpoints[0].unit
        self.target, self.ops = self.config.data.target, load_backend(device)

    def predict(self, structures, n_threads=None, uncertainty=False, coverage=None):
        """Property and attention of one ase.Atoms or of an iterable of them.

        Parameters
        ----------
        structures : ase.Atoms, or iterable of ase.Atoms
            With `ring` (N, 2) in `arrays` where the network uses ring features.
        n_threads : int, optional
            By default one for each core.
        uncertainty : bool
            Ask for the distance to the training set.
        coverage : float, optional
            Ask for that distance and for intervals that hold the label with this probability.

        Returns
        -------
        Prediction

        Raises StructureError for a structure that has no graph, DataError for an element that the model never saw. A
        structure is called by `id` in its info, else by its number. What was asked for may raise RunError, where the
        run has no calibration.h5, and what conformal_quantile raises.
        """
        structures = [structures] if isinstance(structures, ase.Atoms) else structures
        return self._predict(list(enumerate(structures)), n_threads, None, uncertainty, coverage)[1]

    def predict_stream(self, structures, block=256, n_threads=None, skip=None, uncertainty=False, coverage=None):
        """Like predict, for any number of structures in bounded memory: yields (list of ase.Atoms, Prediction).

        Where `skip` is given, structures that predict would refuse are left out, and skip(id, error) is called.
        """
        numbered = enumerate(structures)
        while chunk := list(itertools.islice(numbered, block)):
            kept, result = self._predict(chunk, n_threads, skip, uncertainty, coverage)
            if kept:
                yield kept, result

    def _predict(self, numbered, n_threads, skip, uncertainty, coverage):
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
            answer = ask(self.checkpoints, self.ops, loader, np.arange(len(kept)), run)
            sure = self._sure(answer, uncertainty, coverage, run)
        prediction = Prediction(answer.value, answer.attention, ids, self.target, self.unit, answer.spread, **sure)
        return structures, prediction

    def _sure(self, answer, uncertainty, coverage, run):
        """The fields `distance`, `lower` and `upper` of a Prediction, those that were asked for."""
        if not uncertainty and coverage is None:
            return {}
        distance = self.conformal.distance(answer.structs, run)
        if coverage is None:
            return {"distance": distance}
        half = self.conformal.half_width(distance, coverage)
        return {"distance": distance, "lower": answer.value - half, "upper": answer.value + half}

    def fields(self, uncertainty=False, coverage=None):
        """Names of the optional fields that a Prediction has when predict is asked in this way, in their order."""
        found = ["spread"] if len(self.checkpoints) > 1 else []
        found += ["distance"] if uncertainty or coverage is not None else []
        return found + ([] if coverage is None else ["lower", "upper"])

    @functools.cached_property
    def conformal(self):
        """The Conformal of the run's calibration.h5, of all members' in an ensemble. Raises RunError."""
        if not self.calibrations:
            raise RunError("a network without a run has no calibration; load the run that it was trained in")
        return read_conformal(self.calibrations, self.checkpoints)

    def graph(self, numbered):
        """Id, ase.Atoms and Graph of a pair (number, ase.Atoms); in the Graph's place the error where there is none."""
        number, atoms = numbered
        id = str(atoms.info.get("id", number))
        named = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info={"id": id})
        try:
            check_elements(self.checkpoints[0], id, atoms.numbers)
            return id, atoms, Graph.from_atoms(named, **dataclasses.asdict(self.config.graph))
        except (StructureError, DataError) as error:
            return id, atoms, error

    @property
    def dtype(self):
        return self.checkpoints[0].params.vector.dtype


class Model(Predictor):
    """Network, label scaling and neighbour rule in one.

    Attributes
    ----------
    checkpoint : Checkpoint  parameters, scaling, elements and split

    Parameters
    ----------
    checkpoint : Checkpoint
    device : "cpu", "reference", "cuda" or "cuda-tf32"
    calibration : path, optional     calibration.h5 of its run
    """

    def __init__(self, checkpoint, device="cpu", calibration=None):
        super().__init__([checkpoint], device, [calibration] if calibration else [])
        self.checkpoint = checkpoint


class Ensemble(Predictor):
    """Networks that differ in their seed: their mean is the prediction, their standard deviation its spread.

    Parameters
    ----------
    checkpoints : list of Checkpoint     at least two
    device : "cpu", "reference", "cuda" or "cuda-tf32"
    calibrations : list of path          calibration.h5 of each
    """

    def __init__(self, checkpoints, device="cpu", calibrations=()):
        super().__init__(checkpoints, device, calibrations)

    @property
    def checkpoint(self):
        """An ensemble has none; what explains a network asks for it."""
        raise RunError("an ensemble is no single network; give one of its members, such as member_0 in its folder")


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
    run : path     a run directory (its best model), a model file, or the folder of an ensemble

    Returns
    -------
    Model, or Ensemble; both predict in the same way

    Raises RunError for a run that is missing, incomplete or damaged.
    """
    checkpoints, calibrations = load_members(run), [calibration_file(member) for member in members_of(run)]
    if is_ensemble(run):
        return Ensemble(checkpoints, device, calibrations)
    return Model(checkpoints[0], device, calibrations[0])


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
