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

from refattn.common.jit import jit
from refattn.structures.voronoi.clipping import clip_facet, cutting_room, solid_angle
from refattn.structures.voronoi.facets import NEGLIGIBLE, add_facets, empty_facets, in_order
from refattn.structures.voronoi.hull import (
    SLOTS,
    add_point,
    build_hull,
    cone_areas,
    empty_hull,
    has_slivers,
    is_convex,
    normal_of,
    set_point,
)
from refattn.structures.voronoi.sphere import EVERYTHING, set_step, sites_within, sort_again, surroundings
from refattn.structures.voronoi.tree import deepest_cut, highest
from refattn.structures.voronoi.vectors import dot, minus, row

CLOSEST = 1e-3  # Å; two sites nearer than this are one site written twice
MAX_SEEN = 1_000_000  # images in one sphere; beyond it the cell vectors are absurdly unequal
SMALL = 128  # a finite structure of this many sites is seen as a whole at once
FIRST_RADIUS = 6.0  # Å; only a start, the result does not depend on it
GROWTH = 1.5
# 1, sine of an angle; a cut this shallow takes at most pi times as much (sr) from a facet, and rounding makes such cuts
SHALLOW = 1e-11

# Images seen for cells that are not complete after that, for each site and on top of MAX_SEEN. Without a bound a wire
# whose atoms are a thousand periods apart would take minutes.
SEEN_IN_VAIN = 2_000
MAX_CLIPPED = 30_000  # images that clipping.py takes on, in half a second: its time grows with their square

COMPLETE, COINCIDENT, TOO_NEAR, TOO_MANY = range(4)
INCOMPLETE = -1


@jit(inline=True)
def isolated_cells(positions, cell, reciprocal, across, room):
    """All facets of all Voronoi cells.

    Parameters
    ----------
    positions, cell, reciprocal :    (N, 3) Å, (3, 3) Å, (3, 3) 1/Å, see sphere.reciprocal_vectors
    across : (3, 3) float            projector onto the directions without a period
    room : (N,) float                Å; two sites nearer than the sum of theirs are a problem

    Returns
    -------
    ptr : (N + 1,) int64             facets of site i are ptr[i]:ptr[i + 1], by distance
    where : (F, 4) int64             neighbour site and image
    size : (F, 2) float              distance Å, solid angle sr
    problem : (3,) int64             COMPLETE, or what is wrong and the two sites concerned, size[0, 0] Å apart
    """
    n_sites = len(positions)
    periodic = np.any(reciprocal != 0.0)
    start = np.zeros(n_sites, np.int64)
    count = np.zeros(n_sites, np.int64)
    n_facets = np.int64(0)  # no literal, or what takes it is compiled twice
    where, size = empty_facets(n_sites)
    hull = empty_hull()
    rank = np.empty(SLOTS, np.int64)
    todo = np.arange(n_sites)
    radius = FIRST_RADIUS if periodic or n_sites > SMALL else EVERYTHING
    around = surroundings(radius, positions, cell, reciprocal)
    most = room.max()
    in_vain = 0
    while len(todo) > 0:
        n_left = 0
        for i in todo:
            n_all = sites_within(i, radius, around)
            near = too_near(i, n_all, around, room, most)
            if near >= 0:
                return count, where, size, near_problem(i, near, around, size)
            if periodic and (n_all > MAX_SEEN or len(around.distance) == 0):
                return count, where, size, np.array([TOO_MANY, i, i])
            n_seen = _cell(i, n_all, radius, periodic, around, across, hull, rank)
            if n_seen == INCOMPLETE:
                todo[n_left] = i
                n_left += 1
                in_vain += n_all
                if periodic and in_vain > MAX_SEEN + SEEN_IN_VAIN * n_sites:
                    return count, where, size, np.array([TOO_MANY, i, i])
            else:
                start[i] = n_facets
                where, size, n_facets = add_facets(i, n_seen, around, where, size, n_facets)
                count[i] = n_facets - start[i]
        todo = todo[:n_left]
        radius *= GROWTH
        if periodic and n_left > 0:
            around = surroundings(radius, positions, cell, reciprocal)
    ptr, where, size = in_order(start, count, where, size)
    return ptr, where, size, np.array([COMPLETE, 0, 0])


@jit
def too_near(i, n_seen, around, room, most):
    """The first site around site i that is too near, by its rank in `around`; -1 if none is.

    most : float     the largest of `room`, Å;  n_seen, around : as from sites_within
    """
    for k in range(n_seen):
        distance = around.distance[k]
        if distance >= max(room[i] + most, CLOSEST):
            break
        j = around.tree.label[around.index[k], 0]
        if distance < max(room[i] + room[j], CLOSEST):
            return k
    return -1


@jit
def near_problem(i, k, around, size):
    """`problem` of isolated_cells for site i and the k-th around it; their distance goes to size[0, 0]."""
    size[0, 0] = around.distance[k]
    code = COINCIDENT if around.distance[k] < CLOSEST else TOO_NEAR
    return np.array([code, i, np.int64(around.tree.label[around.index[k], 0])])


