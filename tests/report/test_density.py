"""Densities of orbitals in pictures: they hold one electron, have the molecule's symmetry, and lie where atoms are."""

import itertools

import ase
import numpy as np
import pytest
from ase.build import molecule
from extras import needs_pyscf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection

import refattn
from refattn.generate.first_principles import frontier_orbitals
from refattn.report.density import STEP, density_maps, projections
from refattn.report.findings import ExplainedStructure, share_limits
from refattn.report.pictures import drawing
from refattn.report.scene import Scene

METHOD = "hf/sto-3g"
ONE = 0.01  # of an electron: a map ends 3 Å from the atoms, and sums are over points
SAME = 1e-4  # of the largest value: a field converges to 1e-5 in its coefficients, molecules are symmetric to 1e-6 Å
ORBITALS = ("homo", "lumo")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REFATTN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def orbitals_of(name):
    return frontier_orbitals(molecule(name), METHOD)


@needs_pyscf
@pytest.mark.parametrize("name", ["H2O", "C2H4", "CO2"])
def test_a_map_holds_one_electron(name):
    orbitals = orbitals_of(name)
    for projection in projections(orbitals.atoms, orbitals).values():
        assert len(projection.maps) == 3
        for found in projection.maps:
            assert found.p.sum() * STEP**2 == pytest.approx(1, abs=ONE)
            assert projection.levels[-2] <= projection.limits[1] <= projection.levels[-1]
            assert (found.p >= 0).all()


@needs_pyscf
def test_the_pi_orbital_of_ethylene():
    """Along the molecule's axis two lobes, with nothing in the plane of the atoms; from above all of it, evenly."""
    orbitals = orbitals_of("C2H4")
    scene = Scene.of(orbitals.atoms)
    right, up, near = np.eye(3)  # the double bond, the other direction of the plane, its normal
    np.testing.assert_allclose(scene.position[:, 2], 0, atol=1e-9)
    for view in ([right, near, -up], [up, near, right]):
        found = density_maps(orbitals, scene, np.array(view))["homo"]
        assert found.p[np.abs(found.y).argmin()].max() < SAME * found.p.max()
        np.testing.assert_allclose(found.p, found.p[::-1], atol=SAME * found.p.max())
    found = density_maps(orbitals, scene, np.eye(3))["homo"]
    np.testing.assert_allclose(found.p, found.p[::-1], atol=SAME * found.p.max())
    np.testing.assert_allclose(found.p, found.p[:, ::-1], atol=SAME * found.p.max())
    place = np.unravel_index(found.p.argmax(), found.p.shape)
    atom = np.abs(scene.position[:2, 0]).mean()
    assert abs(found.x[place[1]]) == pytest.approx(atom, abs=0.3) and abs(found.y[place[0]]) < STEP


@needs_pyscf
def test_a_map_follows_the_molecule_wherever_it_lies():
    """Turned and shifted, it is drawn the same, and its density with it."""
    turned = molecule("CH3OH")
    turned.rotate(37, (1, 2, 3))
    turned.positions += (3, -2, 5)
    pair = [frontier_orbitals(atoms, METHOD) for atoms in (molecule("CH3OH"), turned)]
    scenes = [Scene.of(orbitals.atoms) for orbitals in pair]
    centred = [scene.position - scene.position.mean(axis=0) for scene in scenes]
    np.testing.assert_allclose(*centred, atol=1e-6)
    np.testing.assert_allclose(scenes[1].in_structure(scenes[1].position), turned.positions, atol=1e-12)
    view = scenes[0].views["front"]
    one, other = (density_maps(orbitals, scene, view) for orbitals, scene in zip(pair, scenes, strict=True))
    for name in ORBITALS:
        np.testing.assert_allclose(one[name].p, other[name].p, atol=SAME * one[name].p.max())


@needs_pyscf
@pytest.mark.parametrize("background", ["light", "dark"])
def test_the_drawing(model, background):
    """The density stands where the atoms of the attention stand, at one scale, and no text covers another."""
    orbitals = orbitals_of("C2H4")
    explanation = refattn.explain(model, orbitals.atoms, scores=[])
    known = {name: orbitals.arrays[name] for name in ("homo_population", "lumo_population")}
    finding = ExplainedStructure(orbitals.atoms, {"gap": explanation}, {}, known, orbitals)
    figure = drawing(finding, [["beta", "homo_population", "homo_density"]], background)
    FigureCanvasAgg(figure).draw()
    panels = [axes for axes in figure.axes if any(isinstance(c, PolyCollection) for c in axes.collections)]
    views = [axes for axes in panels if not axes.axison]
    assert len(views) == 9
    for above, below in zip(views[:3], views[-3:], strict=True):
        assert above.get_xlim() == below.get_xlim() and above.get_ylim() == below.get_ylim()
        assert above.get_position().width == pytest.approx(below.get_position().width)
        assert above.get_position().x0 == pytest.approx(below.get_position().x0)
        assert len(below.collections) == 2 and len(above.collections) == 1
    boxes = [text.get_window_extent() for text in figure.texts if text.get_text()]
    for axes in set(figure.axes) - set(views):
        low, high = axes.get_ylim()
        ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        boxes += [label.get_window_extent() for tick, label in ticks if low <= tick <= high]
    assert any(text.get_text().startswith("density of the highest occupied orbital") for text in figure.texts)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@needs_pyscf
def test_one_scale_of_densities():
    shown = [projections(orbitals.atoms, orbitals) for orbitals in map(orbitals_of, ("H2O", "C2H4"))]
    largest = max(projections["homo_density"].limits[1] for projections in shown)
    share_limits(shown)
    for projections_ in shown:
        assert projections_["homo_density"].limits == (0, largest)


def test_orbitals_without_coefficients_have_no_density():
    """Those of GFN2-xTB."""
    finding = ExplainedStructure(ase.Atoms("He"), {})
    assert finding.densities == [] and finding.projections == {}
