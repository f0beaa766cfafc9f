"""Voronoi cells of random structures and exact lattices against Qhull, and every site against a plain search.

test_voronoi.py has the rules, the errors and single cells; here are many structures, large ones, and the parts that
make the neighbours fast: the tree of sites, the hull, and the fall back from hulls to clipping.
"""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, graphene
from scipy.spatial import SphericalVoronoi, Voronoi, cKDTree
from scipy.spatial.transform import Rotation
from voronoi_cells import facets_of

from refattn.structures.voronoi import hull, isolated_rule, sphere, tree
from refattn.structures.voronoi.clipping import clip_facet, cutting_room, solid_angle

pytestmark = pytest.mark.indices
CLOSURE = 1e-9  # sr, what the facets of a closed cell may lack of 4 pi
CLIPPED = 1e-9  # sr, corners computed in another order
SYMMETRY = 1e-9  # sr, omega_ij against omega_ji
QHULL = 1e-10  # sr; the worst of 12,412 facets of random crystals and of all lattices here is 1.3e-14


def random_structure(seed):
    """A crystal, or one time in five a slab, wire or cluster, of 2 to 12 sites in a random skewed cell."""
    rng = np.random.default_rng(seed)
    pbc = {0: (1, 1, 0), 1: (1, 0, 0), 2: (0, 0, 0)}.get(seed % 15, (1, 1, 1))
    while True:
        n, cell = rng.integers(2, 13), np.eye(3) * rng.uniform(2.5, 6.0) + rng.normal(scale=1.2, size=(3, 3))
        if abs(np.linalg.det(cell)) > 8:
            return Atoms(numbers=[6] * n, positions=rng.uniform(-1.0, 1.0, (n, 3)) @ cell, cell=cell, pbc=pbc)


def plain_search(atoms, i, radius):
    """Distances, sites and images around site i, image by image."""
    inverse = np.linalg.pinv(atoms.cell.array[atoms.pbc]).T if atoms.pbc.any() else np.zeros((0, 3))
    spread = np.ptp(atoms.positions, axis=0)
    reach = np.zeros(3, int)
    reach[atoms.pbc] = np.ceil((radius + np.linalg.norm(spread)) * np.linalg.norm(inverse, axis=1))
    images = np.array(list(itertools.product(*(range(-m, m + 1) for m in reach))))
    step = atoms.positions[None] + (images @ atoms.cell.array)[:, None] - atoms.positions[i]
    distance = np.linalg.norm(step, axis=2)
    image, site = np.nonzero(distance <= radius)
    own = (site == i) & (images[image] == 0).all(axis=1)
    image, site = image[~own], site[~own]
    return distance[image, site], site, images[image]


def qhull_cell(atoms, i):
    """{(site, image): solid angle} of the cell of site i of a crystal."""
    radius, farthest = 5.0, np.inf
    while 2.0 * farthest > radius:  # else no site outside the sphere can cut
        radius *= 1.4
        _, site, image = plain_search(atoms, i, radius)
        points = np.concatenate([atoms.positions[[i]], atoms.positions[site] + image @ atoms.cell.array])
        tessellation = Voronoi(points)
        region = tessellation.regions[tessellation.point_region[0]]
        if -1 not in region:
            farthest = np.linalg.norm(tessellation.vertices[region] - points[0], axis=1).max()
    angles = {}
    for (a, b), corners in zip(tessellation.ridge_points, tessellation.ridge_vertices, strict=True):
        if 0 in (a, b):
            unit = tessellation.vertices[corners] - points[0]
            unit /= np.linalg.norm(unit, axis=1)[:, None]
            u, v, w = unit[0], unit[1:-1], unit[2:]
            half = np.arctan2(np.abs(np.cross(v, w) @ u), 1 + v @ u + w @ u + (v * w).sum(axis=1))
            angles[int(site[a + b - 1]), *image[a + b - 1].tolist()] = 2 * half.sum()
    return angles


