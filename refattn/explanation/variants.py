"""Many variants of one structure in one call of the network, in bounded memory.

The variants have one graph and differ in their input embeddings (network.model.input_embedding). They are cut into
jobs of as many copies as fill a shard, by a rule that knows nothing of the machine, so that a result has the same bits
for any number of threads; a structure larger than a shard goes one copy at a time. Of a large one only the inputs of
every layer are kept for the backward pass, which computes the rest of a layer again: 1.8 GB for 20,000 atoms before
the published network, not 4.5.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np

from refattn.config import ModelConfig
from refattn.network.cache import LayerCache, Tape
from refattn.network.inference import overflow_is_reported
from refattn.network.model import backward, compute_layer, forward, input_embedding, residual_dropout
from refattn.network.params import Parameters
from refattn.ops.types import Ops
from refattn.structures.batch import EDGES_PER_SHARD, GraphBatch

LARGE = 10_000  # sites of a structure of which one copy at a time fits in memory, and in the model's own type


@dataclasses.dataclass(frozen=True)
class ScoredInput:
    """One structure before one network.

    Attributes
    ----------
    params : Parameters        where `ops` compute
    config : ModelConfig       without the clip at zero of a non-negative head: its gradient is the identity, so that
                               scores explain what is there before the clip
    ops : namespace of operations
    graph : GraphBatch         the structure, as the network reads it
    embedding : (N, W) float   the sites' input embedding c
    baseline : (W,) float      the input embedding of a site that is none: zeros by default, the centre of the
                               distribution that an element's embedding is drawn from
    target : int               whose output is explained
    """

    params: Parameters
    config: ModelConfig
    ops: Ops
    graph: GraphBatch
    embedding: np.ndarray
    baseline: np.ndarray
    target: int = 0

    @classmethod
    def of(
        cls, params: Parameters, config: ModelConfig, ops: Ops, graph: GraphBatch, baseline: np.ndarray | None = None
    ) -> "ScoredInput":
        """A ScoredInput whose embedding is the network's own; baseline (W,) float, zeros by default."""
        config = dataclasses.replace(config, non_negative=False)
        params = params.to(ops)
        embedding = ops.to_host(input_embedding(params, graph.to(ops), config, ops))
        zeros = np.zeros(embedding.shape[1])
        return cls(params, config, ops, graph, embedding, zeros if baseline is None else np.asarray(baseline))

    @property
    def difference(self) -> np.ndarray:
        """(N, W) float64: c - baseline."""
        return self.embedding.astype(float) - self.baseline

    def output(self) -> float:
        """Network output of the structure as it is; float, in standard deviations of the label, before a clip."""
        return float(self.outputs(lambda part: self.embedding[None], 1)[0])

    def without(self, absent: np.ndarray, map_fn: Callable = map) -> np.ndarray:
        """Network output with the baseline in the place of sites; their geometry stays.

        Parameters
        ----------
        absent : (n, N) bool     the sites that are taken from each variant
        map_fn : callable

        Returns
        -------
        (n,) float64, in standard deviations of the label, before a clip
        """

        def variants(part):
            return np.where(absent[part][:, :, None], self.baseline, self.embedding)

        return self.outputs(variants, len(absent), map_fn)

    def outputs(self, make: Callable, n_variants: int, map_fn: Callable = map) -> np.ndarray:
        """Network output of every variant.

        Parameters
        ----------
        make : callable      (n,) int, numbers of variants -> (n, N, W) their input embeddings
        n_variants : int
        map_fn : callable    like map; see refattn.common.threads.workers

        Returns
        -------
        (n_variants,) float64, in standard deviations of the label, before a clip
        """

        def part_outputs(part):
            with self._work_arrays(), overflow_is_reported():
                tape = self.forward(make(part))
                return self.ops.to_host(tape.prediction)[:, self.target].astype(float)

        return np.concatenate(list(self._side_by_side(map_fn)(part_outputs, self._cut(n_variants))))

    def summed_gradient(self, make: Callable, weights: np.ndarray, map_fn: Callable = map) -> np.ndarray:
        """Gradient of the outputs by the input embedding, summed over variants.

        grad[i,d] = sum_n weights[n] d output[n] / d c[n,i,d]

        Parameters
        ----------
        make : callable              as in `outputs`
        weights : (n_variants,) float
        map_fn : callable

        Returns
        -------
        (N, W) float64; the sum runs in the order of the variants
        """

        def part_gradient(part):
            with self._work_arrays(), overflow_is_reported():
                tape = self.forward(make(part))
                weight = np.zeros((len(part), self.config.n_targets), self.embedding.dtype)
                weight[:, self.target] = weights[part]
                grads = self.params.zeros_like()
                grad_inputs = {}
                backward(
                    self.ops.to_device(weight), tape, self.params, grads, self.config, self.ops, grad_inputs=grad_inputs
                )
                grad = self.ops.to_host(grad_inputs["embedding"]).reshape(len(part), *self.embedding.shape)
                return grad.sum(axis=0, dtype=float)

        total = np.zeros(self.embedding.shape)
        for part in self._side_by_side(map_fn)(part_gradient, self._cut(len(weights))):
            total += part
        return total

    def forward(self, embeddings: np.ndarray | None = None) -> Tape:
        """Tape of the network for as many copies of the structure as there are embeddings (n, N, W); for one of its own
        where there are none."""
        embeddings = self.embedding[None] if embeddings is None else embeddings
        n_copies, n_sites, width = embeddings.shape
        rows = embeddings.reshape(n_copies * n_sites, width).astype(self.embedding.dtype, copy=False)
        copies = self.graph.repeat(n_copies).to(self.ops)
        layers = LayersAgain(self.params, self.config, self.ops) if self._is_large else None
        return forward(self.params, copies, self.config, self.ops, embedding=self.ops.to_device(rows), layers=layers)

    @property
    def _is_large(self):
        return len(self.graph.z) > LARGE

    def _work_arrays(self):
        """Those of a large structure are given back one by one, as soon as nothing needs them."""
        return contextlib.nullcontext() if self._is_large else self.ops.work_arrays()

    def _side_by_side(self, map_fn):
        return map if self._is_large else self.ops.side_by_side(map_fn)

    def _cut(self, n_variants):
        size = max(1, EDGES_PER_SHARD // max(1, len(self.graph.nbr), len(self.graph.z)))
        return [np.arange(start, min(start + size, n_variants)) for start in range(0, n_variants, size)]


class LayersAgain:
    """The layers of a Tape without dropout of which only the inputs are kept: the rest is computed when it is read."""

    def __init__(self, params: Parameters, config: ModelConfig, ops: Ops):
        self.network = params, config, ops
        self.inputs = []

    def append(self, cache: LayerCache) -> None:
        """Keep what came into a layer."""
        self.inputs.append((cache.site, cache.geo, cache.edges))

    def __getitem__(self, layer: int) -> LayerCache:
        params, config, ops = self.network
        site, geo, edges = self.inputs[layer]
        residual = residual_dropout(config, None, layer)
        return compute_layer(params.layer(layer), site, geo, edges, config, ops, residual)[0]
