"""A trained model as people use it: structures in, properties and attention out."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import ase
import numpy as np
from ase.data import chemical_symbols

from refattn.common.environment import available_cores
from refattn.common.text import counted, encodable
from refattn.common.threads import workers
from refattn.errors import ConfigError, DataError, RunError, StructureError, not_finite
from refattn.network.checkpoint import Checkpoint, calibration_file, load_checkpoint, model_file
from refattn.network.inference import predict_members
from refattn.ops import load_backend
from refattn.prediction.calibration import read_conformals
from refattn.prediction.ensemble import load_members, members_of
from refattn.prediction.uncertainty import Conformal, own_struct
from refattn.structures.batch import (
    WITHOUT_BONDS,
    GraphBatch,
    Structures,
    check_atoms,
    checked_structures,
    far_apart,
)

BLOCK_SITES = 1 << 17  # sites that are predicted at once, and those of one structure
BESIDE = 0.05  # Å; an edge that is longer or shorter than all in training by less is none to speak of
SMALL = 256  # sites of a structure that one thread predicts before others would have begun
Skip = Callable[[str, Exception], None]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Properties of S structures and the attention of their sites. Of K > 1 targets, arrays have a last axis K.

    value : (S,) float64           in `unit`
    attention : list of (N_s,)     global attention of each structure's sites; each sums to 1
    id : list of str
    target, unit : str             of several targets a tuple
    spread : (S,) float64          standard deviation over the members, in `unit`; None where there is one network
    distance : (S,) float64        to the training set, see TrainingSet; None where it was not asked for
    lower, upper : (S,) float64    ends of the interval, see Conformal; None without a coverage
    """

    value: np.ndarray
    attention: list[np.ndarray]
    id: list[str]
    target: str | tuple[str, ...]
    unit: str | tuple[str, ...]
    spread: np.ndarray | None = None
    distance: np.ndarray | None = None
    lower: np.ndarray | None = None
    upper: np.ndarray | None = None

    def _repr_html_(self) -> str:
        from refattn.report.notebook import prediction_html  # stands above this package

        return prediction_html(self)

    def uncertainty(self) -> dict[str, np.ndarray]:
        """Those of the last four fields that are known: name -> (S,) array."""
        fields = {name: getattr(self, name) for name in ("spread", "distance", "lower", "upper")}
        return {name: values for name, values in fields.items() if values is not None}

    def of_targets(self) -> "list[Prediction]":
        """The Prediction of every target alone."""
        if isinstance(self.target, str):
            return [self]
        return [
            Prediction(
                self.value[:, k],
                [beta[:, k] for beta in self.attention],
                self.id,
                target,
                unit,
                **{name: values[:, k] for name, values in self.uncertainty().items()},
            )
            for k, (target, unit) in enumerate(zip(self.target, self.unit, strict=True))
        ]