@jit
def _cell(i, n_seen, radius, periodic, around, across, hull, rank):
    """Solid angles of the facets towards the sites seen, into around.omega.

    Returns
    -------
    n_seen : int          with the sites that were looked up; INCOMPLETE if sites not seen could change the cell
    """
    seen_all = not periodic and n_seen == len(around.home) - 1
    n_points, n_faces = build_hull(around.distance, around.direction, n_seen, hull, rank)
    n_more = n_seen
    if n_faces > 0 and periodic:
        if not _settled(i, radius, around, across, hull, n_faces):
            return INCOMPLETE
    elif n_faces > 0 and not seen_all:
        n_points, n_faces, n_more = _look_up(i, n_seen, radius, around, hull, n_points, n_faces, rank)
    if n_faces > 0 and is_convex(hull, n_faces):
        if has_slivers(hull, n_faces):
            sort_again(i, n_more, around)
            all_seen = np.bool_(True)  # no literal, or what takes it is compiled twice
            _clipped(i, n_more, all_seen, radius, around, across)
        else:
            around.omega[:n_more] = 0.0
            cone_areas(hull, n_points, n_faces, rank, 0.0, around.omega)
        return n_more
    return n_seen if _clipped(i, n_seen, seen_all, radius, around, across) else INCOMPLETE


@jit
def _settled(i, radius, around, across, hull, n_faces):
    """True if no site beyond `radius` can cut at a corner of the hull."""
    for f in range(n_faces):
        h = _with_tolerance(hull.plane, f)
        if _reach(i, normal_of(hull.plane, f), radius, around, across, h) > h:
            return False
    return True


@jit(inline=True)
def _with_tolerance(plane, f):
    """h of face f, raised by ten times the tolerance of its points."""
    return plane[4, f] + 10.0 * (plane[3, f] - plane[4, f])


@jit
def _reach(i, u, radius, around, across, enough):
    """Bound of 2 u . d / |d|^2 over the sites at |d| >= radius; only a part of it if that is more than `enough`."""
    u_across = (dot(row(across, 0), u), dot(row(across, 1), u), dot(row(across, 2), u))
    u_along = minus(u, u_across)
    along = 2.0 * np.sqrt(dot(u_along, u_along)) / radius
    if along > enough or u_across == (0.0, 0.0, 0.0):
        return along
    height = highest(around.tree, u_across) - dot(u_across, row(around.home, i))
    return along + 2.0 * max(height, 0.0) / radius**2


@jit
def _look_up(i, n_seen, radius, around, hull, n_points, n_faces, rank):
    """Add the sites of a finite structure that cut the cell from outside the sphere.

    Only corners farther than radius / 2 are open to them. For each the tree is asked for the site that cuts deepest,
    so a site on the surface of a cluster costs a few walks of the tree and not a look at the whole cluster.

    Returns
    -------
    n_points, n_faces, n_seen : int     as before, with what was added
    """
    point, plane, vertex, owner, side, seen, edge, following = hull
    f = 0
    while f < n_faces:
        h = _with_tolerance(plane, f)
        if plane[5, f] == 1.0 or 2.0 / radius <= h:
            f += 1
            continue
        plane[5, f] = 1.0
        m = deepest_cut(around.tree, around.own[i], normal_of(plane, f), h)
        if m < 0:
            continue
        if n_points == SLOTS or n_seen == len(around.index):
            return n_points, 0, n_seen
        around.index[n_seen] = m
        set_step(i, n_seen, around)
        set_point(n_points, n_seen, around.distance, around.direction, point)
        n_faces, changed = add_point(n_points, n_faces, point, plane, vertex, owner, side, seen, edge, following)
        if changed:
            rank[n_points] = n_seen
            n_points += 1
            n_seen += 1
            f = 0
    return n_points, n_faces, n_seen


@jit
def _clipped(i, n_seen, complete, radius, around, across):
    """Solid angles as from _cell by clipping.py, for cells without a good hull; False if it may be incomplete."""
    distance = around.distance[:n_seen]
    direction = around.direction[:n_seen]
    omega = around.omega
    omega[:n_seen] = 0.0
    if n_seen > MAX_CLIPPED and not complete:
        return False
    polygon, spare, side = cutting_room(n_seen)
    total = 0.0
    for j in range(n_seen):
        n_corners, _, settled = clip_facet(j, distance, direction, polygon, spare, side)
        if n_corners == 0:
            continue
        for v in range(0 if settled or complete else n_corners):
            u = row(polygon, v)
            inverse = 2.0 * (dot(u, row(direction, j)) + SHALLOW) / distance[j]
            if _reach(i, u, radius, around, across, inverse) > inverse:
                return False
        omega[j] = solid_angle(row(direction, j), polygon, n_corners)
        total += omega[j]
        if total > 4.0 * np.pi - NEGLIGIBLE:
            return True
    return complete
