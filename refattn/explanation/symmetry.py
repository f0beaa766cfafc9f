"""Equivalent sites of a structure, found without the network: what must get equal scores.

Colour refinement (the one-dimensional Weisfeiler-Leman algorithm) with distances: a site's colour is at first its
element, then again and again its own colour together with the list of (colour, distance) of all sites around it,
until no class falls apart any more. Mirror images are not told apart, nor are they by the network.

Sites that a symmetry operation maps onto each other always share a class. The converse holds for the structures that
one meets; but point sets have been constructed that no distances between coloured sites tell apart (Pozdnyakov &
Ceriotti, Mach. Learn.: Sci. Technol. 3, 045020, 2022), and for such ones the classes may be too large.

Distances are not cut into bins, whose edges would separate equal ones: the sorted lists of two sites are compared
entry by entry, and are alike where no entry differs by more than the tolerance.
"""

import ase
import numpy as np

from refattn.errors import StructureError
from refattn.structures.batch import ragged_rows
from refattn.structures.voronoi.sphere import EVERYTHING, reciprocal_vectors, sites_within, surroundings

TOLERANCE = 1e-3  # Å; coarser than the rounding of a file, finer than a real difference
RADIUS = 6.0  # Å
ALL_PAIRS = 500  # sites of a structure without periods up to which all pairs are looked at


def equivalent_sites(atoms: ase.Atoms, tolerance: float = TOLERANCE, radius: float | None = None) -> np.ndarray:
    """Classes of equivalent sites.

    Parameters
    ----------
    tolerance : float, Å       distances that differ by less are the same
    radius : float, Å, optional
        How far a site looks in one round. By default everywhere in a structure without periods of at most 500 sites,
        else 6 Å: the rounds carry on what is farther. A distance within `tolerance` of the radius may be there or not.

    Returns
    -------
    (N,) int     class of each site, numbered 0, 1, ... in the order of their first sites

    Source   Weisfeiler & Leman, NTI Series 2, 9, 12-16 (1968), with distances as the labels of the pairs
    """
    ptr, nbr, distance, pad = _pairs(atoms, radius)
    colour = _numbered(np.asarray(atoms.numbers))
    while True:
        refined = np.empty(len(colour), dtype=np.int64)
        n_classes = 0
        nbr_colour = colour[nbr]
        for members in np.split(np.argsort(colour, kind="stable"), np.cumsum(np.bincount(colour))[:-1]):
            group = np.zeros(len(members), dtype=np.int64)
            if len(members) > 1:
                group = _groups(*_lists(members, ptr, nbr_colour, distance), pad, tolerance)
            refined[members] = n_classes + group
            n_classes += group.max(initial=-1) + 1
        if n_classes == len(np.unique(colour)):
            return _numbered(colour)
        colour = refined


def class_spread(score: np.ndarray, classes: np.ndarray) -> float:
    """Largest difference of a score between sites of one class, relative to its largest magnitude.

    Parameters
    ----------
    score : (N,) or (N, D) float
    classes : (N,) int

    Returns
    -------
    float; 0 for a score that is zero everywhere, NaN where a score is
    """
    largest = np.abs(score).max(initial=0)
    spread = max((np.ptp(score[classes == c], axis=0).max() for c in np.unique(classes)), default=0.0)
    return float(spread / largest) if largest != 0 else 0.0


def symmetrised(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Values averaged over classes of equivalent sites.

    An orbital of a degenerate set is one choice among many; the average over equivalent sites does not hang on the
    choice, and leaves the populations of an orbital that is not degenerate as they are. Of a score it takes away what
    the rounding of the coordinates makes of equal numbers, which would be ranked.

    Parameters
    ----------
    values : (N,) float
    classes : (N,) int

    Returns
    -------
    (N,) float64
    """
    mean = np.bincount(classes, weights=values) / np.bincount(classes)
    return mean[classes]


def _numbered(labels):
    """(N,) int: the labels as 0, 1, ... in the order of their first appearance."""
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]


def _pairs(atoms, radius):
    """Pairs within the radius, nearest first: (N + 1,) pointers, (P,) other site, (P,) Å; and an Å beyond all."""
    if len(atoms) == 0:
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0), 1.0
    if radius is None:
        radius = EVERYTHING if not atoms.pbc.any() and len(atoms) <= ALL_PAIRS else RADIUS
    positions = np.array(atoms.positions, dtype=float)
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)  # without a period a cell vector may hold anything
    reciprocal = reciprocal_vectors(cell, np.asarray(atoms.pbc))
    around = surroundings(float(radius), positions, cell, reciprocal)
    if not len(around.distance):
        raise StructureError("the structure has too many periodic images to compare its sites; give a larger cell")
    counts = [0]
    nbr = [np.zeros(0, dtype=np.int64)]
    distance = [np.zeros(0)]
    for i in range(len(atoms)):
        n = sites_within(i, float(radius), around)
        counts.append(n)
        nbr.append(around.tree.label[around.index[:n], 0].astype(np.int64))
        distance.append(around.distance[:n].copy())  # the next site overwrites it
    ptr = np.cumsum(counts)
    nbr = np.concatenate(nbr)
    distance = np.concatenate(distance)
    return ptr, nbr, distance, min(radius, distance.max(initial=0) + 1)


def _lists(members, ptr, nbr_colour, distance):
    """What the sites `members` (n,) see, sorted: (n + 1,) pointers, (P,) colours, (P,) Å by colour and distance."""
    own_ptr, pairs = ragged_rows(ptr, members)
    row = np.repeat(np.arange(len(members)), np.diff(own_ptr))
    order = np.lexsort((nbr_colour[pairs], row))  # stable: the pairs of a site come by distance
    return own_ptr, nbr_colour[pairs][order], distance[pairs][order]


def _groups(ptr, around, distance, pad, tolerance):
    """(n,) int: the groups 0, 1, ... that sites of one class fall into, by what they see (see _lists)."""
    n_sites = len(ptr) - 1
    group = np.full(n_sites, -1)
    lists = _as_matrix(ptr, around, distance, pad)
    # Only sites are compared that are alike in the column that differs most.
    column = lists[:, np.ptp(lists, axis=0).argmax()] if lists.size else np.zeros(n_sites)
    order = np.argsort(column, kind="stable")
    n_groups = 0
    end = np.searchsorted(column[order], column[order] + 2 * tolerance, side="right")
    for n, leader in enumerate(order):
        if group[leader] < 0:
            near = order[n : end[n]]
            near = near[group[near] < 0]
            group[near[(np.abs(lists[near] - lists[leader]) <= tolerance).all(axis=1)]] = n_groups
            n_groups += 1
    return group


def _as_matrix(ptr, around, distance, pad):
    """(n, width) Å: columns for the first, second, ... site of each colour, by distance; `pad` where it has fewer."""
    n_rows = len(ptr) - 1
    colours, around = np.unique(around, return_inverse=True)
    row = np.repeat(np.arange(n_rows), np.diff(ptr))
    count = np.zeros((n_rows, len(colours)), dtype=np.int64)
    np.add.at(count, (row, around), 1)
    first_column = np.concatenate([[0], np.cumsum(count.max(axis=0))]).astype(np.int64)
    start = np.cumsum(count.reshape(-1)) - count.reshape(-1)
    rank = np.arange(len(row)) - start[row * len(colours) + around]
    lists = np.full((n_rows, first_column[-1]), float(pad))
    lists[row, first_column[around] + rank] = distance
    return lists
