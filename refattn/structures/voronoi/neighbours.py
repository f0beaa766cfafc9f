"""Voronoi neighbours: which sites share a facet of their Voronoi cells, and the solid angle of that facet.

A structure is checked, handed to one of two rules (isolated_rule.py, upstream_rule.py) for the facets of its cells, and
the facets that pass the thresholds become edges.
"""

import functools

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from refattn.common.jit import jit
from refattn.config import GraphConfig
from refattn.errors import StructureError
from refattn.structures.voronoi import isolated_rule, upstream_rule
from refattn.structures.voronoi.sphere import reciprocal_vectors
from refattn.structures.voronoi.vectors import cross, divided, dot, row, set_row

Z_MAX = 118
# Thresholds of the isolated rule are passed by values this far below them. Facets that symmetry makes equal differ by
# 1e-13 sr from rounding, and a threshold that meets them exactly must keep all of them or none.
SLACK = 1e-9
FARTHEST = 1e8  # Å; float64 resolves 1e-8 Å there; far beyond it squares and numbers of periods overflow
TOO_THIN = 5  # continues the codes of the rules
MIN_SINE = 1e-6  # 1; periodic cell vectors that span less than this times the product of their lengths are dependent
FAULTS = (
    "",
    f"atom {{i}} has atomic number {{z}}; use 1 to {Z_MAX}",
    "the position of atom {i} is not finite; correct or remove it",
    f"atom {{i}} is more than {FARTHEST:g} Å away; correct its position",
    f"the cell is not finite or longer than {FARTHEST:g} Å; correct it, or set pbc to false",
    "the cell is singular (a periodic cell vector is zero, or they are linearly dependent); give a proper cell, or set "
    "pbc to false where there is no period",
    f"atom 0 coincides with its own image (closer than {isolated_rule.CLOSEST} Å); correct the cell",
)


def voronoi_neighbours(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, config: GraphConfig, name: str
) -> tuple[np.ndarray, ...]:
    """Edges from every site to the neighbours that its Voronoi cell shares a large enough facet with.

    An edge is kept when omega >= omega_min, omega / omega_max >= weight_min and r <= r_max, all inclusive (isolated:
    with a slack of 1e-9). The neighbour stands at positions[nbr] + image @ cell, except that for a molecule under the
    upstream rule `image` counts sides of the rule's own box (upstream_rule.upstream_box).

    Parameters
    ----------
    numbers : (N,) int              atomic numbers, 1 to 118
    positions : (N, 3) float        Å, inside or outside the cell
    cell : (3, 3) float             cell vectors as rows, Å; rows without a period are not used
    pbc : (3,) bool                 upstream: any period makes all three directions periodic, as in the authors' code
    name : str                      of the structure, for error messages

    Returns
    -------
    edge_ptr : (N + 1,) int32       edges of site i are edge_ptr[i]:edge_ptr[i + 1], by distance (to 1e-6 Å), nbr, image
    nbr : (E,) int32
    image : (E, 3) int8
    r : (E,) float64, Å
    omega : (E,) float64, sr
    omega_max : (N,) float64, sr    largest facet that the rule counts, before the thresholds; 0 for a lone site

    Raises StructureError, naming the structure, for one that has no graph: empty, not finite, an impossible atomic
    number, atoms nearer than config.min_distance times the sum of their covalent radii or 1e-3 Å (images included), a
    singular cell, an image beyond int8.
    """
    slack = SLACK if config.rule == "isolated" else 0.0
    thresholds = config.omega_min - slack, config.weight_min - slack, config.r_max + slack
    *edges, farthest = _select(*voronoi_facets(numbers, positions, cell, pbc, config, name), *thresholds)
    if farthest > 127:
        raise StructureError(
            f"{name}: a neighbour is {farthest} cells away, more than the 127 that a graph can hold; "
            "wrap the positions into the cell"
        )
    return tuple(edges)


