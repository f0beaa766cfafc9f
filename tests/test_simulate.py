"""Molecular dynamics that makes a set: resumable to the byte, and physically what it says."""

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.emt import EMT

from refattn.data.fullerene import generate_fullerenes
from refattn.data.simulate import Dynamics, Trajectory, generate, merge_trajectories, relax
from refattn.errors import DataError

N_SNAPSHOTS = 4


def labels(atoms):
    """Energy and forces from ASE's effective medium theory, which needs no extra."""
    atoms = atoms.copy()
    atoms.calc = EMT()
    return {"energy": float(atoms.get_potential_energy())}, {"forces": atoms.get_forces()}


def trajectories():
    found = []
    for name, temperature in (("C2H6", 300.0), ("CH3OH", 600.0)):
        atoms = molecule(name)
        atoms.info["id"] = name
        found.append(Trajectory(f"{name}_{temperature:.0f}K", relax(atoms, EMT(), fmax=0.05), temperature))
    return found


def run(folder, n_snapshots=N_SNAPSHOTS, progress=None):
    dynamics = Dynamics(timestep=0.5, warmup=5, interval=3, seed=7)
    return generate(trajectories(), n_snapshots, folder, dynamics, EMT, labels, progress)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return run(tmp_path_factory.mktemp("md") / "complete")


def test_same_seed_same_bytes(complete, tmp_path):
    assert [file.read_bytes() for file in run(tmp_path)] == [file.read_bytes() for file in complete]


@pytest.mark.parametrize("cut", [0, 1, 40, 400, 900, -1])
def test_a_run_that_was_cut_goes_on_with_the_same_bytes(complete, tmp_path, cut):
    """Whatever a kill leaves of a file, from nothing to a frame without its last character."""
    for file in complete:
        (tmp_path / file.name).write_bytes(file.read_bytes()[:cut])
    assert [file.read_bytes() for file in run(tmp_path)] == [file.read_bytes() for file in complete]


def test_an_exception_in_the_middle_loses_no_snapshot(complete, tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop)
    assert [file.read_bytes() for file in run(tmp_path)] == [file.read_bytes() for file in complete]


def test_more_snapshots_extend_what_is_there(complete, tmp_path):
    run(tmp_path, 2)
    assert [file.read_bytes() for file in run(tmp_path)] == [file.read_bytes() for file in complete]


def test_labels_belong_to_the_written_positions(complete):
    frames = ase.io.read(complete[0], index=":")
    assert [atoms.info["id"] for atoms in frames] == [f"C2H6_300K-{k:04d}" for k in range(N_SNAPSHOTS)]
    relaxed = trajectories()[0].start.info["energy"]
    for atoms in frames:
        energy = labels(atoms)[0]["energy"]
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)
        assert atoms.info["deformation_energy"] == pytest.approx(energy - relaxed, abs=1e-6)


def test_temperature_of_a_long_trajectory(tmp_path):
    """Mean kinetic energy of a thermostatted molecule: 3/2 k T an atom (equipartition)."""
    dynamics = Dynamics(timestep=0.5, friction=0.05, warmup=200, interval=20, seed=1)
    file = generate(trajectories()[:1], 60, tmp_path, dynamics, EMT, labels)[0]
    frames = ase.io.read(file, index=":")
    kinetic = [(atoms.get_momenta() ** 2 / (2 * atoms.get_masses()[:, None])).sum() / len(atoms) for atoms in frames]
    temperature = np.mean(kinetic) / (1.5 * units.kB)
    # 60 snapshots of 24 degrees of freedom: standard error 300 sqrt(2 / (60 * 24)) = 11 K if independent
    assert temperature == pytest.approx(300, abs=60)


def test_merged_set_has_the_snapshots_and_rounded_arrays(complete, tmp_path):
    out = tmp_path / "set.extxyz.gz"
    assert merge_trajectories(complete, out, 3) == 6
    first = out.read_bytes()
    assert merge_trajectories(complete, out, 3) == 6
    assert out.read_bytes() == first
    frames = ase.io.read(out, index=":")
    originals = [atoms for file in complete for atoms in ase.io.read(file, index=":3")]
    for atoms, original in zip(frames, originals, strict=True):
        np.testing.assert_allclose(atoms.positions, original.positions, atol=0.6e-5)
        assert atoms.info["id"] == original.info["id"]
        assert atoms.get_potential_energy() == original.get_potential_energy()
        assert "momenta" not in atoms.arrays


def test_temperatures_that_name_no_trajectory_of_their_own(tmp_path):
    for temperatures, reason in (((300.0, 300.0), "twice"), ((300.0, float("nan")), "not finite"), ((0.0,), "above 0")):
        with pytest.raises(DataError, match=reason):
            generate_fullerenes(tmp_path / "parts", 1, temperatures=temperatures)
    assert not (tmp_path / "parts").exists()


def test_a_structure_that_does_not_relax_is_named():
    atoms = molecule("C2H6")
    atoms.info["id"] = "ethane"
    with pytest.raises(DataError, match="ethane: not relaxed"):
        relax(atoms, EMT(), fmax=1e-12)
