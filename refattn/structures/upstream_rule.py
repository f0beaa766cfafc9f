"""The `upstream` rule: edge for edge the Voronoi neighbours of the authors' code, to use their weights and numbers.

The authors (scann/utils/voronoi_neighbor.py, version 1.0) call pymatgen's VoronoiNN (2023.8.10), which tessellates the
points within 7 Å of each site with Qhull. Where that is not the Voronoi cell, this is not either:
- every structure is periodic in all three directions; a molecule is put into a box (upstream_box);
- coordinates are float32 first: fractional ones of a crystal, Cartesian ones of a molecule;
- sites farther than 7 Å do not cut, and open facets (a corner at infinity) are dropped;
- if the points lie in a plane Qhull fails, and pymatgen doubles the radius for this site, up to the cell's longest
  diagonal; if every facet of a site is open, or that diagonal did not help, the authors add 5 Å for this site
  *and all later sites*, up to 30 Å, so that a graph can depend on the order of the atoms.
Beyond 30 Å they leave the site out, and all later neighbour lists shift by one; here it is an error.
"""

import numpy as np

from refattn.jit import jit
from refattn.structures.clipping import clip_facet, cutting_room, solid_angle
from refattn.structures.isolated_rule import CLOSEST, COINCIDENT, COMPLETE, NEGLIGIBLE
from refattn.structures.sphere import doubled, sites_within

CUTOFF, CUTOFF_STEP, CUTOFF_MAX = 7.0, 5.0, 30.0  # Å (authors' code)
ON_SPHERE = 1e-8  # Å, added to every radius (pymatgen, get_sites_in_sphere)
# Å. Nearly planar molecules have closed facets with corners up to 5e6 Å away, which Qhull tells from infinity. Of
# 27,226 sites of QM9, 20 differ with 1e6 and none with 1e7, 1e8 or 1e9 (measured against pymatgen).
INFINITY = 1e7
# Extent across a plane over extent along it below which Qhull finds points coplanar: measured with scipy 1.17 on random
# planes of 6 to 30 points, 6 Å wide, which fail up to 1e-14 Å and pass from 1e-13 Å.
FLAT = 1e-14
BEYOND_MAX = 3  # continues COMPLETE, COINCIDENT, TOO_MANY


def upstream_box(positions):
    """Box of a molecule and its coordinates.

    Parameters
    ----------
    positions : (N, 3) float, Å

    Returns
    -------
    positions : (N, 3) float64, Å    rounded to float32, not shifted (a shift changes no neighbour)
    cell : (3, 3) float64, Å         diagonal: max(10, extent + 0.1), the extent in float32, the sum in float64
    """
    rounded = positions.astype(np.float32)
    extent = (rounded.max(axis=0) - rounded.min(axis=0)).astype(np.float64)
    return rounded.astype(np.float64), np.diag(np.maximum(10.0, extent + 0.1))


def upstream_crystal(positions, cell):
    """(N, 3) coordinates, Å, of a crystal after its fractional coordinates were rounded to float32."""
    return np.linalg.solve(cell.T, positions.T).T.astype(np.float32).astype(np.float64) @ cell


def longest_diagonal(cell):
    """Longest of the four diagonals of a cell (3, 3), Å."""
    corners = np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    return float(np.linalg.norm(corners @ cell, axis=1).max())


@jit
def upstream_cells(positions, cell, reciprocal, diagonal):
    """The facets that the authors' code counts, before its thresholds.

    Parameters
    ----------
    positions, cell, reciprocal :    (N, 3) Å, (3, 3) Å, (3, 3) 1/Å, periodic in three directions
    diagonal : float                 longest diagonal of the cell, Å

    Returns
    -------
    ptr, where, size, problem :      as from isolated_rule.isolated_cells
    """
    n_sites = len(positions)
    ptr = np.zeros(n_sites + 1, np.int64)
    where, size = np.empty((16 * n_sites, 4), np.int64), np.empty((16 * n_sites, 2))
    cutoff = CUTOFF
    for i in range(n_sites):
        n = ptr[i]
        while n == ptr[i]:
            if cutoff > CUTOFF_MAX:
                return ptr, where, size, np.array([BEYOND_MAX, i, i])
            distance, direction, neighbour = _points_in_space(i, cutoff, diagonal, positions, cell, reciprocal)
            if len(distance) > 0 and distance[0] < CLOSEST:
                return ptr, where, size, np.array([COINCIDENT, i, neighbour[0, 0]])
            omega = _closed_facets(distance, direction)
            for j in range(len(distance)):
                if omega[j] > 0.0:
                    if n == len(where):
                        where, size = doubled(where), doubled(size)
                    where[n] = neighbour[j]
                    size[n, 0], size[n, 1] = distance[j], omega[j]
                    n += 1
            if n == ptr[i]:
                cutoff += CUTOFF_STEP
        ptr[i + 1] = n
    return ptr, where[: ptr[n_sites]], size[: ptr[n_sites]], np.array([COMPLETE, 0, 0])


@jit
def _points_in_space(i, cutoff, diagonal, positions, cell, reciprocal):
    """Sites around i within the cutoff, doubled until they are not coplanar; no sites if that never happens."""
    radius, limit = cutoff, diagonal + 0.01
    while True:
        distance, direction, neighbour = sites_within(i, radius + ON_SPHERE, positions, cell, reciprocal)
        if not _coplanar(distance, direction) or (len(distance) > 0 and distance[0] < CLOSEST):
            return distance, direction, neighbour
        if radius >= limit:
            return distance[:0], direction[:0], neighbour[:0]
        radius = min(2.0 * radius, limit + 0.001)


@jit
def _coplanar(distance, direction):
    """True if the site and the sites around it lie in a plane, as one to three sites always do."""
    n = len(distance)
    if n < 3:
        return True
    far = direction[n - 1]
    across, height = 0.0, 0.0
    normal = np.zeros(3)
    for k in range(n):
        product = np.cross(far, direction[k]) * distance[k]
        if np.sqrt((product * product).sum()) > across:
            across = np.sqrt((product * product).sum())
            normal = product / across
    for k in range(n):
        height = max(height, abs((normal * direction[k]).sum()) * distance[k])
    return across <= FLAT * distance[n - 1] or height <= FLAT * distance[n - 1]


@jit
def _closed_facets(distance, direction):
    """(n,) solid angles, sr; 0 for no facet and for an open one."""
    n = len(distance)
    omega = np.zeros(n)
    polygon, spare, side = cutting_room(n)
    total = 0.0
    for j in range(n):
        n_corners, lowest, _ = clip_facet(j, distance, direction, polygon, spare, side)
        if n_corners == 0:
            continue
        area = solid_angle(direction[j], polygon, n_corners)
        if distance[j] < 2.0 * lowest * INFINITY:
            omega[j] = max(area, 0.0)
        total += area
        if total > 4.0 * np.pi - NEGLIGIBLE:
            break
    return omega