def assert_cell_equals_qhull(atoms, facets, i):
    expected, rows = qhull_cell(atoms, i), slice(*facets.ptr[i : i + 2])
    keys = np.column_stack([facets.nbr[rows], facets.image[rows]]).tolist()
    found = dict(zip(map(tuple, keys), facets.omega[rows], strict=True))
    for key in expected | found:
        assert found.get(key, 0.0) == pytest.approx(expected.get(key, 0.0), abs=QHULL)


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_structures_equal_qhull(block):
    """One site of each; the open cells of clusters, wires and slabs are in test_voronoi.py."""
    for seed in range(100 * block, 100 * block + 100):
        atoms = random_structure(seed)
        facets = facets_of(atoms)
        if atoms.pbc.all():
            assert_cell_equals_qhull(atoms, facets, seed % len(atoms))
        assert_closed_and_symmetric(facets, atoms.pbc.any())


def assert_closed_and_symmetric(facets, periodic):
    """A facet is one polygon for both sites, mirrored: area, distance and solid angle are equal, images opposite."""
    totals = np.bincount(facets.site, facets.omega, len(facets.ptr) - 1)
    assert totals.max() < 4 * np.pi + CLOSURE
    if periodic:
        np.testing.assert_allclose(totals, 4 * np.pi, rtol=0, atol=CLOSURE)
    keys = np.column_stack([facets.site, facets.nbr, facets.image])
    there = {tuple(key): n for n, key in enumerate(keys.tolist())}
    for n, (i, j, a, b, c) in enumerate(keys.tolist()):
        back = there.get((j, i, -a, -b, -c))
        assert abs((0.0 if back is None else facets.omega[back]) - facets.omega[n]) < SYMMETRY
        assert back is None or abs(facets.r[back] - facets.r[n]) < SYMMETRY


LATTICES = {
    "sc": bulk("Po", "sc", a=3.3),
    "fcc": bulk("Cu", "fcc", a=3.6),
    "bcc": bulk("Fe", "bcc", a=2.87),
    "hcp": bulk("Mg", "hcp", a=3.2, c=3.2 * np.sqrt(8 / 3)),
    "diamond": bulk("Si", "diamond", a=5.43),
    "NaCl": bulk("NaCl", "rocksalt", a=5.6),
    "CsCl": bulk("CsCl", "cesiumchloride", a=4.1),
}


@pytest.mark.parametrize("rule", ["isolated", "upstream"])
@pytest.mark.parametrize("name", LATTICES)
def test_lattices_equal_qhull_in_every_cell_and_orientation(name, rule):
    for repeat, seed in [((1, 1, 1), 0), ((2, 1, 3), 1), ((2, 2, 2), 2)]:
        atoms = LATTICES[name] * repeat
        turn = Rotation.random(random_state=seed)
        atoms.positions, atoms.cell = turn.apply(atoms.positions), turn.apply(atoms.cell.array)
        facets = facets_of(atoms, rule=rule)
        if rule == "isolated":
            assert_closed_and_symmetric(facets, True)
            assert_cell_equals_qhull(atoms, facets, len(atoms) - 1)
        else:  # coordinates are rounded to float32, which moves corners, not the total
            totals = np.bincount(facets.site, facets.omega)
            np.testing.assert_allclose(totals, 4 * np.pi, rtol=0, atol=CLOSURE)


def test_a_cage_sees_its_sphere():
    """Sites on a sphere and one at its centre, whose cell has the areas of the sphere's own Voronoi diagram."""
    points = Rotation.random(200, random_state=3).apply([9.0, 0, 0])
    facets = facets_of(Atoms(numbers=[6] * 201, positions=np.concatenate([[(0, 0, 0)], points])))
    areas = SphericalVoronoi(points / 9.0).calculate_areas()
    assert len(areas) > hull.SLOTS  # too many for a hull: this is the fall back to clipping
    omega = np.zeros(201)
    omega[facets.nbr[: facets.ptr[1]]] = facets.omega[: facets.ptr[1]]
    np.testing.assert_allclose(omega[1:], areas, rtol=0, atol=CLOSURE)


