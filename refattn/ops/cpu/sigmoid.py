"""Sigmoid and exponential inside kernels: exact in float64, without a call in float32, so that loops vectorise."""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

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


LOG2_E = np.float32(1.44269504)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2; the first has few digits
SMALLEST = np.float32(-87)  # below it exp is no normal number
TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(2, 8))


def exponential(x):
    """exp(x) of one number that is not positive, as a softmax has it.

    float32: 2^n exp(r), n the integer next to x / ln 2, exp(r) by its Taylor series, |r| <= ln 2 / 2: relative error
    1.2e-7; 0 < exp(-87) = 1.6e-38 stands for all that is smaller.

    Source   range reduction: Cody & Waite, Software Manual for the Elementary Functions (1980)
    """
    return math.exp(x)


@intrinsic
def _float_of_bits(typingctx, bits):
    """The float32 that an int32 is the bits of."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


@overload(exponential, inline="always")
def _exponential(x):
    if x == types.float32:
        c2, c3, c4, c5, c6, c7 = TAYLOR
        one, exponent_of_one, mantissa = np.float32(1), np.int32(127), np.int32(23)

        def reduced(x):
            x = max(x, SMALLEST)
            n = np.int32(x * LOG2_E - HALF)
            whole = np.float32(n)
            r = (x - whole * LN2_HIGH) - whole * LN2_LOW
            series = one + r * (one + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7))))))
            return series * _float_of_bits(np.int32(np.int32(n + exponent_of_one) << mantissa))

        return reduced

    def exact(x):
        return math.exp(x)

    return exact
