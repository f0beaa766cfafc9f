"""The network in PyTorch on padded arrays, as the authors wrote it: [B, M, K] with masks."""

import torch
from torch.nn import functional

from refattn.benchmarks.peers.torch_training import TorchPeer

MASKED = -1e9  # the authors': added to scores of what is not there


class TorchPadded(TorchPeer):
    """PyTorch on padded arrays; every structure is as large as the largest of the batch."""

    def arrays(self, batch):
        return batch.padded()

    def forward(self, b, training):
        m = self.model
        n_structures, n_sites, n_edges = b["nbr"].shape
        start = torch.arange(n_structures)[:, None, None] * n_sites
        nbr = (b["nbr"] + start).view(-1)
        site = self.drop(functional.silu(self.dense(self.params["embed"][b["z"].view(-1)], "site")), training)
        geo = self.geometry(b["r"].view(-1), b["omega"].view(-1))
        hidden = (1 - b["edge_mask"].view(-1, n_edges, 1)) * MASKED
        for number in range(m.n_layers):
            layer = f"layer{number}"
            neighbour = site.index_select(0, nbr)
            geo, seen = self.update_geometry(layer, site, neighbour, geo, b, n_edges)
            q, k = self.dense(site, f"{layer}.query"), self.dense(neighbour * seen, f"{layer}.key")
            context = self.attend(q, k, hidden, b["edge_mask"], n_edges, training)
            site = self.norm(context + q, f"{layer}.context")
            if m.residual:
                site = self.residual_block(site, layer, training)
        return self.head(self.read_out(site, b["site_mask"]))

    def update_geometry(self, layer, site, neighbour, geo, b, n_edges):
        w, bias = self.params[f"{layer}.filter_w"], self.params[f"{layer}.filter_b"]
        if self.model.variant == "scann":
            return geo, functional.silu(torch.addmm(bias, geo, w)) * b["weight"].view(-1, 1)
        centre = site[:, None].expand(-1, n_edges, -1).reshape(neighbour.shape)
        v = torch.addmm(bias, torch.cat([centre, geo, neighbour], dim=1), w)
        geo = self.norm(functional.silu(v) + geo, f"{layer}.geometry")
        return geo, geo

    def attend(self, q, k, hidden, mask, n_edges, training):
        heads, width = self.model.n_heads, q.shape[1] // self.model.n_heads
        k = k.view(-1, n_edges, heads, width)
        score = (q.view(-1, 1, heads, width) * k).sum(-1) * width**-0.5
        alpha = torch.softmax(score + hidden, dim=1) * mask.view(-1, n_edges, 1)
        alpha = functional.dropout(alpha, self.model.attention_dropout, training)
        return (alpha[..., None] * k).sum(1).reshape(q.shape)

    def read_out(self, site, mask):
        m = self.model
        site = functional.silu(self.dense(site, "after"))
        q, k = self.dense(site, "global_query"), self.dense(site, "global_key")
        q, k = (x.view(*mask.shape, -1) * mask[..., None] for x in (q, k))
        count, intensive = mask.sum(1, keepdim=True), m.readout == "intensive"
        total = q.sum(1, keepdim=True)
        score = (k * total).sum(-1) / count if intensive else (k * (total - q)).sum(-1)
        if m.normalise_attention:
            square = (score**2).sum(1, keepdim=True)
            score = score / torch.sqrt(square / count if intensive else square)
        beta = torch.softmax(score + (1 - mask) * MASKED, dim=1)
        return (beta[..., None] * k).sum(1)