def clipped(positions):
    """(N, N) solid angles with no search and no hull: every facet is cut by the bisectors of all other sites."""
    n = len(positions)
    omega, room = np.zeros((n, n)), cutting_room(n)
    for i in range(n):
        others = np.delete(np.arange(n), i)
        step = positions[others] - positions[i]
        distance = np.linalg.norm(step, axis=1)
        order = np.argsort(distance)
        others, distance, direction = others[order], distance[order], step[order] / distance[order, None]
        for j in range(n - 1):
            n_corners, _, _ = clip_facet(j, distance, direction, *room)
            if n_corners:
                omega[i, others[j]] = solid_angle(tuple(direction[j]), room[0], n_corners)
    return omega


@pytest.mark.parametrize("name", ["chain", "flake", "bent flake", "cube"])
def test_large_clusters_equal_clipping_by_every_site(name):
    """More than isolated_rule.SMALL sites, so that the tree is asked for what the first sphere does not hold."""
    atoms = {
        "chain": Atoms(numbers=[6] * 150, positions=np.arange(150)[:, None] * [0.8, 0.9, 0.3]),
        "flake": graphene(size=(9, 9, 1)),
        "bent flake": graphene(size=(9, 9, 1)),
        "cube": bulk("Si", cubic=True) * (3, 3, 3),
    }[name]
    atoms.pbc = False
    assert len(atoms) > isolated_rule.SMALL
    if name == "bent flake":
        noise = np.random.default_rng(0).normal(0, 0.05, len(atoms))
        atoms.positions[:, 2] = 0.01 * ((atoms.positions[:, :2] - 10.0) ** 2).sum(axis=1) + noise
    facets, found = facets_of(atoms), np.zeros((len(atoms), len(atoms)))
    found[facets.site, facets.nbr] = facets.omega
    np.testing.assert_allclose(found, clipped(atoms.positions), rtol=0, atol=CLIPPED)


