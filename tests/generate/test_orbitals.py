"""GFN2-xTB labels: frontier orbitals, Mulliken populations and forces, and the homemade sets that carry them."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from click.testing import CliRunner
from extras import needs_xtb

from refattn.cli.main import cli
from refattn.data.store import read_dataset
from refattn.errors import DataError
from refattn.explanation.comparison import populations
from refattn.generate.first_principles import orbital_labels
from refattn.generate.orbitals import xtb_labels

pytestmark = needs_xtb

# QM9 geometries (CC0) with frontier orbitals (eV) and populations by tblite 0.8, from a calculation that is not ours.
HCN = Atoms(
    "CNH",
    [[-0.013324, 1.132466, 0.008276], [0.002311, -0.019159, 0.001929], [-0.027803, 2.198949, 0.014154]],
)
ETHER = Atoms(
    "COCH6",
    [
        [-0.014821, 1.392412, 0.005671],
        [-0.004715, -0.013607, 0.014597],
        [0.637949, -0.553297, -1.113582],
        [1.005284, 1.810158, 0.004656],
        [-0.546896, 1.793435, -0.872510],
        [-0.530029, 1.722920, 0.911017],
        [0.139938, -0.255993, -2.050984],
        [1.692653, -0.238684, -1.174777],
        [0.599594, -1.641802, -1.024076],
    ],
)
HCN_HOMO_AND_LUMO, HCN_LUMO_POPULATION = (-12.263641, -6.462224), [0.5545, 0.4455, 0.0]
ETHER_HOMO_AND_LUMO = (-10.925921, 1.338961)
ETHER_HOMO_POPULATION = [0.0528, 0.6037, 0.0528, 0.0727, 0.0726, 0.0, 0.0727, 0.0726, 0.0]


def test_frontier_orbitals_of_another_calculation():
    labels, arrays = xtb_labels(ETHER)
    assert (labels["homo"], labels["lumo"]) == pytest.approx(ETHER_HOMO_AND_LUMO, abs=2e-4)
    np.testing.assert_allclose(arrays["homo_population"], ETHER_HOMO_POPULATION, atol=2e-3)
    labels, arrays = xtb_labels(HCN)
    assert (labels["homo"], labels["lumo"]) == pytest.approx(HCN_HOMO_AND_LUMO, abs=2e-4)
    np.testing.assert_allclose(arrays["lumo_population"], HCN_LUMO_POPULATION, atol=2e-3)


def test_the_command_writes_a_set_that_attention_is_taught_on(tmp_path):
    source, out, data = tmp_path / "in.xyz", tmp_path / "out.extxyz", tmp_path / "data.h5"
    ase.io.write(source, [HCN, molecule("CH3"), ETHER, molecule("C6H6")])
    command = ["data", "orbitals", str(source), str(out), "--method", "gfn2-xtb", "--skip-bad"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0 and "3 molecules by gfn2-xtb, 1 left out" in result.stderr
    assert CliRunner().invoke(cli, command).exit_code == 0  # its own output is replaced
    cyanide, ether, benzene = ase.io.read(out, ":")
    for atoms, levels in ((cyanide, HCN_HOMO_AND_LUMO), (ether, ETHER_HOMO_AND_LUMO)):
        assert (atoms.info["xtb_homo"], atoms.info["xtb_lumo"]) == pytest.approx(levels, abs=2e-4)
    np.testing.assert_allclose(ether.arrays["homo_population"], ETHER_HOMO_POPULATION, atol=2e-3)
    np.testing.assert_allclose(benzene.arrays["homo_mulliken"][:6], 1 / 6, atol=2e-3)  # of both degenerate orbitals
    assert CliRunner().invoke(cli, ["prepare", str(out), str(data)]).exit_code == 0
    assert {"xtb_homo", "xtb_lumo"} <= set(read_dataset(data).labels)
    assert {"homo_population", "lumo_population"} <= set(read_dataset(data).arrays)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (molecule("CH3"), "odd number of electrons"),
        (Atoms("U2", [[0, 0, 0], [0, 0, 2.5]]), "GFN2-xTB fails"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[5, 5, 5], pbc=True), "periodic"),
    ],
)
def test_what_gfn2_xtb_does_not_compute_is_refused(atoms, message):
    for compute in (lambda atoms: orbital_labels(atoms, "gfn2-xtb"), xtb_labels, populations):
        with pytest.raises(DataError, match=message):
            compute(atoms)


def test_orbitals_within_the_spread_are_of_one_kind():
    """A twisted double bond, whose HOMO and LUMO are 0.02 eV apart: an electron is in one of them."""
    atoms = molecule("C2H4")
    atoms[2].symbol = "F"
    atoms.set_distance(0, 2, 1.35, fix=0)
    middle = atoms.positions[:2].mean(axis=0)
    axis = atoms.positions[1] - atoms.positions[0]
    side = (atoms.positions - middle) @ axis > 0
    turned = atoms[side]
    turned.rotate(90, axis, center=middle)
    atoms.positions[side] = turned.positions
    labels, alone = xtb_labels(atoms)
    assert 0 < labels["lumo"] - labels["homo"] < 0.3
    _, together = xtb_labels(atoms, 0.3)
    for name in ("homo_population", "lumo_population"):
        np.testing.assert_allclose(together[name], alone[name], atol=1e-9)


def test_populations_sum_to_one_and_follow_symmetry():
    _, arrays = xtb_labels(molecule("C2H4"))
    for name in ("homo_population", "lumo_population"):
        assert arrays[name].sum() == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(arrays[name][:2], 0.5, atol=0.01)  # the pi orbitals live on the carbon atoms


def test_of_degenerate_orbitals_the_mean_is_even():
    """Benzene's E1g: each orbital alone lives on two or on four of the atoms."""
    alone, both = (xtb_labels(molecule("C6H6"), gap)[1]["homo_population"][:6] for gap in (0.0, 1e-2))
    assert np.ptp(alone) > 0.1
    np.testing.assert_allclose(both, both.mean(), atol=1e-3)


def test_forces_are_minus_the_slope_of_the_energy():
    atoms, step = molecule("H2O"), 1e-3
    atoms.rattle(0.05, seed=0)
    forces = xtb_labels(atoms)[1]["forces"]
    for i in range(3):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[i, 2] += sign * step
            energies.append(xtb_labels(moved)[0]["energy"])
        assert forces[i, 2] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-3)


def test_generate_on_the_command_line(tmp_path):
    """A platinum atom on benzene by GFN2-xTB: all labels, and populations of both orbitals that sum to 1."""
    out = tmp_path / "set.extxyz.gz"
    options = ["--snapshots", "1", "--largest", "1", "--rings", "0", "--temperature", "300", "--jobs", "1"]
    result = CliRunner().invoke(cli, ["data", "generate", "pt-graphene", str(out), *options])
    assert result.exit_code == 0, result.output
    frames = ase.io.read(out, index=":")
    assert [atoms.info["id"] for atoms in frames] == [f"Pt1_{site}_300K-0000" for site in ("hollow", "bridge", "top")]
    for atoms in frames:
        assert atoms.info["lumo"] > atoms.info["homo"]
        assert -5 < atoms.info["deformation_energy"] < 5  # eV: bound to the sheet, and shaken by 300 K
        for name in ("homo_population", "lumo_population"):
            assert atoms.arrays[name].sum() == pytest.approx(1, abs=1e-3)  # rounded
        assert np.abs(atoms.get_forces().sum(axis=0)).max() < 0.01
