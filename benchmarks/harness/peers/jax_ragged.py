"""The network in JAX: one jitted function on ragged arrays, padded to buckets of sizes so that few shapes compile.

The padding is one structure more: its sites and edges touch no other, and its prediction is cut off.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from refattn.benchmarks.peers.batch import train_epoch

BUCKET = 1.1  # sizes are rounded up to a power of this, so that at most a tenth of the work is padding


def bucket(n):
    """The size that stands for n."""
    return int(np.ceil(BUCKET ** np.ceil(np.log(max(n, 16)) / np.log(BUCKET))))


class JaxRagged:
    """JAX, jit, ragged arrays.

    Parameters
    ----------
    config : refattn.Config
    params : refattn Parameters
    source : worker.Source      taken by all peers
    n_threads : int       taken by all peers; XLA uses the cores that the process may use
    identities : bool     as in TorchRagged
    """

    def __init__(self, config, params, source=None, n_threads=1, identities=True):
        self.model, self.training, self.identities = config.model, config.training, identities
        self.params = {name: jnp.asarray(params[name]) for name in params}
        self.decay = {entry.name: 2 * self.training.weight_decay * entry.decay for entry in params.table}
        zeros = {name: jnp.zeros_like(p) for name, p in self.params.items()}
        self.state = zeros, {name: jnp.zeros_like(p) for name, p in self.params.items()}, 0
        self.key, self.cache = jax.random.key(self.training.seed), {}
        self.run = jax.jit(functools.partial(self.forward, training=False))
        self.value_and_grad = jax.jit(jax.value_and_grad(functools.partial(self.loss, training=False)))
        self.update = jax.jit(self.train, donate_argnums=(0, 1))

    def arrays(self, batch):
        """The batch, padded to its buckets; kept, so that the clock sees no conversion."""
        if id(batch) not in self.cache:
            n_structures, n_sites, n_edges = len(batch.label), len(batch.z), len(batch.nbr)
            sites, edges = bucket(n_sites + 1), bucket(n_edges)

            def padded(x, size, value):
                return jnp.asarray(np.pad(x, (0, size - len(x)), constant_values=value))

            found = {name: padded(getattr(batch, name), edges, 1.0) for name in ("r", "omega", "weight")}
            found |= {name: padded(getattr(batch, name), edges, n_sites) for name in ("site", "nbr")}
            found |= {"z": padded(batch.z, sites, 0), "structure": padded(batch.structure, sites, n_structures)}
            found["label"] = jnp.asarray(batch.label)
            self.cache[id(batch)] = found
        return self.cache[id(batch)]

    def predict(self, batch):
        return np.asarray(self.run(self.params, self.arrays(batch), self.key))

    def gradient(self, batch):
        loss, grads = self.value_and_grad(self.params, self.arrays(batch), self.key)
        return float(loss), {name: np.asarray(grad) for name, grad in grads.items()}

    def step(self, batch):
        self.params, self.state, self.key, loss = self.update(self.params, self.state, self.key, self.arrays(batch))
        return float(loss)

    def epoch(self, source, rows):
        train_epoch(self, source, rows)

    def loss(self, params, b, key, training):
        return jnp.sqrt(jnp.mean((self.forward(params, b, key, training) - b["label"]) ** 2))

    def train(self, params, state, key, b):
        """Forward, backward and Adam as one function."""
        c, (m, v, step) = self.training, state
        key, own = jax.random.split(key)
        loss, grads = jax.value_and_grad(functools.partial(self.loss, training=True))(params, b, own)
        grads = {n: g + self.decay[n] * params[n] for n, g in grads.items()}
        step = step + 1
        m = {n: c.beta_1 * m[n] + (1 - c.beta_1) * g for n, g in grads.items()}
        v = {n: c.beta_2 * v[n] + (1 - c.beta_2) * g**2 for n, g in grads.items()}
        rate = c.learning_rate * jnp.sqrt(1 - c.beta_2**step) / (1 - c.beta_1**step)
        params = {n: p - rate * m[n] / (jnp.sqrt(v[n]) + c.epsilon) for n, p in params.items()}
        return params, (m, v, step), key, loss

    def forward(self, params, b, key, training):
        """Predictions (S,) of a padded batch."""
        m, n_structures, n_sites = self.model, len(b["label"]), len(b["z"])
        keys = iter(jax.random.split(key, 2 * m.n_layers + 1))

        def dense(x, name, number=""):
            return x @ params[f"{name}_w{number}"] + params[f"{name}_b{number}"]

        def norm(x, name):
            centred = x - x.mean(-1, keepdims=True)
            scale = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
            return centred * scale * params[f"{name}_gain"] + params[f"{name}_offset"]

        def drop(x, rate):
            key = next(keys)
            if not training or not rate:
                return x
            # two entries from each random number, which takes 0.6 of bernoulli's time
            words = jax.lax.bitcast_convert_type(jax.random.bits(key, (x.size // 2 + 1,), "uint32"), jnp.uint16)
            kept = words.reshape(-1)[: x.size].reshape(x.shape) >= round(2**16 * rate)
            return jnp.where(kept, x / (1 - rate), 0)

        site = drop(jax.nn.silu(dense(params["embed"][b["z"]], "site")), m.dropout)
        geo = self.geometry(b, dense)
        for number in range(m.n_layers):
            layer = f"layer{number}"
            geo, seen = self.update_geometry(params, layer, site, geo, b, norm)
            q, k = dense(site, f"{layer}.query"), dense(site[b["nbr"]] * seen, f"{layer}.key")
            context = self.attend(q, k, b["site"], n_sites, lambda alpha: drop(alpha, m.attention_dropout))
            site = norm(context + q, f"{layer}.context")
            if m.residual:
                update = dense(jax.nn.silu(dense(site, f"{layer}.residual", 1)), f"{layer}.residual", 2)
                site = norm(site + drop(update, m.dropout), f"{layer}.residual")
        struct = self.read_out(site, b["structure"], n_structures + 1, dense)
        return dense(jax.nn.silu(dense(struct, "hidden")), "output")[:n_structures, 0]

    def geometry(self, b, dense):
        m = self.model

        def expand(x, last):
            return jnp.exp(-(((x[:, None] - jnp.linspace(0, last, m.n_radial)) / m.radial_width) ** 2))

        rbf = expand(b["r"], m.radial_max)
        if m.variant == "scann":
            return rbf
        return jax.nn.silu(dense(rbf, "distance")) * jax.nn.silu(dense(expand(b["omega"], 2 * np.pi), "angle"))

    def update_geometry(self, params, layer, site, geo, b, norm):
        w, bias, width = params[f"{layer}.filter_w"], params[f"{layer}.filter_b"], self.model.width
        if self.model.variant == "scann":
            return geo, jax.nn.silu(geo @ w + bias) * b["weight"][:, None]
        if self.identities:
            centre, neighbour = site @ w[:width] + bias, site @ w[2 * width :]
            v = geo @ w[width : 2 * width] + centre[b["site"]] + neighbour[b["nbr"]]
        else:
            v = jnp.concatenate([site[b["site"]], geo, site[b["nbr"]]], axis=1) @ w + bias
        geo = norm(jax.nn.silu(v) + geo, f"{layer}.geometry")
        return geo, geo

    def attend(self, q, k, site_of, n_sites, drop):
        heads = self.model.n_heads
        k = k.reshape(len(k), heads, -1)
        score = (q[site_of].reshape(k.shape) * k).sum(-1) * k.shape[-1] ** -0.5
        sums = functools.partial(
            jax.ops.segment_sum, segment_ids=site_of, num_segments=n_sites, indices_are_sorted=True
        )
        top = jax.ops.segment_max(jax.lax.stop_gradient(score), site_of, n_sites, indices_are_sorted=True)
        exponential = jnp.exp(score - top[site_of])
        alpha = drop(exponential / sums(exponential)[site_of])
        return sums(alpha[:, :, None] * k).reshape(q.shape)

    def read_out(self, site, structure, n, dense):
        m = self.model
        site = jax.nn.silu(dense(site, "after"))
        q, k = dense(site, "global_query"), dense(site, "global_key")
        sums = functools.partial(jax.ops.segment_sum, segment_ids=structure, num_segments=n, indices_are_sorted=True)
        total, count = sums(q)[structure], sums(jnp.ones(len(q)))
        intensive = m.readout == "intensive"
        score = (k * total).sum(1) / count[structure] if intensive else (k * (total - q)).sum(1)
        if m.normalise_attention:
            square = sums(score**2)
            size = jnp.sqrt(square / count if intensive else square)
            score = score / jnp.where(size > 0, size, 1)[structure]
        top = jax.ops.segment_max(jax.lax.stop_gradient(score), structure, n, indices_are_sorted=True)
        exponential = jnp.exp(score - top[structure])
        beta = exponential / sums(exponential)[structure]
        return sums(beta[:, None] * k)
