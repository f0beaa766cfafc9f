"""Facets of all sites in one list: every rule fills `omega` for the sites around a site, and they are added here."""

import numpy as np

from refattn.common.jit import jit
from refattn.structures.voronoi.sphere import doubled
from refattn.structures.voronoi.vectors import put_rows

NEGLIGIBLE = 1e-10  # sr; smaller facets are dropped, and a cell whose facets miss less than this of 4 pi is complete


@jit
def empty_facets(n_sites):
    """where (F, 4) int64: neighbour site and image; size (F, 2): distance Å, solid angle sr. Room for the first."""
    return np.empty((16 * n_sites, 4), np.int64), np.empty((16 * n_sites, 2))


@jit
def add_facets(i, n_seen, around, where, size, n):
    """Append the facets of site i to the n facets of others, by distance; returns where, size, and their number."""
    first = n
    for k in range(n_seen):
        if around.omega[k] <= NEGLIGIBLE:
            continue
        if n == len(where):
            where = doubled(where)
            size = doubled(size)
        f = n
        while f > first and size[f - 1, 0] > around.distance[k]:  # for sites that were looked up after the sphere
            put_rows(where, f, where[f - 1 : f])
            put_rows(size, f, size[f - 1 : f])
            f -= 1
        image = around.tree.label[around.index[k]]
        where[f, 0] = image[0]
        for axis in range(3):
            where[f, 1 + axis] = image[1 + axis] - around.shift[i, axis]
        size[f, 0] = around.distance[k]
        size[f, 1] = around.omega[k]
        n += 1
    return where, size, n


@jit
def in_order(start, count, where, size):
    """Pointers (N + 1,) and facets in the order of the sites; those of site i are count[i] rows from start[i]."""
    n_sites = len(count)
    ptr = np.zeros(n_sites + 1, np.int64)
    sorted_already = True
    for i in range(n_sites):
        ptr[i + 1] = ptr[i] + count[i]
        sorted_already = sorted_already and start[i] == ptr[i]
    if sorted_already:
        return ptr, where[: ptr[n_sites]], size[: ptr[n_sites]]
    new_where = np.empty((ptr[n_sites], 4), np.int64)
    new_size = np.empty((ptr[n_sites], 2))
    for i in range(n_sites):
        put_rows(new_where, ptr[i], where[start[i] : start[i] + count[i]])
        put_rows(new_size, ptr[i], size[start[i] : start[i] + count[i]])
    return ptr, new_where, new_size
