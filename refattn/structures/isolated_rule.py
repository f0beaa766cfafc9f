"""The `isolated` rule: the true Voronoi cells of a structure as it is given, in the directions in which it is periodic.

A cell is complete when no site outside the sphere seen so far could change it. Sites outside a sphere of radius R
around site i are bounded in how deep they can cut in a direction u. Let u_along be the part of u in the span of the
periodic cell vectors, u_across the rest, and h = max over all sites k of u_across . (x_k - x_i), which periodic
images do not change. A site at displacement d, |d| >= R, has u . d <= |u_along| |d| + h, so (see clipping.py)

    u . (d_j / |d|) d / |d|  <=  d_j (|u_along| / R + max(h, 0) / R^2),

and it can cut the facet towards j at the corner u only if this exceeds u . e_j. The sphere grows until no corner of
any facet can be cut and the facets fill the whole sphere of directions, or until it holds the complete (finite)
structure. It always ends: in a periodic structure an image close to the direction u_along is as near as the period.
Thus a slab's facets that reach into the vacuum are exact: their corners at infinity point along the normal, where
u_along = 0, and where h = 0 because nothing lies above.
"""

import numpy as np

from refattn.jit import jit
from refattn.structures.clipping import clip_facet, cutting_room, solid_angle
from refattn.structures.sphere import EVERYTHING, doubled, sites_within

CLOSEST = 1e-3  # Å; two sites nearer than this are one site written twice
NEGLIGIBLE = 1e-10  # sr; smaller facets are dropped, and a cell whose facets miss less than this of 4 pi is complete
MAX_SEEN = 1_000_000  # images in one sphere; beyond it the cell vectors are absurdly unequal
SMALL = 128  # a finite structure of this many sites is seen as a whole at once
FIRST_RADIUS = 6.0  # Å; only a start, the result does not depend on it
GROWTH = 1.5
# 1, sine of an angle; a cut this shallow takes at most pi times as much (sr) from a facet, and rounding makes such cuts
SHALLOW = 1e-11

COMPLETE, COINCIDENT, TOO_MANY = 0, 1, 2


@jit
def isolated_cells(positions, cell, reciprocal, across):
    """All facets of all Voronoi cells.

    Parameters
    ----------
    positions, cell, reciprocal :    (N, 3) Å, (3, 3) Å, (3, 3) 1/Å, see sphere.reciprocal_vectors
    across : (3, 3) float            projector onto the directions without a period

    Returns
    -------
    ptr : (N + 1,) int64             facets of site i are ptr[i]:ptr[i + 1], by distance
    where : (F, 4) int64             neighbour site and image
    size : (F, 2) float              distance Å, solid angle sr
    problem : (3,) int64             COMPLETE, or what is wrong and the two sites concerned
    """
    n_sites = len(positions)
    periodic = np.any(reciprocal != 0.0)
    ptr = np.zeros(n_sites + 1, np.int64)
    where, size = np.empty((16 * n_sites, 4), np.int64), np.empty((16 * n_sites, 2))
    for i in range(n_sites):
        radius = FIRST_RADIUS if periodic or n_sites > SMALL else EVERYTHING
        while True:
            distance, direction, neighbour = sites_within(i, radius, positions, cell, reciprocal)
            n_seen = len(distance)
            if n_seen > 0 and distance[0] < CLOSEST:
                return ptr, where, size, np.array([COINCIDENT, i, neighbour[0, 0]])
            if periodic and n_seen > MAX_SEEN:
                return ptr, where, size, np.array([TOO_MANY, i, i])
            seen_all = not periodic and n_seen == n_sites - 1
            omega, complete = _cell(i, distance, direction, seen_all, radius, positions, across)
            if complete:
                break
            radius *= GROWTH
        n = ptr[i]
        for j in range(n_seen):
            if omega[j] > NEGLIGIBLE:
                if n == len(where):
                    where, size = doubled(where), doubled(size)
                where[n] = neighbour[j]
                size[n, 0], size[n, 1] = distance[j], omega[j]
                n += 1
        ptr[i + 1] = n
    return ptr, where[: ptr[n_sites]], size[: ptr[n_sites]], np.array([COMPLETE, 0, 0])


@jit
def _cell(i, distance, direction, seen_all, radius, positions, across):
    """Solid angles of the facets towards the sites seen; and whether sites not seen could not change them."""
    n_seen = len(distance)
    omega = np.zeros(n_seen)
    polygon, spare, side = cutting_room(n_seen)
    total = 0.0
    for j in range(n_seen):
        n_corners, _, settled = clip_facet(j, distance, direction, polygon, spare, side)
        if n_corners == 0:
            continue
        if not (settled or seen_all):
            corners = polygon[:n_corners]
            if not _out_of_reach(i, distance[j], direction[j], radius, corners, positions, across):
                return omega, False
        omega[j] = solid_angle(direction[j], polygon, n_corners)
        total += omega[j]
        if total > 4.0 * np.pi - NEGLIGIBLE:
            return omega, True
    return omega, seen_all


@jit
def _out_of_reach(i, distance, e, radius, corners, positions, across):
    """True if no site beyond `radius` can cut the facet to the neighbour at distance * e (see the top of the file)."""
    for v in range(len(corners)):
        u = corners[v]
        across_x = across[0, 0] * u[0] + across[0, 1] * u[1] + across[0, 2] * u[2]
        across_y = across[1, 0] * u[0] + across[1, 1] * u[1] + across[1, 2] * u[2]
        across_z = across[2, 0] * u[0] + across[2, 1] * u[1] + across[2, 2] * u[2]
        along = np.sqrt((u[0] - across_x) ** 2 + (u[1] - across_y) ** 2 + (u[2] - across_z) ** 2)
        height = 0.0
        if across_x != 0.0 or across_y != 0.0 or across_z != 0.0:
            for k in range(len(positions)):
                height = max(
                    height,
                    across_x * (positions[k, 0] - positions[i, 0])
                    + across_y * (positions[k, 1] - positions[i, 1])
                    + across_z * (positions[k, 2] - positions[i, 2]),
                )
        depth = distance * (along / radius + height / radius**2)
        if depth > u[0] * e[0] + u[1] * e[1] + u[2] * e[2] + SHALLOW:
            return False
    return True
