"""Where the sites around a site come from: every site and periodic image inside a sphere, nearest first.

This is the only place that knows about periods. The images that any sphere of a given radius can reach are written
out once for a structure, and a tree (tree.py) finds those in one sphere; time and memory are linear in the sites.
"""

from collections import namedtuple

import numpy as np

from refattn.common.jit import jit
from refattn.structures.voronoi.tree import grow_tree, points_within
from refattn.structures.voronoi.vectors import cross, divided, dot, minus, put_rows, row, scaled, set_row

EVERYTHING = 1e150  # Å, a radius that holds any finite structure, and whose square is still a number
MAX_IMAGES = 5_000_000  # a limit for memory, 300 MB; on top of ten images of every site
MAX_VISITS = 20  # for one image that is kept; in a cell as flat as a needle nearly all would be looked at in vain
# So few points are looked at one by one. Images are only asked for spheres, a few for each site: up to here that costs
# less than to grow a tree and walk it (20 against 30 us a site, all included, in crystals of 34 sites). The sites of a
# cluster are asked for the deepest cut again and again (isolated_rule.py).
FEW_IMAGES = 2000
FEW_SITES = 128
_SLACK = 1e-9  # 1, so that rounding never loses an image that lies exactly on the sphere
_SHORT = 48  # so many distances are sorted by insertion at once

# home (N, 3) Å: every site, moved by `shift` (N, 3) cell vectors to the others; tree: all images, labelled with their
# site and image; own (N,): where home is in the tree.  index, distance, direction, omega: room for the sites around one
# site and their solid angles.
Surroundings = namedtuple("Surroundings", "home shift tree own index distance direction omega")


@jit
def reciprocal_vectors(cell, pbc):
    """Vectors that turn a displacement into numbers of periods; zero where there is no period.

    (cell[k] . reciprocal[l]) = delta_kl for the periodic k and l, and reciprocal[l] lies in the span of the periodic
    cell vectors. Missing vectors are replaced by unit vectors across the others, so one formula serves wires, slabs
    and crystals.

    Parameters
    ----------
    cell : (3, 3) float   cell vectors as rows, Å; the periodic ones are linearly independent
    pbc : (3,) bool

    Returns
    -------
    reciprocal : (3, 3) float, 1/Å
    """
    full = cell.copy()  # rows without a period may hold anything
    reciprocal = np.zeros((3, 3))
    n_periods = int(pbc[0]) + int(pbc[1]) + int(pbc[2])  # sums of NumPy's booleans are booleans
    if n_periods == 0:
        return reciprocal
    for k in range(3):
        if n_periods == 1 and pbc[k]:  # some vector across the only one
            smallest = np.argmin(np.abs(full[k]))
            full[(k + 1) % 3] = 0.0
            full[(k + 1) % 3, smallest] = np.sqrt((full[k] * full[k]).sum())
            set_row(full, (k + 2) % 3, cross(full[k], full[(k + 1) % 3]))
            set_row(full, (k + 1) % 3, cross(full[(k + 2) % 3], full[k]))
        elif n_periods == 2 and not pbc[k]:
            set_row(full, k, cross(full[(k + 1) % 3], full[(k + 2) % 3]))
    for k in range(3):
        if pbc[k]:
            normal = cross(full[(k + 1) % 3], full[(k + 2) % 3])
            set_row(reciprocal, k, divided(normal, dot(normal, full[k])))
    return reciprocal


@jit
def surroundings(radius, positions, cell, reciprocal):
    """Everything within `radius` of any site, ready for sites_within.

    Parameters
    ----------
    radius : float                   Å
    positions, cell, reciprocal :    (N, 3) Å, (3, 3) Å, (3, 3) 1/Å, see reciprocal_vectors

    Returns
    -------
    Surroundings, without a single image if there are more than MAX_IMAGES, or too many to look at
    """
    n_sites = len(positions)
    home, shift, parts = _gathered(positions, cell, reciprocal)
    box = np.empty((2, 3))  # Å, in which every image lies that can be in a sphere
    for k in range(3):
        box[0, k] = home[:, k].min() - radius * (1.0 + _SLACK)
        box[1, k] = home[:, k].max() + radius * (1.0 + _SLACK)
        reach = radius * np.sqrt((reciprocal[k] * reciprocal[k]).sum()) + _SLACK
        parts[0, k] -= reach
        parts[1, k] += reach
    point = np.empty((2 * n_sites, 3))
    label = np.empty((2 * n_sites, 4), np.int32)
    n = np.int64(0)  # no literal, or what takes it is compiled twice
    limit = MAX_IMAGES + 10 * n_sites
    visits = n_sites * (parts[1, 0] - parts[0, 0] + 1.0)
    visits *= (parts[1, 1] - parts[0, 1] + 1.0) * (parts[1, 2] - parts[0, 2] + 1.0)
    for j in range(n_sites if visits <= MAX_VISITS * limit else 0):
        point, label, n = _add_images(j, home, shift, cell, reciprocal, parts, box, point, label, n)
        if n > limit:
            n = 0
            break
    tree = grow_tree(point[:n], label[:n], FEW_IMAGES if np.any(reciprocal != 0.0) else FEW_SITES)
    own = np.zeros(n_sites, np.int64)
    for m in range(n):
        j = tree.label[m, 0]
        if tree.label[m, 1] == shift[j, 0] and tree.label[m, 2] == shift[j, 1] and tree.label[m, 3] == shift[j, 2]:
            own[j] = m
    return Surroundings(home, shift, tree, own, np.empty(n, np.int64), np.empty(n), np.empty((n, 3)), np.empty(n))


