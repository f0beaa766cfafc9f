"""Operations of refattn in PyTorch, eager, with autograd for backward: what one line of each costs there.

Every function takes the inputs of refattn's forward by name, as tensors, and returns the differentiable outputs.
"""

import time

import numpy as np
import torch
from torch.nn import functional

from refattn.ops.cases import make_grads, run_backward, run_forward

SAME = 1e-4  # relative to the largest value, as in bench_ops.py


def embedding(table, z):
    return functional.embedding(z, table)


def gaussian_expand(x, centres, width):
    return torch.exp(-(((x[:, None] - centres) / width) ** 2))


def geometry_embed(u_r, u_omega, b_r, b_omega):
    return functional.silu(u_r + b_r) * functional.silu(u_omega + b_omega)


def swish(u, b):
    return functional.silu(u + b)


def residual_layernorm(x, residual, gain, offset):
    return functional.layer_norm(x + residual, gain.shape, gain, offset, 1e-6)


def time_operation(operation, inputs, function, rounds):
    """{direction: median of times in s}, after outputs and gradients were held to refattn's.

    Raises SystemExit where they differ.
    """
    tensors = {name: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for name, v in inputs.items()}
    for name in ("z", "nbr"):  # which PyTorch wants as int64
        if name in tensors:
            tensors[name] = tensors[name].long()
    wanted = [tensors[name].requires_grad_() for name in operation.wrt]
    expected, output = run_forward(operation, inputs), function(**tensors)
    hold(operation, output.detach(), expected[operation.outputs[0]])
    times = {"forward": median(lambda: function(**tensors), rounds)}
    if wanted:
        grads = make_grads(operation, expected)
        grad = torch.from_numpy(grads[operation.outputs[0]].copy())
        theirs = run_backward(operation, inputs, expected, grads)
        for name, value in zip(operation.wrt, torch.autograd.grad(output, wanted, grad, retain_graph=True)):
            hold(operation, value, theirs[name])
        times["backward"] = median(lambda: torch.autograd.grad(output, wanted, grad, retain_graph=True), rounds)
    return times


def hold(operation, found, expected):
    worst = np.abs(found.numpy() - expected).max() / np.abs(expected).max()
    if not worst < SAME:
        raise SystemExit(f"{operation.name}: PyTorch and refattn differ by {worst:.1e}; nothing is timed")


def median(function, rounds):
    seconds = []
    for _ in range(rounds + 5):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[5:]))
