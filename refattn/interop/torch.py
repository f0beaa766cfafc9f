"""The network as a torch.nn.Module, with the weights of a run: to fine-tune it there, or to compare with.

It follows the nine steps of docs/design.md section 3 as they stand, without refattn's identities, in ragged arrays. All
options of the network are there. Gradients are autograd's. Dropout is torch's own.
"""

import os

import numpy as np

from refattn.config import ModelConfig
from refattn.errors import MissingExtra
from refattn.network.checkpoint import load_checkpoint, model_file
from refattn.network.params import Parameters
from refattn.structures.batch import GraphBatch, ragged_rows

try:
    import torch
    from torch.nn import functional
except ImportError:
    raise MissingExtra("PyTorch is not installed: run `pip install torch` for refattn.interop.torch") from None

EPSILON = 1e-6


class Network(torch.nn.Module):
    """SCANN or SCANN+ in PyTorch.

    Its parameters have refattn's names, with `__` for each dot: layer0__query_w, of shape (in, out).

    Parameters
    ----------
    config : ModelConfig
    params : Parameters     of refattn; their type is the module's
    """

    def __init__(self, config: ModelConfig, params: Parameters):
        super().__init__()
        self.config = config
        for name in params:
            self.register_parameter(name.replace(".", "__"), torch.nn.Parameter(torch.tensor(params[name])))

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights under refattn's names, for refattn.network.params.from_arrays."""
        return {name.replace("__", "."): p.detach().cpu().numpy().copy() for name, p in self.named_parameters()}

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients under refattn's names; zeros where there is none."""
        found = {}
        for name, p in self.named_parameters():
            grad = torch.zeros_like(p) if p.grad is None else p.grad
            found[name.replace("__", ".")] = grad.cpu().numpy().copy()
        return found

    def forward(self, graph: GraphBatch, outputs: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Predictions (S, K), scaled, of a graph that is `graph.for_network(config, dtype)`.

        outputs : dict, optional     filled with the outputs of the layers, by the names of refattn.testing.outputs_of
        """
        outputs = {} if outputs is None else outputs
        config, w = self.config, self._weights("")
        batch = _Batch(graph, next(self.parameters()))
        site = outputs["embedding"] = functional.silu(_dense(w, self._embedded(w, batch), "site"))
        site = functional.dropout(site, config.dropout, self.training)
        geo = outputs["geometry"] = self._geometry(w, batch)
        for layer in range(config.n_layers):
            found = {}
            site, geo = self._layer(self._weights(f"layer{layer}."), site, geo, batch, found)
            outputs.update({f"layer{layer}.{name}": value for name, value in found.items()})
        predictions = []
        for target in range(config.n_targets):
            several = config.n_targets > 1
            found = {}
            own = self._weights(f"target{target}.") if several else w
            predictions.append(self._read_out(own, site, batch, found))
            prefix = f"target{target}." if several else ""
            outputs.update({prefix + name: value for name, value in found.items()})
        outputs["prediction"] = torch.cat(predictions, dim=1)
        return outputs["prediction"]

    def _weights(self, prefix):
        prefix = prefix.replace(".", "__")
        return {name.removeprefix(prefix): p for name, p in self.named_parameters() if name.startswith(prefix)}

    def _embedded(self, w, batch):
        """Step 1, before the dense layer."""
        cgcnn = self.config.features == "cgcnn"
        c = _dense(w, batch.features, "embed") if cgcnn else w["embed"][batch.z]
        return torch.cat([c, _dense(w, batch.ring, "ring")], dim=1) if self.config.ring else c

    def _geometry(self, w, batch):
        """Step 2."""
        rbf = self._expand(batch.r, self.config.radial_max)
        if self.config.variant == "scann":
            return self._with_angles(rbf, batch)
        omega = self._with_angles(self._expand(batch.omega, 2 * np.pi), batch)
        return functional.silu(_dense(w, rbf, "distance")) * functional.silu(_dense(w, omega, "angle"))

    def _expand(self, x, end):
        centres = torch.linspace(0, end, self.config.n_radial, dtype=torch.float64).to(x)
        return torch.exp(-(((x[:, None] - centres) / self.config.radial_width) ** 2))

    def _with_angles(self, rbf, batch):
        """The expansion of the angles beside another one (E, G)."""
        n = self.config.n_angular
        if not n:
            return rbf
        e, f = batch.pairs
        cos = (batch.direction[e] * batch.direction[f]).sum(1)
        centres = torch.linspace(-1, 1, n, dtype=torch.float64).to(cos)
        share = batch.weight[f][:, None] * torch.exp(-(((cos[:, None] - centres) * (n - 1) / 2) ** 2))
        share = torch.cat([share, batch.species[f][:, None] * share], dim=1)
        return torch.cat([rbf, rbf.new_zeros(len(rbf), 2 * n).index_add(0, e, share)], dim=1)

    def _layer(self, w, site, geo, batch, found):
        """Steps 3 to 6."""
        config, i, j = self.config, batch.site, batch.nbr
        seen = geo
        if config.variant == "scann":
            seen = functional.silu(_dense(w, geo, "filter")) * batch.weight[:, None]
        else:
            v = _dense(w, torch.cat([site[i], geo, site[j]], dim=1), "filter")
            geo = seen = found["geometry"] = _norm(w, functional.silu(v) + geo, "geometry")
        q, k = _dense(w, site, "query"), _dense(w, site[j] * seen, "key")
        heads = (config.n_heads, config.width // config.n_heads)
        k = k.view(-1, *heads)
        score = (q[i].view(-1, *heads) * k).sum(-1) * heads[1] ** -0.5
        alpha = found["alpha"] = _softmax(score, i, len(site))
        alpha = functional.dropout(alpha, config.attention_dropout, self.training)
        context = q.new_zeros(len(site), *heads).index_add(0, i, alpha[:, :, None] * k).view(q.shape)
        found["context"] = context
        site = _norm(w, context + q, "context")
        if config.residual:
            hidden = functional.silu(_dense(w, site, "residual", 1))
            update = functional.dropout(_dense(w, hidden, "residual", 2), config.dropout, self.training)
            site = _norm(w, site + update, "residual")
        found["site"] = site
        return site, geo

    def _read_out(self, w, site, batch, found):
        """Steps 7 to 9 of one target."""
        config, of, n = self.config, batch.structure, batch.n_structures
        site = found["after"] = functional.silu(_dense(w, site, "after"))
        q, k = _dense(w, site, "global_query"), _dense(w, site, "global_key")
        total = q.new_zeros(n, q.shape[1]).index_add(0, of, q)[of]
        size = q.new_zeros(n).index_add(0, of, q.new_ones(len(q)))
        published = config.readout == "published"
        score = (k * (total - q)).sum(1) if published else (k * total).sum(1) / size[of]
        if config.normalise_attention:
            square = q.new_zeros(n).index_add(0, of, score**2)
            square = square if published else square / size
            norm = torch.where(square > 0, square, 1.0).sqrt()  # a lone site has nothing to divide by
            score = score / norm[of]
        beta = found["beta"] = _softmax(score, of, n)
        struct = found["struct"] = q.new_zeros(n, k.shape[1]).index_add(0, of, beta[:, None] * k)
        additive = config.head == "additive"
        hidden = found["hidden"] = functional.silu(_dense(w, k if additive else struct, "hidden"))
        prediction = _dense(w, hidden, "output")
        if additive:
            weight = 1.0 if config.readout == "sum" else beta[:, None]
            prediction = q.new_zeros(n, 1).index_add(0, of, weight * prediction)
        return _clipped(prediction) if config.non_negative else prediction


class _Batch:
    """The arrays of a GraphBatch as tensors, beside the parameter `like`."""

    def __init__(self, graph, like):
        def indices(array):
            return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(like.device)

        def floats(array):
            return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).to(like)

        self.n_structures = len(graph)
        self.z, self.nbr = indices(graph.z), indices(graph.nbr)
        self.site = indices(np.repeat(np.arange(len(graph.z)), np.diff(graph.edge_ptr)))
        self.structure = indices(np.repeat(np.arange(len(graph)), np.diff(graph.site_ptr)))
        self.r, self.omega, self.weight = floats(graph.r), floats(graph.omega), floats(graph.weight)
        self.features, self.ring = floats(graph.features), floats(graph.ring)
        self.direction, self.species = floats(graph.direction), floats(graph.species)
        if graph.direction is not None:
            ptr, second = ragged_rows(graph.edge_ptr, self.site.cpu().numpy())
            first = np.repeat(np.arange(len(graph.nbr)), np.diff(ptr))
            other = first != second
            self.pairs = indices(first[other]), indices(second[other])  # of edges of one site


def _dense(w, x, name, number=""):
    return torch.addmm(w[f"{name}_b{number}"], x, w[f"{name}_w{number}"])


def _norm(w, x, name):
    return functional.layer_norm(x, x.shape[-1:], w[f"{name}_gain"], w[f"{name}_offset"], EPSILON)


def _softmax(score, of, n):
    """Over the rows that belong to the same of n things."""
    index = of.view(-1, *[1] * (score.dim() - 1)).expand_as(score)
    lowest = score.new_full((n, *score.shape[1:]), -torch.inf)
    top = lowest.scatter_reduce(0, index, score.detach(), "amax")
    exponential = torch.exp(score - top[of])
    return exponential / torch.zeros_like(top).index_add(0, of, exponential)[of]


def _clipped(prediction):
    """max(0, y) forward, with the identity as its gradient."""
    return prediction + (prediction.clamp(min=0) - prediction).detach()


def load(run: str | os.PathLike) -> Network:
    """The network of a run or model file, with its weights and without dropout, which `train()` turns on.

    property = mean + std * output, with the numbers of its Checkpoint.
    """
    checkpoint = load_checkpoint(model_file(run))
    return Network(checkpoint.config.model, checkpoint.params).eval()