@jit
def _add_images(j, home, shift, cell, reciprocal, parts, box, point, label, n):
    """Append the images of site j whose parts and coordinates are within these limits; returns arrays and number."""
    part_a = dot(row(home, j), row(reciprocal, 0))
    part_b = dot(row(home, j), row(reciprocal, 1))
    part_c = dot(row(home, j), row(reciprocal, 2))
    for a in range(np.int64(np.ceil(parts[0, 0] - part_a)), np.int64(np.floor(parts[1, 0] - part_a)) + 1):
        for b in range(np.int64(np.ceil(parts[0, 1] - part_b)), np.int64(np.floor(parts[1, 1] - part_b)) + 1):
            for c in range(np.int64(np.ceil(parts[0, 2] - part_c)), np.int64(np.floor(parts[1, 2] - part_c)) + 1):
                x = home[j, 0] + (a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0])
                y = home[j, 1] + (a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1])
                z = home[j, 2] + (a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2])
                if x < box[0, 0] or y < box[0, 1] or z < box[0, 2] or x > box[1, 0] or y > box[1, 1] or z > box[1, 2]:
                    continue
                if n == len(point) and n > MAX_IMAGES + 10 * len(home):
                    return point, label, n + 1
                if n == len(point):
                    point = doubled(point)
                    label = doubled(label)
                set_row(point, n, (x, y, z))
                label[n, 0] = j
                label[n, 1] = a + shift[j, 0]
                label[n, 2] = b + shift[j, 1]
                label[n, 3] = c + shift[j, 2]
                n += 1
    return point, label, n


@jit
def _gathered(positions, cell, reciprocal):
    """The sites within one cell (nothing moves if they are), the cell vectors added, and the range of their parts.

    The cell begins at the lowest part, so that a molecule that is smaller than its box is never cut. Without moving,
    a site that is written far outside would need all the images in between.
    """
    n_sites = len(positions)
    home = positions.copy()
    shift = np.zeros((n_sites, 3), np.int64)
    parts = np.zeros((2, 3))
    for k in range(3):
        if row(reciprocal, k) == (0.0, 0.0, 0.0):
            continue
        parts[0, k] = np.inf
        parts[1, k] = -np.inf
        for j in range(n_sites):
            parts[0, k] = min(parts[0, k], dot(row(positions, j), row(reciprocal, k)))
        for j in range(n_sites):
            part = dot(row(positions, j), row(reciprocal, k))
            shift[j, k] = -np.int64(np.floor(part - parts[0, k]))
            parts[1, k] = max(parts[1, k], part + shift[j, k])
    for j in range(n_sites):
        for k in range(3):
            if shift[j, k] != 0:
                for axis in range(3):
                    home[j, axis] += shift[j, k] * cell[k, axis]
    return home, shift, parts


@jit
def sites_within(i, radius, around):
    """Sites and images around site i, without i itself, sorted by distance.

    Parameters
    ----------
    i : int
    radius : float                   Å, inclusive; not larger than that of the surroundings
    around : Surroundings            receives `index` (into the tree), `distance` Å, ascending, and unit `direction`

    Returns
    -------
    n : int                          how many there are; 0 where the surroundings hold no image
    """
    n = points_within(around.tree, row(around.home, i), radius, around.index, around.distance)
    k = 0
    while k < n and around.index[k] != around.own[i]:
        k += 1
    if k < n:  # the site itself goes
        n -= 1
        around.index[k] = around.index[n]
        around.distance[k] = around.distance[n]
    _sort(around.distance, around.index, n)
    for k in range(n):
        set_step(i, k, around)
    return n


@jit(inline=True)
def set_step(i, k, around):
    """Distance and direction from site i to the k-th site around it; `around.index` says which that is."""
    m = around.index[k]
    step = minus(row(around.tree.point, m), row(around.home, i))
    length = np.sqrt(dot(step, step))
    # Coincident sites are reported by the caller; until then their direction only has to be a number.
    scale = 1.0 / length if length > 0.0 else 0.0
    around.distance[k] = length
    set_row(around.direction, k, scaled(step, scale))


@jit
def sort_again(i, n, around):
    """Put n sites around site i in order of distance, after some were added at the end."""
    _sort(around.distance, around.index, n)
    for k in range(n):
        set_step(i, k, around)


@jit
def _sort(value, index, n):
    """Sort n distances, or their squares, and index with them.

    Many are first thrown into as many buckets: numbers of sites grow with the third power of the distance, so the
    buckets fill evenly and the insertion that follows has little to move.
    """
    if n > _SHORT:
        start = np.zeros(n + 2, np.int64)
        bucket = np.empty(n, np.int64)
        old_value = value[:n].copy()
        old_index = index[:n].copy()
        scale = 1.0 / max(value[:n].max(), 1e-300)
        for k in range(n):
            part = value[k] * scale
            bucket[k] = min(np.int64(n * part * np.sqrt(part)), n - 1)
            start[bucket[k] + 2] += 1
        for k in range(n):
            start[k + 2] += start[k + 1]
        for k in range(n):
            slot = start[bucket[k] + 1]
            start[bucket[k] + 1] += 1
            value[slot] = old_value[k]
            index[slot] = old_index[k]
    for k in range(1, n):
        v = value[k]
        m = index[k]
        p = k - 1
        while p >= 0 and value[p] > v:
            value[p + 1] = value[p]
            index[p + 1] = index[p]
            p -= 1
        value[p + 1] = v
        index[p + 1] = m


@jit
def doubled(array):
    """The same rows in an array (2 n, ...) of twice the length; the new rows are not set."""
    longer = np.empty((2 * array.shape[0] + 1, array.shape[1]), array.dtype)
    put_rows(longer, np.int64(0), array)
    return longer
