"""The facets of a Voronoi cell as cones of directions, cut by half-spaces.

Look from a site in the direction u. The ray meets the bisector plane of neighbour k, which lies at distance d_k in
direction e_k, after t_k = d_k / (2 u . e_k), and it leaves the cell through the plane that it meets first. So the
facet towards j is seen in the directions

    C_j = { u :  u . e_j >= 0  and  u . g_k >= 0 for every k },    g_k = e_j - (d_j / d_k) e_k,

and its solid angle is the area of C_j on the unit sphere. Every condition is a half-space through the origin: C_j is
a convex spherical polygon, found by cutting the hemisphere around e_j with one great circle after the other, and a
facet that extends to infinity is nothing special: its far corners are directions on the rim, u . e_j = 0. (The
picture in the bisector plane is a huge square cut by lines, with its corners at infinity instead of at 1e7 Å.)

A corner u lies at distance d_j / (2 u . e_j). Neighbour k can cut there only if d_j / d_k > u . e_j, so with
neighbours in order of distance the cutting ends as soon as d_j / d_k is below u . e_j of every corner.

Source   convex clipping: Sutherland & Hodgman 1974; solid angle: Van Oosterom & Strackee 1983, Eq. (8)
"""

import numpy as np

from refattn.common.jit import jit

# A corner within this angle of a great circle (rad) counts as lying on it. Lattices have corners where many bisectors
# meet; rounding must not make facets of them. What this can add to or take from a facet is a sliver of 1e-12 sr.
ON_CIRCLE = 1e-12


@jit
def cutting_room(n_neighbours):
    """Work arrays for clip_facet: two polygons (capacity, 3) and a number for each corner.

    A cut adds at most two corners to a convex polygon.
    """
    capacity = 2 * n_neighbours + 8
    return np.empty((capacity, 3)), np.empty((capacity, 3)), np.empty(capacity)


@jit
def clip_facet(j, distance, direction, polygon, spare, side):
    """Corners of the facet towards neighbour j, cut by all the others.

    Parameters
    ----------
    j : int
    distance : (n,)                 Å, ascending
    direction : (n, 3)              unit vectors e_k to the neighbours
    polygon, spare, side :          work arrays from cutting_room(n); `polygon` receives the corners

    Returns
    -------
    n_corners : int                 0 if the facet is empty
    lowest : float                  smallest u . e_j of the corners; the farthest is at distance[j] / (2 lowest)
    settled : bool                  True if no neighbour farther than the n given could cut any more
    """
    ex, ey, ez = direction[j, 0], direction[j, 1], direction[j, 2]
    n_corners = _hemisphere(ex, ey, ez, polygon)
    lowest = 0.0
    for k in range(len(distance)):
        ratio = distance[j] / distance[k]
        if ratio <= lowest:
            return n_corners, lowest, True
        if k == j:
            continue
        gx, gy, gz = ex - ratio * direction[k, 0], ey - ratio * direction[k, 1], ez - ratio * direction[k, 2]
        tolerance = ON_CIRCLE * (1.0 + ratio)
        most_outside, most_inside = np.inf, -np.inf
        for v in range(n_corners):
            side[v] = gx * polygon[v, 0] + gy * polygon[v, 1] + gz * polygon[v, 2]
            most_outside, most_inside = min(most_outside, side[v]), max(most_inside, side[v])
        if most_outside >= -tolerance and (most_inside > tolerance or gx * ex + gy * ey + gz * ez >= 0.0):
            continue  # not cut; in the second case k stands behind j or opposite to it, and meets the rim all around
        if most_inside <= tolerance:
            return 0, 1.0, True
        n_corners = _cut(gx, gy, gz, tolerance, polygon, n_corners, side, spare)
        lowest = 1.0
        for v in range(n_corners):
            polygon[v, 0], polygon[v, 1], polygon[v, 2] = spare[v, 0], spare[v, 1], spare[v, 2]
            lowest = min(lowest, polygon[v, 0] * ex + polygon[v, 1] * ey + polygon[v, 2] * ez)
    return n_corners, lowest, False


