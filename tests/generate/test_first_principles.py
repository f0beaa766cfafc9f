"""Orbitals by PySCF: populations by hand, degenerate ones taken together, what is kept, and the commands."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import Hartree
from click.testing import CliRunner
from extras import needs_pyscf

from refattn.cli.main import cli
from refattn.errors import DataError
from refattn.explanation.comparison import populations
from refattn.generate import first_principles
from refattn.generate.first_principles import ARRAYS, frontier, orbital_labels

METHOD = "hf/sto-3g"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REFATTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "orbitals"


def test_populations_by_hand():
    """Two atoms with an s orbital each that overlap by s: bonding and antibonding orbital, half on each atom."""
    s = 0.4
    overlap = np.array([[1, s], [s, 1]])
    c = np.array([[1, 1], [1, -1]]) / np.sqrt(2 * np.array([1 + s, 1 - s]))
    labels, arrays = frontier(np.array([-3.0, 2.0]), np.array([True, False]), c, overlap, np.array([0, 1]), 2)
    assert labels == {"homo": -3.0, "lumo": 2.0}
    for name in ARRAYS:
        np.testing.assert_allclose(arrays[name], 0.5, rtol=1e-12)


def test_nearly_degenerate_orbitals_are_taken_together():
    """Of four orbitals on four atoms, occupied ones 0.2 eV apart share; an empty one as near stays out."""
    levels = np.array([-5.0, -4.8, -4.6, 3.0])
    arrays = frontier(levels, np.array([True, True, False, False]), np.eye(4), np.eye(4), np.arange(4), 4)[1]
    np.testing.assert_allclose(arrays["homo_population"], [0.5, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(arrays["lumo_population"], [0, 0, 1, 0], atol=1e-12)


@needs_pyscf
def test_water_and_what_is_kept(cache, monkeypatch):
    """Of water the HOMO is a p orbital of oxygen alone, at -0.39 Hartree in this basis (Szabo & Ostlund)."""
    labels, arrays = orbital_labels(molecule("H2O"), METHOD)
    assert labels["homo"] == pytest.approx(-0.39 * 27.2114, abs=0.2) and labels["lumo"] > 0
    np.testing.assert_allclose(arrays["homo_population"], [1, 0, 0], atol=1e-6)
    for name in ARRAYS:
        assert arrays[name].sum() == pytest.approx(1, abs=1e-9)
    (file,) = cache.iterdir()
    monkeypatch.setattr(first_principles, "solve", None)  # what is kept is not computed again
    shifted = molecule("H2O")
    shifted.positions += 1.5
    assert orbital_labels(shifted, METHOD.upper())[0] == labels
    np.testing.assert_array_equal(populations(shifted, METHOD)["lumo_population"], arrays["lumo_population"])
    file.write_text("{")
    with pytest.raises(TypeError):
        orbital_labels(shifted, METHOD)  # damaged: computed again


@needs_pyscf
@pytest.mark.parametrize(
    ("atoms", "method", "message"),
    [
        (molecule("H2"), "b3lyp", "is neither FUNCTIONAL/BASIS"),
        (molecule("H2"), "nonsense/sto-3g", "cannot compute nonsense/sto-3g"),
        (molecule("H2"), "hf/nonsense", "cannot compute hf/nonsense"),
        (molecule("CH3"), METHOD, "odd number of electrons"),
        (Atoms("He"), METHOD, "structure .*: hf/sto-3g has no empty orbital"),
        (Atoms("Ne"), METHOD, "structure .*: hf/sto-3g has no empty orbital"),
        (molecule("CH4"), "hf/gth-dzvp", "hf/gth-dzvp has no functions for the core of C"),
        (Atoms("ClH", [[0, 0, 0], [0, 0, 1.27]]), "hf/ccecp-cc-pvdz", "no functions for the core of Cl"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[5, 5, 5], pbc=True), METHOD, "periodic"),
    ],
)
def test_what_cannot_be_computed(atoms, method, message):
    with pytest.raises(DataError, match=message):
        orbital_labels(atoms, method)


@needs_pyscf
@pytest.mark.parametrize(
    ("atoms", "basis", "potential"),
    [
        (Atoms("HI", [[0, 0, 0], [0, 0, 1.609]]), "def2-svp", {"I": "def2-svp"}),
        (Atoms("HI", [[0, 0, 0], [0, 0, 1.609]]), "lanl2dz", {"I": "lanl2dz"}),
        (Atoms("HI", [[0, 0, 0], [0, 0, 1.609]]), "sto-3g", {}),
        (molecule("H2O"), "6-31g*", {}),
        (molecule("H2O"), "def2-svp", {}),
    ],
)
def test_core_potentials_of_a_basis(atoms, basis, potential):
    """PySCF with the potential named by hand; of iodine's core only the potential, or functions too, know."""
    from pyscf import gto, scf

    sites = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
    field = scf.RHF(gto.M(atom=sites, basis=basis, ecp=potential, verbose=0)).run()
    n_occupied = int((field.mo_occ > 0).sum())
    labels, arrays = orbital_labels(atoms, f"hf/{basis}")
    assert labels["homo"] == pytest.approx(field.mo_energy[n_occupied - 1] * Hartree, abs=1e-5)
    assert labels["lumo"] == pytest.approx(field.mo_energy[n_occupied] * Hartree, abs=1e-5)
    assert arrays["homo_population"].sum() == pytest.approx(1, abs=1e-9)


@needs_pyscf
def test_the_command_writes_a_set(tmp_path):
    source, out = tmp_path / "in.xyz", tmp_path / "out.extxyz"
    ase.io.write(source, [molecule("H2O"), molecule("CH3"), molecule("H2")])
    command = ["data", "orbitals", str(source), str(out), "--method", METHOD]
    assert "odd number" in CliRunner().invoke(cli, command).stderr
    result = CliRunner().invoke(cli, [*command, "--skip-bad"])
    assert result.exit_code == 0 and "2 molecules by hf/sto-3g, 1 left out" in result.stderr
    water, hydrogen = ase.io.read(out, ":")
    assert water.info["homo"] == pytest.approx(orbital_labels(molecule("H2O"), METHOD)[0]["homo"])
    np.testing.assert_allclose(hydrogen.arrays["lumo_mulliken"], 0.5, atol=1e-6)
    assert CliRunner().invoke(cli, [*command, "--skip-bad"]).exit_code == 0  # its own output is replaced
    before = out.read_bytes()
    ase.io.write(source, [molecule("CH3"), molecule("CH3")])
    result = CliRunner().invoke(cli, [*command, "--skip-bad"])
    assert result.exit_code == 1 and "no molecule was computed, 2 left out" in result.stderr
    assert out.read_bytes() == before  # nothing does not take the place of something
