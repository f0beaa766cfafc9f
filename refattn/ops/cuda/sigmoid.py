"""The sigmoid inside kernels, and what its gradient makes of one."""

from refattn.ops.cuda.launch import ONE, ZERO
from refattn.ops.cuda.toolchain import device, exp


@device
def sigmoid(v):
    """1 / (1 + exp(-v)) of one number, without overflow for either sign."""
    small = exp(-abs(v))
    return ONE / (ONE + small) if v >= ZERO else small / (ONE + small)


@device
def swish_slope(v):
    """Derivative of the swish: s (1 + v (1 - s)), s = sigmoid(v)."""
    s = sigmoid(v)
    return s * (ONE + v * (ONE - s))
