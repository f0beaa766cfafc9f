"""Inference: the steps of model.py, layer by layer and block by block, with nothing kept for a backward pass.

A block is a run of sites. What a layer makes of it depends on the features of the layer before alone, so blocks are
independent, and a structure of any size is computed in bounded memory, (E, D) for its edges and a few (N, D), by as
many threads as there are. A shard of small structures is one block, on one thread.

Without dropout the sites of one element begin alike, so what is made of them alone, up to the products of the first
layer, is made once an element: 3 % of the time of QM9's molecules with SCANN+.
"""

import dataclasses
import itertools
import typing
from collections.abc import Callable

import numpy as np

from refattn.common.threads import local_map
from refattn.config import ModelConfig
from refattn.network.cache import ReadOutCache
from refattn.network.checkpoint import Checkpoint
from refattn.network.model import (
    attend,
    attend_globally,
    beside_each_other,
    centre_projections,
    embed,
    expand_geometry,
    neighbour_projections,
    predict,
    project,
    residual_dropout,
    update_sites,
)
from refattn.network.params import Parameters
from refattn.ops.types import Array, EdgeList, Ops
from refattn.structures.batch import GraphBatch, ragged_rows

ROWS_PER_BLOCK = 4096  # sites and edges: enough to forget the calls' own time, few enough for every thread to have some
LARGE = 4 * ROWS_PER_BLOCK  # edges of a structure whose blocks are shared among the threads


class NetworkOutput(typing.NamedTuple):
    """What a network says of S structures and their N sites, for each of K targets.

    prediction : (S, K), in units of the scaled targets; beta : (N, K), global attention; struct : (S, K G)
    """

    prediction: np.ndarray
    beta: np.ndarray
    struct: np.ndarray


@dataclasses.dataclass(frozen=True)
class Block:
    """A run of sites and their edges; `batch` has these alone, but its nbr counts all sites."""

    sites: slice
    edges: slice
    batch: GraphBatch


def infer(
    params: Parameters, shard: GraphBatch, config: ModelConfig, ops: Ops, map_fn: Callable = map
) -> NetworkOutput:
    """Predict the properties of every structure of a shard.

    Parameters
    ----------
    params : Parameters; shard : GraphBatch; config : ModelConfig; ops : namespace of operations     as of model.forward
    map_fn : callable     like map; computes the blocks. See refattn.common.threads.workers

    Returns
    -------
    NetworkOutput, in work arrays where a block of them is open
    """
    blocks, n_sites, dtype = cut_blocks(shard), len(shard.z), params.vector.dtype

    def for_each_block(function):
        def compute(block):
            with ops.work_arrays():
                function(block)

        for _ in map_fn(compute, blocks):
            pass

    site, after = (ops.empty((n_sites, config.width), dtype) for _ in range(2))
    plus = config.variant == "scann+"
    neighbour = ops.empty((n_sites, config.width), dtype) if plus else None
    geo = ops.empty((len(shard.nbr), config.width if plus else config.n_radial + config.angular_width), dtype)
    elements = embed_by_element(params, shard, config, ops)
    ones = ops.xp.ones((max(len(block.batch.nbr) for block in blocks), config.n_heads), dtype)

    def embed_block(block):
        if elements is None:
            site[block.sites], _ = embed(params, block.batch, config, ops)
        else:
            start, element = elements
            np.take(start, element[block.sites], axis=0, out=site[block.sites])
        geo[block.edges], _ = expand_geometry(params, block.batch, config, ops)

    for_each_block(embed_block)
    for layer in range(config.n_layers):
        first = elements if layer == 0 else None
        _layer(params.layer(layer), first, ones, site, after, neighbour, geo, config, ops, for_each_block)
        site, after = after, site
    read_outs = []
    predictions = []
    for target in range(config.n_targets):
        weights = params.target(target)
        q, k = (ops.empty((n_sites, config.global_width), dtype) for _ in range(2))

        def project_block(block, weights=weights, q=q, k=k):
            cache = project(weights, site[block.sites], ops)
            q[block.sites], k[block.sites] = cache.q, cache.k

        for_each_block(project_block)
        read_outs.append(ReadOutCache(site, None, None, q, k))
        attend_globally(read_outs[-1], shard, config, ops)
        predictions.append(predict(weights, read_outs[-1], shard, config, ops))
    return network_output(read_outs, beside_each_other(predictions, ops), ops)


