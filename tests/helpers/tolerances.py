"""How far two numbers may differ that should be the same, each with its reason (docs/design.md section 5).

"Of the largest" means relative to the largest entry of the array: entries that cancel to almost nothing carry the
rounding of their terms.
"""

import numpy as np

EPS = np.finfo(np.float64).eps
EPS_32 = np.finfo(np.float32).eps

# Parity of the backends, of the largest number of the case. Sums run in another order and exp may be another one: a few
# roundings each. A sum over n rows: n eps, its worst case.
PARITY = 32 * EPS
# float32 kernels: at most so many times the error of float32 NumPy, both measured against float64, plus some roundings
# of the largest number of the case, because for a handful of numbers NumPy's error is zero by luck. That is times
# sqrt(n) for a sum over n rows, which NumPy may add in pairs. 4: the sigmoid is within 2 ulp of 1.
PARITY_32_FACTOR = 2
PARITY_32_FLOOR = 4 * EPS_32
# What composes five operations in a row (edges.py), one of which divides by the deviation of as few as three numbers:
# so many times both. Measured: 1.7 for D = 3, below 1 for D = 128.
COMPOSED = 8

# The same network written down twice, or computed by two backends: PARITY through some forty operations in a row, each
# of which may amplify (a layer norm by 1 / std, the softmax by its slope). Measured: 2e-14.
NETWORK = 1e-12
# The same in float32, of the largest entry of each array. Measured: 4e-6.
NETWORK_32 = 2e-5
# Predictions of one structure in other company: the same operations on the same numbers, but BLAS, which the reference
# calls, may pick another kernel for another number of rows. Measured: 5e-16.
COMPANY = 1e-13

# The authors' numbers, in float64. Fixtures are rounded to 36 bits, 7e-12 of the largest entry (make_fixtures.py).
AUTHORS = 1e-9
AUTHORS_GRADIENT = 1e-8  # of the largest entry of the gradient, and of every parameter's own
# The same in float32. Measured: predictions 1.4e-6; attention 9.2e-6, where the scores are not normalised.
AUTHORS_32 = 2e-5
# Gradients in float32, in errors of the authors' code in float32. Measured: 1.6 times on s_base, half of it on s_plus.
AUTHORS_GRADIENT_32 = 4

# Graphs made anew from atoms that were moved, turned or repeated: distances and solid angles carry the rounding of the
# coordinates (1e-13 of them), which the network may amplify.
SYMMETRY = 1e-6
