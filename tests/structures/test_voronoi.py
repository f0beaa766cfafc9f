"""Voronoi neighbours against scipy (Qhull), geometry known by hand, symmetry, and the authors' code.

data/graphs.h5 is a reduced copy of what the authors' code finds; its attributes say with what and how to read it.
"""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule, nanotube
from scipy.spatial import Voronoi
from scipy.spatial.transform import Rotation
from voronoi_cells import facets_by, facets_of

from refattn.config import GraphConfig
from refattn.errors import ConfigError, StructureError
from refattn.structures.voronoi.neighbours import voronoi_neighbours
from refattn.structures.voronoi.sphere import sites_within, surroundings

pytestmark = pytest.mark.indices
FIXTURES = h5py.File(Path(__file__).parents[1] / "data" / "graphs.h5", "r")
NAMES = [name.decode() for name in FIXTURES["id"]]
UPSTREAM = 1e-5  # Å and sr; the fixtures carry up to 5e-7 of float32 rounding (pymatgen 2023.8.10), stored as float32
CLOSURE = 1e-9  # sr
ROUNDING = 1e-9  # Å and sr, the same geometry computed twice


def edges_of(atoms, **rule):
    return voronoi_neighbours(
        atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, GraphConfig(**{"min_distance": 0.0} | rule), "test"
    )


def totals(facets):
    return np.bincount(facets.site, facets.omega, len(facets.ptr) - 1)


def by_site(ptr, *columns):
    """Rows of each site, sorted by value, so that the order of sites and edges does not matter."""
    rows = np.column_stack(columns)
    return [np.array(sorted(map(tuple, np.round(rows[a:b], 7)))) for a, b in itertools.pairwise(ptr)]


def rattled(atoms, sigma=0.05, seed=0):
    atoms = atoms.copy()
    atoms.positions += np.random.default_rng(seed).normal(scale=sigma, size=atoms.positions.shape)
    return atoms


def random_crystal(seed, n_sites=5):
    rng = np.random.default_rng(seed)
    cell = np.eye(3) * 4 + rng.normal(scale=1.0, size=(3, 3))
    return Atoms(numbers=[6] * n_sites, positions=rng.random((n_sites, 3)) @ cell, cell=cell, pbc=True)


def slab(rough=0.0):
    atoms = fcc111("Pt", (2, 2, 3))
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.pbc = (True, True, False)
    return rattled(atoms, rough) if rough else atoms


def structures():
    with_molecule = slab()
    add_adsorbate(with_molecule, molecule("CO"), 2.0)
    plane = [(2.46, 0, 0), (1.23, 2.13, 0), (0, 0, 0)]
    return {
        "crystal": random_crystal(3),
        "one site": bulk("Cu"),
        "slab": slab(),
        "rough slab": slab(0.1),
        "adsorbed molecule": with_molecule,
        "monolayer": Atoms("C2", [(0, 0, 0), (1.23, 0.71, 0)], cell=plane, pbc=(1, 1, 0)),
        "tube": nanotube(6, 0, 1),
        "wire": Atoms("CH", [(0, 0, 0), (1.1, 0.9, 0.2)], cell=[(2.5, 0, 0), (0, 0, 0), (0, 0, 0)], pbc=(1, 0, 0)),
        "molecule": molecule("C3H7Cl"),
        "planar molecule": molecule("C6H6"),
    }


STRUCTURES = structures()
PERIODIC = [name for name, atoms in STRUCTURES.items() if atoms.pbc.any()]


# the authors' rule


def fixture(name):
    s = NAMES.index(name)
    first, last = FIXTURES["site_ptr"][s : s + 2]
    cell, periodic = FIXTURES["cell"][s], bool(FIXTURES["periodic"][s])
    positions = FIXTURES["position"][first:last]
    positions = positions @ cell if periodic else positions
    config = GraphConfig("upstream", float(FIXTURES["r_max"][s]), float(FIXTURES["omega_min"][s]), min_distance=0.0)
    arguments = FIXTURES["z"][first:last], positions, cell, [periodic] * 3, config, name
    return arguments, FIXTURES["edge_ptr"][first : last + 1]


