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

from refattn.common.jit import jit
from refattn.structures.voronoi.clipping import clip_facet, cutting_room, solid_angle
from refattn.structures.voronoi.facets import NEGLIGIBLE, add_facets, empty_facets
from refattn.structures.voronoi.hull import SLOTS, build_hull, cone_areas, empty_hull, has_slivers, is_convex
from refattn.structures.voronoi.isolated_rule import COMPLETE, TOO_MANY, near_problem, too_near
from refattn.structures.voronoi.sphere import sites_within, surroundings
from refattn.structures.voronoi.vectors import row

CUTOFF = 7.0  # Å; this and the two below are those of the authors' code
CUTOFF_STEP = 5.0  # Å
CUTOFF_MAX = 30.0  # Å
ON_SPHERE = 1e-8  # Å, added to every radius (pymatgen, get_sites_in_sphere)
# Å. Nearly planar molecules have closed facets with corners up to 5e6 Å away, which Qhull tells from infinity. Of
# 27,226 sites of QM9, 20 differ with 1e6 and none with 1e7, 1e8 or 1e9 (measured against pymatgen).
INFINITY = 1e7
# Extent across a plane over extent along it below which Qhull finds points coplanar: measured with scipy 1.17 on random
# planes of 6 to 30 points, 6 Å wide, which fail up to 1e-14 Å and pass from 1e-13 Å.
FLAT = 1e-14
BEYOND_MAX = 4  # continues the codes of isolated_rule


@jit
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
    rounded = np.empty_like(positions)
    cell = np.zeros((3, 3))
    for k in range(3):
        low, high = np.float32(np.inf), np.float32(-np.inf)
        for i in range(len(positions)):
            x = np.float32(positions[i, k])
            low = min(low, x)
            high = max(high, x)
            rounded[i, k] = x
        cell[k, k] = max(10.0, np.float64(np.float32(high - low)) + 0.1)
    return rounded, cell


def upstream_crystal(positions: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """(N, 3) coordinates, Å, of a crystal after its fractional coordinates were rounded to float32."""
    return np.linalg.solve(cell.T, positions.T).T.astype(np.float32).astype(np.float64) @ cell


@jit
def longest_diagonal(cell):
    """Longest of the four diagonals of a cell (3, 3), Å."""
    longest = 0.0
    for k in range(4):
        square = 0.0
        for axis in range(3):
            a, b, c = cell[0, axis], cell[1, axis], cell[2, axis]
            square += ((-a if k == 1 else a) + (-b if k == 2 else b) + (-c if k == 3 else c)) ** 2
        longest = max(longest, np.sqrt(square))
    return longest


@jit(inline=True)
def upstream_cells(positions, cell, reciprocal, diagonal, room):
    """The facets that the authors' code counts, before its thresholds.

    Parameters
    ----------
    positions, cell, reciprocal :    (N, 3) Å, (3, 3) Å, (3, 3) 1/Å, periodic in three directions
    diagonal : float                 longest diagonal of the cell, Å
    room : (N,) float                Å; two sites nearer than the sum of theirs are a problem

    Returns
    -------
    ptr, where, size, problem :      as from isolated_rule.isolated_cells
    """
    n_sites = len(positions)
    n = np.int64(0)  # no literal, or what takes it is compiled twice
    ptr = np.zeros(n_sites + 1, np.int64)
    where, size = empty_facets(n_sites)
    hull = empty_hull()
    rank = np.empty(SLOTS, np.int64)
    cutoff = CUTOFF
    reach = CUTOFF + ON_SPHERE
    around = surroundings(reach, positions, cell, reciprocal)
    most = room.max()
    for i in range(n_sites):
        radius = cutoff  # doubled until the sites are not coplanar
        while n == ptr[i]:
            if cutoff > CUTOFF_MAX:
                return ptr, where, size, np.array([BEYOND_MAX, i, i])
            if radius + ON_SPHERE > reach:
                reach = radius + ON_SPHERE
                around = surroundings(reach, positions, cell, reciprocal)
            if len(around.distance) == 0:
                return ptr, where, size, np.array([TOO_MANY, i, i])
            n_seen = sites_within(i, radius + ON_SPHERE, around)
            near = too_near(i, n_seen, around, room, most)
            if near >= 0:
                return ptr, where, size, near_problem(i, near, around, size)
            if _closed_facets(n_seen, around, hull, rank):
                where, size, n = add_facets(i, n_seen, around, where, size, n)
            elif radius < diagonal + 0.01:
                radius = min(2.0 * radius, diagonal + 0.01 + 0.001)
                continue
            if n == ptr[i]:
                cutoff += CUTOFF_STEP
                radius = cutoff
        ptr[i + 1] = n
    return ptr, where[:n], size[:n], np.array([COMPLETE, 0, 0])


@jit
def _closed_facets(n_seen, around, hull, rank):
    """Solid angles, sr, into around.omega; 0 for no facet and for an open one. False if the sites are coplanar."""
    distance = around.distance[:n_seen]
    direction = around.direction[:n_seen]
    omega = around.omega[:n_seen]
    omega[:] = 0.0
    n_points, n_faces = build_hull(distance, direction, n_seen, hull, rank)
    if n_faces > 0 and is_convex(hull, n_faces) and not has_slivers(hull, n_faces):
        cone_areas(hull, n_points, n_faces, rank, 1.0 / INFINITY, omega)
        return True
    if _coplanar(distance, direction):
        return False
    _clip_closed_facets(distance, direction, omega)
    return True


@jit
def _coplanar(distance, direction):
    """True if the site and the sites around it lie in a plane, as one to three sites always do."""
    n = len(distance)
    if n < 3:
        return True
    far = direction[n - 1]
    across = 0.0
    height = 0.0
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
def _clip_closed_facets(distance, direction, omega):
    """Solid angles as from _closed_facets by clipping.py, for cells without a hull."""
    polygon, spare, side = cutting_room(len(distance))
    total = 0.0
    for j in range(len(distance)):
        n_corners, lowest, _ = clip_facet(j, distance, direction, polygon, spare, side)
        if n_corners == 0:
            continue
        area = solid_angle(row(direction, j), polygon, n_corners)
        if distance[j] < 2.0 * lowest * INFINITY:
            omega[j] = max(area, 0.0)
        total += area
        if total > 4.0 * np.pi - NEGLIGIBLE:
            break
