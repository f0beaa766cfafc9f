"""The Voronoi cell of a site as the convex hull of its neighbours' inverse points.

The cell is { x : x . g_k <= 1 for every k } with g_k = 2 e_k / d_k, for neighbours at distance d_k in direction e_k. In
the direction u it ends at the plane of the neighbour whose u . g_k is largest, so the facet towards j is seen in the
directions in which g_j is the extreme point of the convex hull of all g_k: its normal cone. A face of the hull with
unit normal u, u . g <= h, is a corner of the cell in the direction u at distance 1 / h, and its three points are the
facets that meet there; where more than three meet, the face falls into triangles of the same normal. The origin is a
point of the hull too: its normal cone are the directions in which the cell has no end, and corners at infinity are
faces with h = 0, nothing special.

The hull grows by one point after the other, nearest neighbour first: the faces that the point sees give way to a fan
of faces from the point to the edge of what it sees. Each of the 10 to 20 neighbours that change a cell touches about
six corners, whereas clipping.py cuts every facet with every neighbour: 7 against 42 us a cell (QM9, one noisy core).

Points that lie in a plane have no such hull, and almost degenerate ones leave it ill-conditioned. Then n_faces is 0,
`is_convex` says no or `has_slivers` says yes, and the caller turns to clipping.py, which has no such cases.

Source   polar duality and the incremental hull: de Berg et al., Computational Geometry (2008), 11.2 and 11.5
"""

from collections import namedtuple

import numpy as np

from refattn.common.jit import jit
from refattn.structures.voronoi.vectors import cross, dot, half_triangle, minus, row, scaled, set_row, unit

SLOTS = 128  # points that a hull can hold, the origin and those that later ones cover included
ON_PLANE = 1e-12  # 1, relative to |g|: a point this close to a face is on it, as in the cells of lattices
FLAT = 1e-6  # 1; a site whose neighbours span less (sines) has its neighbours in a plane, or almost
# 1; three points whose edges span a smaller sine are too nearly in a line: the normal is uncertain by 1e-16 over the
# sine, and solid angles with it (1.3e-10 sr was seen, against exact arithmetic; now 7e-13 is the worst of 36,000 cells)
SLIVER = 2e-5
GOOD = 0.3  # 1; sines large enough to start with
UNEVEN = 1e-11  # 1, relative to |g|: no point may lie farther above a neighbouring face

# point (SLOTS, 4): g and |g|; slot 0 is the origin.  plane (7, 2 SLOTS): u; h plus the tolerance of its points; h;
# 1 if it is known that no other site cuts there (isolated_rule.py); above 0 unless the face is a sliver.
# vertex (2 SLOTS, 3): the slots of a face, counter-clockwise from outside.  owner (SLOTS, SLOTS): the face on the left
# of the edge from one slot to another.  side, seen, edge, following: scratch of add_point.
Hull = namedtuple("Hull", "point plane vertex owner side seen edge following")


@jit
def empty_hull():
    """Work arrays, to be used for one site after the other."""
    point = np.zeros((SLOTS, 4))
    plane = np.empty((7, 2 * SLOTS))
    vertex = np.empty((2 * SLOTS, 3), np.int64)
    owner = np.empty((SLOTS, SLOTS), np.int16)
    side = np.empty(2 * SLOTS)
    seen = np.empty(2 * SLOTS, np.int64)
    following = np.zeros(SLOTS, np.int64)  # a slot, whatever is read of it
    edge = np.empty((6 * SLOTS, 2), np.int64)  # as many as all faces have
    return Hull(point, plane, vertex, owner, side, seen, edge, following)


@jit(inline=True)
def normal_of(plane, f):
    """Unit normal of face f, outwards."""
    return plane[0, f], plane[1, f], plane[2, f]


@jit
def add_point(p, n_faces, point, plane, vertex, owner, side, seen, edge, following):
    """Enlarge the hull by the point in slot p.

    Returns
    -------
    n_faces : int      0 if rounding tore the hull
    changed : bool     False if the point sees no face
    """
    g = row(point, p)
    threshold = ON_PLANE * point[p, 3]
    for f in range(n_faces):
        side[f] = dot(normal_of(plane, f), g) - plane[3, f]
    n_seen = 0
    for f in range(n_faces):
        seen[n_seen] = f
        n_seen += side[f] > threshold
    if n_seen == 0:
        return n_faces, False
    n_edges = _horizon(n_seen, threshold, vertex, owner, side, seen, edge, following)
    if n_edges == 0 or n_faces - n_seen + n_edges > 2 * SLOTS:
        return 0, True
    for k in range(n_edges):
        f = seen[k] if k < n_seen else n_faces + k - n_seen
        _set_face(f, edge[k, 0], edge[k, 1], p, point, plane, vertex, owner)
    for k in range(n_seen - 1, n_edges - 1, -1):  # holes, the last one first
        n_faces -= 1
        if seen[k] != n_faces:
            _move_face(n_faces, seen[k], plane, vertex, owner)
    return n_faces + max(n_edges - n_seen, 0), True