@jit
def solid_angle(e, polygon, n_corners):
    """Area of a spherical polygon in the hemisphere around e, sr: signed triangles (e, u, v) along its boundary.

    tan(area / 2) = e . (u x v) / (1 + e . u + e . v + u . v);  the denominator is at least 1, because no two
    neighbouring corners are more than 90 degrees apart (see _cut).

    Source   Van Oosterom & Strackee, IEEE Trans. Biomed. Eng. 30, 125 (1983), Eq. (8)
    """
    area = 0.0
    ex, ey, ez = e[0], e[1], e[2]
    ux, uy, uz = polygon[n_corners - 1, 0], polygon[n_corners - 1, 1], polygon[n_corners - 1, 2]
    for corner in range(n_corners):
        vx, vy, vz = polygon[corner, 0], polygon[corner, 1], polygon[corner, 2]
        triple = ex * (uy * vz - uz * vy) + ey * (uz * vx - ux * vz) + ez * (ux * vy - uy * vx)
        dots = ex * (ux + vx) + ey * (uy + vy) + ez * (uz + vz) + ux * vx + uy * vy + uz * vz
        area += 2.0 * np.arctan2(triple, 1.0 + dots)
        ux, uy, uz = vx, vy, vz
    return area


@jit
def _hemisphere(ex, ey, ez, polygon):
    """Four directions on the rim of the hemisphere around e, counter-clockwise seen from outside."""
    # a = e x (the axis most perpendicular to e), so that it is never short
    if abs(ex) <= abs(ey) and abs(ex) <= abs(ez):
        ax, ay, az = 0.0, ez, -ey
    elif abs(ey) <= abs(ez):
        ax, ay, az = -ez, 0.0, ex
    else:
        ax, ay, az = ey, -ex, 0.0
    length = np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax / length, ay / length, az / length
    bx, by, bz = ey * az - ez * ay, ez * ax - ex * az, ex * ay - ey * ax
    polygon[0, 0], polygon[0, 1], polygon[0, 2] = ax, ay, az
    polygon[1, 0], polygon[1, 1], polygon[1, 2] = bx, by, bz
    polygon[2, 0], polygon[2, 1], polygon[2, 2] = -ax, -ay, -az
    polygon[3, 0], polygon[3, 1], polygon[3, 2] = -bx, -by, -bz
    return 4


@jit
def _cut(gx, gy, gz, tolerance, polygon, n_corners, side, spare):
    """Replace the corners with g . u < 0 by those of the new edge, g . u = 0; returns the number of corners.

    The corners outside follow each other, because the polygon is convex. Corners on the great circle stay as they are:
    cutting them anew would pile up copies. If the new edge is longer than 90 degrees its middle becomes a corner too:
    between antipodal corners, as every facet that contains a whole line has them, the edge would be lost.
    """
    first = 0  # the corners outside are first, ..., last; those before and after them stay
    while side[first] >= -tolerance:
        first += 1
    before = first - 1 if first > 0 else n_corners - 1
    while side[before] < -tolerance:
        first, before = before, before - 1 if before > 0 else n_corners - 1
    last, after = first, first
    while side[after] < -tolerance:
        last, after = after, after + 1 if after + 1 < n_corners else 0
    n_kept = before - after + 1 if before >= after else before - after + 1 + n_corners
    n, v = 0, after
    while n < n_kept:
        spare[n, 0], spare[n, 1], spare[n, 2] = polygon[v, 0], polygon[v, 1], polygon[v, 2]
        n, v = n + 1, v + 1 if v + 1 < n_corners else 0
    n += _crossing(polygon, before, first, side, tolerance, spare, n)
    start, end = n - 1, 0
    if _crossing(polygon, after, last, side, tolerance, spare, n):
        end = n
    ux, uy, uz = spare[start, 0], spare[start, 1], spare[start, 2]
    vx, vy, vz = spare[end, 0], spare[end, 1], spare[end, 2]
    if ux * vx + uy * vy + uz * vz < 0.0:
        # Counter-clockwise, the edge leaves u along g x u and arrives at v along g x v: its middle is g x (u - v).
        x, y, z = gy * (uz - vz) - gz * (uy - vy), gz * (ux - vx) - gx * (uz - vz), gx * (uy - vy) - gy * (ux - vx)
        scale = 1.0 / np.sqrt(x * x + y * y + z * z)
        spare[n, 0], spare[n, 1], spare[n, 2] = x * scale, y * scale, z * scale
        n += 1
    if end > 0:
        spare[n, 0], spare[n, 1], spare[n, 2] = vx, vy, vz
        n += 1
    return n


@jit
def _crossing(polygon, kept, outside, side, tolerance, spare, n):
    """spare[n] = where the great circle cuts the edge from kept to outside; returns 0 if that is at kept, else 1."""
    s, t = side[kept], side[outside]
    if s <= tolerance:
        return 0
    x = s * polygon[outside, 0] - t * polygon[kept, 0]
    y = s * polygon[outside, 1] - t * polygon[kept, 1]
    z = s * polygon[outside, 2] - t * polygon[kept, 2]
    scale = 1.0 / np.sqrt(x * x + y * y + z * z)
    spare[n, 0], spare[n, 1], spare[n, 2] = x * scale, y * scale, z * scale
    return 1
