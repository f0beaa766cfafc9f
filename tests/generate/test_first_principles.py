"""Orbitals by PySCF: populations by hand, degenerate ones taken together, what is kept, and the commands."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree
from click.testing import CliRunner
from extras import needs_pyscf

from refattn.cli.main import cli
from refattn.cli.options import Progress, StatusLine
from refattn.errors import DataError
from refattn.generate import first_principles
from refattn.generate.first_principles import ARRAYS, ORBITALS, frontier, frontier_orbitals, orbital_labels
from refattn.network.checkpoint import save_checkpoint

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
    found = frontier(np.array([-3.0, 2.0]), np.array([True, False]), c, overlap, np.array([0, 1]), 2)
    labels, arrays, coefficients = found
    np.testing.assert_array_equal(np.hstack([coefficients["homo"], coefficients["lumo"]]), c)
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
    np.testing.assert_array_equal(
        frontier_orbitals(shifted, METHOD).arrays["lumo_population"], arrays["lumo_population"]
    )
    file.write_text("{")
    with pytest.raises(TypeError):
        orbital_labels(shifted, METHOD)  # damaged: computed again


@needs_pyscf
def test_large_molecules_by_density_fitting(monkeypatch):
    """Nearly the same orbitals as by the exact integrals, and not quite."""
    benzene = molecule("C6H6")
    exact = first_principles.solve(benzene, "hf/6-31g*")
    monkeypatch.setattr(first_principles, "FITTED", 96)  # as many as there are
    fitted = first_principles.solve(benzene, "hf/6-31g*")
    apart = np.abs(exact[0] - fitted[0])[exact[1]].max()
    assert 1e-6 < apart < 5e-3  # eV
    arrays = [frontier(*found, len(benzene))[1] for found in (exact, fitted)]
    for name in ARRAYS:
        np.testing.assert_allclose(arrays[1][name], arrays[0][name], atol=1e-3)


@needs_pyscf
def test_what_was_kept_without_coefficients(cache, monkeypatch):
    """Before densities were drawn: populations hold as they are, and coefficients are computed and kept once."""
    orbitals = frontier_orbitals(molecule("H2O"), METHOD)
    (file,) = cache.iterdir()
    whole = file.read_text()
    content = json.loads(whole)
    del content["coefficients"]
    file.write_text(json.dumps(content))
    with monkeypatch.context() as patched:
        patched.setattr(first_principles, "solve", None)
        assert orbital_labels(molecule("H2O"), METHOD)[0] == orbitals.labels
        with pytest.raises(TypeError):
            frontier_orbitals(molecule("H2O"), METHOD)
    again = frontier_orbitals(molecule("H2O"), METHOD)
    for name in ORBITALS:
        np.testing.assert_allclose(np.abs(again.coefficients[name]), np.abs(orbitals.coefficients[name]), atol=1e-5)
    assert "coefficients" in json.loads(file.read_text())
    for damaged in ({"homo": [1.0], "lumo": [1.0]}, {"homo": [[1.0]]}, 3):
        file.write_text(json.dumps(content | {"coefficients": damaged}))
        assert frontier_orbitals(molecule("H2O"), METHOD).coefficients["lumo"].shape == (7, 1)


@needs_pyscf
@pytest.mark.parametrize("basis", ["sto-3g", "6-31g*"])
def test_density_at_points(basis):
    """PySCF's own density of the density matrix of one orbital, and of both of a degenerate pair in their mean."""
    from pyscf import dft, gto, scf

    atoms = molecule("C2H2")  # pi and pi* are pairs
    sites = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
    field = scf.RHF(gto.M(atom=sites, basis=basis, verbose=0)).run()
    points = np.random.default_rng(0).normal(size=(50, 3)) * 1.5
    found = frontier_orbitals(atoms, f"hf/{basis}").densities(points)
    assert [c.shape[1] for c in frontier_orbitals(atoms, f"hf/{basis}").coefficients.values()] == [2, 2]
    values = dft.numint.eval_ao(field.mol, points / Bohr)
    for name, pair in (("homo", slice(5, 7)), ("lumo", slice(7, 9))):
        c = field.mo_coeff[:, pair]
        wanted = dft.numint.eval_rho(field.mol, values, c @ c.T) / 2 / Bohr**3
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-6)  # the fields converge to 1e-5


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
    assert "1 molecule by hf/sto-3g, written" in CliRunner().invoke(cli, [*command, "--limit", "1"]).stderr
    assert CliRunner().invoke(cli, [*command, "--skip-bad"]).exit_code == 0
    water, hydrogen = ase.io.read(out, ":")
    assert water.info["homo"] == pytest.approx(orbital_labels(molecule("H2O"), METHOD)[0]["homo"])
    np.testing.assert_allclose(hydrogen.arrays["lumo_mulliken"], 0.5, atol=1e-6)
    assert CliRunner().invoke(cli, [*command, "--skip-bad"]).exit_code == 0  # its own output is replaced
    before = out.read_bytes()
    ase.io.write(source, [molecule("CH3"), molecule("CH3")])
    result = CliRunner().invoke(cli, [*command, "--skip-bad"])
    assert result.exit_code == 1 and "no molecule was computed, 2 left out" in result.stderr
    assert out.read_bytes() == before  # nothing does not take the place of something


def test_progress_of_a_known_total(monkeypatch):
    """The time left is that of the last ten steps: what was kept on the disk, here twenty in no time, is not in it."""
    now = [0.0]
    monkeypatch.setattr("refattn.cli.options.time.monotonic", lambda: now[0])
    shown = []
    status = StatusLine()
    monkeypatch.setattr(status, "update", shown.append)
    progress = Progress(status, 40, "molecule")
    progress.update(0, " by hf/sto-3g")
    for number in range(1, 41):
        now[0] += 25 * (number > 20)
        progress.update(number, " by hf/sto-3g")
    assert shown[0] == "0 of 40 molecules by hf/sto-3g"
    assert shown[31] == "31 of 40 molecules by hf/sto-3g, about 3 min 45 s left"
    assert shown[40] == "40 of 40 molecules by hf/sto-3g"
    progress.detail("C60: cycle 3")
    assert shown[-1] == "40 of 40 molecules by hf/sto-3g; C60: cycle 3"
    Progress(status, 1, "molecule").update(1)
    assert shown[-1] == "1 of 1 molecule"


@needs_pyscf
@pytest.mark.parametrize("command", ["data orbitals", "explain"])
def test_every_cycle_is_shown(command, tmp_path, monkeypatch, model):
    """A large molecule takes minutes for each; at the end the gradient is below PySCF's own bound."""
    shown = []
    monkeypatch.setattr(StatusLine, "update", lambda self, text: shown.append(text))
    source = tmp_path / "water.xyz"
    ase.io.write(source, molecule("H2O"))
    if command == "explain":
        save_checkpoint(tmp_path / "model.h5", model.checkpoint)
        options = [tmp_path / "model.h5", source, "--out", tmp_path / "out"]
        options += ["--scores", "none", "--compare", "orbitals"]
    else:
        options = [source, tmp_path / "out.extxyz"]
    result = CliRunner().invoke(cli, [*command.split(), *map(str, options), "--method", METHOD])
    assert result.exit_code == 0, result.output
    told = [text.partition("; ")[2] for text in shown if "; " in text]
    assert told[0] == "water: 7 atomic orbitals" and len(told) > 5
    for number, text in enumerate(told[1:], 1):
        *_, gradient, _, bound = text.split()
        assert text.startswith(f"water: cycle {number}, gradient ")
    assert float(gradient) < float(bound) == pytest.approx(1e-9**0.5, rel=0.1)
