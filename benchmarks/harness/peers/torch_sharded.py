"""PyTorch as refattn does it: the batch cut into shards, whose arrays stay in cache, and threads that take them.

Threads of PyTorch's own split every operation and wait for one another after each; here every thread computes whole
shards, forward and backward, on one thread of PyTorch.
"""

import concurrent.futures

import numpy as np
import torch

from refattn.benchmarks.peers.batch import Batch
from refattn.benchmarks.peers.torch_ragged import TorchRagged

SHARD = 32  # structures; measured on one core with 128, 64, 32 and 16: steps of 567, 546, 553, 588 ms


class TorchSharded(TorchRagged):
    """PyTorch on ragged arrays with identities, shard by shard; arguments are those of TorchRagged."""

    def __init__(self, config, params, source=None, n_threads=1, compiled=False):
        super().__init__(config, params, source, 1, compiled, identities=True)
        self.source, self.n_threads = source, n_threads
        self.pool = concurrent.futures.ThreadPoolExecutor(n_threads)
        self.list = list(self.params.values())

    def shards(self, batch):
        """The batch as (tensors, labels) of its shards; kept, so that the clock sees no conversion."""
        key = id(batch)
        if key not in self.cache:
            rounds = max(1, round(len(batch.rows) / SHARD / self.n_threads))  # every thread gets as many shards
            parts = np.array_split(batch.rows, min(rounds * self.n_threads, len(batch.rows)))
            found = [Batch.of(self.source.dataset.graphs, rows, self.source.label) for rows in parts]
            self.cache[key] = [(self.as_tensors(part), torch.from_numpy(part.label)) for part in found]
        return self.cache[key]

    def map(self, function, items):
        return list((self.pool.map if self.n_threads > 1 else map)(function, items))

    def predict(self, batch):
        def output(shard):
            with torch.inference_mode():  # of a thread
                return self.run(shard[0], False).numpy()

        return np.concatenate(self.map(output, self.shards(batch)))

    def derive(self, batch, training):
        """Root mean square error of the batch and its gradients, which are put into the parameters' `grad`."""

        def shard_gradient(shard):
            tensors, label = shard
            square = ((self.run(tensors, training) - label) ** 2).sum()
            return square.item(), torch.autograd.grad(square, self.list, allow_unused=True)

        found = self.map(shard_gradient, self.shards(batch))
        loss = (sum(square for square, _ in found) / len(batch.label)) ** 0.5
        factor = 1 / (2 * len(batch.label) * loss)
        total = [torch.zeros_like(p) if g is None else g for p, g in zip(self.list, found[0][1])]
        for _, grads in found[1:]:
            pairs = [(t, g) for t, g in zip(total, grads) if g is not None]
            torch._foreach_add_(*map(list, zip(*pairs)))
        torch._foreach_mul_(total, factor)
        for parameter, grad in zip(self.list, total):
            parameter.grad = grad
        return loss

    def gradient(self, batch):
        loss = self.derive(batch, False)
        return loss, {name: parameter.grad.numpy().copy() for name, parameter in self.params.items()}

    def step(self, batch):
        loss = self.derive(batch, True)
        self.adam.step()
        return loss
