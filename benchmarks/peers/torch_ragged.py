"""The network in PyTorch on ragged arrays: gathers and index_add along the edges, no padding."""

import torch
from torch.nn import functional

from refattn.benchmarks.peers.torch_training import TorchPeer


class TorchRagged(TorchPeer):
    """PyTorch on ragged arrays.

    identities : bool     the filter of SCANN+ as products of sites and of edges (refattn's), instead of one product of
                          [site_i | geo | site_j] for every edge
    """

    def __init__(self, config, params, source=None, n_threads=1, compiled=False, identities=False):
        self.identities = identities
        super().__init__(config, params, source, n_threads, compiled)

    def arrays(self, batch):
        names = ("z", "structure", "site", "nbr", "r", "omega", "weight")
        return {**{name: getattr(batch, name) for name in names}, "n": len(batch.label)}

    def forward(self, b, training):
        m, site_of, nbr = self.model, b["site"], b["nbr"]
        site = self.drop(functional.silu(self.dense(self.params["embed"][b["z"]], "site")), training)
        geo = self.geometry(b["r"], b["omega"])
        for number in range(m.n_layers):
            layer = f"layer{number}"
            geo, seen = self.update_geometry(layer, site, geo, b)
            x = site.index_select(0, nbr) * seen
            q, k = self.dense(site, f"{layer}.query"), self.dense(x, f"{layer}.key")
            context = self.attend(q, k, site_of, training)
            site = self.norm(context + q, f"{layer}.context")
            if m.residual:
                site = self.residual_block(site, layer, training)
        return self.head(self.read_out(site, b["structure"], b["n"]))

    def update_geometry(self, layer, site, geo, b):
        """Step 3: geometry features for the next layer, and those that this one uses."""
        w, bias = self.params[f"{layer}.filter_w"], self.params[f"{layer}.filter_b"]
        if self.model.variant == "scann":
            return geo, functional.silu(torch.addmm(bias, geo, w)) * b["weight"][:, None]
        width, i, j = self.model.width, b["site"], b["nbr"]
        if self.identities:
            centre, neighbour = torch.addmm(bias, site, w[:width]), site @ w[2 * width :]
            v = torch.addmm(centre.index_select(0, i), geo, w[width : 2 * width]) + neighbour.index_select(0, j)
        else:
            v = torch.addmm(bias, torch.cat([site.index_select(0, i), geo, site.index_select(0, j)], dim=1), w)
        geo = self.norm(functional.silu(v) + geo, f"{layer}.geometry")
        return geo, geo

    def attend(self, q, k, site_of, training):
        """Step 5: softmax over the edges of each site, head by head."""
        heads = self.model.n_heads
        k = k.view(len(k), heads, -1)
        score = (q.index_select(0, site_of).view(k.shape) * k).sum(-1) * k.shape[-1] ** -0.5
        index = site_of[:, None].expand_as(score)
        top = torch.full((len(q), heads), -torch.inf).scatter_reduce(0, index, score.detach(), "amax")
        exponential = torch.exp(score - top.index_select(0, site_of))
        total = torch.zeros_like(top).index_add(0, site_of, exponential)
        alpha = exponential / total.index_select(0, site_of)
        alpha = functional.dropout(alpha, self.model.attention_dropout, training)
        context = torch.zeros(len(q), heads, k.shape[-1]).index_add(0, site_of, alpha[:, :, None] * k)
        return context.view(q.shape)

    def read_out(self, site, structure, n):
        """Steps 7 and 8."""
        m = self.model
        site = functional.silu(self.dense(site, "after"))
        q, k = self.dense(site, "global_query"), self.dense(site, "global_key")
        total = torch.zeros(n, q.shape[1]).index_add(0, structure, q).index_select(0, structure)
        count = torch.zeros(n).index_add(0, structure, torch.ones(len(q)))
        intensive = m.readout == "intensive"
        size = count.index_select(0, structure)
        score = (k * total).sum(1) / size if intensive else (k * (total - q)).sum(1)
        if m.normalise_attention:
            square = torch.zeros(n).index_add(0, structure, score**2)
            norm = torch.sqrt(square / count if intensive else square)
            score = score / norm.index_select(0, structure)
        top = torch.full((n,), -torch.inf).scatter_reduce(0, structure, score.detach(), "amax")
        exponential = torch.exp(score - top.index_select(0, structure))
        beta = exponential / torch.zeros(n).index_add(0, structure, exponential).index_select(0, structure)
        return torch.zeros(n, k.shape[1]).index_add(0, structure, beta[:, None] * k)
