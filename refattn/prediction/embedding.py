"""refattn.embed: what the network makes of structures and of their sites, as vectors.

Structures that the network takes for alike have vectors that are close, whatever their property: material for maps
(maps.py), clustering, and models of other properties.
"""

import dataclasses
import functools
import itertools
import typing

import ase
import numpy as np

from refattn.common.environment import available_cores
from refattn.data.loader import Loader
from refattn.errors import DataError
from refattn.network.inference import overflow_is_reported
from refattn.network.placement import run_forward
from refattn.network.threads import workers
from refattn.prediction.predictor import graph_dataset
from refattn.structures.graph import Graph


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Representations of S structures by a network of width G (config: global_width), in its type, without unit.

    Attributes
    ----------
    structure_vector : (S, G) float         struct = sum_i beta[i] k[i], step 8 of refattn.network.model: all that the
                                            property is computed from
    site_embedding : list of (N_s, G)       representation of each structure's sites, step 7
    beta : list of (N_s,) float             global attention; sums to 1 over a structure
    z : list of (N_s,) int                  atomic numbers
    value : (S,) float64                    the prediction, in `unit`
    id : list of str
    target, unit : str
    """

    structure_vector: np.ndarray
    site_embedding: list
    beta: list
    z: list
    value: np.ndarray
    id: list
    target: str
    unit: str


class _Vectors(typing.NamedTuple):
    """What a forward pass says of one structure."""

    output: float
    struct: np.ndarray
    site: np.ndarray
    beta: np.ndarray
    z: np.ndarray


def embed(model, structures, n_threads=None):
    """Vectors of one ase.Atoms or of an iterable of them, and of their sites.

    Parameters
    ----------
    model : refattn.Model
    structures : ase.Atoms, or iterable of ase.Atoms     as for Model.predict
    n_threads : int, optional
        By default one for each core. It changes no bit of the result.

    Returns
    -------
    Embedding

    Raises what Model.predict raises, and DataError for a structure whose vectors are not finite.
    """
    structures = [structures] if isinstance(structures, ase.Atoms) else structures
    return _embedded(model, list(enumerate(structures)), n_threads)[1]


def embed_stream(model, structures, block=256, n_threads=None, skip=None):
    """Like embed, for any number of structures in bounded memory: yields (list of ase.Atoms, Embedding).

    Where `skip` is given, structures that embed would refuse are left out, and skip(id, error) is called.
    """
    numbered = enumerate(structures)
    while chunk := list(itertools.islice(numbered, block)):
        kept, found = _embedded(model, chunk, n_threads, skip)
        if kept:
            yield kept, found


def _embedded(model, numbered, n_threads, skip=None):
    """The structures, of pairs (number, ase.Atoms), that have vectors, and their Embedding."""

    def refuse(id, error):
        if skip is None:
            raise error
        skip(id, error)

    with workers(n_threads or available_cores()) as run:
        with_graph = []
        for id, atoms, graph in run(model.graph, numbered):
            if isinstance(graph, Graph):
                with_graph.append((id, atoms, graph))
            else:
                refuse(id, graph)
        ids, structures, graphs = map(list, zip(*with_graph)) if with_graph else ([], [], [])
        loader = Loader(graph_dataset(ids, structures, graphs, model.config), model.config.model, model.dtype)
        vectors_of = functools.partial(_shard_vectors, model, loader)
        shards = model.ops.side_by_side(run)(vectors_of, loader.cut(np.arange(len(ids))))
        kept = []
        for id, atoms, vectors in zip(ids, structures, itertools.chain.from_iterable(shards), strict=True):
            if np.isfinite(vectors.struct).all() and np.isfinite(vectors.site).all() and np.isfinite(vectors.output):
                kept.append((id, atoms, vectors))
            else:
                refuse(id, DataError(f"the vectors of structure {id} are not finite; leave it out, or train again"))
    ids, structures, vectors = map(list, zip(*kept)) if kept else ([], [], [])
    return structures, _put_together(model, ids, vectors)


def _shard_vectors(model, loader, rows):
    """A list with the _Vectors of every structure of a shard, as copies: the work arrays belong to the thread."""
    with model.ops.work_arrays(), overflow_is_reported():
        shard = loader.shard(rows)
        tape = run_forward(model.checkpoint.params, shard, model.config.model, model.ops)
        site, struct = tape.read_out.site, tape.head.struct
        per_structure = [np.split(array.copy(), shard.site_ptr[1:-1]) for array in (site, tape.beta, shard.z)]
        return list(map(_Vectors, tape.prediction.tolist(), struct.copy(), *per_structure))


def _put_together(model, ids, vectors):
    """The Embedding of structures `ids`, from a list with the _Vectors of each."""
    checkpoint, width = model.checkpoint, model.config.model.global_width
    return Embedding(
        structure_vector=np.array([v.struct for v in vectors], dtype=model.dtype).reshape(-1, width),
        site_embedding=[v.site for v in vectors],
        beta=[v.beta for v in vectors],
        z=[v.z for v in vectors],
        value=checkpoint.mean + checkpoint.std * np.array([v.output for v in vectors], dtype=float),
        id=ids,
        target=model.target,
        unit=model.unit,
    )