class Predictor:
    """One network or the members of an ensemble, with label scaling and neighbour rule.

    Attributes
    ----------
    checkpoints : list of Checkpoint     of the networks
    config : Config                      theirs; they differ in the seed at most
    target, unit : str                   the label it predicts; of several targets a tuple
    targets, units : tuple of str        the same, a tuple of one target too
    outside : Outside                    where it is set, is told of all structures that have a graph
    """

    def __init__(self, checkpoints: list[Checkpoint], device: str = "cpu", calibrations: Sequence[Path] = ()):
        self.checkpoints = checkpoints
        self.calibrations = calibrations
        self.device = device
        self.ops = load_backend(device)
        self.config = checkpoints[0].config
        self.target = self.config.data.target
        self.unit = checkpoints[0].unit
        self.targets = self.config.data.targets
        self.units = checkpoints[0].units
        self.outside = None

    def __getstate__(self) -> dict:
        """What a copy is made of: all but the operations, which are modules."""
        return {name: value for name, value in self.__dict__.items() if name != "ops"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, ops=load_backend(state["device"]))

    def predict(
        self,
        structures: Structures,
        n_threads: int | None = None,
        uncertainty: bool = False,
        coverage: float | None = None,
    ) -> Prediction:
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

        Raises StructureError for a structure that has no graph, DataError for an element that the model never saw, and
        for a prediction that is not finite. A structure is called by `id` in its info, else by its number. What was
        asked for may raise RunError, where the run has no calibration.h5, and what conformal_quantile raises.
        """
        structures = checked_structures(structures)
        task = functools.partial(self._predict, uncertainty, coverage)
        return self.compute(structures, task, n_threads, blas=_asks_distance(uncertainty, coverage))[1]

    def predict_stream(
        self,
        structures: Iterable[ase.Atoms],
        block: int = 256,
        n_threads: int | None = None,
        skip: Skip | None = None,
        uncertainty: bool = False,
        coverage: float | None = None,
    ) -> Iterator[tuple[list[ase.Atoms], Prediction]]:
        """Like predict, for any number of structures in bounded memory: yields (list of ase.Atoms, Prediction).

        Where `skip` is given, structures that predict would refuse are left out, and skip(id, error) is called.
        """
        task = functools.partial(self._predict, uncertainty, coverage)
        return self.stream_batches(structures, task, block, n_threads, skip, _asks_distance(uncertainty, coverage))

    def stream_batches(
        self,
        structures: Iterable[ase.Atoms],
        task: Callable,
        block: int,
        n_threads: int | None = None,
        skip: Skip | None = None,
        blas: bool = True,
        max_sites: int = BLOCK_SITES,
    ) -> Iterator[tuple[list[ase.Atoms], object]]:
        """What `compute` returns for every `block` structures of a stream; nothing where all of them were skipped.

        A block ends early where it has `max_sites` sites.
        """
        first_number = 0
        for chunk in _blocks(structures, block, max_sites):
            kept, result = self.compute(chunk, task, n_threads, skip, first_number, blas)
            if kept:
                yield kept, result
            first_number += len(chunk)

    def compute(
        self,
        structures: list[ase.Atoms],
        task: Callable,
        n_threads: int | None = None,
        skip: Skip | None = None,
        first_number: int = 0,
        blas: bool = True,
    ) -> tuple[list[ase.Atoms], object]:
        """The graphs of some structures, made by threads, and what `task` makes of them.

        Parameters
        ----------
        task : callable (ids, structures, graphs, map_fn, refuse) -> (structures, result)
            Its arguments are those structures, a list of str and a list of ase.Atoms, that have a graph; the GraphBatch
            of these; a function like map that may be threads; and refuse(id, error), for one that is to be skipped.
        skip : callable (id, error), optional
            Is told what has no graph or was refused; without it, errors are raised.
        first_number : int
            Of the structures, which are called by `id` in their info, else by their number.
        blas : bool
            Whether `task` multiplies matrices itself: not one thread of BLAS's own may change a bit of that.
        """

        def refuse(id, error):
            if skip is None:
                raise error
            skip(id, error)

        ids = [str(atoms.info.get("id", number)) for number, atoms in enumerate(structures, first_number)]
        ids = [id if id.isascii() else encodable(id) for id in ids]  # a file's name may be in no encoding
        is_small = len(structures) == 1 and len(structures[0]) <= SMALL
        at_once = is_small and self.ops.name == "cpu" and not blas
        with contextlib.nullcontext(map) if at_once else workers(n_threads or available_cores()) as map_fn:
            with_graph = []
            for found in zip(ids, structures, map_fn(self._graph_or_error, ids, structures), strict=True):
                if isinstance(found[2], GraphBatch):
                    with_graph.append(found)
                else:
                    refuse(found[0], found[2])
            kept_ids, kept, each = map(list, zip(*with_graph)) if with_graph else ([], [], [])
            graphs = GraphBatch.concatenate(each)
            if self.outside is not None:
                self.outside.add(kept_ids, kept, graphs)
            return task(kept_ids, kept, graphs, map_fn, refuse)

    def _predict(self, uncertainty, coverage, ids, structures, graphs, map_fn, refuse):
        """The structures and their Prediction; see `compute`."""
        found = predict_members(self.checkpoints, self.ops, graphs, np.arange(len(ids)), map_fn)
        finite = np.isfinite(found.value).all(axis=1)
        if not finite.all():
            for row in np.flatnonzero(~finite).tolist():
                refuse(ids[row], not_finite(ids[row]))
            rows = np.flatnonzero(finite)
            ids, structures = ([items[row] for row in rows] for items in (ids, structures))
            found = predict_members(self.checkpoints, self.ops, graphs, rows, map_fn)
        fields = {} if found.spread is None else {"spread": found.spread}
        fields |= self._sure(found, uncertainty, coverage, map_fn)
        result = Prediction(found.value, found.attention, ids, self.targets, self.units, **fields)
        return structures, result.of_targets()[0] if len(self.targets) == 1 else result

    def _sure(self, found, uncertainty, coverage, map_fn):
        """The fields `distance`, `lower` and `upper` of a Prediction (S, K), those that were asked for."""
        if not _asks_distance(uncertainty, coverage):
            return {}
        distance = self.distance(found.structs, map_fn)
        if coverage is None:
            return {"distance": distance}
        self.check_intervals()
        half = np.column_stack([c.half_width(d, coverage) for c, d in zip(self.conformals, distance.T, strict=True)])
        return {"distance": distance, "lower": found.value - half, "upper": found.value + half}

    def check_intervals(self, calibrated: bool = True) -> None:
        """Raise ConfigError where predictions are probabilities, which have no intervals of a label; where the model is
        to be `calibrated`, RunError where what it knows of its errors cannot be read."""
        if self.config.of_class:
            raise ConfigError(
                "predictions are probabilities of a class, and have no intervals; ask for no coverage or plot of it"
            )
        if calibrated:
            _ = self.conformals

    def distance(self, structs: list[np.ndarray], map_fn: Callable = map) -> np.ndarray:
        """Distance (S, K) to the training set of every target, of the `structs` of MemberPredictions."""
        columns = []
        for target, conformal in enumerate(self.conformals):
            own = [own_struct(struct, target, len(self.conformals)) for struct in structs]
            columns.append(conformal.distance(own, map_fn))
        return np.column_stack(columns)

    def fields(self, uncertainty: bool = False, coverage: float | None = None) -> list[str]:
        """Names of the optional fields that a Prediction has when predict is asked in this way, in their order."""
        found = ["spread"] if len(self.checkpoints) > 1 else []
        found += ["distance"] if _asks_distance(uncertainty, coverage) else []
        return found + ([] if coverage is None else ["lower", "upper"])

    @functools.cached_property
    def conformals(self) -> list[Conformal]:
        """The Conformal of every target from the run's calibration.h5, in an ensemble from all. Raises RunError."""
        if not self.calibrations:
            raise RunError("a network without a run has no calibration; load the run that it was trained in")
        return read_conformals(self.calibrations, self.checkpoints)

    def graph(self, id: str, atoms: ase.Atoms) -> GraphBatch:
        """The graph of one structure, called `id` in errors. Raises StructureError, DataError where there is none."""
        check_elements(self.checkpoints[0], id, atoms.numbers)
        angles = self.config.model.n_angular > 0
        graph = GraphBatch.from_atoms(atoms, self.config.graph, id, with_directions=angles)
        graph.check(self.config.model, [id])
        return graph

    def _graph_or_error(self, id, atoms):
        try:
            return self.graph(id, atoms)
        except (StructureError, DataError) as error:
            return error

    @property
    def dtype(self) -> np.dtype:
        return self.checkpoints[0].params.vector.dtype


