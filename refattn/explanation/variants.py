"""Many variants of one structure in one call of the network, in bounded memory.

The variants have one graph and differ in their input embeddings (network.model.input_embedding). They are cut into
jobs of as many copies as fill a shard, by a rule that knows nothing of the machine, so that a result has the same bits
for any number of threads; a structure larger than a shard goes one copy at a time.
"""

import dataclasses

import numpy as np

from refattn.network.inference import overflow_is_reported
from refattn.network.placement import run_forward, run_gradients, run_input_embedding
from refattn.structures.graph import EDGES_PER_SHARD, Shard


@dataclasses.dataclass(frozen=True)
class Subject:
    """One structure before one network.

    Attributes
    ----------
    params : Parameters
    config : ModelConfig       without the clip at zero of a non-negative head: its gradient is the identity, so that
                               scores explain what is there before the clip
    ops : namespace of operations
    shard : Shard              of one structure
    embedding : (N, W) float   the sites' input embedding c
    baseline : (W,) float      the input embedding of a site that is none: zeros by default, the centre of the
                               distribution that an element's embedding is drawn from
    """

    params: object
    config: object
    ops: object
    shard: Shard
    embedding: np.ndarray
    baseline: np.ndarray

    @classmethod
    def of(cls, params, config, ops, shard, baseline=None):
        """A Subject whose embedding is the network's own; baseline (W,) float, zeros by default."""
        config = dataclasses.replace(config, non_negative=False)
        embedding = run_input_embedding(params, shard, config, ops)
        zeros = np.zeros(embedding.shape[1])
        return cls(params, config, ops, shard, embedding, zeros if baseline is None else np.asarray(baseline))

    @property
    def difference(self):
        """(N, W) float64: c - baseline."""
        return self.embedding.astype(float) - self.baseline

    def output(self):
        """Network output of the structure as it is; float, in standard deviations of the label, before a clip."""
        return float(self.outputs(lambda part: self.embedding[None], 1)[0])

    def outputs(self, make, n_variants, run=map):
        """Network output of every variant.

        Parameters
        ----------
        make : callable      (n,) int, numbers of variants -> (n, N, W) their input embeddings
        n_variants : int
        run : callable       like map; see refattn.network.threads.workers

        Returns
        -------
        (n_variants,) float64, in standard deviations of the label, before a clip
        """

        def part_outputs(part):
            with self.ops.work_arrays(), overflow_is_reported():
                rows, copies = self._rows(make(part))
                tape = run_forward(self.params, copies, self.config, self.ops, embedding=rows)
                return tape.prediction.astype(float)

        return np.concatenate(list(self.ops.side_by_side(run)(part_outputs, self._cut(n_variants))))

    def summed_gradient(self, make, weights, run=map):
        """Gradient of the outputs by the input embedding, summed over variants.

        grad[i,d] = sum_n weights[n] d output[n] / d c[n,i,d]

        Parameters
        ----------
        make : callable              as in `outputs`
        weights : (n_variants,) float
        run : callable

        Returns
        -------
        (N, W) float64; the sum runs in the order of the variants
        """

        def part_gradient(part):
            with self.ops.work_arrays(), overflow_is_reported():
                rows, copies = self._rows(make(part))
                weight = weights[part].astype(self.embedding.dtype)
                grad_inputs = run_gradients(weight, self.params, copies, self.config, self.ops, embedding=rows)[2]
                grad = grad_inputs["embedding"].reshape(len(part), *self.embedding.shape)
                return grad.sum(axis=0, dtype=float)

        total = np.zeros(self.embedding.shape)
        for part in self.ops.side_by_side(run)(part_gradient, self._cut(len(weights))):
            total += part
        return total

    def _rows(self, embeddings):
        """Embeddings (n, N, W) as those of the sites of a Shard of n copies, and that Shard."""
        copies, n_sites, width = embeddings.shape
        rows = embeddings.reshape(copies * n_sites, width).astype(self.embedding.dtype, copy=False)
        return rows, repeated(self.shard, copies)

    def _cut(self, n_variants):
        size = max(1, EDGES_PER_SHARD // max(1, len(self.shard.nbr), len(self.shard.z)))
        return [np.arange(start, min(start + size, n_variants)) for start in range(0, n_variants, size)]


def repeated(shard, n):
    """A Shard of `n` copies of a shard of one structure."""
    n_sites, n_edges = len(shard.z), len(shard.nbr)
    copy = np.arange(n, dtype=np.int32)
    edge_ptr = shard.edge_ptr[:-1] + n_edges * copy[:, None]
    return Shard(
        site_ptr=np.arange(n + 1, dtype=np.int32) * np.int32(n_sites),
        edge_ptr=np.append(edge_ptr, n * n_edges).astype(np.int32),
        nbr=(shard.nbr + n_sites * copy[:, None]).reshape(-1).astype(np.int32),
        structure=np.arange(n),
        features=None if shard.features is None else np.tile(shard.features, (n, 1)),
        ring=None if shard.ring is None else np.tile(shard.ring, (n, 1)),
        **{name: np.tile(getattr(shard, name), n) for name in ("z", "r", "omega", "weight")},
    )
