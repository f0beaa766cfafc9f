"""refattn.neighbours against SciPy's tessellation and hull, ASE's neighbour lists, and itself."""

import csv
import itertools
import json
import sys
import types

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list
from click.testing import CliRunner
from scipy.spatial import ConvexHull, Voronoi

from refattn.cli.main import cli
from refattn.errors import ConfigError, StructureError
from refattn.neighbours import Facets, VoronoiNN, edge_index, neighbour_list, voronoi, voronoi_many
from refattn.structures.batch import GraphBatch


def amorphous(n=12, seed=0):
    rng = np.random.default_rng(seed)
    cell = 5 * np.eye(3) + rng.normal(0, 0.5, (3, 3))
    return Atoms(f"C{n}", rng.uniform(0, 5, (n, 3)), cell=cell, pbc=True, info={"id": f"amorphous {seed}"})


CRYSTALS = [amorphous(), bulk("Cu"), bulk("Si", cubic=True), bulk("NaCl", "rocksalt", 5.64), bulk("Mg")]
FIELDS = ("i", "j", "image", "vector", "r", "omega", "area", "volume", "corner_ptr", "corner", "beside")


@pytest.mark.parametrize("atoms", CRYSTALS, ids=str)
def test_cells_fill_space_and_solid_angles_the_sphere(atoms):
    found = voronoi(atoms)
    assert found.cell_volume.sum() == pytest.approx(atoms.get_volume(), rel=1e-12)
    assert np.bincount(found.i, found.omega) == pytest.approx(4 * np.pi, rel=1e-9)
    assert np.allclose(
        found.vector, atoms.positions[found.j] + found.image @ atoms.cell.array - atoms.positions[found.i]
    )
    # the planes of a closed cell: the area vectors of its facets sum to nothing
    normal = found.vector / found.r[:, None] * found.area[:, None]
    assert np.abs(np.add.reduceat(normal, found.ptr[:-1])).max() < 1e-9


def test_facets_are_those_of_scipy():
    atoms = amorphous()
    found = voronoi(atoms)
    shifts = np.array(list(itertools.product(range(-2, 3), repeat=3)))
    shifts = shifts[np.argsort(np.abs(shifts).sum(axis=1), kind="stable")]
    points = np.concatenate([atoms.positions + shift @ atoms.cell.array for shift in shifts])
    tessellation = Voronoi(points)
    for i in range(len(atoms)):
        corners = tessellation.vertices[tessellation.regions[tessellation.point_region[i]]]
        assert found.cell_volume[i] == pytest.approx(ConvexHull(corners).volume, rel=1e-9)
        own = found.corner[found.corner_ptr[found.ptr[i]] : found.corner_ptr[found.ptr[i + 1]]] + atoms.positions[i]
        far = np.linalg.norm(own[:, None] - corners, axis=2)
        assert far.min(axis=1).max() < 1e-8 and far.min(axis=0).max() < 1e-8


def test_both_sides_of_a_facet_agree():
    found = voronoi(amorphous())
    there = {(i, j, *image): n for n, (i, j, image) in enumerate(zip(found.i, found.j, found.image.tolist()))}
    back = [there[j, i, *(-k for k in image)] for i, j, image in zip(found.i, found.j, found.image.tolist())]
    assert found.area[back] == pytest.approx(found.area, abs=1e-9)
    assert (np.diff(found.corner_ptr)[back] == np.diff(found.corner_ptr)).all()
    for f in range(len(found)):  # what lies beside a facet has that facet beside it
        for g in found.beside[found.corner_ptr[f] : found.corner_ptr[f + 1]]:
            assert found.i[g] == found.i[f] and f in found.beside[found.corner_ptr[g] : found.corner_ptr[g + 1]]


def test_neighbour_list_is_ase_s():
    atoms = amorphous()
    ours = neighbour_list("ijdDS", atoms, omega_min=0.1)
    theirs = neighbor_list("ijdDS", atoms, ours[2].max() + 1e-6)
    known = {(i, j, *shift): (d, *vector) for i, j, d, vector, shift in zip(*map(np.ndarray.tolist, theirs))}
    for i, j, d, vector, shift in zip(*map(np.ndarray.tolist, ours)):
        assert known[i, j, *shift] == pytest.approx((d, *vector), abs=1e-12)
    assert np.array_equal(neighbour_list("o", atoms), voronoi(atoms).omega)
    with pytest.raises(ConfigError, match="there is no quantity 'x'; choose of ijdDSoav"):
        neighbour_list("ix", atoms)


def test_thresholds_leave_out_facets_and_their_corners():
    atoms = amorphous()
    whole, found = voronoi(atoms), voronoi(atoms, r_max=3.0, omega_min=0.2, weight_min=0.3)
    largest = np.maximum.reduceat(whole.omega, whole.ptr[:-1])[whole.i]
    kept = (whole.r <= 3.0) & (whole.omega >= 0.2) & (whole.omega >= 0.3 * largest)
    assert 0 < len(found) == kept.sum() < len(whole)
    assert np.array_equal(found.omega, whole.omega[kept])
    assert len(found.corner) == found.corner_ptr[-1] == np.diff(whole.corner_ptr)[kept].sum()
    assert found.beside.max() < len(found) and -1 in found.beside


def test_open_cells_have_infinite_areas():
    slab = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    slab.pbc = True, True, False
    slab.cell[2] = np.nan
    found = voronoi(slab)
    assert np.isinf(found.cell_volume).tolist() == [True, False, True]
    assert (np.diff(found.corner_ptr)[np.isinf(found.area)] == 0).all()
    lone = voronoi(Atoms("He"))
    assert (len(lone), lone.cell_volume.tolist(), lone.ptr.tolist()) == (0, [0.0], [0, 0])
    assert len(voronoi(Atoms("He"), weight_min=0.5)) == 0
    with pytest.raises(StructureError, match="C2: atoms 0 and 1 coincide"):
        voronoi(Atoms("C2"))


