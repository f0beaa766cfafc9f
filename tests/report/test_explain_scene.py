"""What the pictures and pages of refattn explain draw: atoms, bonds, cells, and from where they look."""

import ase
import numpy as np
import pytest
from ase.build import bulk, fcc111, graphene, molecule

from refattn.report.scene import Scene


def test_bonds_and_axes_of_molecules():
    benzene = molecule("C6H6")
    scene = Scene.of(benzene)
    assert len(scene.bonds) == 12
    assert np.ptp(scene.position[:, 2]) < 1e-6  # face on
    assert len(Scene.of(molecule("C60")).bonds) == 90
    for name in ("CH3CH2OH", "C60", "H2O", "CH3OH"):
        atoms = molecule(name)
        scene = Scene.of(atoms)
        before, after = (x - x.mean(axis=0) for x in (atoms.positions, scene.position))
        turn, *_ = np.linalg.lstsq(before, after, rcond=None)
        if name != "H2O":  # flat: the turn is not unique
            assert np.linalg.det(turn) == pytest.approx(1)  # no mirror image
        np.testing.assert_allclose(before @ turn, after, atol=1e-9)
        for view in scene.views.values():
            assert np.linalg.det(view) == pytest.approx(1)


def test_crystals_show_the_closed_cell():
    diamond = Scene.of(bulk("C", "diamond", a=3.567, cubic=True))
    assert len(diamond.site) == 8 + 6 + 4  # corners, faces, inside
    assert len(diamond.box) == 12
    assert len(diamond.bonds) == 16
    rutile = ase.Atoms("Ti2O4", pbc=True, cell=[4.594, 4.594, 2.959])
    u = 0.3053
    positions = [(0, 0, 0), (0.5,) * 3, (u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5), (0.5 - u, 0.5 + u, 0.5)]
    rutile.set_scaled_positions(positions)
    scene = Scene.of(rutile)
    assert all({22, 8} == set(scene.z[bond]) for bond in scene.bonds)
    assert (np.bincount(scene.bonds.ravel(), minlength=len(scene.z))[scene.site == 1] == 6).all()
    layer = bulk("Pt", cubic=True)
    layer.pbc = (True, True, False)
    assert len(Scene.of(layer).box) == 4


def test_a_piece_in_a_box_is_kept_whole():
    """Water across the boundary of its box, and a slab across that of its period."""
    water = molecule("H2O", cell=[12] * 3, pbc=True)
    water.wrap()
    scene = Scene.of(water)
    assert len(scene.site) == 3
    assert len(scene.bonds) == 2


def test_a_surface_is_on_top():
    slab = fcc111("Pt", (2, 2, 3), vacuum=8.0, periodic=True)
    for view in list(Scene.of(slab).views.values())[1:]:
        assert np.linalg.det(view) == pytest.approx(1)
        assert view[1, 2] > 0.9  # z of the slab is c, and points upwards


def test_a_layer_has_its_box_around_the_atoms():
    """Whatever the height of the atoms along the direction that has no period."""
    layer = graphene(size=(2, 2, 1), vacuum=9.0)
    scene = Scene.of(layer)
    assert (scene.axes, scene.box.shape) == ("ab", (4, 2, 3))
    np.testing.assert_allclose(scene.box[:, :, 2], scene.position[0, 2], atol=1e-9)


@pytest.mark.parametrize("name", ["C6H6", "C60", "CH3CH2OH", "C2H6"])
def test_views_are_tilted_so_that_atoms_are_seen(name):
    """No middle of a ball is behind another ball in the front view, or a third less than in the plain direction."""
    scene = Scene.of(molecule(name))
    assert scene.views["front"] @ scene.views["front"].T == pytest.approx(np.eye(3))

    def hidden(view):
        apart = np.linalg.norm((scene.position[:, None] - scene.position) @ view[:2].T, axis=2)
        return (np.triu(apart < scene.radius[:, None], 1)).sum()

    assert hidden(scene.views["front"]) <= 2 / 3 * hidden(np.eye(3))
    if name == "C6H6":
        assert (scene.views["front"] == np.eye(3)).all()  # flat: face on