def network_output(read_outs: list[ReadOutCache], prediction: Array, ops: Ops) -> NetworkOutput:
    """The NetworkOutput of the read-outs and predictions (S, K) of all targets."""
    beta = beside_each_other([cache.attention.beta[:, None] for cache in read_outs], ops)
    return NetworkOutput(prediction, beta, beside_each_other([cache.struct for cache in read_outs], ops))


def _layer(weights, elements, ones, site, after, neighbour, geo, config, ops, for_each_block):
    """Steps 3 to 6 of one layer: from site (N, D) to `after` (N, D); writes over geo and neighbour.

    elements : in the first layer what embed_by_element gives; None in the others;  ones : (E, H), of a block at least
    """

    def projections(make, block):
        if elements is None:
            return make(weights, site[block.sites], config, ops)
        start, element = elements
        return [rows[element[block.sites]] for rows in make(weights, start, config, ops)]

    def project_neighbours(block):
        (neighbour[block.sites],) = projections(neighbour_projections, block)

    def attend_block(block):
        batch = block.batch
        edges = EdgeList(batch.edge_ptr, batch.nbr, ones[: len(batch.nbr)], batch.weight if neighbour is None else None)
        rows, products = geo[block.edges], projections(centre_projections, block)
        if neighbour is not None:
            products = [*products, neighbour]
        cache, new_geo = attend(weights, site, rows, products, edges, config, ops, save_for_backward=False)
        dropout = residual_dropout(config, None, 0)
        after[block.sites] = update_sites(weights, cache, config, ops, dropout, save_for_backward=False)
        if new_geo is not rows:
            rows[...] = new_geo

    if neighbour is not None:
        for_each_block(project_neighbours)
    for_each_block(attend_block)


def embed_by_element(
    params: Parameters, shard: GraphBatch, config: ModelConfig, ops: Ops
) -> tuple[Array, Array] | None:
    """Features (K, D) with which the sites of each element begin, and which element each site is, (N,).

    None where a site begins with more than its row of the element table.
    """
    if shard.ring is not None or shard.features is not None:
        return None
    _, first, element = np.unique(shard.z, return_index=True, return_inverse=True)
    elements = dataclasses.replace(shard, z=shard.z[first])
    return embed(params, elements, config, ops)[0], element


def cut_blocks(shard: GraphBatch, limit: int = ROWS_PER_BLOCK) -> list[Block]:
    """The Blocks of a shard: runs of sites that have about `limit` rows with their edges, at least one site each."""
    rows = shard.edge_ptr + np.arange(len(shard.edge_ptr))
    ends = np.unique(np.searchsorted(rows, np.arange(limit, rows[-1], limit)))
    ends = [0, *ends[ends < len(rows) - 1].tolist(), len(rows) - 1]
    if len(ends) == 2:
        return [Block(slice(None), slice(None), shard)]
    return [_block(shard, first, last) for first, last in itertools.pairwise(ends)]


def _block(shard, first, last):
    sites, edges = slice(first, last), slice(int(shard.edge_ptr[first]), int(shard.edge_ptr[last]))
    rows = dict.fromkeys(("z", "features", "ring"), sites)
    rows |= dict.fromkeys(("nbr", "r", "omega", "weight", "direction", "species"), edges)
    arrays = {name: getattr(shard, name)[rows[name]] for name in rows if getattr(shard, name) is not None}
    edge_ptr = shard.edge_ptr[first : last + 1] - shard.edge_ptr[first]
    return Block(sites, edges, dataclasses.replace(shard, edge_ptr=edge_ptr, **arrays))


def overflow_is_reported() -> np.errstate:
    """No warning where numbers overflow: losses, gradients and predictions are checked, and named with structures."""
    return np.errstate(over="ignore", invalid="ignore")


def predict_rows(
    params: Parameters, config: ModelConfig, ops: Ops, graphs: GraphBatch, rows: np.ndarray, map_fn: Callable = map
) -> NetworkOutput:
    """Output of the network for the structures `rows` (S,) of `graphs`, in that order.

    map_fn : callable     like map; see refattn.common.threads.workers
    """
    infer_shards = infer_on_threads
    if ops.on_device:
        from refattn.network.cuda_inference import infer_shards  # asks for a GPU
    outputs = infer_shards(params, config, ops, graphs, rows, map_fn)
    if len(outputs) == 1:
        return outputs[0]
    widths = config.n_targets, config.n_targets, config.n_targets * config.global_width
    outputs.append([np.zeros((0, width), params.vector.dtype) for width in widths])
    return NetworkOutput(*map(np.concatenate, zip(*outputs, strict=True)))