def voronoi_facets(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, config: GraphConfig, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All facets that config.rule counts, before the thresholds; parameters and errors as in voronoi_neighbours.

    Under the isolated rule these are the facets of the true Voronoi cells, open ones included, down to 1e-10 sr. Those
    of a site sum to 4 pi, less the directions in which its cell has no end (none, if anything is periodic). Under the
    upstream rule they are the closed facets among the sites within its cutoff.

    The rules are compiled one by one, so that a run waits for the one that it uses.

    Returns
    -------
    ptr : (N + 1,) int64             facets of site i are ptr[i]:ptr[i + 1], by distance
    where : (F, 4) int64             neighbour site and its image, in cell vectors
    size : (F, 2) float64            distance Å, solid angle sr
    """
    positions, cell, pbc, upstream = _checked(numbers, positions, cell, pbc, config, name)
    room = _room_of_elements(config.min_distance)[numbers]
    ptr, where, size, problem = (_upstream if upstream else _isolated)(positions, cell, pbc, room)
    if problem[0] != isolated_rule.COMPLETE:
        raise StructureError(f"{name}: {_explain(*problem.tolist(), numbers, size, config.min_distance)}")
    return ptr, where, size


@functools.lru_cache
def _room_of_elements(min_distance):
    """(119,) Å by atomic number; two atoms nearer than their rooms together are too near."""
    return min_distance * covalent_radii


@jit
def _isolated(positions, cell, pbc, room):
    """isolated_rule.isolated_cells for checked input."""
    cell = cell.copy()
    across = np.zeros((3, 3))
    for k in range(3):
        if not pbc[k]:
            cell[k] = 0.0  # it may hold anything
    reciprocal = reciprocal_vectors(cell, pbc)
    for k in range(3):  # (cell^T reciprocal)_km projects onto the span of the periodic vectors
        for m in range(0 if pbc.all() else 3):
            along = cell[0, k] * reciprocal[0, m] + cell[1, k] * reciprocal[1, m] + cell[2, k] * reciprocal[2, m]
            across[k, m] = (1.0 if k == m else 0.0) - along
    if _images(isolated_rule.FIRST_RADIUS, reciprocal) > isolated_rule.MAX_SEEN:
        return _too_thin(isolated_rule.FIRST_RADIUS, reciprocal)
    return isolated_rule.isolated_cells(positions, cell, reciprocal, across, room)


@jit
def _upstream(positions, cell, pbc, room):
    """upstream_rule.upstream_cells for checked input."""
    if not pbc.any():
        positions, cell = upstream_rule.upstream_box(positions)
    reciprocal = reciprocal_vectors(cell, np.ones(3, np.bool_))
    if _images(upstream_rule.CUTOFF, reciprocal) > isolated_rule.MAX_SEEN:
        return _too_thin(upstream_rule.CUTOFF, reciprocal)
    diagonal = upstream_rule.longest_diagonal(cell)
    return upstream_rule.upstream_cells(positions, cell, reciprocal, diagonal, room)


@jit
def _images(radius, reciprocal):
    """About how many images of a site lie within the radius."""
    images = 1.0
    for k in range(3):
        images *= 1.0 + 2.0 * radius * np.sqrt((reciprocal[k] * reciprocal[k]).sum())
    return images


@jit
def _too_thin(radius, reciprocal):
    """What the rules return, for a cell whose images would fill the memory."""
    problem = np.array([TOO_THIN, np.int64(min(_images(radius, reciprocal), 1e18)), np.int64(radius)])
    return np.zeros(1, np.int64), np.empty((0, 4), np.int64), np.empty((0, 2)), problem


@jit
def _select(ptr, where, size, omega_min, weight_min, r_max):
    """The edges of voronoi_neighbours, and the largest number of cells to a neighbour."""
    n_sites = len(ptr) - 1
    edge_ptr = np.zeros(n_sites + 1, np.int32)
    omega_max = np.zeros(n_sites)
    kept = np.empty(len(where), np.int64)
    n = 0
    for i in range(n_sites):
        for f in range(ptr[i], ptr[i + 1]):
            omega_max[i] = max(omega_max[i], size[f, 1])
        for f in range(ptr[i], ptr[i + 1]):
            if size[f, 1] >= omega_min and size[f, 1] >= weight_min * omega_max[i] and size[f, 0] <= r_max:
                kept[n] = f
                n += 1
                # facets come by distance, so that this insertion only moves those of equal distance
                k = n - 1
                while k > edge_ptr[i] and _key(kept[k], where, size) < _key(kept[k - 1], where, size):
                    kept[k], kept[k - 1] = kept[k - 1], kept[k]
                    k -= 1
        edge_ptr[i + 1] = n
    nbr = np.empty(n, np.int32)
    image = np.empty((n, 3), np.int8)
    r = np.empty(n)
    omega = np.empty(n)
    farthest = 0
    for e in range(n):
        f = kept[e]
        nbr[e] = where[f, 0]
        r[e] = size[f, 0]
        omega[e] = size[f, 1]
        for k in range(3):
            farthest = max(farthest, abs(where[f, k + 1]))
            image[e, k] = where[f, k + 1]
    return edge_ptr, nbr, image, r, omega, omega_max, farthest


@jit
def _key(f, where, size):
    return np.rint(size[f, 0] * 1e6), where[f, 0], where[f, 1], where[f, 2], where[f, 3]


def _checked(numbers, positions, cell, pbc, config, name):
    """Contiguous float64 positions and cell, boolean pbc (3,), whether the rule is `upstream`; or an error."""
    upstream = config.rule == "upstream"
    numbers = np.asarray(numbers)
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    pbc = np.asarray(pbc, dtype=np.bool_)
    if pbc.ndim == 0 or (upstream and pbc.any()):
        pbc = np.full(3, pbc.any())
    cell = np.ascontiguousarray(cell, dtype=np.float64)
    if len(numbers) == 0:
        raise StructureError(f"{name}: the structure has no atoms; remove it from the input")
    if positions.shape != (len(numbers), 3):
        raise StructureError(
            f"{name}: {len(numbers)} atomic numbers but positions of shape {positions.shape}; give x, y, z of each"
        )
    fault, i = _fault(numbers, positions, cell, pbc)
    if fault:
        raise StructureError(f"{name}: {FAULTS[fault].format(i=i, z=numbers[i])}")
    if upstream and pbc[0]:
        positions = upstream_rule.upstream_crystal(positions, cell)
    return positions, cell, pbc, upstream


@jit
def _fault(numbers, positions, cell, pbc):
    """What is wrong with a structure, by its place in FAULTS, and the atom concerned; 0, 0 if nothing is."""
    n_sites = len(numbers)
    for i in range(n_sites):
        if numbers[i] < 1 or numbers[i] > Z_MAX:
            return 1, i
    for i in range(n_sites):
        x, y, z = row(positions, i)
        if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
            return 2, i
    for i in range(n_sites):
        x, y, z = row(positions, i)
        if max(abs(x), abs(y), abs(z)) > FARTHEST:
            return 3, i
    unit = np.zeros((3, 3))
    shortest = np.inf
    for k in range(3):
        if pbc[k]:
            if not (np.abs(cell[k]) <= FARTHEST).all():  # NaN neither
                return 4, 0
            length = np.sqrt(dot(cell[k], cell[k]))
            shortest = min(shortest, length)
            set_row(unit, k, divided(row(cell, k), length))
    if shortest == 0.0 or _spanned(unit, pbc) < MIN_SINE:
        return 5, 0
    return (6 if shortest < isolated_rule.CLOSEST else 0), 0


@jit
def _spanned(unit, pbc):
    """Area or volume that two or three periodic unit vectors span; 1 for fewer."""
    n_periods = pbc[0] + pbc[1] + pbc[2]
    volume = 1.0
    for k in range(3):
        product = cross(unit[k], unit[(k + 1) % 3])
        if n_periods == 2 and pbc[k] and pbc[(k + 1) % 3]:
            volume = np.sqrt(dot(product, product))
        elif n_periods == 3:
            volume = abs(dot(product, unit[(k + 2) % 3]))
    return volume


def _explain(code, i, j, numbers, size, min_distance):
    """What went wrong in the cells, and what to do, as the rest of a sentence."""
    if code == isolated_rule.TOO_NEAR:
        first, second = sorted((i, j))
        pair = f"atoms {first} ({chemical_symbols[numbers[first]]}) and {second} ({chemical_symbols[numbers[second]]})"
        pair = f"atom {i} ({chemical_symbols[numbers[i]]}) and its own image" if i == j else pair
        radii = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
        return (
            f"{pair} are {size[0, 0]:.3f} Å apart, less than {min_distance:g} of their covalent radii together "
            f"({radii:.2f} Å); correct the structure, or choose a smaller --min-distance"
        )
    if code == TOO_THIN:
        return (
            f"about {i:.0e} periodic images lie within {j} Å of a site, because the cell is too small or too thin; "
            "give it in Å, and set pbc to false across a vacuum"
        )
    if code == isolated_rule.COINCIDENT:
        if i == j:
            return f"atom {i} coincides with its own image (closer than {isolated_rule.CLOSEST} Å); correct the cell"
        return f"atoms {min(i, j)} and {max(i, j)} coincide (closer than {isolated_rule.CLOSEST} Å); remove one of them"
    if code == isolated_rule.TOO_MANY:
        return (
            f"the Voronoi cell of atom {i} needs more than {isolated_rule.MAX_SEEN} periodic images, because the cell "
            "is too small for the atoms, or too unequal, or they are too far apart; give it in Å, a vacuum no period"
        )
    return (
        f"the authors' rule finds no neighbours of atom {i} within {upstream_rule.CUTOFF_MAX:.0f} Å; "
        'use the rule "isolated" for this structure'
    )
