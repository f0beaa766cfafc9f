"""A data set on the device, and batches gathered from it by kernels: only numbers of structures cross the bus.

A batch may be filled up to a capacity of sites and edges, so that batches of about one size have arrays of one size and
a captured graph serves them all. What fills it up is a graph too: `n_pads` structures at the end, made of sites whose
edges lead to themselves. It is computed like the rest, its slope of the loss is zero, and so is all it adds to a
gradient.
"""

import typing
import weakref
from collections.abc import Sequence

import numpy as np

from refattn.config import ModelConfig
from refattn.ops.cuda import toolchain
from refattn.ops.cuda.graph import Neighbours
from refattn.ops.cuda.inputs import embedding_forward
from refattn.ops.cuda.launch import block_sum, launch
from refattn.ops.cuda.memory import empty, to_device
from refattn.ops.cuda.random import mix_key
from refattn.ops.cuda.toolchain import cuda, kernel
from refattn.ops.random import mix
from refattn.ops.types import Array
from refattn.structures.batch import GraphBatch, pointers
from refattn.structures.elements import cgcnn_features

_LAST = weakref.WeakKeyDictionary()  # GraphBatch -> its last DeviceDataset
GATHER_THREADS = 4 if toolchain.SIMULATED else 128  # of a block, which takes a structure


class Size(typing.NamedTuple):
    """Structures, sites and edges of a batch with what fills it up; the last n_pads structures are no structures."""

    n_structures: int
    n_sites: int
    n_edges: int
    n_pads: int = 0

    @property
    def n_real(self) -> int:
        return self.n_structures - self.n_pads


class Plan(typing.NamedTuple):
    """Batches to come, on the device: batch number b = cursor[0] is order[start[b]:start[b] + its structures].

    order : (M,) int32     numbers of structures
    start : (n_batches,) int64
    stream : (n_batches,) uint64    mix(mix(seed) + step): keys of structures follow from it and their numbers
    cursor : (1,) int64
    """

    order: Array
    start: Array
    stream: Array
    cursor: Array

    @classmethod
    def of(
        cls, rows: Sequence[int], start: Sequence[int] = (0,), stream: Sequence[int] = (0,), cursor: int = 0
    ) -> "Plan":
        """A Plan of NumPy arrays or sequences, of one batch by default."""
        arrays = ((rows, np.int32), (start, np.int64), (stream, np.uint64), ([cursor], np.int64))
        return cls(*(to_device(np.array(values, dtype)) for values, dtype in arrays))