def infer_on_threads(
    params: Parameters, config: ModelConfig, ops: Ops, graphs: GraphBatch, rows: np.ndarray, map_fn: Callable
) -> list[NetworkOutput]:
    """As predict_rows, shard by shard; those of small structures side by side."""

    def infer_shard(shard_rows, map_blocks=map):
        batch = graphs.take(shard_rows).for_network(config, params.vector.dtype)
        return NetworkOutput(*(array.copy() for array in infer(params, batch, config, ops, map_blocks)))

    def infer_alone(shard_rows):
        with ops.work_arrays(), overflow_is_reported():
            return infer_shard(shard_rows)

    def is_large(shard_rows):
        return len(shard_rows) == 1 and graphs.n_edges[shard_rows[0]] > LARGE

    outputs = []
    with overflow_is_reported():
        for large, shards in itertools.groupby(graphs.cut(rows), is_large):
            if large:  # it has all threads for itself
                outputs += [infer_shard(shard_rows, local_map(map_fn)) for shard_rows in shards]
            else:
                outputs += map_fn(infer_alone, shards)
    return outputs


class MemberPredictions(typing.NamedTuple):
    """What M networks say of S structures.

    value : (S, K) float64       of K targets, in the labels' units; the mean over the networks
    attention : list of (N_s, K) global attention; the mean, which sums to 1 too
    spread : (S, K) float64      standard deviation of the M values, with M - 1 in the denominator; None for one network
    values : (M, S, K) float64   of each network
    structs : list of M (S, K G + 1)
        Representation of the structures in each network, and their number of sites: global attention is a mean over
        the sites, from which the size of a structure cannot be told.
    """

    value: np.ndarray
    attention: list[np.ndarray]
    spread: np.ndarray | None
    values: np.ndarray
    structs: list[np.ndarray]


def to_labels(checkpoint: Checkpoint, output: np.ndarray, graphs: GraphBatch, rows: np.ndarray) -> np.ndarray:
    """Outputs (S, K) of a network for the structures `rows` (S,) of `graphs`, in the labels' units, float64; of classes
    their probabilities."""
    if checkpoint.config.of_class:
        return probability(output.astype(float))
    values = checkpoint.mean + checkpoint.std * output.astype(float)
    return values if checkpoint.reference is None else values + element_sums(checkpoint.reference, graphs, rows)


def probability(log_odds: np.ndarray | float) -> np.ndarray | float:
    """1 / (1 + exp(-log_odds)), without overflow."""
    return np.exp(-np.logaddexp(0, -log_odds))


def element_sums(reference: np.ndarray, graphs: GraphBatch, rows: np.ndarray) -> np.ndarray:
    """(S, K) sums over the sites of the structures `rows` (S,) of what their elements add, reference (K, 119)."""
    site_ptr, sites = ragged_rows(graphs.site_ptr, rows)
    return np.add.reduceat(reference.T[graphs.z[sites]], site_ptr[:-1])


def predict_members(
    checkpoints: list[Checkpoint], ops: Ops, graphs: GraphBatch, rows: np.ndarray, map_fn: Callable = map
) -> MemberPredictions:
    """Predictions of the networks `checkpoints`, which differ in their parameters only, for the structures `rows`."""
    outputs = [predict_rows(c.params, c.config.model, ops, graphs, rows, map_fn) for c in checkpoints]
    values = [to_labels(c, found.prediction, graphs, rows) for c, found in zip(checkpoints, outputs, strict=True)]
    n_sites = np.diff(graphs.site_ptr)[rows]
    structs = [np.column_stack([output.struct, n_sites.astype(output.struct.dtype)]) for output in outputs]
    alone = len(checkpoints) == 1
    beta = outputs[0].beta if alone else np.mean([output.beta for output in outputs], axis=0)
    return MemberPredictions(
        value=values[0] if alone else np.mean(values, axis=0),
        attention=np.split(beta, np.cumsum(n_sites)[:-1]) if len(rows) else [],
        spread=None if alone else np.std(values, axis=0, ddof=1),
        values=np.array(values),
        structs=structs,
    )