@pytest.mark.parametrize("wrong", [{"r_max": np.nan}, {"r_max": -1}, {"omega_min": np.nan}, {"weight_min": 2}])
def test_thresholds_that_nothing_can_pass_are_refused(wrong):
    with pytest.raises(ConfigError, match="they must be above 0, at least 0, and from 0 to 1"):
        voronoi(molecule("H2O"), **wrong)


def test_many_on_threads_are_those_of_one():
    structures = [*CRYSTALS, molecule("C60")]
    for one, many in zip(map(voronoi, structures), voronoi_many(iter(structures), n_threads=2), strict=True):
        assert all(np.array_equal(getattr(one, name), getattr(many, name)) for name in FIELDS)


def test_edges_for_other_libraries():
    graph = GraphBatch.concatenate([GraphBatch.from_atoms(molecule(name)) for name in ("C2H6", "H2O")])
    source, centre = edge_index(graph)
    assert np.array_equal(source, graph.nbr)
    assert np.array_equal(np.bincount(centre, minlength=len(graph.z)), np.diff(graph.edge_ptr))


def test_the_command_writes_tables_and_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    structures = [amorphous(seed=seed) for seed in range(2)]
    ase.io.write("set.extxyz", [*structures, Atoms("C2", info={"id": "twice"})])
    result = CliRunner().invoke(cli, ["neighbours", "set.extxyz", "--out", "x.csv"])
    assert result.exit_code == 1 and "twice" in result.output
    options = ["--skip-bad", "--omega-min", "0.1", "--threads", "1"]
    for out in ("x.csv", "x.h5"):
        result = CliRunner().invoke(cli, ["neighbours", "set.extxyz", "--out", out, *options, "--json"])
        assert result.exit_code == 0, result.output
        facts = json.loads(next(line for line in result.output.splitlines() if line.startswith("{")))
        assert (facts["structures"], facts["left_out"]) == (2, ["twice"])
    expected = [voronoi(atoms, omega_min=0.1) for atoms in ase.io.read("set.extxyz", ":2")]  # of 8 decimals
    with open("x.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == facts["facets"] == sum(map(len, expected))
    assert [float(row["area"]) for row in rows] == pytest.approx(np.concatenate([f.area for f in expected]), rel=1e-9)
    with h5py.File("x.h5") as file:
        assert file["facet_ptr"][()].tolist() == [0, len(expected[0]), len(rows)]
        assert np.allclose(file["vector"][len(expected[0]) :], expected[1].vector)
    assert (
        "choose one of these suffixes" in CliRunner().invoke(cli, ["neighbours", "set.extxyz", "--out", "x.txt"]).output
    )


class Site:
    """What VoronoiNN asks of pymatgen's PeriodicSite and PeriodicNeighbor."""

    def __init__(self, species, frac_coords, lattice, properties=None, nn_distance=0, index=0, image=(0, 0, 0)):
        self.species, self.frac_coords, self.properties = species, frac_coords, properties or {}
        self.nn_distance, self.index, self.image = nn_distance, index, image


class Structure(list):
    """What VoronoiNN asks of pymatgen's Structure; benchmarks/compare_neighbours.py has the real one."""

    def __init__(self, atoms):
        super().__init__(Site([s], x, None) for s, x in zip(atoms.symbols, atoms.get_scaled_positions(wrap=False)))
        self.cart_coords, self.formula = atoms.positions, str(atoms.symbols)
        self.lattice = types.SimpleNamespace(matrix=atoms.cell.array, pbc=tuple(atoms.pbc))


def test_voronoi_nn_answers_as_pymatgen_asks(monkeypatch):
    for name in ("pymatgen", "pymatgen.core", "pymatgen.core.structure"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["pymatgen.core.structure"].PeriodicNeighbor = Site
    atoms = bulk("NaCl", "rocksalt", 5.64)
    structure, found = Structure(atoms), voronoi(atoms)
    finder = VoronoiNN()
    cells = finder.get_all_voronoi_polyhedra(structure)
    assert [len(cell) for cell in cells] == [6, 6]
    for n, cell in enumerate(cells):
        for facet in cell.values():
            assert facet["face_dist"] == pytest.approx(5.64 / 4) and facet["n_verts"] == 4
            assert (len(facet["adj_neighbors"]), facet["area"]) == (4, pytest.approx((5.64 / 2) ** 2))
            step = (facet["site"].frac_coords - structure[n].frac_coords) @ atoms.cell.array
            assert step == pytest.approx(2 * facet["face_dist"] * facet["normal"])
    assert sum(facet["volume"] for cell in cells for facet in cell.values()) == pytest.approx(found.cell_volume.sum())
    info = finder.get_nn_info(structure, 0)[0]
    image = tuple(found.image[0].tolist())
    assert (info["site_index"], info["weight"], info["image"]) == (1, pytest.approx(1), image)
    assert info["poly_info"]["solid_angle"] == pytest.approx(4 * np.pi / 6)
    assert not hasattr(finder, "get_cn")  # which is pymatgen's
    assert VoronoiNN(targets="Na").get_nn_info(structure, 0) == []
    assert len(VoronoiNN(tol=0.5, extra_nn_info=False).get_all_nn_info(structure)[1]) == 6
    assert isinstance(found, Facets)
