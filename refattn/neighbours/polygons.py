"""The polygons of the facets of Voronoi cells, from the neighbours behind the facets."""

import numpy as np

from refattn.common.jit import jit
from refattn.structures.voronoi.sphere import doubled
from refattn.structures.voronoi.vectors import cross, dot, row, scaled, unit

FAR = 1e6  # of the site's farthest neighbour: a facet with a corner beyond it is open
TOUCH = 1e-10  # Å; a plane that cuts off less than this cuts nothing
SAME = 1e-8  # Å; corners nearer than this are one, in which more than three facets meet
PARALLEL = 1e-9  # 1, sine of the angle of two lines that have no corner worth calculating


@jit
def facet_polygons(ptr, vector):
    """Areas and corners of the facets.

    A facet lies in the plane half-way to its neighbour, and ends where the planes of the other facets cut it.

    Parameters
    ----------
    ptr : (N + 1,) int        facets of site i are ptr[i]:ptr[i + 1]
    vector : (F, 3) float     from the site to the neighbour behind each facet, Å

    Returns
    -------
    area : (F,) float64           Å^2; infinite where the facet is open
    corner_ptr : (F + 1,) int64   corners of facet f are corner_ptr[f]:corner_ptr[f + 1]; none where it is open
    corner : (C, 3) float64       Å from the site, in their order around the facet
    beside : (C,) int64           the facet on the other side of the edge from a corner to the next one
    """
    n_facets = ptr[-1]
    area = np.empty(n_facets)
    corner_ptr = np.zeros(n_facets + 1, np.int64)
    corner = np.empty((8 * n_facets + 8, 3))
    beside = np.empty((8 * n_facets + 8, 1), np.int64)
    most = 0
    for i in range(len(ptr) - 1):
        most = max(most, ptr[i + 1] - ptr[i])
    place = np.empty((2, most + 8, 2))
    line = np.empty((2, most + 8), np.int64)
    for i in range(len(ptr) - 1):
        farthest = 0.0
        for f in range(ptr[i], ptr[i + 1]):
            v = row(vector, f)
            farthest = max(farthest, dot(v, v))
        for f in range(ptr[i], ptr[i + 1]):
            n, now, across, along = _cut(f, ptr[i], ptr[i + 1], vector, FAR * np.sqrt(farthest), place, line)
            n = _sharpen(f, n, vector, across, along, place[now], line[now])
            area[f] = _area(n, place[now]) if n >= 0 else np.inf
            first = corner_ptr[f]
            corner_ptr[f + 1] = first + max(n, 0)
            while len(corner) < corner_ptr[f + 1]:
                corner = doubled(corner)
                beside = doubled(beside)
            middle = scaled(row(vector, f), 0.5)
            for k in range(n):
                s, t = place[now, k, 0], place[now, k, 1]
                for axis in range(3):
                    corner[first + k, axis] = middle[axis] + s * across[axis] + t * along[axis]
                beside[first + k, 0] = line[now, k]
    n_corners = corner_ptr[n_facets]
    return area, corner_ptr, corner[:n_corners].copy(), beside[:n_corners, 0].copy()


