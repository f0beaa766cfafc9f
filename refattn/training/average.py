"""The exponential moving average of the parameters, which predicts in their place (training.ema)."""

import numpy as np

from refattn.common.jit import jit
from refattn.network.params import Parameters


class Average:
    """a = d a + (1 - d) w after every step, of the parameters w; it begins with them.

    d is training.ema, but at most (1 + t) / (10 + t) after step t, so that the first parameters are soon forgotten. The
    vector is in float64: in float32 a small part of a difference would be lost.

    Source   Polyak & Juditsky, SIAM J. Control Optim. 30, 838 (1992); d as in TensorFlow's ExponentialMovingAverage
    """

    def __init__(self, params: Parameters, ema: float):
        self.source = params
        self.ema = ema
        self.vector = params.vector.astype(np.float64)

    def update(self, step: int) -> None:
        """Take in the parameters after step 1, 2, ..."""
        _move_towards(self.vector, self.source.vector, self.share(step))

    def share(self, step: int) -> float:
        """1 - d of a step."""
        return 1 - min(self.ema, (1 + step) / (10 + step))

    @property
    def params(self) -> Parameters:
        """The average, in the type of the parameters."""
        return Parameters(self.source.table, self.vector.astype(self.source.vector.dtype))


@jit
def _move_towards(average, vector, share):
    for p in range(len(vector)):  # in one passage through memory
        average[p] += share * (vector[p] - average[p])
