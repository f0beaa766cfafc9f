"""Adam in the variant of the authors' code: Keras's legacy optimiser with a decaying rate and L2 in the loss."""

import math

import numpy as np

from refattn.common.jit import jit
from refattn.config import TrainingConfig


class Adam:
    """State of Adam for one flat vector of parameters.

    step t = 1, 2, ...:  g = grad + 2 weight_decay mask w
    m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
    w -= rate_t m / (sqrt(v) + epsilon),  rate_t = rate / (1 + rate_decay (t - 1)) sqrt(1 - beta_2^t) / (1 - beta_1^t)

    Epsilon stands outside the bias correction ("epsilon hat" of the paper), and the weight decay is the gradient of
    weight_decay |w|^2, which goes through the moments (it is not AdamW).

    Source   Kingma & Ba, ICLR 2015, section 2 (last paragraph); docs/authors_code.md section 4 (Keras 2.10)
    """

    def __init__(self, vector: np.ndarray, decay_mask: np.ndarray, config: TrainingConfig):
        self.m = np.zeros_like(vector)
        self.v = np.zeros_like(vector)
        self.step = 0
        self.decay = (2 * config.weight_decay * decay_mask).astype(vector.dtype)
        self.config = config

    def update(self, vector: np.ndarray, grad: np.ndarray, rate: float) -> None:
        """Change `vector` (P,) in place by one step with the gradient `grad` (P,) of the loss without weight decay."""
        config = self.config
        scalar = vector.dtype.type
        rate = step_size(rate, self.step, config)
        self.step += 1
        factors = [scalar(factor) for factor in (rate, config.beta_1, config.beta_2, config.epsilon)]
        _adam_kernel(vector, self.m, self.v, grad, self.decay, *factors)

    def penalty(self, vector: np.ndarray) -> float:
        """weight_decay times the squared norm of the decayed kernels: the second term of the loss."""
        return 0.5 * float((self.decay * vector * vector).sum(dtype=np.float64))


def step_size(rate: float, step: int, config: TrainingConfig) -> float:
    """rate_t of step 0, 1, ... (t - 1 in the formulas of Adam) from the schedule's rate."""
    rate = rate / (1 + config.rate_decay * step)
    return rate * (math.sqrt(1 - config.beta_2 ** (step + 1)) / (1 - config.beta_1 ** (step + 1)))


@jit(fastmath=True)
def _adam_kernel(w, m, v, grad, decay, rate, beta_1, beta_2, epsilon):
    one = w.dtype.type(1)
    for p in range(len(w)):
        g = grad[p] + decay[p] * w[p]
        m[p] = beta_1 * m[p] + (one - beta_1) * g
        v[p] = beta_2 * v[p] + (one - beta_2) * g * g
        w[p] -= rate * m[p] / (np.sqrt(v[p]) + epsilon)