@jit
def _cut(f, start, end, vector, far, place, line):
    """Cut a square in the plane of facet f by the planes of the others.

    Returns the number of corners, which of the two buffers has them, and the unit vectors that span the plane. The edge
    from corner k to the next lies in the plane of facet line[k]; those of the square have negative numbers.
    """
    v = row(vector, f)
    size = abs(v[0]), abs(v[1]), abs(v[2])
    axis = (1.0, 0.0, 0.0) if size[0] <= size[1] and size[0] <= size[2] else (0.0, 1.0, 0.0)
    axis = (0.0, 0.0, 1.0) if size[2] < size[0] and size[2] < size[1] else axis
    across = unit(cross(v, axis))
    along = cross(unit(v), across)
    now = 0
    n = np.int64(4)  # no literal, or what takes it is compiled twice
    for k in range(4):
        place[0, k, 0] = -far if k in (0, 3) else far
        place[0, k, 1] = -far if k < 2 else far
        line[0, k] = -1 - k
    reach = 2.0 * far * far  # the largest square of a corner's distance from the middle
    for g in range(start, end):
        if g == f or n == 0:
            continue
        p, q, d = _line(v, row(vector, g), across, along)
        steep = p * p + q * q
        if d > 0.0 and d * d > steep * reach:  # the line passes the polygon by
            continue
        slack = TOUCH * np.sqrt(steep)
        outside = False
        for k in range(n):
            outside = outside or p * place[now, k, 0] + q * place[now, k, 1] - d > slack
        if not outside:
            continue
        n = _clip(n, g, p, q, d, slack, place[now], line[now], place[1 - now], line[1 - now])
        now = 1 - now
        reach = 0.0
        for k in range(n):
            reach = max(reach, place[now, k, 0] * place[now, k, 0] + place[now, k, 1] * place[now, k, 1])
    return n, now, across, along


@jit
def _line(v, w, across, along):
    """p s + q t <= d holds in the plane half-way to v for what is nearer to the site than to w."""
    p, q = dot(across, w), dot(along, w)
    return p, q, 0.5 * (dot(w, w) - dot(v, w))


@jit
def _clip(n, g, p, q, d, slack, place, line, new_place, new_line):
    """Keep what is inside of the line g of a convex polygon; returns the new number of corners.

    Source   Sutherland & Hodgman, Commun. ACM 17, 32 (1974)
    """
    m = 0
    here = p * place[0, 0] + q * place[0, 1] - d
    for k in range(n):
        after = k + 1 if k + 1 < n else 0
        there = p * place[after, 0] + q * place[after, 1] - d
        if here <= slack:
            new_place[m, 0], new_place[m, 1] = place[k, 0], place[k, 1]
            new_line[m] = line[k]
            m += 1
        if (here <= slack) != (there <= slack):
            part = min(max(here / (here - there), 0.0), 1.0)
            new_place[m, 0] = place[k, 0] + part * (place[after, 0] - place[k, 0])
            new_place[m, 1] = place[k, 1] + part * (place[after, 1] - place[k, 1])
            new_line[m] = g if here <= slack else line[k]
            m += 1
        here = there
    return m


@jit
def _sharpen(f, n, vector, across, along, place, line):
    """Calculate every corner anew from its two lines, free of the rounding of the far square, and count corners on one
    place once. Returns the number of corners; -1 for an open facet."""
    v = row(vector, f)
    for k in range(n):
        if line[k] < 0:
            return -1
    if n:
        p_2, q_2, d_2 = _line(v, row(vector, line[n - 1]), across, along)
    for k in range(n):
        p_1, q_1, d_1 = p_2, q_2, d_2
        p_2, q_2, d_2 = _line(v, row(vector, line[k]), across, along)
        area = p_1 * q_2 - p_2 * q_1
        if abs(area) > PARALLEL * np.sqrt((p_1 * p_1 + q_1 * q_1) * (p_2 * p_2 + q_2 * q_2)):
            place[k, 0] = (d_1 * q_2 - d_2 * q_1) / area
            place[k, 1] = (p_1 * d_2 - p_2 * d_1) / area
    m = 0
    for k in range(n):
        after = k + 1 if k + 1 < n else 0
        if (place[after, 0] - place[k, 0]) ** 2 + (place[after, 1] - place[k, 1]) ** 2 < SAME * SAME:
            continue
        place[m, 0], place[m, 1] = place[k, 0], place[k, 1]
        line[m] = line[k]
        m += 1
    return m


@jit
def _area(n, place):
    """Area of a convex polygon, by triangles from its first corner."""
    twice = 0.0
    for k in range(1, n - 1):
        s_1, t_1 = place[k, 0] - place[0, 0], place[k, 1] - place[0, 1]
        s_2, t_2 = place[k + 1, 0] - place[0, 0], place[k + 1, 1] - place[0, 1]
        twice += s_1 * t_2 - t_1 * s_2
    return 0.5 * abs(twice)
