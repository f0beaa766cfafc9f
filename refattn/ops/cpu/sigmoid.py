"""The sigmoid inside kernels: exact in float64, a rational function in float32."""

import math

import numpy as np
from numba import types
from numba.extending import overload

CLAMP = np.float32(7.99881172180175781)  # where the rational function reaches +-1 in float32
NUMERATOR = tuple(
    np.float32(c)
    for c in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
)
DENOMINATOR = tuple(
    np.float32(c) for c in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)
HALF = np.float32(0.5)


def sigmoid(v):
    """1 / (1 + exp(-v)) of one number.

    float32: 1/2 + 1/2 tanh(v / 2), tanh as a clamped rational function of degree 13 over 6, which has no branch
    and vectorises (np.exp in a loop is a call an element). The error is absolute: 1.6e-7.

    Source   coefficients: minimax fit of Eigen's generic_fast_tanh_float (MPL 2), constants only
    """
    return 1 / (1 + math.exp(-v))


@overload(sigmoid, inline="always")
def _sigmoid(v):
    if v == types.float32:
        a0, a1, a2, a3, a4, a5, a6 = NUMERATOR
        b0, b1, b2, b3 = DENOMINATOR

        def rational(v):
            x = min(max(HALF * v, -CLAMP), CLAMP)
            y = x * x
            numerator = x * (a0 + y * (a1 + y * (a2 + y * (a3 + y * (a4 + y * (a5 + y * a6))))))
            return HALF + HALF * numerator / (b0 + y * (b1 + y * (b2 + y * b3)))

        return rational

    def exact(v):
        return 1 / (1 + math.exp(-v))

    return exact