def test_facets_far_from_their_neighbour_equal_clipping():
    """Small open molecules: facets that end far from the line to their neighbour, on the rim of what is seen.

    In gdb_20713 of QM9 (CC0) the angles summed for two such facets of 0.009 sr are beyond half a turn.
    """
    molecule = [
        (-0.0346, 1.498, -0.0174), (-0.0039, -0.0056, 0.0243), (-0.1064, -0.636, -1.1472),
        (-0.0883, -1.9669, -1.2035), (0.0327, -2.6909, -0.0892), (0.0425, -4.186, -0.2577),
        (0.1444, -2.0855, 1.1718), (0.1257, -0.712, 1.2299), (0.8835, 1.9246, 0.4016),
        (-0.139, 1.832, -1.0506), (-0.8718, 1.8932, 0.5687), (0.9723, -4.6213, 0.1251),
        (-0.7831, -4.6517, 0.292), (-0.0538, -4.4342, -1.3155), (0.242, -2.6916, 2.067),
        (0.208, -0.1812, 2.1731),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    bent = [rng.normal(size=(n, 3)) * [5.0, 2.0, 0.5] for n in rng.integers(5, 20, 200)]
    for positions in (np.array(molecule), *bent):
        n = len(positions)
        facets, found = facets_of(Atoms(numbers=[6] * n, positions=positions)), np.zeros((n, n))
        found[facets.site, facets.nbr] = facets.omega
        np.testing.assert_allclose(found, clipped(positions), rtol=0, atol=CLIPPED)


@pytest.mark.parametrize("kind", ["skewed", "slab", "wire", "tiny", "far outside", "large", "cluster"])
def test_the_search_finds_what_a_plain_one_finds(kind):
    rng = np.random.default_rng(4)
    cell, pbc, n, radius = {
        "skewed": ([(4, 0, 0), (17, 4, 0), (-9, 12, 5)], (1, 1, 1), 6, 9.0),
        "slab": ([(3, 0, 0), (0, 0, 0), (1, 0, 5)], (1, 0, 1), 7, 11.0),
        "wire": ([(0, 0, 0), (2.0, 1.0, 0.5), (0, 0, 0)], (0, 1, 0), 4, 14.0),
        "tiny": (np.eye(3) * 0.9 + 0.2, (1, 1, 1), 1, 6.0),
        "far outside": (np.diag([5.0, 6.0, 7.0]), (1, 1, 1), 5, 7.0),
        "large": (np.diag([25.0, 26.0, 27.0]), (1, 1, 1), 900, 5.0),
        "cluster": (np.zeros((3, 3)), (0, 0, 0), 3000, 3.0),
    }[kind]
    cell, pbc = np.array(cell, float), np.array(pbc, bool)
    scale = {"far outside": 12.0}.get(kind, 1.0)
    frame = np.where(pbc[:, None], cell, np.eye(3) * (40.0 if kind == "cluster" else 6.0))
    atoms = Atoms(numbers=[6] * n, positions=(rng.random((n, 3)) - 0.5) * scale @ frame, cell=cell, pbc=pbc)
    around = sphere.surroundings(radius, atoms.positions, cell, sphere.reciprocal_vectors(cell, pbc))
    if kind in ("large", "cluster"):
        assert around.tree.levels > 0
    for i in range(0, n, max(n // 7, 1)):
        found = sphere.sites_within(i, radius, around)
        label = around.tree.label[around.index[:found]]
        image = label[:, 1:] - around.shift[i]
        distance, site, expected_image = plain_search(atoms, i, radius)
        expected = sorted(map(tuple, np.column_stack([site, expected_image]).tolist()))
        assert sorted(map(tuple, np.column_stack([label[:, 0], image]).tolist())) == expected
        np.testing.assert_allclose(around.distance[:found], np.sort(distance), rtol=0, atol=1e-12)
        step = atoms.positions[label[:, 0]] + image @ cell - atoms.positions[i]
        np.testing.assert_allclose(around.direction[:found] * around.distance[:found, None], step, rtol=0, atol=1e-12)


def test_the_tree_answers_as_a_look_at_every_point():
    rng = np.random.default_rng(2)
    for n in (5, 2500, 3001):
        points = rng.normal(size=(n, 3)) * [30.0, 5.0, 1.0]
        grown = tree.grow_tree(points, np.repeat(np.arange(n, dtype=np.int32)[:, None], 4, axis=1), 100)
        np.testing.assert_array_equal(points[grown.label[:, 0]], grown.point)
        for own in range(0, n, max(n // 9, 1)):
            u = rng.normal(size=3)
            u /= np.linalg.norm(u)
            assert tree.highest(grown, tuple(u)) == pytest.approx((points @ u).max(), abs=1e-12)
            step = np.delete(grown.point, own, axis=0) - grown.point[own]
            depth = 2 * step @ u / (step**2).sum(axis=1)
            others = np.delete(np.arange(n), own)
            for h in (0.0, 0.01, 0.5):
                expected = others[depth.argmax()] if depth.max() > h else -1
                assert tree.deepest_cut(grown, own, tuple(u), h) == expected


@pytest.mark.parametrize("periodic", [True, False])
def test_the_work_for_a_site_does_not_grow_with_the_structure(periodic):
    """Counts instead of a clock: candidates within the first sphere, and images written out, for each site."""
    seen, written = [], []
    for repeat in (3, 6, 12):
        atoms = bulk("Si", cubic=True) * repeat
        atoms.pbc = periodic
        rng = np.random.default_rng(0)
        positions = atoms.positions + rng.normal(scale=0.05, size=atoms.positions.shape)
        cell = atoms.cell.array * atoms.pbc[:, None]
        reciprocal = sphere.reciprocal_vectors(cell, atoms.pbc)
        around = sphere.surroundings(isolated_rule.FIRST_RADIUS, positions, cell, reciprocal)
        sites = range(0, len(atoms), len(atoms) // 50)
        seen.append(np.mean([sphere.sites_within(i, isolated_rule.FIRST_RADIUS, around) for i in sites]))
        written.append(len(around.tree.point) / len(atoms))
        tree_of_scipy = cKDTree(around.tree.point)
        expected = [len(tree_of_scipy.query_ball_point(around.home[i], 6.0)) - 1 for i in sites]
        assert seen[-1] == pytest.approx(np.mean(expected), abs=1e-12)
    assert max(seen) < 60
    assert written[0] >= written[1] >= written[2]