class Dropout:
    """Keys of the masks of one training step, as refattn.network.dropout.Dropout has them; all made by one kernel.

    site_key : (slots, N) uint64; edge_key : (layers, E) uint64, or something else without dropout of the attention
    """

    def __init__(self, site_key: Array, edge_key: Array):
        self.site_key, self.edge_key = site_key, edge_key

    def site_keys(self, slot: int) -> Array:
        """(N,) uint64: slot 0, 2, 4, ... of the network."""
        return self.site_key[slot // 2]


class DeviceDataset:
    """The arrays of a GraphBatch that a network reads, on the device, with the edges that point at each site.

    Parameters
    ----------
    graphs : GraphBatch
    config : ModelConfig
    dtype : float32 or float64

    Raises OutOfMemory (of the toolchain) where they do not fit, and what GraphBatch.check does.
    """

    def __init__(self, graphs: GraphBatch, config: ModelConfig, dtype: np.dtype):
        graphs.check(config)
        self.config, self.dtype, self.with_ring = config, np.dtype(dtype), config.ring
        self.n_sites, self.n_edges = np.diff(graphs.site_ptr), graphs.n_edges
        arrays = {name: getattr(graphs, name).astype(dtype) for name in ("r", "omega", "weight")}
        arrays |= {name: getattr(graphs, name).astype(np.int32) for name in ("z", "nbr")}
        arrays |= {name: getattr(graphs, name).astype(np.int64) for name in ("site_ptr", "edge_ptr")}
        arrays["to_ptr"], arrays["to_edge"] = transposed_in_structures(graphs)
        arrays["ring"] = graphs.ring.astype(dtype) if self.with_ring else np.zeros((1, 2), dtype)
        if config.reads_angles:
            arrays |= {name: getattr(graphs, name).astype(dtype) for name in ("direction", "species")}
        # what slot_keys mixes with the keys in each slot
        arrays["slots"] = mix(np.arange(2 * config.n_layers + 2, dtype=np.uint64))
        self.arrays = {name: to_device(np.ascontiguousarray(array)) for name, array in arrays.items()}
        self.features = None
        if config.features == "cgcnn":
            self.features = to_device(cgcnn_features(np.arange(int(graphs.z.max(initial=0)) + 1)).astype(dtype))

    @classmethod
    def of(cls, graphs: GraphBatch, config: ModelConfig, dtype: np.dtype) -> "DeviceDataset":
        """The one of a GraphBatch and a network; the last one is kept as long as the GraphBatch."""
        found = _LAST.get(graphs)
        if found is None or (found.config, found.dtype) != (config, np.dtype(dtype)):
            found = _LAST[graphs] = cls(graphs, config, dtype)
        return found

    def size(self, rows: np.ndarray) -> Size:
        """The Size of the structures `rows` (S,), without anything added."""
        return Size(len(rows), int(self.n_sites[rows].sum()), int(self.n_edges[rows].sum()))

    def gather(self, plan: Plan, size: Size) -> GraphBatch:
        """The next batch of a Plan, filled up to `size`.

        Returns
        -------
        GraphBatch, whose nbr is a Neighbours and whose `structure` is None; its arrays are new
        """
        n_structures, n_sites, n_edges, n_pads = size
        shapes = {"site_ptr": n_structures + 1, "edge_ptr": n_sites + 1, "to_ptr": n_sites + 1, "z": n_sites}
        shapes |= {"nbr": n_edges, "to_edge": n_edges}
        found = {name: empty((n,), np.int32) for name, n in shapes.items()}
        found |= {name: empty((n_edges,), self.dtype) for name in ("r", "omega", "weight")}
        found["ring"] = empty((n_sites if self.with_ring else 1, 2), self.dtype)
        first = empty((4, size.n_real + 1), np.int64)
        every = self.arrays["site_ptr"], self.arrays["edge_ptr"]
        grid = size.n_real, GATHER_THREADS
        arguments = plan.order, plan.start, plan.cursor, size.n_real
        launch(_locate_kernel, *grid, found["site_ptr"], first, *every, *arguments)
        for kernel_of_rows, names, options in (
            (_gather_sites_kernel, ("edge_ptr", "to_ptr", "z", "ring"), (self.with_ring,)),
            (_gather_edges_kernel, ("nbr", "to_edge", "r", "omega", "weight"), ()),
        ):
            arrays = [*(found[name] for name in names), *(self.arrays[name] for name in names)]
            launch(kernel_of_rows, *grid, *arrays, first, *options)
        if n_pads:
            launch(_fill_up_kernel, n_pads, GATHER_THREADS, *found.values(), n_pads, self.with_ring)
        ends = {}
        if self.config.reads_angles:
            ends = {"direction": empty((n_edges, 3), self.dtype), "species": empty((n_edges,), self.dtype)}
            for array in ends.values():
                array[...] = 0
            launch(_gather_ends_kernel, *grid, *ends.values(), *(self.arrays[name] for name in ends), first)
        ring, nbr = found.pop("ring"), Neighbours(found.pop("nbr"), found.pop("to_ptr"), found.pop("to_edge"))
        features = None if self.features is None else embedding_forward(self.features, found["z"])
        known = {"features": features, "ring": ring if self.with_ring else None}
        return GraphBatch(**found, **known, **ends, nbr=nbr, structure=None)

    def dropout(self, shard: GraphBatch, plan: Plan, size: Size) -> Dropout:
        """The Dropout of a batch that was gathered."""
        n_slots = (1 + self.config.n_layers) * bool(self.config.dropout)
        n_layers = self.config.n_layers * bool(self.config.attention_dropout)
        # an array of no size has no address that a driver knows
        site_key = empty((max(n_slots, 1), size.n_sites), np.uint64)
        edge_key = empty((n_layers, size.n_edges) if n_layers else (1, 1), np.uint64)
        arguments = site_key, edge_key, n_slots, n_layers, shard.site_ptr, shard.edge_ptr, self.arrays["slots"]
        launch(_keys_kernel, size.n_structures, GATHER_THREADS, *arguments, *plan, size.n_real)
        return Dropout(site_key, edge_key)


def transposed_in_structures(graphs: GraphBatch) -> tuple[np.ndarray, np.ndarray]:
    """The edges that point at each site: ptr (N + 1,) int64, and (E,) int32 numbers of edges within the structure.

    Those of site j are edge[ptr[j]:ptr[j + 1]]. No edge leaves its structure, so ptr is edge_ptr at every structure's
    first site, a batch needs offsets only, and the order of a sum is that of the edges, as in graph.py.
    """
    first_edge = np.repeat(graphs.edge_ptr[graphs.site_ptr[:-1]], graphs.n_edges)
    edge = np.argsort(graphs.nbr, kind="stable") - first_edge
    return pointers(np.bincount(graphs.nbr, minlength=len(graphs.z))), edge.astype(np.int32)


@kernel
def _locate_kernel(site_ptr, first, all_site_ptr, all_edge_ptr, order, start, cursor, n_real):
    """first : (4, S + 1), the first site and the first edge of a structure in the batch, and in the data set.

    A block for a structure; it adds up the sizes of those before it, which come from the cache.
    """
    lane, threads, begin = cuda.threadIdx.x, cuda.blockDim.x, start[cursor[0]]
    buffer = cuda.shared.array(0, start.dtype)
    for b in range(cuda.blockIdx.x, n_real, cuda.gridDim.x):
        sites = edges = np.int64(0)
        for other in range(lane, b, threads):
            i, end = all_site_ptr[order[begin + other]], all_site_ptr[order[begin + other] + 1]
            sites += end - i
            edges += all_edge_ptr[end] - all_edge_ptr[i]
        sites, edges = block_sum(buffer, sites), block_sum(buffer, edges)
        first_site, end = all_site_ptr[order[begin + b]], all_site_ptr[order[begin + b] + 1]
        if lane == 0:
            site_ptr[b], site_ptr[b + 1] = sites, sites + end - first_site
            first[0, b], first[0, b + 1] = sites, sites + end - first_site
            first[1, b], first[1, b + 1] = edges, edges + all_edge_ptr[end] - all_edge_ptr[first_site]
            first[2, b], first[3, b] = first_site, all_edge_ptr[first_site]


@kernel
def _gather_sites_kernel(edge_ptr, to_ptr, z, ring, all_edge_ptr, all_to_ptr, all_z, all_ring, first, with_ring):
    """A block for a structure; see _locate_kernel for `first`."""
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    for b in range(cuda.blockIdx.x, first.shape[1] - 1, cuda.gridDim.x):
        sites, edges, first_site, first_edge = first[0, b], first[1, b], first[2, b], first[3, b]
        n_sites = first[0, b + 1] - sites
        for i in range(lane, n_sites + 1, threads):
            edge_ptr[sites + i] = all_edge_ptr[first_site + i] - first_edge + edges
            to_ptr[sites + i] = all_to_ptr[first_site + i] - first_edge + edges
        for i in range(lane, n_sites, threads):
            z[sites + i] = all_z[first_site + i]
            if with_ring:
                ring[sites + i, 0] = all_ring[first_site + i, 0]
                ring[sites + i, 1] = all_ring[first_site + i, 1]


@kernel
def _gather_edges_kernel(nbr, to_edge, r, omega, weight, all_nbr, all_to_edge, all_r, all_omega, all_weight, first):
    """A block for a structure; see _locate_kernel for `first`."""
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    for b in range(cuda.blockIdx.x, first.shape[1] - 1, cuda.gridDim.x):
        sites, edges, first_site, first_edge = first[0, b], first[1, b], first[2, b], first[3, b]
        for e in range(lane, first[1, b + 1] - edges, threads):
            nbr[edges + e] = all_nbr[first_edge + e] - first_site + sites
            to_edge[edges + e] = all_to_edge[first_edge + e] + edges
            r[edges + e] = all_r[first_edge + e]
            omega[edges + e] = all_omega[first_edge + e]
            weight[edges + e] = all_weight[first_edge + e]


@kernel
def _gather_ends_kernel(direction, species, all_direction, all_species, first):
    """A block for a structure; see _locate_kernel for `first`."""
    for b in range(cuda.blockIdx.x, first.shape[1] - 1, cuda.gridDim.x):
        edges, first_edge = first[1, b], first[3, b]
        for e in range(cuda.threadIdx.x, first[1, b + 1] - edges, cuda.blockDim.x):
            species[edges + e] = all_species[first_edge + e]
            for x in range(3):
                direction[edges + e, x] = all_direction[first_edge + e, x]


@kernel
def _fill_up_kernel(site_ptr, edge_ptr, to_ptr, z, nbr, to_edge, r, omega, weight, ring, n_pads, with_ring):
    """A block for each structure that fills up; sites and edges are dealt out evenly."""
    lane, threads, n_real = cuda.threadIdx.x, cuda.blockDim.x, len(site_ptr) - 1 - n_pads
    sites = site_ptr[n_real]
    edges = edge_ptr[sites]
    n_sites, n_edges = len(z) - sites, len(nbr) - edges
    for pad in range(cuda.blockIdx.x, n_pads, cuda.gridDim.x):
        end = n_sites * (pad + 1) // n_pads
        if lane == 0:
            site_ptr[n_real + pad + 1] = sites + end
        for i in range(n_sites * pad // n_pads + lane, end, threads):
            last = edges + n_edges * (i + 1) // n_sites
            z[sites + i] = 0
            edge_ptr[sites + i + 1] = to_ptr[sites + i + 1] = last
            if with_ring:
                ring[sites + i, 0] = ring[sites + i, 1] = 0
            for e in range(edges + n_edges * i // n_sites, last):
                nbr[e] = sites + i
                to_edge[e] = e
                r[e] = omega[e] = weight[e] = 1


@kernel
def _keys_kernel(
    site_key, edge_key, n_slots, n_layers, site_ptr, edge_ptr, slots, order, start, stream, cursor, n_real
):
    """Keys of the sites and edges of a structure, a block for each, in every slot where something is dropped."""
    lane, threads, batch = cuda.threadIdx.x, cuda.blockDim.x, cursor[0]
    for b in range(cuda.blockIdx.x, len(site_ptr) - 1, cuda.gridDim.x):
        number = np.uint64(order[start[batch] + b]) if b < n_real else np.uint64(0)
        structure = mix_key(stream[batch] + number)
        for i in range(site_ptr[b] + lane, site_ptr[b + 1], threads):
            site = mix_key(structure + np.uint64(i - site_ptr[b]))
            for slot in range(n_slots):
                site_key[slot, i] = mix_key(site ^ slots[2 * slot])
            if n_layers > 0:
                for e in range(edge_ptr[i], edge_ptr[i + 1]):
                    edge = mix_key(site + np.uint64(e - edge_ptr[i]))
                    for layer in range(n_layers):
                        edge_key[layer, e] = mix_key(edge ^ slots[2 * layer + 1])