def _blocks(structures, size, max_sites):
    """Lists of successive structures."""
    block = []
    n_sites = 0
    for number, atoms in enumerate(structures):
        check_atoms(number, atoms)
        block.append(atoms)
        n_sites += len(atoms)
        if len(block) == size or n_sites >= max_sites:
            yield block
            block = []
            n_sites = 0
    if block:
        yield block


def _asks_distance(uncertainty, coverage):
    """Whether the options of `predict` ask for the distance to the training set."""
    return uncertainty or coverage is not None


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

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", calibration: Path | None = None):
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

    @property
    def checkpoint(self) -> NoReturn:
        """An ensemble has none; what explains a network asks for it."""
        raise RunError("an ensemble is no single network; give one of its members, such as member_0 in its folder")


class Outside:
    """Counts the structures that lie outside of what a network was trained on.

    Nothing is known to be outside where the Checkpoint has no extent of the training set.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.extent = checkpoint.extent
        self.elements = checkpoint.elements
        self.ids = set()
        self.n = 0
        self.found = {}
        self.charged = []  # ids
        self.n_apart = 0
        self.apart = ""  # the first of them, with what far_apart says

    def add(self, ids: Sequence[str], structures: Sequence[ase.Atoms], graphs: GraphBatch) -> None:
        """Look at some structures, called `ids` in notes, and their graphs."""
        self.n += len(ids)
        self.charged += [id for id, atoms in zip(ids, structures, strict=True) if atoms.info.get("charge")]
        rows, said = far_apart(graphs)
        if len(rows):
            self.n_apart += len(rows)
            self.apart = self.apart or f"{ids[rows[0]]}, {said}"
        if self.extent is None:
            return
        (fewest, most), (shortest, longest) = self.extent.sites, self.extent.edges
        n_sites = np.diff(graphs.site_ptr)
        sites_of = f"{{:g}} sites (training: {fewest:g} to {most:g})"
        self._count(sites_of, ids, np.flatnonzero((n_sites < fewest) | (n_sites > most)), n_sites)
        n_edges = np.diff(graphs.edge_ptr[graphs.site_ptr])
        self._count("no neighbours at all", ids, np.flatnonzero(n_edges == 0), n_edges)
        owner = np.repeat(np.arange(len(ids)), n_edges)
        odd = (graphs.r < shortest - BESIDE) | (graphs.r > longest + BESIDE)
        rows, first = np.unique(owner[odd], return_index=True)
        edge_of = f"an edge of {{:.2f}} Å (training: {shortest:.2f} to {longest:.2f})"
        self._count(edge_of, ids, rows, dict(zip(rows.tolist(), graphs.r[odd][first], strict=True)))
        owner = np.repeat(np.arange(len(ids)), n_sites)
        odd = ~np.isin(graphs.z, self.elements) & bool(self.elements)
        rows, first = np.unique(owner[odd], return_index=True)
        names = {row: chemical_symbols[z] for row, z in zip(rows.tolist(), graphs.z[odd][first], strict=True)}
        self._count("the element {}, never seen in training", ids, rows, names)
        if self.extent.periodic is not None:
            had_finite, had_periodic = self.extent.periodic
            periodic = np.array([atoms.pbc.any() for atoms in structures], dtype=bool)
            if not had_periodic:
                rows = np.flatnonzero(periodic)
                self._count("periodic directions (training: all finite)", ids, rows, periodic)
            if not had_finite:
                rows = np.flatnonzero(~periodic)
                self._count("no periodic direction (training: all periodic)", ids, rows, periodic)

    def _count(self, text, ids, rows, values):
        """`text` with a value of each of the structures `rows`."""
        for row in rows.tolist():
            self.ids.add(ids[row])
            count, example = self.found.get(text, (0, f"{ids[row]} with {text.format(values[row])}"))
            self.found[text] = count + 1, example

    def merge(self, other: "Outside") -> None:
        """Add what was found of other structures."""
        self.n += other.n
        self.charged += other.charged
        self.n_apart += other.n_apart
        self.apart = self.apart or other.apart
        self.ids |= other.ids
        for text, (count, example) in other.found.items():
            known = self.found.get(text, (0, example))
            self.found[text] = known[0] + count, known[1]

    def notes(self) -> list[str]:
        """A note where there are such structures, one of charges, and one of atoms that are far from one another."""
        notes = []
        if self.charged:
            n = counted(len(self.charged), "structure")
            notes.append(f"note: {n} with a charge, such as {self.charged[0]}; the network is not told of it")
        if self.apart:
            n = counted(self.n_apart, "structure")
            notes.append(f"note: {n} with {WITHOUT_BONDS.format(self.apart)}")
        if not self.found:
            return notes
        kinds = "; ".join(f"{count} such as {example}" for count, example in self.found.values())
        lie = "lies" if len(self.ids) == 1 else "lie"
        n = counted(self.n, "structure")
        return [*notes, f"note: {len(self.ids)} of {n} {lie} outside of what the model was trained on: {kinds}"]


def check_elements(checkpoint: Checkpoint, id: str, z: np.ndarray) -> None:
    """Raise DataError when structure `id`, of atomic numbers `z` (N,), has elements that the model was not trained on.

    A table of elements knows nothing of them; a model on element features (model.features "cgcnn") does.
    """
    model = checkpoint.config.model
    seen = checkpoint.elements or range(1, model.n_elements)  # the second for imported models
    unseen = sorted(set(z.tolist()).difference(seen))
    if model.features == "atomic" and unseen:
        names = ", ".join(
            chemical_symbols[z] if 0 < z < len(chemical_symbols) else "what is no element" for z in unseen
        )
        raise DataError(
            f"structure {id} holds {names}, which the model never saw in training; leave the structure out, or "
            "train on a set that has the element"
        )


def load(run: Path | str, device: str = "cpu", min_distance: float | None = None) -> "Model | Ensemble":
    """Load a trained model.

    Parameters
    ----------
    run : path     a run directory (its best model), a model file, the folder of an ensemble, or the name of a model
                   that ships with the package (`refattn models`)
    min_distance : float, optional     instead of the run's own, see GraphConfig

    Returns
    -------
    Model, or Ensemble; both predict in the same way

    Raises RunError for a run that is missing, incomplete or damaged.
    """
    if not Path(run).is_dir() or model_file(run).exists():
        checkpoint = load_checkpoint(model_file(run))
        if "ema" in checkpoint.state:  # of a last.h5: the average predicts, the parameters are for the training
            checkpoint.params.vector[:] = checkpoint.state["ema"]
        model = Model(checkpoint, device, calibration_file(run))
    else:
        calibrations = [calibration_file(member) for member in members_of(run)]
        model = Ensemble(load_members(run), device, calibrations)
    if min_distance is not None:
        graph = dataclasses.replace(model.config.graph, min_distance=min_distance)
        model.config = dataclasses.replace(model.config, graph=graph)
    return model