@jit(inline=True)
def _horizon(n_seen, threshold, vertex, owner, side, seen, edge, following):
    """The edges around the faces seen, into edge; returns their number, 0 if they are not one cycle."""
    n = 0
    for s in range(n_seen):
        f = seen[s]
        a = vertex[f, 2]
        for k in range(3):
            b = vertex[f, k]
            if not side[owner[b, a]] > threshold:
                edge[n, 0] = a
                edge[n, 1] = b
                following[a] = b
                n += 1
            a = b
    if n == 0:
        return 0
    a = edge[0, 0]
    for _ in range(n - 1):
        a = following[a]
        if a == edge[0, 0]:
            return 0
    return n if following[a] == edge[0, 0] else 0


@jit(inline=True)
def _set_face(f, a, b, c, point, plane, vertex, owner):
    """Face f through the slots a, b, c, counter-clockwise from outside."""
    start = row(point, a)
    side_b = minus(row(point, b), start)
    side_c = minus(row(point, c), start)
    across = cross(side_b, side_c)
    normal = unit(across)
    h = 0.0 if a == 0 or b == 0 or c == 0 else dot(normal, start)
    plane[0, f], plane[1, f], plane[2, f] = normal
    plane[4, f] = h
    plane[3, f] = h + ON_PLANE * max(point[a, 3], point[b, 3], point[c, 3])
    plane[5, f] = 0.0
    plane[6, f] = dot(across, across) - SLIVER**2 * dot(side_b, side_b) * dot(side_c, side_c)
    _own(f, a, b, c, vertex, owner)


@jit(inline=True)
def _own(f, a, b, c, vertex, owner):
    """Note that the slots a, b, c and the edges between them are those of face f."""
    set_row(vertex, f, (a, b, c))
    owner[a, b] = f
    owner[b, c] = f
    owner[c, a] = f


@jit(inline=True)
def _move_face(old, new, plane, vertex, owner):
    for k in range(7):
        plane[k, new] = plane[k, old]
    a, b, c = row(vertex, old)
    _own(new, a, b, c, vertex, owner)


@jit
def is_convex(hull, n_faces):
    """True if no face is below a neighbouring one; then it is a hull."""
    point, plane, vertex, owner = hull.point, hull.plane, hull.vertex, hull.owner
    for f in range(n_faces):
        uneven = UNEVEN if plane[6, f] > 0.0 else 100.0 * UNEVEN
        a, b, c = row(vertex, f)
        for _ in range(3):
            twin = owner[b, a]
            d = vertex[twin, 0] + vertex[twin, 1] + vertex[twin, 2] - a - b
            above = dot(normal_of(plane, f), row(point, d)) - plane[4, f]
            if not above <= uneven * (point[d, 3] + point[a, 3] + point[b, 3]):  # NaN neither
                return False
            a, b, c = b, c, a
    return True


@jit
def has_slivers(hull, n_faces):
    """True if a face is too narrow for an exact normal."""
    return not hull.plane[6, :n_faces].min() > 0.0  # NaN too


@jit
def _cone_area(j, first, point, plane, vertex, owner):
    """Solid angle of the facet towards slot j, sr, and the smallest h of its corners; `first` is a face of slot j.

    The spherical polygon of the faces' normals falls into signed triangles (e, u, v), see vectors.half_triangle. The
    numbers denominator + i numerator of their tangents are multiplied, so that one arctangent serves the facet: its
    argument is half the area.
    """
    e = scaled(row(point, j), 1.0 / point[j, 3])
    real, imaginary = 1.0, 0.0
    area = 0.0
    lowest = np.inf
    f = first
    u = normal_of(plane, f)
    eu = dot(e, u)
    while True:
        k = vertex[f, 2] if vertex[f, 0] == j else (vertex[f, 0] if vertex[f, 1] == j else vertex[f, 1])
        after = owner[j, k]
        v = normal_of(plane, after)
        ev = dot(e, v)
        uv = dot(u, v)
        if uv < 0.0:  # more than 90 degrees: by way of the middle, because the edge between opposite corners is lost
            middle = unit(cross(minus(row(point, j), row(point, k)), minus(u, v)))
            area += half_triangle(e, u, middle) + half_triangle(e, middle, v)
        else:
            triple = dot(e, cross(u, v))
            dots = 1.0 + uv + eu + ev
            real, imaginary = real * dots - imaginary * triple, real * triple + imaginary * dots
            if real * real + imaginary * imaginary > 1e200:
                real *= 1e-100
                imaginary *= 1e-100
        u = v
        eu = ev
        lowest = min(lowest, plane[4, f])
        f = after
        if f == first:
            break
    half = area + np.arctan2(imaginary, real)  # from 0 to pi, but for multiples of 2 pi and rounding
    half -= 2.0 * np.pi * np.floor((half + 1.0) / (2.0 * np.pi))
    return 2.0 * half, lowest


