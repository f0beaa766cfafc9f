"""refattn itself behind the interface of the peers."""

import contextlib

import numpy as np

from refattn.common.threads import workers
from refattn.network.inference import predict_rows
from refattn.ops import load_backend
from refattn.training.adam import Adam
from refattn.training.cpu_stepper import CpuStepper
from refattn.training.schedule import epoch_batches
from refattn.training.targets import Targets


class Own:
    """refattn on `n_threads` threads. Unlike the peers, it gathers its batches from the data set within the clock."""

    def __init__(self, config, params, source=None, n_threads=1, backend="cpu"):
        self.config, self.params, self.ops = config, params, load_backend(backend)
        self.graphs = source.dataset.graphs
        self.adam = Adam(params.vector, params.decay_mask(), config.training)
        ids, targets = source.dataset.id, Targets(source.label[:, None])
        self.stepper = CpuStepper(config, self.ops, self.graphs, ids, targets, params, self.adam)
        self.pool = contextlib.ExitStack()  # kept, because it stops the threads when it is collected
        self.run = self.pool.enter_context(workers(n_threads))

    def predict(self, batch):
        found = predict_rows(self.params, self.config.model, self.ops, self.graphs, batch.rows, self.run)
        return found.prediction[:, 0]

    def gradient(self, batch):
        loss, _ = self.stepper.compute_gradient(batch.rows, 0, self.run)
        grads = self.stepper.gradient()
        return loss, {name: np.array(grads[name]) for name in grads}

    def step(self, batch):
        return self.train(batch.rows)

    def train(self, rows):
        loss, _ = self.stepper.compute_gradient(rows, self.adam.step, self.run)
        self.adam.update(self.params.vector, self.stepper.grads.vector, self.config.training.learning_rate)
        return loss

    def epoch(self, source, rows):
        """As Trainer goes through its data: shuffled rows, gathered shard by shard."""
        for own in epoch_batches(rows, self.config.training.batch_size, self.config.training.seed, 1):
            self.train(own)
