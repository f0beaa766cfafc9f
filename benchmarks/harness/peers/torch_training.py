"""What the PyTorch peers have in common: parameters, loss, optimiser, compilation.

Compiled are the beginning, one layer, which all layers share, and the end ("regional compilation"): as fast here as the
network in one piece, and ready in a fifth of the time.
"""

import torch
from torch.nn import functional

from refattn.benchmarks.peers.batch import train_epoch


class TorchPeer:
    """A network in PyTorch; subclasses have `arrays` (batch -> dict of arrays), `layer` and `read_out`.

    Parameters
    ----------
    config : refattn.Config
    params : refattn Parameters
    source : worker.Source      taken by all peers
    n_threads : int
    compiled : bool      whether torch.compile makes the kernels
    device : str         "cpu" or "cuda"
    """

    def __init__(self, config, params, source=None, n_threads=1, compiled=False, device="cpu"):
        torch.set_num_threads(n_threads)
        torch.set_flush_denormal(True)
        self.model, self.training, self.compiled = config.model, config.training, compiled
        self.device = device
        self.params = {name: torch.tensor(params[name], device=device, requires_grad=True) for name in params}
        self.centres_r = torch.linspace(0, self.model.radial_max, self.model.n_radial, device=device)
        self.centres_omega = torch.linspace(0, 2 * torch.pi, self.model.n_radial, device=device)
        decayed = {entry.name for entry in params.table if entry.decay}
        groups = [
            {"params": [p for n, p in self.params.items() if (n in decayed) == decay], "weight_decay": rate}
            for decay, rate in ((True, 2 * self.training.weight_decay), (False, 0.0))
        ]
        # fused: one kernel, the fastest of PyTorch's own on a CPU
        self.adam = torch.optim.Adam(groups, lr=self.training.learning_rate, fused=True)
        self.layers = [self.weights(f"layer{number}.") for number in range(self.model.n_layers)]
        if compiled:
            for name in ("begin", "layer", "end"):
                setattr(self, name, torch.compile(getattr(self, name), dynamic=True))
        self.cache = {}

    def weights(self, prefix):
        """The parameters whose names begin with `prefix`, under the rest of their names."""
        return {name.removeprefix(prefix): p for name, p in self.params.items() if name.startswith(prefix)}

    def run(self, b, training):
        """Predictions (S,) of a batch of tensors."""
        site, geo = self.begin(b, training)
        for w in self.layers:
            site, geo = self.layer(w, site, geo, b, training)
        return self.end(site, b)

    def begin(self, b, training):
        """Steps 1 and 2 of docs/design.md section 3, for flat sites and edges."""
        w = self.params
        site = self.drop(functional.silu(self.dense(w, w["embed"][b["z"].view(-1)], "site")), training)
        return site, self.geometry(w, b["r"].view(-1), b["omega"].view(-1))

    def end(self, site, b):
        """Steps 7, 8 and 9."""
        w = self.params
        struct = self.read_out(w, functional.silu(self.dense(w, site, "after")), b)
        return self.dense(w, functional.silu(self.dense(w, struct, "hidden")), "output")[:, 0]

    def load(self, params):
        """Take over the numbers of refattn's Parameters."""
        with torch.no_grad():
            for name, own in self.params.items():
                own.copy_(torch.from_numpy(params[name]))

    def tensors(self, batch):
        """The batch as tensors; kept, so that the clock sees no conversion."""
        if id(batch) not in self.cache:
            self.cache[id(batch)] = self.as_tensors(batch)
        return self.cache[id(batch)]

    def as_tensors(self, batch):
        arrays = {**self.arrays(batch), "label": batch.label}
        return {name: v if isinstance(v, int) else torch.from_numpy(v).to(self.device) for name, v in arrays.items()}

    def predict(self, batch):
        tensors = self.tensors(batch)  # made outside, because training uses them too
        with torch.inference_mode():
            return self.run(tensors, False).cpu().numpy()

    def loss(self, batch, training):
        """Root mean square error of the batch."""
        tensors = self.tensors(batch)
        return functional.mse_loss(self.run(tensors, training), tensors["label"]).sqrt()

    def gradient(self, batch):
        self.adam.zero_grad()
        loss = self.loss(batch, False)
        loss.backward()
        found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in self.params.items()}
        return loss.item(), {name: grad.cpu().numpy().copy() for name, grad in found.items()}

    def train_step(self, batch):
        """A training step; returns the loss as a tensor, for which nobody has waited."""
        self.adam.zero_grad(set_to_none=True)
        loss = self.loss(batch, True)
        loss.backward()
        self.adam.step()
        return loss

    def step(self, batch):
        return self.train_step(batch).item()

    def epoch(self, source, rows):
        train_epoch(self, source, rows)

    def dense(self, w, x, name, number=""):
        return torch.addmm(w[f"{name}_b{number}"], x, w[f"{name}_w{number}"])

    def norm(self, w, x, name):
        return functional.layer_norm(x, (x.shape[-1],), w[f"{name}_gain"], w[f"{name}_offset"], 1e-6)

    def drop(self, x, training):
        rate = self.model.dropout
        if not training or not rate or self.compiled or x.is_cuda:  # inductor's and CUDA's generators are quick
            return functional.dropout(x, rate, training)
        # Four entries from one random number: PyTorch's own draws one for each, and takes 4 times as long.
        words = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = words[: x.numel()].view(x.shape) >= round(2**16 * rate) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - rate))

    def expand(self, x, centres):
        """Gaussian expansion (..., G)."""
        return torch.exp(-(((x[..., None] - centres) / self.model.radial_width) ** 2))

    def geometry(self, w, r, omega):
        """Step 2: for SCANN the expansion of r, for SCANN+ the features that the layers update."""
        rbf = self.expand(r, self.centres_r)
        if self.model.variant == "scann":
            return rbf
        omega = self.expand(omega, self.centres_omega)
        return functional.silu(self.dense(w, rbf, "distance")) * functional.silu(self.dense(w, omega, "angle"))

    def residual_block(self, w, site, training):
        """Step 6."""
        hidden = functional.silu(self.dense(w, site, "residual", 1))
        return self.norm(w, site + self.drop(self.dense(w, hidden, "residual", 2), training), "residual")
