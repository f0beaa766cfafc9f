"""refattn.embed: what the network makes of structures and of their sites, as vectors.

Structures that the network takes for alike have vectors that are close, whatever their property: material for maps
(maps.py), clustering, and models of other properties.
"""

import dataclasses
import functools
import itertools
import typing
from collections.abc import Iterable, Iterator

import ase
import numpy as np

from refattn.errors import DataError
from refattn.network.inference import overflow_is_reported, to_labels
from refattn.network.model import forward
from refattn.prediction.predictor import Model, Skip
from refattn.prediction.targets import target_number
from refattn.structures.batch import Structures, checked_structures


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
    site_embedding: list[np.ndarray]
    beta: list[np.ndarray]
    z: list[np.ndarray]
    value: np.ndarray
    id: list[str]
    target: str
    unit: str


class _Vectors(typing.NamedTuple):
    """What a forward pass says of one structure."""

    output: np.ndarray
    struct: np.ndarray
    site: np.ndarray
    beta: np.ndarray
    z: np.ndarray


def embed(
    model: Model, structures: Structures, n_threads: int | None = None, target: str | None = None
) -> "Embedding | dict[str, Embedding]":
    """Vectors of one ase.Atoms or of an iterable of them, and of their sites.

    Parameters
    ----------
    model : refattn.Model
    structures : ase.Atoms, or iterable of ase.Atoms     as for Model.predict
    n_threads : int, optional
        By default one for each core. It changes no bit of the result.
    target : str, optional
        The target whose read-out makes the vectors; by default all.

    Returns
    -------
    Embedding, or where several targets are asked for a dict of Embedding by their names

    Raises what Model.predict raises, ConfigError for an unknown target, and DataError for a structure whose
    vectors are not finite.
    """
    structures = checked_structures(structures)
    if target is None and len(model.targets) > 1:
        return {name: embed(model, structures, n_threads, name) for name in model.targets}
    task = functools.partial(_embedded, model, target_number(model, target))
    return model.compute(structures, task, n_threads, blas=False)[1]


def embed_stream(
    model: Model,
    structures: Iterable[ase.Atoms],
    block: int = 256,
    n_threads: int | None = None,
    skip: Skip | None = None,
    target: str | None = None,
) -> Iterator[tuple[list[ase.Atoms], Embedding]]:
    """Like embed of one target, for any number of structures in bounded memory: yields (list of ase.Atoms, Embedding).

    Where `skip` is given, structures that embed would refuse are left out, and skip(id, error) is called.
    """
    task = functools.partial(_embedded, model, target_number(model, target))
    return model.stream_batches(structures, task, block, n_threads, skip, blas=False)


def _embedded(model, target, ids, structures, graphs, map_fn, refuse):
    """The structures that have vectors, and their Embedding; see Predictor.compute."""
    params = model.checkpoint.params.to(model.ops)

    def shard_vectors(rows):
        """A list with the _Vectors of every structure of a shard, as copies: work arrays belong to the thread."""
        ops, config = model.ops, model.config.model
        with ops.work_arrays(), overflow_is_reported():
            batch = graphs.take(rows).for_network(config, model.dtype)
            tape = forward(params, batch.to(ops), config, ops)
            read_out = tape.read_outs[target]
            saved = tape.prediction, read_out.struct, read_out.site, tape.beta[target]
            output, struct, site, beta = (ops.to_host(array) for array in saved)
            per_structure = [np.split(array.copy(), batch.site_ptr[1:-1]) for array in (site, beta, batch.z)]
            return list(map(_Vectors, output.copy(), struct.copy(), *per_structure))

    shards = model.ops.side_by_side(map_fn)(shard_vectors, graphs.cut(np.arange(len(ids))))
    kept = []
    found = zip(ids, structures, itertools.chain.from_iterable(shards), strict=True)
    for row, (id, atoms, vectors) in enumerate(found):
        if np.isfinite(vectors.struct).all() and np.isfinite(vectors.site).all() and np.isfinite(vectors.output).all():
            kept.append((row, atoms, vectors))
        else:
            refuse(id, DataError(f"the vectors of structure {id} are not finite; leave it out, or train again"))
    rows, structures, vectors = map(list, zip(*kept)) if kept else ([], [], [])
    outputs = np.array([v.output for v in vectors], dtype=model.dtype).reshape(len(rows), len(model.targets))
    values = to_labels(model.checkpoint, outputs, graphs, np.array(rows, dtype=int))
    return structures, _put_together(model, target, [ids[row] for row in rows], vectors, values[:, target])


def _put_together(model, target, ids, vectors, value):
    """The Embedding of structures `ids`, from a list with the _Vectors of each and their values (S,)."""
    width = model.config.model.global_width
    return Embedding(
        structure_vector=np.array([v.struct for v in vectors], dtype=model.dtype).reshape(-1, width),
        site_embedding=[v.site for v in vectors],
        beta=[v.beta for v in vectors],
        z=[v.z for v in vectors],
        value=value,
        id=ids,
        target=model.targets[target],
        unit=model.units[target],
    )