@jit
def build_hull(distance, direction, n, hull, rank):
    """The hull of n neighbours in order of distance, as far as they matter.

    Parameters
    ----------
    distance, direction : (>= n,) Å, ascending; (>= n, 3) unit vectors
    hull : Hull
    rank : (SLOTS,) int       receives the number of the neighbour in each slot

    Returns
    -------
    n_points : int            slots in use, the origin included
    n_faces : int             0 if there is no such hull
    """
    point, plane, vertex, owner, side, seen, edge, following = hull
    n_faces = 0 if n < 3 else _first_tetrahedron(distance, direction, n, rank, point, plane, vertex, owner)
    n_points = np.int64(4)  # no literal, or what takes it is compiled twice
    lowest = 0.0
    stale = True
    for k in range(1, n):
        if k == rank[2] or k == rank[3]:
            continue
        if n_points == SLOTS or n_faces == 0:
            return n_points, 0
        set_point(n_points, k, distance, direction, point)
        n_faces, changed = add_point(n_points, n_faces, point, plane, vertex, owner, side, seen, edge, following)
        if changed:
            rank[n_points] = k
            n_points += 1
            stale = True
            continue
        if stale:  # only now, because a cell that neighbours still change is seldom ready
            lowest = np.inf
            stale = False
            for f in range(n_faces):
                lowest = min(lowest, plane[4, f])
        if point[n_points, 3] <= lowest:
            break  # u . g <= |g| <= h for all corners, and farther neighbours have shorter g
    return n_points, n_faces


@jit
def _first_tetrahedron(distance, direction, n, rank, point, plane, vertex, owner):
    """Start the hull with the origin and three neighbours that span space; returns 4 faces, or 0 if none do."""
    rank[1:4] = 0
    best = FLAT
    normal = (0.0, 0.0, 0.0)
    for k in range(1, n):
        across = cross(row(direction, 0), row(direction, k))
        size = np.sqrt(dot(across, across))
        if size > best:
            best = size
            normal = across
            rank[2] = k
            if size > GOOD:
                break
    height = 0.0
    for k in range(1, n):
        above = dot(normal, row(direction, k))
        if abs(above) > max(abs(height), FLAT):
            height = above
            rank[3] = k
            if abs(above) > GOOD:
                break
    if height == 0.0:
        return 0
    for s in range(1, 4):
        set_point(s, rank[s], distance, direction, point)
    a, b = (1, 2) if height > 0.0 else (2, 1)
    _set_face(0, a, b, 3, point, plane, vertex, owner)
    _set_face(1, b, a, 0, point, plane, vertex, owner)
    _set_face(2, 3, b, 0, point, plane, vertex, owner)
    _set_face(3, a, 3, 0, point, plane, vertex, owner)
    return 4


@jit(inline=True)
def set_point(p, k, distance, direction, point):
    """The inverse point of neighbour k into slot p."""
    g = 2.0 / distance[k]
    set_row(point, p, scaled(row(direction, k), g))
    point[p, 3] = g


@jit
def cone_areas(hull, n_points, n_faces, rank, nearest, omega):
    """omega[rank[s]] = solid angle, sr, of every facet whose corners all have h > nearest, or h >= 0 if that is 0."""
    first = hull.seen  # a face of each slot, -1 for those that others have covered
    first[:n_points] = -1
    for f in range(n_faces):
        for k in range(3):
            first[hull.vertex[f, k]] = f
    for s in range(1, n_points):
        if first[s] >= 0:
            area, lowest = _cone_area(s, first[s], hull.point, hull.plane, hull.vertex, hull.owner)
            if nearest == 0.0 or lowest > nearest:
                omega[rank[s]] = area
