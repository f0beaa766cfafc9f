"""Learning rates: constant, cosine, and the authors' cosine with warm restarts."""

import math

UNKNOWN = float("inf")


class Schedule:
    """Learning rate of every step; `state` is all that has to be saved to go on later.

    constant: learning_rate
    cosine: from learning_rate to learning_rate_min over cosine_fraction of all steps, then constant
        (Loshchilov & Hutter, ICLR 2017, Eq. (5) without restarts; Keras's CosineDecay)
    sgdr: cosine with warm restarts, epoch by epoch. The period grows by sgdr_factor; a restart's peak is the rate at
        the best validation MAE so far, but not below the last peak / sgdr_compression (authors' code, SGDRC). It
        starts after the first epoch with a validation MAE of at most sgdr_trigger.
    """

    def __init__(self, config, steps_per_epoch):
        self.config = config
        self.n_steps = max(1.0, config.cosine_fraction * config.epochs * steps_per_epoch)
        peak = config.learning_rate
        self.state = {
            "rate": peak, "peak": peak, "next_peak": peak, "period": float(config.sgdr_period), "place": 1.0,
            "best": UNKNOWN, "started": 0.0,
        }  # fmt: skip

    def rate(self, step):
        """Learning rate of step 0, 1, ..."""
        c = self.config
        if c.schedule == "constant":
            return c.learning_rate
        if c.schedule == "sgdr":
            return self.state["rate"]
        fall = 0.5 * (1 + math.cos(math.pi * min(step / self.n_steps, 1.0)))
        return c.learning_rate_min + (c.learning_rate - c.learning_rate_min) * fall

    def end_epoch(self, valid_mae):
        """Take in the validation MAE (scaled units) of an epoch and, for sgdr, set the rate of the next."""
        c, s = self.config, self.state
        if c.schedule != "sgdr":
            return
        if valid_mae <= c.sgdr_trigger:
            s["started"] = 1.0
        if not s["started"]:
            return
        if valid_mae < s["best"]:
            s["best"] = valid_mae
            s["next_peak"] = max(s["peak"] / c.sgdr_compression, s["rate"])
        s["place"] += 1
        if s["place"] > s["period"]:
            s["period"], s["place"], s["peak"] = float(int(c.sgdr_factor * s["period"])), 1.0, s["next_peak"]
        fall = 0.5 * (1 + math.cos(math.pi * s["place"] / s["period"]))
        s["rate"] = c.learning_rate_min + (s["peak"] - c.learning_rate_min) * fall
