"""The authors' TensorFlow model as it stands, from their package scann-model 1.0: layers, loss, optimiser, iterator."""

import contextlib
import importlib.util
import io
import os
import sys
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if importlib.util.find_spec("openbabel") is None:
    # Their module of helpers imports it to read files of molecules, which no benchmark does.
    sys.modules["openbabel"] = types.ModuleType("openbabel")
    sys.modules["openbabel"].pybel = None

import numpy as np
import tensorflow as tf
from scann.models import scann_model
from scann.utils.datagenerator import DataIterator

N_WORKERS = 4  # theirs, in SCANN.train


class Authors:
    """Their model with the published configuration and refattn's weights, set by position.

    Parameters
    ----------
    config : refattn.Config     readout "published"
    params : refattn Parameters
    source : worker.Source      taken by all peers
    n_threads : int

    step                 train_on_batch, or a tf.function of tape and optimiser
    inference            a tf.function of the model (call), or Keras's predict with the whole batch at once; theirs
                         cuts it into parts of 32, which is slower
    epoch                fit over their DataIterator, alone or with their four processes
    """

    FORMS = {"step": ("train_on_batch", "step_function"), "predict": ("call", "model_predict")}
    EPOCHS = ("epoch", "epoch_with_processes")

    def __init__(self, config, params, source=None, n_threads=1):
        tf.config.threading.set_intra_op_parallelism_threads(n_threads)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
        self.model, self.training, self.names = config.model, config.training, list(params)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a summary
            self.network = scann_model.create_model(their_config(config.model))
        self.network.set_weights([params[name] for name in self.names])
        self.optimiser = self.adam()
        self.network.compile(loss=scann_model.root_mean_squared_error, optimizer=self.adam())
        # With shapes open from the beginning each is traced once, and no batch can cause another tracing.
        inputs = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.network.inputs}
        self.compiled = tf.function(lambda x: self.network(x, training=False), input_signature=[inputs])
        self.update = tf.function(self.train, input_signature=[inputs, tf.TensorSpec([None, 1], tf.float32)])
        self.cache, self.iterator = {}, None

    def adam(self):
        """Their optimiser: since TensorFlow 2.11 the legacy one, because the other refuses `decay`."""
        return tf.keras.optimizers.legacy.Adam(self.training.learning_rate, decay=self.training.rate_decay)

    def arrays(self, batch):
        """The batch under the names of their inputs, as NumPy arrays and as tensors; kept, so that no clock sees it."""
        if id(batch) not in self.cache:
            b = batch.padded()
            found = {
                "atomic": b["z"].astype(np.int32),
                "atom_mask": b["site_mask"][..., None],
                "neighbors": b["nbr"].astype(np.int32),
                "neighbor_mask": b["edge_mask"],
                "neighbor_weight": b["omega" if self.model.variant == "scann+" else "weight"],
                "neighbor_distance": b["r"],
            }
            tensors = {name: tf.constant(array) for name, array in found.items()}
            self.cache[id(batch)] = found, tensors, tf.constant(batch.label[:, None])
        return self.cache[id(batch)]

    def call(self, batch):
        return self.compiled(self.arrays(batch)[1]).numpy()[:, 0]

    def model_predict(self, batch):
        arrays = self.arrays(batch)[0]
        return self.network.predict(arrays, batch_size=len(batch.label), verbose=0)[:, 0]

    def gradient(self, batch):
        """Without dropout and without the penalty of the kernels."""
        _, tensors, label = self.arrays(batch)
        with tf.GradientTape() as tape:
            loss = scann_model.root_mean_squared_error(label, self.network(tensors, training=False))
        grads = tape.gradient(loss, self.network.trainable_variables)
        return float(loss), {
            name: tf.convert_to_tensor(grad).numpy() for name, grad in zip(self.names, grads, strict=True)
        }

    def train(self, tensors, label):
        with tf.GradientTape() as tape:
            loss = scann_model.root_mean_squared_error(label, self.network(tensors, training=True))
            total = loss + tf.add_n(self.network.losses)
        grads = tape.gradient(total, self.network.trainable_variables)
        self.optimiser.apply_gradients(zip(grads, self.network.trainable_variables))
        return loss

    def step_function(self, batch):
        _, tensors, label = self.arrays(batch)
        return float(self.update(tensors, label))

    def train_on_batch(self, batch):
        _, tensors, label = self.arrays(batch)
        return float(self.network.train_on_batch(tensors, label))

    def prepare_epoch(self, source, rows):
        """Their data in their format, as load_dataset reads it from a file before training."""
        if self.iterator is None or len(self.iterator.data_energy) != len(rows):
            size, plus = self.training.batch_size, self.model.variant == "scann+"
            self.iterator = DataIterator(*their_data(source, rows), batch_size=size, shuffle=True, g_update=plus)

    def epoch(self, source, rows):
        self.network.fit(self.iterator, epochs=1, verbose=0, shuffle=False)

    def epoch_with_processes(self, source, rows):
        options = {"use_multiprocessing": True, "workers": N_WORKERS}  # as SCANN.train has it
        self.network.fit(self.iterator, epochs=1, verbose=0, shuffle=False, **options)


def their_config(m):
    """The configuration of their create_model for a ModelConfig."""
    model = {"feature": "atomic", "use_ring": False, "n_atoms": m.n_elements, "embedding_dim": m.embedding_width}
    model |= {"local_dim": m.width, "num_head": m.n_heads, "global_dim": m.global_width, "dense_out": m.head_width}
    model |= {"g_update": m.variant == "scann+", "gaussian_d": m.radial_max, "n_attention": m.n_layers}
    model |= {"use_drop": bool(m.attention_dropout), "use_attn_norm": m.residual, "use_ga_norm": m.normalise_attention}
    return {"model": model, "hyper": {"target": "homo"}}


def their_data(source, rows):
    """(energy, neighbour) arrays of objects as their load_dataset returns them.

    An edge is (element, site, solid angle, weight, distance); of the first only the place is used.
    """
    data, label = source.dataset.graphs, source.label
    nbr = data.nbr - np.repeat(data.site_ptr[:-1], data.n_edges)  # counted within the structure
    columns = [column.tolist() for column in (nbr, data.omega, data.weight, data.r)]
    edges, z = list(zip(np.zeros(len(data.nbr), dtype=int).tolist(), *columns)), data.z.tolist()
    energy, neighbour = np.empty((len(rows), 2), dtype=object), np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        first, last = data.site_ptr[row : row + 2]
        energy[place, 0], energy[place, 1] = z[first:last], float(label[row])
        neighbour[place] = [edges[slice(*data.edge_ptr[site : site + 2])] for site in range(first, last)]
    return energy, neighbour
