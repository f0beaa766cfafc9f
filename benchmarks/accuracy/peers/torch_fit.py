"""Training of a PyTorch peer within a budget of processor time.

AdamW, labels in units of their spread; the learning rate falls over the budget, by processor time: "cosine", or
"onecycle" as PyTorch's OneCycleLR does. Every 25th of the budget the network, or the moving average of its parameters,
is validated, less often where that would take more than a thirtieth of the time; the best is kept for the test set.
"""

import copy
import math
import typing

import common
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

CHECKS = 25  # validations of a run, at most


class Recipe(typing.NamedTuple):
    """How a peer is trained.

    loss : callable (prediction, label)
    ema : decay of the moving average of the parameters that predicts, at its end, 0: none
    """

    batch_size: int
    learning_rate: float
    loss: typing.Callable
    schedule: str = "cosine"
    weight_decay: float = 0.0
    ema: float = 0.0


def rate(recipe, fraction):
    """The learning rate when a fraction of the budget is used."""
    peak = recipe.learning_rate
    start = peak / 25
    end = start / 1e4
    if recipe.schedule == "cosine":
        return peak * falling(fraction)
    return (
        peak + (start - peak) * falling(fraction / 0.3)
        if fraction < 0.3
        else falling((fraction - 0.3) / 0.7) * peak + end
    )


def falling(fraction):
    """Half a cosine, from 1 to 0."""
    return (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


class Training:
    """A training in progress: `net` maps what `collate` makes of row numbers to one value a structure."""

    def __init__(self, order, structures, net, collate, recipe):
        self.rows = structures.rows
        self.label = structures.label
        self.net = net
        self.collate = collate
        self.recipe = recipe
        self.average = AveragedModel(net, avg_fn=self.averaged) if recipe.ema else net
        self.optimiser = torch.optim.AdamW(net.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.rng = np.random.default_rng(order["seed"])
        self.mean = self.label[self.rows["train"]].mean()
        self.spread = self.label[self.rows["train"]].std()
        self.target = torch.as_tensor((self.label - self.mean) / self.spread, dtype=torch.float32)
        self.n_seen = 0
        self.best = {"error": math.inf}
        self.clock = common.Clock(order["budget_s"])

    def run(self):
        """Epochs until the budget is used; then the best parameters are those of `average`."""
        next_check = 1 / CHECKS
        while self.clock.fraction() < 1:
            shuffled = self.rng.permutation(self.rows["train"])
            for first in range(0, len(shuffled), self.recipe.batch_size):
                self.step(shuffled[first : first + self.recipe.batch_size])
                if self.clock.fraction() >= next_check:
                    took = self.check()
                    next_check = self.clock.fraction() + max(1 / CHECKS, 30 * took)
                if self.clock.fraction() >= 1:
                    break
        self.check()
        self.average.load_state_dict(self.best["state"])

    def step(self, rows):
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.clock.fraction())
        self.net.train()
        self.optimiser.zero_grad()
        self.recipe.loss(self.net(self.collate(rows)).reshape(-1), self.target[rows]).backward()
        self.optimiser.step()
        self.n_seen += len(rows)
        if self.recipe.ema:
            self.average.update_parameters(self.net)

    def averaged(self, average, values, n_averaged):
        """The moving average with the new values; it forgets faster in the beginning, as torch-ema's does."""
        decay = min(self.recipe.ema, (2 + int(n_averaged)) / (11 + int(n_averaged)))
        return average + (1 - decay) * (values - average)

    def check(self):
        """Validate, and keep the parameters if they are the best; the part of the budget that this takes."""
        began = self.clock.fraction()
        error = np.abs(self.predict("valid") - self.label[self.rows["valid"]]).mean()
        if error < self.best["error"]:
            self.best = {"error": error, "state": copy.deepcopy(self.average.state_dict()), "at": began}
        return self.clock.fraction() - began

    def predict(self, part):
        """Predictions (S,) of a part of the split, in the label's unit."""
        rows, size = self.rows[part], self.recipe.batch_size
        self.average.eval()
        with torch.no_grad():
            found = [self.average(self.collate(rows[first : first + size])) for first in range(0, len(rows), size)]
        return torch.cat([values.reshape(-1) for values in found]).numpy().astype(float) * self.spread + self.mean


def fit(order, structures, net, collate, recipe, **facts):
    """Train and write the result with `facts`, further entries of it."""
    torch.set_flush_denormal(True)  # tails of Gaussians take half of the time otherwise
    training = Training(order, structures, net, collate, recipe)
    training.run()
    facts |= {"train_s": training.clock.seconds(), "wall_s": training.clock.wall()}
    common.write_result(
        order,
        structures,
        {part: training.predict(part) for part in ("valid", "test")},
        **facts,
        epochs=training.n_seen / len(structures.rows["train"]),
        best_at=training.best["at"],
        parameters=sum(values.numel() for values in net.parameters()),
        recipe={**recipe._asdict(), "loss": recipe.loss.__name__},
    )
