"""Learning rates: constant, cosine, and the authors' cosine with warm restarts; the batches of an epoch."""

import math

import numpy as np

from refattn.config import TrainingConfig

UNKNOWN = float("inf")


class Schedule:
    """Learning rate of every step; `state` is all that has to be saved to go on later.

    constant: learning_rate
    cosine: from learning_rate to learning_rate_min over cosine_fraction of all steps, then constant
        (Loshchilov & Hutter, ICLR 2017, Eq. (5) without restarts; Keras's CosineDecay)
    sgdr: cosine with warm restarts, epoch by epoch. The period grows by sgdr_factor; a restart's peak is the rate at
        the best validation MAE so far, but not below the last peak / sgdr_compression (authors' code, SGDRC). It
        starts after the first epoch with a validation MAE of at most sgdr_trigger.

    Over the first warmup_epochs, step t has (t + 1) / (steps of these) of that.
    """

    def __init__(self, config: TrainingConfig, steps_per_epoch: int):
        self.config = config
        self.n_steps = max(1.0, config.cosine_fraction * config.epochs * steps_per_epoch)
        self.n_warmup = config.warmup_epochs * steps_per_epoch
        peak = config.learning_rate
        self.state = {
            "rate": peak, "peak": peak, "next_peak": peak, "period": float(config.sgdr_period), "place": 1.0,
            "best": UNKNOWN, "started": 0.0,
        }  # fmt: skip

    def rate(self, step: int) -> float:
        """Learning rate of step 0, 1, ..."""
        rate = self._rate(step)
        return rate * (step + 1) / self.n_warmup if step < self.n_warmup else rate

    def _rate(self, step):
        """Without the warm-up."""
        config = self.config
        if config.schedule == "constant":
            return config.learning_rate
        if config.schedule == "sgdr":
            return self.state["rate"]
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.n_steps, 1.0)))
        return config.learning_rate_min + (config.learning_rate - config.learning_rate_min) * fall

    def end_epoch(self, valid_mae: float) -> None:
        """Take in the validation MAE (scaled units) of an epoch and, for sgdr, set the rate of the next."""
        config = self.config
        state = self.state
        if config.schedule != "sgdr":
            return
        if valid_mae <= config.sgdr_trigger:
            state["started"] = 1.0
        if not state["started"]:
            return
        if valid_mae < state["best"]:
            state["best"] = valid_mae
            state["next_peak"] = max(state["peak"] / config.sgdr_compression, state["rate"])
        state["place"] += 1
        if state["place"] > state["period"]:
            state["period"] = float(int(config.sgdr_factor * state["period"]))
            state["place"] = 1.0
            state["peak"] = state["next_peak"]
        fall = 0.5 * (1 + math.cos(math.pi * state["place"] / state["period"]))
        state["rate"] = config.learning_rate_min + (state["peak"] - config.learning_rate_min) * fall


def epoch_batches(rows: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Rows in a random order of their own for every epoch, in batches; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