def as_dict(ptr, nbr, image, *values):
    site = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    keys = [tuple(row) for row in np.column_stack([site, nbr, image]).tolist()]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, np.column_stack(values), strict=True))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=0, atol=UPSTREAM)


@pytest.mark.parametrize("name", NAMES)
def test_upstream_makes_the_authors_edges(name):
    arguments, ptr = fixture(name)
    edge_ptr, nbr, image, r, omega, omega_max = voronoi_neighbours(*arguments)
    weight = omega / np.repeat(omega_max, np.diff(edge_ptr))
    columns = (FIXTURES[column][ptr[0] : ptr[-1]] for column in ("nbr", "image", "r", "omega", "weight"))
    assert_same(as_dict(edge_ptr, nbr, image, r, omega, weight), as_dict(ptr - ptr[0], *columns))


@pytest.mark.parametrize("name", [f"{group}/{name}" for group, names in FIXTURES["facets"].items() for name in names])
def test_upstream_counts_the_authors_facets(name):
    facets, raw = facets_by(*fixture(name)[0]), FIXTURES["facets"][name]
    found = as_dict(facets.ptr, facets.nbr, facets.image, facets.r, facets.omega)
    expected = as_dict(raw["ptr"][:], raw["nbr"][:], raw["image"][:], raw["r"][:], raw["omega"][:])
    # Where many bisectors meet in a point, Qhull makes facets without area and we make none.
    visible = {key: values for key, values in expected.items() if values[1] > UPSTREAM}
    assert_same({key: values for key, values in found.items() if values[1] > UPSTREAM}, visible)


# the isolated rule against Qhull


def qhull_solid_angles(points, i):
    """{k: solid angle} of the closed facets of points[i], and the set of neighbours with open ones."""
    tessellation = Voronoi(points)
    closed, still_open = {}, set()
    for (a, b), corners in zip(tessellation.ridge_points, tessellation.ridge_vertices, strict=True):
        if i in (a, b) and -1 in corners:
            still_open.add(int(a + b - i))
        elif i in (a, b):
            unit = tessellation.vertices[corners] - points[i]
            unit /= np.linalg.norm(unit, axis=1)[:, None]
            angle = 0.0
            for v, w in itertools.pairwise(unit[1:]):
                u = unit[0]
                angle += 2 * np.arctan2(abs(u @ np.cross(v, w)), 1 + u @ v + v @ w + w @ u)
            closed[int(a + b - i)] = angle
    return closed, still_open


