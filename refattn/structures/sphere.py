"""Where the sites around a site come from: every site and periodic image inside a sphere, nearest first.

This is the only place that knows about periods. It looks at every site of the structure; a cell list can take its
place without any change elsewhere.
"""

import numpy as np

from refattn.jit import jit

EVERYTHING = 1e150  # Å, a radius that holds any finite structure, and whose square is still a number
_SLACK = 1e-9  # 1, so that rounding never loses an image that lies exactly on the sphere


def reciprocal_vectors(cell, pbc):
    """Vectors that turn a displacement into numbers of periods; zero where there is no period.

    (cell[k] . reciprocal[l]) = delta_kl for the periodic k and l, and reciprocal[l] lies in the span of the periodic
    cell vectors: it is their pseudo-inverse, so one formula serves wires, slabs and crystals.

    Parameters
    ----------
    cell : (3, 3) float   cell vectors as rows, Å; the periodic ones are linearly independent
    pbc : (3,) bool

    Returns
    -------
    reciprocal : (3, 3) float, 1/Å
    """
    reciprocal = np.zeros((3, 3))
    if np.any(pbc):
        reciprocal[pbc] = np.linalg.pinv(cell[pbc]).T
    return reciprocal


@jit
def sites_within(i, radius, positions, cell, reciprocal):
    """Sites and images around site i, without i itself, sorted by distance.

    Parameters
    ----------
    i : int
    radius : float                   Å, inclusive
    positions, cell, reciprocal :    (N, 3) Å, (3, 3) Å, (3, 3) 1/Å, see reciprocal_vectors

    Returns
    -------
    distance : (n,) float Å, ascending
    direction : (n, 3) float         unit vectors from site i
    where : (n, 4) int64             site index, then image (in cell vectors)
    """
    reach = radius * np.sqrt((reciprocal * reciprocal).sum(axis=1))
    lowest, highest = np.empty(3, np.int64), np.empty(3, np.int64)
    step = np.empty(3)
    vector, where = np.empty((64, 3)), np.empty((64, 4), np.int64)
    n = 0
    for j in range(len(positions)):
        for k in range(3):
            step[k] = positions[j, k] - positions[i, k]
        for k in range(3):
            periods = -(step[0] * reciprocal[k, 0] + step[1] * reciprocal[k, 1] + step[2] * reciprocal[k, 2])
            lowest[k] = np.int64(np.ceil(periods - reach[k] - _SLACK))
            highest[k] = np.int64(np.floor(periods + reach[k] + _SLACK))
        for a in range(lowest[0], highest[0] + 1):
            for b in range(lowest[1], highest[1] + 1):
                for c in range(lowest[2], highest[2] + 1):
                    x = step[0] + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
                    y = step[1] + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1]
                    z = step[2] + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2]
                    if x * x + y * y + z * z > radius * radius or (j == i and a == 0 and b == 0 and c == 0):
                        continue
                    if n == len(vector):
                        vector, where = doubled(vector), doubled(where)
                    vector[n, 0], vector[n, 1], vector[n, 2] = x, y, z
                    where[n, 0], where[n, 1], where[n, 2], where[n, 3] = j, a, b, c
                    n += 1
    return _nearest_first(vector, where, n)


@jit
def _nearest_first(vector, where, n):
    length = np.empty(n)
    for k in range(n):
        length[k] = np.sqrt(vector[k, 0] ** 2 + vector[k, 1] ** 2 + vector[k, 2] ** 2)
    order = np.argsort(length)
    distance, direction, site = np.empty(n), np.empty((n, 3)), np.empty((n, 4), np.int64)
    for k in range(n):
        source = order[k]
        distance[k] = length[source]
        # Coincident sites are reported by the caller; until then their direction only has to be a number.
        scale = 1.0 / length[source] if length[source] > 0.0 else 0.0
        for axis in range(3):
            direction[k, axis] = vector[source, axis] * scale
        for axis in range(4):
            site[k, axis] = where[source, axis]
    return distance, direction, site


@jit
def doubled(array):
    """The same rows in an array (2 n, ...) of twice the length; the new rows are not set."""
    longer = np.empty((2 * array.shape[0], array.shape[1]), array.dtype)
    longer[: array.shape[0]] = array
    return longer
