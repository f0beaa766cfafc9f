"""The network in PyTorch on padded arrays, as the authors wrote it: [B, M, K] with masks."""

import numpy as np
import torch
from torch.nn import functional

from refattn.benchmarks.peers.torch_training import TorchPeer

MASKED = -1e9  # the authors': added to scores of what is not there


class TorchPadded(TorchPeer):
    """PyTorch on padded arrays; every structure is as large as the largest of the batch."""

    def arrays(self, batch):
        """As padded, with the places of the neighbours among all sites, and what hides the edges that are not there."""
        found = batch.padded()
        n_structures, n_sites, n_edges = found["nbr"].shape
        found["flat"] = (found["nbr"] + np.arange(n_structures)[:, None, None] * n_sites).ravel()
        found["hidden"] = (1 - found["edge_mask"].reshape(-1, n_edges, 1)) * np.float32(MASKED)
        return found

    def layer(self, w, site, geo, b, training):
        """Steps 3 to 6 with the parameters `w` of one layer, on flat arrays (B M, D) and (B M K, D)."""
        n_edges = b["nbr"].shape[2]
        neighbour = site.index_select(0, b["flat"])
        geo, seen = self.update_geometry(w, site, neighbour, geo, b, n_edges)
        q, k = self.dense(w, site, "query"), self.dense(w, neighbour * seen, "key")
        site = self.norm(w, self.attend(q, k, b["hidden"], b["edge_mask"], n_edges, training) + q, "context")
        return (self.residual_block(w, site, training) if self.model.residual else site), geo

    def update_geometry(self, w, site, neighbour, geo, b, n_edges):
        filter_w, bias = w["filter_w"], w["filter_b"]
        if self.model.variant == "scann":
            return geo, functional.silu(torch.addmm(bias, geo, filter_w)) * b["weight"].view(-1, 1)
        centre = site[:, None].expand(-1, n_edges, -1).reshape(neighbour.shape)
        v = torch.addmm(bias, torch.cat([centre, geo, neighbour], dim=1), filter_w)
        geo = self.norm(w, functional.silu(v) + geo, "geometry")
        return geo, geo

    def attend(self, q, k, hidden, mask, n_edges, training):
        heads, width = self.model.n_heads, q.shape[1] // self.model.n_heads
        k = k.view(-1, n_edges, heads, width)
        score = (q.view(-1, 1, heads, width) * k).sum(-1) * width**-0.5
        alpha = torch.softmax(score + hidden, dim=1) * mask.view(-1, n_edges, 1)
        alpha = functional.dropout(alpha, self.model.attention_dropout, training)
        return (alpha[..., None] * k).sum(1).reshape(q.shape)

    def read_out(self, w, site, b):
        m, mask = self.model, b["site_mask"]
        q, k = self.dense(w, site, "global_query"), self.dense(w, site, "global_key")
        q, k = (x.view(*mask.shape, -1) * mask[..., None] for x in (q, k))
        count, intensive = mask.sum(1, keepdim=True), m.readout == "intensive"
        total = q.sum(1, keepdim=True)
        score = (k * total).sum(-1) / count if intensive else (k * (total - q)).sum(-1)
        if m.normalise_attention:
            square = (score**2).sum(1, keepdim=True)
            score = score / torch.sqrt(square / count if intensive else square)
        beta = torch.softmax(score + (1 - mask) * MASKED, dim=1)
        return (beta[..., None] * k).sum(1)