@pytest.mark.parametrize("atoms", [random_crystal(0), random_crystal(1, 2), random_crystal(2, 9), rattled(bulk("Si"))])
def test_crystals_equal_qhull(atoms):
    shifts = np.array(list(itertools.product(range(-4, 5), repeat=3)))
    shifts = shifts[np.argsort(np.abs(shifts).sum(axis=1), kind="stable")]  # the structure itself comes first
    n = len(atoms)
    points = (atoms.positions[None] + (shifts @ atoms.cell.array)[:, None]).reshape(-1, 3)
    near = np.flatnonzero(np.linalg.norm(points - atoms.positions[0], axis=1) < 14)  # Qhull takes long for more
    facets = facets_of(atoms)
    for i in range(min(n, 3)):
        expected, still_open = qhull_solid_angles(points[near], i)
        assert not still_open
        assert near[i] == i
        rows = slice(*facets.ptr[i : i + 2])
        found = as_dict([0, rows.stop - rows.start], facets.nbr[rows], facets.image[rows], facets.omega[rows])
        found = {key[1:]: value[0] for key, value in found.items()}
        for k, omega in ((near[k], omega) for k, omega in expected.items()):
            assert found.pop((k % n, *shifts[k // n]), 0.0) == pytest.approx(omega, abs=1e-8)
        assert sum(found.values()) < 1e-8


@pytest.mark.parametrize("n_sites", [12, 60, 200])
def test_clusters_equal_qhull_inside_a_far_shell(n_sites):
    rng = np.random.default_rng(n_sites)
    positions = rng.random((n_sites, 3)) * 1.5 * n_sites ** (1 / 3)
    shell = Rotation.random(60, random_state=1).apply([3e4, 0, 0])  # closes every cell 15,000 Å away: 1e-4 rad
    facets = facets_of(Atoms(positions=positions, numbers=[6] * n_sites))
    n_open = 0
    for i in range(0, n_sites, 7):
        expected, still_open = qhull_solid_angles(np.concatenate([positions, shell]), i)
        assert not still_open
        found = dict(zip(facets.nbr[facets.ptr[i] :], facets.omega[facets.ptr[i] : facets.ptr[i + 1]], strict=False))
        blocked = sum(omega for k, omega in expected.items() if k < n_sites)
        n_open += blocked < 4 * np.pi - 1e-2
        tolerance = 2e-3 if blocked < 4 * np.pi - 1e-9 else 1e-8
        for k in range(n_sites):
            assert found.get(k, 0.0) == pytest.approx(expected.get(k, 0.0), abs=tolerance)
    assert n_open > 0


# cells known by hand


@pytest.mark.parametrize("repeat", [1, 3])
def test_cubic_lattices(repeat):
    square = 4 * np.arcsin(1 / 9)  # of the truncated octahedron: half width / distance = sqrt(2)/4, s^2/(1 + s^2) = 1/9
    lattices = {
        "sc": [4 * np.pi / 6] * 6,
        "fcc": [4 * np.pi / 12] * 12,
        "bcc": [(4 * np.pi - 6 * square) / 8] * 8 + [square] * 6,
    }
    for kind, expected in lattices.items():
        facets = facets_of(bulk("Cu", kind, a=3.6) * (repeat, 1, repeat))
        for site in range(repeat * repeat):
            omega = facets.omega[facets.ptr[site] : facets.ptr[site + 1]]
            np.testing.assert_allclose(omega, expected, rtol=0, atol=CLOSURE, err_msg=kind)


@pytest.mark.parametrize(("atoms", "near", "far"), [(bulk("NaCl", "rocksalt", a=5.6), 6, 0), (bulk("Si"), 4, 12)])
def test_equivalent_facets_are_equal(atoms, near, far):
    facets = facets_of(atoms)
    for site in range(2):
        omega = facets.omega[facets.ptr[site] : facets.ptr[site + 1]]
        assert len(omega) == near + far
        np.testing.assert_allclose(omega[:near], omega[0], rtol=0, atol=CLOSURE)
        np.testing.assert_allclose(omega[near:], omega[-1], rtol=0, atol=CLOSURE)
        assert omega.sum() == pytest.approx(4 * np.pi, abs=CLOSURE)


TOP = 4 * np.arcsin(1 / 10)  # a square of half width 1.5 at 4.5: between planes of period 3 at distance 9
SIDES = [(4 * np.pi - TOP) / 4] * 4
OPEN_CELLS = {  # positions, cell, pbc, solid angles of the facets of site 0
    "one atom": ([(0, 0, 0)], None, False, []),
    "two atoms": ([(0, 0, 0), (1, 2, 3)], None, False, [2 * np.pi]),
    "middle of three in a line": ([(0, 0, 0), (1, 2, 3), (-1, -2, -3)], None, False, [2 * np.pi] * 2),
    "end of four in a line": ([(0, 0, 0), (1, 2, 3), (2, 4, 6), (3, 6, 9)], None, False, [2 * np.pi]),
    "square": ([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)], None, False, [1.5 * np.pi] * 2),
    "cube": (list(itertools.product((0, 1), repeat=3)), None, False, [7 * np.pi / 6] * 3),
    "wire": ([(0, 0, 0)], [(1, 2, 0), (0, 0, 0), (0, 0, 0)], (1, 0, 0), [2 * np.pi] * 2),
    "square plane": ([(0, 0, 0)], [(0, 0, 3), (0, 0, 0), (3, 0, 0)], (1, 0, 1), [np.pi] * 4),
    "two planes": ([(0, 0, 0), (0, 0, 9)], [(3, 0, 0), (0, 3, 0), (0, 0, 0)], (1, 1, 0), SIDES + [TOP]),
    "long cell": ([(0, 0, 0)], np.diag([1.5, 20, 40]), True, None),
    "skewed cell": ([(0, 0, 0), (1, 2, 3)], [(4, 0, 0), (37, 4, 0), (-15, 22, 4)], True, None),
}


@pytest.mark.parametrize("rotation", [0, 1, 2])
@pytest.mark.parametrize("case", OPEN_CELLS)
def test_open_and_unequal_cells(case, rotation):
    positions, cell, pbc, expected = OPEN_CELLS[case]
    atoms = Atoms(positions=positions, numbers=[6] * len(positions), cell=cell, pbc=pbc)
    if rotation:
        turn = Rotation.random(random_state=rotation)
        atoms.positions = turn.apply(atoms.positions) + 3.7
        atoms.cell = turn.apply(atoms.cell.array)
    facets = facets_of(atoms)
    if expected is None:
        np.testing.assert_allclose(totals(facets), 4 * np.pi, rtol=0, atol=CLOSURE)
    else:
        np.testing.assert_allclose(facets.omega[: facets.ptr[1]], expected, rtol=0, atol=CLOSURE)


# properties of every structure


@pytest.mark.parametrize("name", PERIODIC)
def test_periodic_cells_fill_all_directions(name):
    np.testing.assert_allclose(totals(facets_of(STRUCTURES[name])), 4 * np.pi, rtol=0, atol=CLOSURE)


@pytest.mark.parametrize("name", STRUCTURES)
def test_facets_are_symmetric_and_distances_true(name):
    atoms = STRUCTURES[name]
    facets = facets_of(atoms)
    there = as_dict(facets.ptr, facets.nbr, facets.image, facets.omega)
    for (i, j, a, b, c), omega in there.items():
        assert abs(there.get((j, i, -a, -b, -c), 0.0) - omega) < ROUNDING
    step = atoms.positions[facets.nbr] + facets.image @ atoms.cell.array - atoms.positions[facets.site]
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), facets.r, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", STRUCTURES)
def test_rotation_translation_order_and_wrapping_change_nothing(name):
    atoms = STRUCTURES[name]
    rng = np.random.default_rng(5)
    order, turn = rng.permutation(len(atoms)), Rotation.random(random_state=7)
    moved = atoms[order]
    moved.positions += (rng.integers(-3, 4, (len(atoms), 3)) * atoms.pbc) @ atoms.cell.array  # outside the cell
    moved.positions = turn.apply(moved.positions) + [1.0, -20.0, 300.0]
    moved.cell = turn.apply(atoms.cell.array)
    edge_ptr, _, _, r, omega, omega_max = edges_of(atoms, omega_min=0.1)
    before = by_site(edge_ptr, r, omega)
    after_ptr, _, _, after_r, after_omega, after_max = edges_of(moved, omega_min=0.1)
    for new, old in enumerate(order):
        np.testing.assert_allclose(by_site(after_ptr, after_r, after_omega)[new], before[old], rtol=0, atol=2e-7)
    np.testing.assert_allclose(after_max, omega_max[order], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", PERIODIC)
def test_a_supercell_has_the_same_edges(name):
    atoms = STRUCTURES[name]
    larger = atoms * [2 if periodic else 1 for periodic in atoms.pbc]
    ptr, _, _, r, omega, omega_max = edges_of(atoms)
    larger_ptr, _, _, larger_r, larger_omega, larger_max = edges_of(larger)
    one, many = by_site(ptr, r, omega), by_site(larger_ptr, larger_r, larger_omega)
    for site, rows in enumerate(many):
        np.testing.assert_allclose(rows, one[site % len(atoms)], rtol=0, atol=2e-7)
    np.testing.assert_allclose(larger_max, np.tile(omega_max, len(larger) // len(atoms)), rtol=0, atol=ROUNDING)


def test_a_slab_is_the_limit_of_growing_vacuum():
    """Vacuum of height h closes the facets at h/2: what they lack falls as 1/h^2."""
    atoms = slab(0.1)
    limit = facets_of(atoms)
    limit = as_dict(limit.ptr, limit.nbr, limit.image, limit.omega)
    lacking = []
    for height in (60, 120, 240):
        atoms.cell[2], atoms.pbc = (0, 0, height), True
        facets = facets_of(atoms)
        found = as_dict(facets.ptr, facets.nbr, facets.image, facets.omega)
        lacking.append(max(abs(found.get(key, np.zeros(1))[0] - omega[0]) for key, omega in limit.items()))
    assert lacking[1] < lacking[0] / 3.5
    assert lacking[2] < lacking[1] / 3.5
    assert 1e-5 < lacking[2] < 1e-3


def test_an_almost_planar_molecule_is_like_a_planar_one():
    flat = molecule("C6H6")
    flat.positions[:, 2] = 0
    expected = by_site(*(edges_of(flat)[k] for k in (0, 3, 4)))
    for noise in (1e-12, 1e-9, 1e-7):
        found = edges_of(rattled(flat, noise))
        for a, b in zip(by_site(found[0], found[3], found[4]), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=100 * noise + 2e-7)


# thresholds, order, errors


def test_thresholds_are_inclusive_for_every_orientation():
    atoms = Atoms("C8", list(itertools.product((0, 1.4), repeat=3)))  # all facets are 7 pi / 6, all edges 1.4 Å
    for seed in range(20):
        atoms.positions = Rotation.random(random_state=seed).apply(atoms.positions)
        assert len(edges_of(atoms, omega_min=7 * np.pi / 6, weight_min=1.0, r_max=1.4)[1]) == 24
        assert len(edges_of(atoms, omega_min=7 * np.pi / 6 + 1e-6)[1]) == 0


def test_thresholds_select_facets_and_edges_are_in_order():
    atoms = random_crystal(8)
    facets = facets_of(atoms)
    edge_ptr, nbr, image, r, omega, omega_max = edges_of(atoms, omega_min=0.3, weight_min=0.25, r_max=3.0)
    largest = np.array([facets.omega[a:b].max() for a, b in itertools.pairwise(facets.ptr)])
    np.testing.assert_array_equal(omega_max, largest)
    kept = (facets.omega >= 0.3) & (facets.omega >= 0.25 * largest[facets.site]) & (facets.r <= 3.0)
    assert 0 < kept.sum() == len(r) == edge_ptr[-1]
    np.testing.assert_allclose(np.sort(omega), np.sort(facets.omega[kept]))
    site = np.repeat(np.arange(len(atoms)), np.diff(edge_ptr))
    rows = np.column_stack([site, np.rint(r * 1e6), nbr, image]).tolist()
    assert rows == sorted(rows)
    assert [array.dtype for array in (edge_ptr, nbr, image, r)] == [np.int32, np.int32, np.int8, np.float64]


@pytest.mark.parametrize("rule", ["isolated", "upstream"])
def test_a_lone_atom_has_no_edges(rule):
    edge_ptr, nbr, image, r, omega, _ = edges_of(Atoms("He"), rule=rule)
    assert edge_ptr.tolist() == [0, 0]
    assert [array.shape for array in (nbr, image, r, omega)] == [(0,), (0, 3), (0,), (0,)]


NAN, CUBE = float("nan"), np.eye(3) * 4
BAD = {  # numbers, positions, cell, pbc, words of the message
    "empty": ([], np.zeros((0, 3)), CUBE, False, "no atoms"),
    "shape": ([1, 1], np.zeros((1, 3)), CUBE, False, "positions of shape"),
    "nan position": ([1, 1], [(0, 0, 0), (0, NAN, 1)], CUBE, False, "atom 1 is not finite"),
    "infinite cell": ([1], [(0, 0, 0)], np.diag([4, 4, np.inf]), True, "cell is not finite"),
    "number 0": ([1, 0], [(0, 0, 0), (0, 0, 1)], CUBE, False, "atom 1 has atomic number 0"),
    "number 119": ([119], [(0, 0, 0)], CUBE, False, "atom 0 has atomic number 119"),
    "coincident": ([1, 1, 1], [(0, 0, 0), (0, 0, 1), (0, 1e-5, 1)], CUBE, False, "atoms 1 and 2 coincide"),
    "coincident image": ([1, 1], [(0, 0, 0), (0, 4, 1e-5)], CUBE, True, "atoms 0 and 1 coincide"),
    "own image": ([1], [(0, 0, 0)], np.diag([4, 4, 1e-4]), True, "atom 0 coincides with its own image"),
    "no cell": ([1], [(0, 0, 0)], np.zeros((3, 3)), True, "cell is singular"),
    "flat cell": ([1], [(0, 0, 0)], [(1, 0, 0), (0, 1, 0), (1, 1, 0)], True, "cell is singular"),
    "far outside": ([1, 1], [(0, 0, 0), (0, 0, 801)], CUBE, True, "wrap the positions"),
}


@pytest.mark.parametrize("rule", ["isolated", "upstream"])
@pytest.mark.parametrize("case", BAD)
def test_bad_structures_are_named(case, rule):
    numbers, positions, cell, pbc, words = BAD[case]
    with pytest.raises(StructureError, match=rf"^gdb_17: .*{words}"):
        voronoi_neighbours(numbers, positions, cell, [pbc] * 3, GraphConfig(rule), "gdb_17")


def test_a_singular_cell_does_not_matter_where_there_is_no_period():
    flat = Atoms("H2", [(0, 0, 0), (0, 0, 1)], cell=[(3, 0, 0), (0, 3, 0), (NAN, 0, 0)], pbc=(True, True, False))
    assert len(edges_of(flat)[1]) > 0


def test_absurdly_unequal_cells_are_an_error():
    grating = Atoms("H", cell=[(0.002, 0, 0), (0, 2000, 0), (0, 0, 0)], pbc=(True, True, False))
    with pytest.raises(StructureError, match="test: .* more than 1000000 periodic images"):
        edges_of(grating)


@pytest.mark.parametrize("rule", ["isolated", "upstream"])
def test_atoms_that_are_too_near_are_named(rule):
    """Below half of the covalent radii together (C 0.76, H 0.31, Cs 2.44 Å), periodic images included."""
    near = Atoms("CH", [(0, 0, 0), (0, 0, 0.53)])
    with pytest.raises(StructureError, match=r"test: atoms 0 \(C\) and 1 \(H\) are 0.530 Å apart.*1.07 Å"):
        edges_of(near, rule=rule, min_distance=0.5)
    for factor in (0.49, 0.0):
        assert len(edges_of(near, rule=rule, min_distance=factor)[1]) == 2
    image = Atoms("C", cell=np.diag([0.7, 5.0, 5.0]), pbc=True)
    with pytest.raises(StructureError, match=r"atom 0 \(C\) and its own image are 0.700 Å"):
        edges_of(image, rule=rule, min_distance=0.5)
    # The nearest atom of each caesium is the hydrogen, which is far enough away.
    behind = Atoms("Cs2H", [(0, 0, 0), (2.2, 0, 0), (1.1, 1.0, 0)])
    with pytest.raises(StructureError, match=r"atoms 0 \(Cs\) and 1 \(Cs\) are 2.200 Å"):
        edges_of(behind, rule=rule, min_distance=0.5)
    with pytest.raises(ConfigError, match="at most 1"):
        edges_of(near, min_distance=1.5)


@pytest.mark.parametrize("rule", ["isolated", "upstream"])
def test_a_cell_with_too_many_images_is_an_error(rule):
    """The room for the images stays empty then, and no kernel writes into it."""
    crowd = Atoms("C2600", np.random.default_rng(0).random((2600, 3)), cell=np.eye(3), pbc=True)
    with pytest.raises(StructureError, match="periodic images"):
        edges_of(crowd, rule=rule)
    around = surroundings(7.0, crowd.positions, np.eye(3), np.eye(3))
    assert len(around.index) == 0
    assert sites_within(0, 7.0, around) == 0


def test_atoms_far_across_a_period_are_refused_at_once():
    """Each look sees all the images of a longer piece of the wire, and would for minutes."""
    far = np.random.default_rng(0).standard_cauchy((60, 3)) * 100
    with pytest.raises(StructureError, match="they are too far apart"):
        edges_of(Atoms("C60", far, cell=np.diag([3.0, 3.0, 60.0]), pbc=(True, False, False)))


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ConfigError, match="isolated, upstream"):
        edges_of(Atoms("H"), rule="voronoi")
