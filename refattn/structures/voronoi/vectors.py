"""Vectors in space as tuples (x, y, z), which stay in registers."""

import numpy as np

from refattn.common.jit import jit


@jit(inline=True)
def row(array, i):
    """The first three numbers of row i."""
    return array[i, 0], array[i, 1], array[i, 2]


@jit(inline=True)
def set_row(array, i, values):
    """Write the first three numbers of row i."""
    array[i, 0] = values[0]
    array[i, 1] = values[1]
    array[i, 2] = values[2]


@jit
def put_rows(array, first, rows):
    """array[first : first + len(rows)] = rows, (n, columns), for which Numba would compile the text of an error."""
    for n in range(len(rows)):
        for k in range(rows.shape[1]):
            array[first + n, k] = rows[n, k]


@jit(inline=True)
def minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@jit(inline=True)
def scaled(a, factor):
    return a[0] * factor, a[1] * factor, a[2] * factor


@jit(inline=True)
def divided(a, divisor):
    return a[0] / divisor, a[1] / divisor, a[2] / divisor


@jit(inline=True)
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@jit(inline=True)
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@jit(inline=True)
def unit(a):
    """The unit vector along a."""
    return scaled(a, 1.0 / np.sqrt(dot(a, a)))


@jit(inline=True)
def half_triangle(e, u, v):
    """Half the area, sr, of the spherical triangle of three unit vectors; negative if they go clockwise.

    tan(area / 2) = e . (u x v) / (1 + e . u + e . v + u . v)

    Source   Van Oosterom & Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983), Eq. (8)
    """
    dots = e[0] * (u[0] + v[0]) + e[1] * (u[1] + v[1]) + e[2] * (u[2] + v[2])
    return np.arctan2(dot(e, cross(u, v)), 1.0 + (dots + u[0] * v[0] + u[1] * v[1] + u[2] * v[2]))
