"""Points in a tree of boxes: which lie within a sphere, which cut a cell, how high they reach, each in O(log n).

A tree rather than a grid of cells, because it does not mind how the points are spread: a long chain, a hollow cage or
two distant clusters cost no more than a crystal. It is a complete binary tree: node 1 holds everything, the children
of node k are 2 k and 2 k + 1, and the points are stored in the order of the leaves. So a node needs no more than its
box, and a walk no stack. Few points are a tree of one leaf.

Source   median splits along the widest axis: Bentley, Commun. ACM 18, 509 (1975)
"""

from collections import namedtuple

import numpy as np

from refattn.common.jit import jit
from refattn.structures.voronoi.vectors import dot, minus, row

LEAF = 16  # points in a leaf, at most
# point (M, 3) float Å, label (M, 4) int32 in the same order; box (2 n_leaves, 6) Å: low and high corner of each node
Tree = namedtuple("Tree", "point label box levels")


@jit
def grow_tree(point, label, few):
    """The tree over points (M, 3), Å, with labels (M, 4); so few points remain one leaf."""
    n = len(point)
    levels = 0
    if n > few:
        while n >> levels > LEAF:
            levels += 1
    order = np.arange(n)
    for level in range(levels):
        for k in range(1 << level):
            _split(point, order, (n * k) >> level, (n * (k + 1)) >> level, (n * (2 * k + 1)) >> (level + 1))
    if levels > 0:
        point = point[order]
        label = label[order]
    return Tree(point, label, _boxes(point, levels), levels)


@jit
def _split(point, order, first, end, middle):
    """Reorder order[first:end] so that those before `middle` are not above those after it, along the widest axis."""
    axis = 0
    widest = -1.0
    for k in range(3):
        low, high = np.inf, -np.inf
        for m in range(first, end):
            low = min(low, point[order[m], k])
            high = max(high, point[order[m], k])
        if high - low > widest:
            axis = k
            widest = high - low
    last = end - 1
    draw = 1
    while first < last:  # Hoare's selection; a pivot from a fixed place would be the worst one for two sorted runs
        draw = (draw * 1103515245 + 12345) % 2147483648
        pivot = point[order[first + draw % (last - first + 1)], axis]
        a = first
        b = last
        while a <= b:
            while point[order[a], axis] < pivot:
                a += 1
            while point[order[b], axis] > pivot:
                b -= 1
            if a <= b:
                order[a], order[b] = order[b], order[a]
                a += 1
                b -= 1
        if middle <= b:
            last = b
        elif middle >= a:
            first = a
        else:
            return


@jit
def _boxes(point, levels):
    n = len(point)
    n_leaves = 1 << levels
    box = np.empty((2 * n_leaves, 6))
    box[:, :3] = np.inf
    box[:, 3:] = -np.inf
    for leaf in range(n_leaves):
        node = n_leaves + leaf
        for m in range((n * leaf) >> levels, (n * (leaf + 1)) >> levels):
            for k in range(3):
                box[node, k] = min(box[node, k], point[m, k])
                box[node, 3 + k] = max(box[node, 3 + k], point[m, k])
    for node in range(n_leaves - 1, 0, -1):
        for k in range(3):
            box[node, k] = min(box[2 * node, k], box[2 * node + 1, k])
            box[node, 3 + k] = max(box[2 * node, 3 + k], box[2 * node + 1, 3 + k])
    return box


@jit(inline=True)
def _next_node(node):
    """The node after `node` and its descendants in a walk from the left; 0 at the end."""
    while node & 1:
        node >>= 1
    return node + 1 if node > 0 else 0


