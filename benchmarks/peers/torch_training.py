"""What the PyTorch peers have in common: parameters, loss, optimiser, compilation."""

import torch
from torch.nn import functional


class TorchPeer:
    """A network in PyTorch; subclasses have `arrays` (batch -> dict of tensors) and `forward`.

    Parameters
    ----------
    config : refattn.Config
    params : refattn Parameters
    compiled : bool      whether torch.compile makes the kernels
    device : str         "cpu" or "cuda"
    """

    name = "PyTorch"

    def __init__(self, config, params, compiled=False, device="cpu"):
        self.model, self.training = config.model, config.training
        self.device = device
        self.params = {name: torch.tensor(params[name], device=device, requires_grad=True) for name in params}
        self.centres_r = torch.linspace(0, self.model.radial_max, self.model.n_radial, device=device)
        self.centres_omega = torch.linspace(0, 2 * torch.pi, self.model.n_radial, device=device)
        decayed = {entry.name for entry in params.table if entry.decay}
        groups = [
            {"params": [p for n, p in self.params.items() if (n in decayed) == decay], "weight_decay": rate}
            for decay, rate in ((True, 2 * self.training.weight_decay), (False, 0.0))
        ]
        # fused: one kernel, the fastest of PyTorch's own on a CPU, and on a GPU
        self.adam = torch.optim.Adam(groups, lr=self.training.learning_rate, fused=True)
        self.run = torch.compile(self.forward, dynamic=True) if compiled else self.forward
        self.cache = {}

    def load(self, params):
        """Take over the numbers of refattn's Parameters."""
        with torch.no_grad():
            for name, own in self.params.items():
                own.copy_(torch.from_numpy(params[name]))

    def tensors(self, batch):
        """The batch as tensors; kept, so that the clock sees no conversion."""
        key = id(batch)
        if key not in self.cache:
            arrays = {**self.arrays(batch), "label": batch.label}
            self.cache[key] = {
                n: v if isinstance(v, int) else torch.from_numpy(v).to(self.device) for n, v in arrays.items()
            }
        return self.cache[key]

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

    def dense(self, x, name):
        return torch.addmm(self.params[f"{name}_b"], x, self.params[f"{name}_w"])

    def norm(self, x, name):
        gain, offset = self.params[f"{name}_gain"], self.params[f"{name}_offset"]
        return functional.layer_norm(x, (x.shape[-1],), gain, offset, 1e-6)

    def drop(self, x, training):
        return functional.dropout(x, self.model.dropout, training)

    def expand(self, x, centres):
        """Gaussian expansion (..., G)."""
        return torch.exp(-(((x[..., None] - centres) / self.model.radial_width) ** 2))

    def geometry(self, r, omega):
        """Step 2 of DESIGN section 3, for flat edges."""
        rbf = self.expand(r, self.centres_r)
        if self.model.variant == "scann":
            return rbf
        omega = self.expand(omega, self.centres_omega)
        return functional.silu(self.dense(rbf, "distance")) * functional.silu(self.dense(omega, "angle"))

    def residual_block(self, site, layer, training):
        """Step 6."""
        hidden = functional.silu(self.matmul(site, f"{layer}.residual", 1))
        update = self.drop(self.matmul(hidden, f"{layer}.residual", 2), training)
        return self.norm(site + update, f"{layer}.residual")

    def matmul(self, x, name, number):
        return torch.addmm(self.params[f"{name}_b{number}"], x, self.params[f"{name}_w{number}"])

    def head(self, struct):
        """Step 9."""
        return self.dense(functional.silu(self.dense(struct, "hidden")), "output")[:, 0]
