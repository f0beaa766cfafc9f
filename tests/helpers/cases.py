"""Shards and networks that several tests use: the authors' fixtures, graphs of atoms, small random ones."""

import dataclasses

import numpy as np
from upstream_fixtures import VARIANTS, open_network, variant

from refattn.network.model import backward, forward
from refattn.network.params import Parameters, parameter_table
from refattn.ops import load_backend
from refattn.structures.batch import GraphBatch

__all__ = ["VARIANTS", "authors_network", "authors_numbers", "run_gradients", "shard_of", "take"]


def authors_network(name, dtype=np.float64):
    """GraphBatch, Parameters, ModelConfig and labels of one of the authors' networks."""
    with open_network() as file:
        fixture = variant(file, name)
        vector = fixture.group["parameters"][()].astype(dtype)
    graph, config = fixture.graph, fixture.config.model
    offset = np.repeat(np.repeat(graph["site_ptr"][:-1], np.diff(graph["site_ptr"])), np.diff(graph["edge_ptr"]))
    shard = GraphBatch(
        site_ptr=graph["site_ptr"],
        edge_ptr=graph["edge_ptr"],
        nbr=(graph["nbr"] + offset).astype(np.int32),
        z=graph["z"].astype(np.int32),
        structure=np.arange(len(graph["y"])),
        features=None if fixture.features is None else fixture.features.astype(dtype),
        ring=None if fixture.ring is None else fixture.ring.astype(dtype),
        **{key: graph[key].astype(dtype) for key in ("r", "omega", "weight")},
    )
    return shard, Parameters(parameter_table(config), vector), config, graph["y"].astype(dtype)


def authors_numbers(name, precision="f64"):
    """What the authors' code computes: a dict of path below the precision's group -> array."""
    found = {}
    with open_network() as file:
        group = file[f"variants/{name}/{precision}"]
        group.visititems(lambda path, item: found.update({path: item[()]}) if hasattr(item, "dtype") else None)
        found |= dict(group.attrs)
    return found


def run_gradients(shard, params, config, ops, weights=None, dropout=None):
    """Tape, gradients by the parameters and by the inputs, of the sum of `weights` times the predictions.

    Parameters
    ----------
    ops : name of a backend, or its operations
    weights : (S,) or (S, K) float, or a function of the predictions that returns them; ones by default
    """
    ops = load_backend(ops) if isinstance(ops, str) else ops
    tape, grads, grad_inputs = forward(params, shard, config, ops, dropout), params.zeros_like(), {}
    weights = np.ones_like(tape.prediction) if weights is None else weights
    weights = weights(tape.prediction) if callable(weights) else weights
    backward(weights.reshape(len(shard), -1), tape, params, grads, config, ops, dropout, grad_inputs)
    return tape, grads, grad_inputs


def shard_of(atoms, config, **rule):
    """One ase.Atoms as a shard, with the CGCNN features where the network asks for them."""
    graph = GraphBatch.from_atoms(atoms, with_directions=config.reads_angles, **rule)
    return graph.for_network(dataclasses.replace(config, ring=False), np.float64)


def take(shard, structures, order=None):
    """Some structures of a shard as a shard of their own, in the order given; with `order`, their sites permuted.

    Parameters
    ----------
    structures : sequence of int
    order : function (number of sites) -> permutation, optional

    Returns
    -------
    shard : GraphBatch
    site, edge : (N,), (E,) int     numbers of its sites and edges in the shard they came from
    """
    sites, edges, nbr = [], [], []
    for s in structures:
        start, stop = shard.site_ptr[s], shard.site_ptr[s + 1]
        own = np.arange(start, stop)[order(stop - start) if order else slice(None)]
        new_number = dict(zip(own, len(sites) + np.arange(len(own)), strict=True))
        for i in own:
            of_site = range(shard.edge_ptr[i], shard.edge_ptr[i + 1])
            edges += of_site
            nbr += [new_number[shard.nbr[e]] for e in of_site]
        sites += list(own)
    site, edge = np.array(sites, dtype=int), np.array(edges, dtype=int)
    taken = dataclasses.replace(
        shard,
        site_ptr=np.cumsum([0, *np.diff(shard.site_ptr)[structures]]).astype(np.int32),
        edge_ptr=np.cumsum([0, *np.diff(shard.edge_ptr)[site]]).astype(np.int32),
        nbr=np.array(nbr, dtype=np.int32),
        z=shard.z[site],
        structure=shard.structure[structures],
        features=None if shard.features is None else shard.features[site],
        ring=None if shard.ring is None else shard.ring[site],
        **{key: getattr(shard, key)[edge] for key in ("r", "omega", "weight")},
    )
    return taken, site, edge