@jit
def points_within(tree, centre, radius, found, square):
    """Points not farther than radius from the centre, Å: their numbers and squared distances; returns how many."""
    point, _, box, levels = tree
    n_leaves = 1 << levels
    x, y, z = centre
    n = 0
    node = 1
    while node > 0:
        gap_x = max(box[node, 0] - x, x - box[node, 3], 0.0)
        gap_y = max(box[node, 1] - y, y - box[node, 4], 0.0)
        gap_z = max(box[node, 2] - z, z - box[node, 5], 0.0)
        if gap_x * gap_x + gap_y * gap_y + gap_z * gap_z > radius * radius:
            node = _next_node(node)
        elif node < n_leaves:
            node *= 2
        else:
            leaf = node - n_leaves
            for m in range((len(point) * leaf) >> levels, (len(point) * (leaf + 1)) >> levels):
                step = minus(row(point, m), centre)
                found[n] = m
                square[n] = dot(step, step)
                n += square[n] <= radius * radius
            node = _next_node(node)
    return n


@jit
def deepest_cut(tree, own, u, h):
    """The point whose bisector cuts deepest in the direction u from point `own`; -1 if none cuts nearer than 1 / h.

    A point at displacement d ends the ray at |d|^2 / (2 u . d), so it cuts if q = h makes q |d|^2 - 2 u . d negative:
    that is, if it lies in the sphere around the corner u / h that passes through the site (for h = 0, in a half-space).
    Whenever a point cuts, q rises to its 2 u . d / |d|^2. The walk begins at the leaf of `own` and goes on with the
    sister of every ancestor, so that near points raise q first.
    """
    n_leaves = 1 << tree.levels
    root = n_leaves + ((own + 1) * n_leaves - 1) // len(tree.point)
    deepest, q = _deepest_below(tree, root, own, u, np.int64(-1), h)  # no literal, or what takes it is compiled twice
    while root > 1:
        deepest, q = _deepest_below(tree, root ^ 1, own, u, deepest, q)
        root >>= 1
    return deepest


@jit
def _deepest_below(tree, root, own, u, deepest, q):
    """deepest_cut among the points of one node; returns deepest and q."""
    point, _, box, levels = tree
    n_leaves = 1 << levels
    home = row(point, own)
    node = root
    while True:
        least = _least(q, u[0], box[node, 0] - home[0], box[node, 3] - home[0])
        least += _least(q, u[1], box[node, 1] - home[1], box[node, 4] - home[1])
        least += _least(q, u[2], box[node, 2] - home[2], box[node, 5] - home[2])
        if least < 0.0 and node < n_leaves:
            node *= 2
            continue
        if least < 0.0:
            leaf = node - n_leaves
            for m in range((len(point) * leaf) >> levels, (len(point) * (leaf + 1)) >> levels):
                step = minus(row(point, m), home)
                square = dot(step, step)
                along = dot(u, step)
                if 2.0 * along > q * square:
                    deepest = m
                    q = 2.0 * along / square
        while node & 1 and node != root:
            node >>= 1
        if node == root:
            return deepest, q
        node += 1


@jit(inline=True)
def _least(q, u, low, high):
    """Smallest q t^2 - 2 u t for low <= t <= high."""
    t = high if u >= q * high else (low if u <= q * low else u / q)
    return t * (q * t - 2.0 * u)


@jit
def highest(tree, u):
    """Largest u . x over all points, Å."""
    point, _, box, levels = tree
    n_leaves = 1 << levels
    ux, uy, uz = u
    height = -np.inf
    node = 1
    while node > 0:
        bound = ux * (box[node, 3] if ux > 0.0 else box[node, 0])
        bound += uy * (box[node, 4] if uy > 0.0 else box[node, 1])
        bound += uz * (box[node, 5] if uz > 0.0 else box[node, 2])
        if bound <= height:
            node = _next_node(node)
        elif node < n_leaves:
            node *= 2
        else:
            leaf = node - n_leaves
            for m in range((len(point) * leaf) >> levels, (len(point) * (leaf + 1)) >> levels):
                height = max(height, dot(u, row(point, m)))
            node = _next_node(node)
    return height
