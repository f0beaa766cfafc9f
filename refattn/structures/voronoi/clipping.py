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
from refattn.structures.voronoi.vectors import cross, dot, half_triangle, minus, row, scaled, set_row, unit

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
    e = row(direction, j)
    n_corners = _hemisphere(e, polygon)
    lowest = 0.0
    for k in range(len(distance)):
        ratio = distance[j] / distance[k]
        if ratio <= lowest:
            return n_corners, lowest, True
        if k == j:
            continue
        g = minus(e, scaled(row(direction, k), ratio))
        tolerance = ON_CIRCLE * (1.0 + ratio)
        most_outside = np.inf
        most_inside = -np.inf
        for v in range(n_corners):
            side[v] = dot(g, row(polygon, v))
            most_outside = min(most_outside, side[v])
            most_inside = max(most_inside, side[v])
        if most_outside >= -tolerance and (most_inside > tolerance or dot(g, e) >= 0.0):
            continue  # not cut; in the second case k stands behind j or opposite to it, and meets the rim all around
        if most_inside <= tolerance:
            return 0, 1.0, True
        n_corners = _cut(g, tolerance, polygon, n_corners, side, spare)
        lowest = 1.0
        for v in range(n_corners):
            u = row(spare, v)
            set_row(polygon, v, u)
            lowest = min(lowest, dot(u, e))
    return n_corners, lowest, False


@jit
def solid_angle(e, polygon, n_corners):
    """Area of a spherical polygon in the hemisphere around e, sr: signed triangles (e, u, v) along its boundary.

    The denominator of half_triangle is at least 1, because no two neighbouring corners are more than 90 degrees apart
    (see _cut).
    """
    area = 0.0
    u = row(polygon, n_corners - 1)
    for corner in range(n_corners):
        v = row(polygon, corner)
        area += 2.0 * half_triangle(e, u, v)
        u = v
    return area


@jit
def _hemisphere(e, polygon):
    """Four directions on the rim of the hemisphere around e, counter-clockwise seen from outside."""
    # a = e x (the axis most perpendicular to e), so that it is never short
    ex, ey, ez = e
    if abs(ex) <= abs(ey) and abs(ex) <= abs(ez):
        a = (0.0, ez, -ey)
    elif abs(ey) <= abs(ez):
        a = (-ez, 0.0, ex)
    else:
        a = (ey, -ex, 0.0)
    length = np.sqrt(dot(a, a))
    a = (a[0] / length, a[1] / length, a[2] / length)
    b = cross(e, a)
    set_row(polygon, 0, a)
    set_row(polygon, 1, b)
    set_row(polygon, 2, scaled(a, -1.0))
    set_row(polygon, 3, scaled(b, -1.0))
    return np.int64(4)  # no literal, or what takes it is compiled twice


@jit
def _cut(g, tolerance, polygon, n_corners, side, spare):
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
        first = before
        before = before - 1 if before > 0 else n_corners - 1
    last = first
    after = first
    while side[after] < -tolerance:
        last = after
        after = after + 1 if after + 1 < n_corners else 0
    n_kept = before - after + 1 if before >= after else before - after + 1 + n_corners
    corner = after
    for n in range(n_kept):
        set_row(spare, n, row(polygon, corner))
        corner = corner + 1 if corner + 1 < n_corners else 0
    n = n_kept + _crossing(polygon, before, first, side, tolerance, spare, n_kept)
    end = n if _crossing(polygon, after, last, side, tolerance, spare, n) else 0
    u = row(spare, n - 1)
    v = row(spare, end)
    if dot(u, v) < 0.0:
        # Counter-clockwise, the edge leaves u along g x u and arrives at v along g x v: its middle is g x (u - v).
        set_row(spare, n, unit(cross(g, minus(u, v))))
        n += 1
    if end > 0:
        set_row(spare, n, v)
        n += 1
    return n


@jit
def _crossing(polygon, kept, outside, side, tolerance, spare, n):
    """spare[n] = where the great circle cuts the edge from kept to outside; returns 0 if that is at kept, else 1."""
    if side[kept] <= tolerance:
        return 0
    cut = minus(scaled(row(polygon, outside), side[kept]), scaled(row(polygon, kept), side[outside]))
    set_row(spare, n, unit(cut))
    return 1
