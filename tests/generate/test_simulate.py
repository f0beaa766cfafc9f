"""Molecular dynamics that makes a set: resumable to the byte, and physically what it says."""

import subprocess
import sys
import textwrap

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from click.testing import CliRunner

from refattn.cli.main import cli
from refattn.errors import DataError
from refattn.generate.dynamics import Dynamics, Trajectory, generate, relax, trajectory_names
from refattn.generate.fullerene import cage_trajectories
from refattn.generate.methods import AnyCalculator, open_method
from refattn.generate.pt_graphene import (
    HYDROGEN_MASS,
    adsorbed,
    adsorption_sites,
    cluster,
    platinum_trajectories,
    sheet,
)
from refattn.generate.snapshots import merge_trajectories

N_SNAPSHOTS = 4
METHOD = AnyCalculator("ase.calculators.emt:EMT")  # ASE's effective medium theory, which needs no extra


def trajectories():
    found = []
    for name, temperature in (("C2H6", 300.0), ("CH3OH", 600.0)):
        atoms, energy = relax(molecule(name), EMT(), name, fmax=0.05)
        found.append(Trajectory(f"{name}_{temperature:.0f}K", atoms, temperature, energy))
    return found


def run(folder, n_snapshots=N_SNAPSHOTS, jobs=1, progress=None, seed=7):
    dynamics = Dynamics(timestep=0.5, warmup=5, interval=3, seed=seed)
    return generate(trajectories(), n_snapshots, folder, dynamics, METHOD, jobs, progress)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return run(tmp_path_factory.mktemp("md") / "complete")


def test_same_seed_same_bytes(complete, tmp_path):
    assert [file.read_bytes() for file in run(tmp_path)] == [file.read_bytes() for file in complete]


@pytest.mark.parametrize("cut", [0, 1, 40, 400, 900, -1])
def test_a_run_that_was_cut_goes_on_with_the_same_bytes(complete, tmp_path, cut):
    """Whatever a kill leaves of a file, from nothing to a frame without its last character."""
    (tmp_path / "settings.json").write_bytes((complete[0].parent / "settings.json").read_bytes())
    for file in complete:
        (tmp_path / file.name).write_bytes(file.read_bytes()[:cut])
    assert [file.read_bytes() for file in run(tmp_path)] == [file.read_bytes() for file in complete]


def test_a_file_that_somebody_edited_is_refused_and_kept(complete, tmp_path):
    (tmp_path / "settings.json").write_bytes((complete[0].parent / "settings.json").read_bytes())
    for file in complete:
        first = 2 + int(file.read_text().partition("\n")[0])
        lines = file.read_text().splitlines(keepends=True)
        (tmp_path / file.name).write_text("".join([*lines[:first], "\n", *lines[first:]]))
    before = (tmp_path / complete[0].name).read_bytes()
    with pytest.raises(DataError, match="text after snapshot 1 is no number of atoms"):
        run(tmp_path)
    assert (tmp_path / complete[0].name).read_bytes() == before


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
    relaxed = trajectories()[0].reference_energy
    for atoms in frames:
        energy = EMT().get_potential_energy(atoms)
        assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)
        assert atoms.info["deformation_energy"] == pytest.approx(energy - relaxed, abs=1e-6)


def test_snapshots_are_a_chain(tmp_path):
    """Without friction the segments are one run of ASE's VelocityVerlet, which knows nothing of snapshots."""
    dynamics = Dynamics(timestep=0.5, friction=0.0, warmup=5, interval=6, seed=3)
    frames = ase.io.read(generate(trajectories()[1:], 5, tmp_path, dynamics, METHOD)[0], index=":")
    atoms = frames[0].copy()
    atoms.calc = EMT()
    verlet = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    for frame in frames[1:]:
        verlet.run(6)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-5)  # the file has 8 decimals
        np.testing.assert_allclose(frame.get_momenta(), atoms.get_momenta(), atol=1e-4)


def test_temperature_of_a_long_trajectory(tmp_path):
    """Mean kinetic energy of a thermostatted molecule: 3/2 k T an atom (equipartition)."""
    dynamics = Dynamics(timestep=0.5, friction=0.05, warmup=200, interval=20, seed=1)
    file = generate(trajectories()[:1], 60, tmp_path, dynamics, METHOD)[0]
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
            cage_trajectories(METHOD, temperatures)
    command = ["data", "generate", "fullerene", str(tmp_path / "set.xyz"), *2 * ["--temperature", "300"]]
    result = CliRunner().invoke(cli, [*command, "--calculator", METHOD.name])
    assert result.exit_code == 1
    assert "twice" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_structure_that_does_not_relax_is_named():
    with pytest.raises(DataError, match="ethane: not relaxed"):
        relax(molecule("C2H6"), EMT(), "ethane", fmax=1e-12)


def test_processes_do_not_change_the_bytes(complete, tmp_path):
    assert [file.read_bytes() for file in run(tmp_path, jobs=2)] == [file.read_bytes() for file in complete]


def test_other_settings_do_not_continue_a_set(complete, tmp_path):
    before = [file.read_bytes() for file in run(tmp_path, 2)]
    with pytest.raises(DataError, match="made with another seed"):
        run(tmp_path, seed=8)
    other = [Trajectory("C2H6_300K", molecule("C2H6"), 300.0, 0.0)]
    with pytest.raises(DataError, match="another structure"):
        generate(other, 4, tmp_path, Dynamics(timestep=0.5, warmup=5, interval=3, seed=7), METHOD)
    assert [file.read_bytes() for file in sorted(tmp_path.glob("*.extxyz"))] == before
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        run(tmp_path)


class Fails:
    """A method whose calculator cannot compute anything but the start."""

    name = "fails"

    def calculator(self):
        return EMT()

    def labels(self, atoms):
        raise RuntimeError("no self-consistency\nafter 250 iterations")


def test_a_calculator_that_fails_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"C2H6_300K, snapshot 0: no self-consistency after .* \(RuntimeError\)"):
        generate(trajectories()[:1], 1, tmp_path, Dynamics(warmup=1), Fails())
    assert ase.io.read(run(tmp_path / "other", 1)[0]).info["id"] == "C2H6_300K-0000"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ase.calculators.emt", "not of the form"),
        ("ase.calculators.nothing:EMT", "cannot be imported: No module"),
        ("ase.calculators.emt:Nothing", "cannot be imported: module"),
        ("ase.calculators.emt:EMT.x:y", "cannot be imported"),
        ("ase.build:molecule", "cannot be made without arguments"),
    ],
)
def test_a_calculator_that_is_none(name, reason):
    with pytest.raises(DataError, match=reason) as raised:
        open_method(name)
    assert "\n" not in str(raised.value)


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    from ase.build import molecule
    from refattn.generate.methods import AnyCalculator
    from refattn.generate.dynamics import Dynamics, Trajectory, generate

    method = AnyCalculator("ase.calculators.emt:EMT")
    trajectories = [Trajectory(f"CH4_{t}K", molecule("CH4"), t, 0.0) for t in (300, 600, 1000)]

    def make(folder):
        generate(trajectories, 8, folder, Dynamics(warmup=5, interval=3), method)

    root, draw, killed = Path(sys.argv[1]), random.Random(5), 0
    make(root / "warm")
    start = time.perf_counter()
    make(root / "whole")
    seconds = time.perf_counter() - start
    for trial in range(20):
        if (child := os.fork()) == 0:
            make(root / str(trial))
            os._exit(0)
        time.sleep(draw.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
        make(root / str(trial))
    print(killed)
"""


def test_twenty_kills_at_random_moments_leave_the_same_bytes(tmp_path):
    """kill -9, and the same command again: the files are those of a run that nothing disturbed."""
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    killed = int(subprocess.run(script, check=True, capture_output=True, text=True, timeout=120).stdout)
    made = [{f.name: f.read_bytes() for f in folder.iterdir()} for folder in sorted(tmp_path.iterdir())]
    assert len(made) == 22 and len(made[0]) == 4
    assert all(files == made[0] for files in made)
    assert killed >= 10  # a machine that was slower while it measured lets some of them finish


@pytest.mark.parametrize(("rings", "formula"), [(0, "C6H6"), (1, "C24H12"), (2, "C54H18"), (3, "C96H24")])
def test_sheets_are_the_hexagonal_benzenoids(rings, formula):
    """C(6n^2) H(6n): benzene, coronene, circumcoronene; every carbon has three bonds, every hydrogen one."""
    atoms = sheet(rings)
    assert atoms.get_chemical_formula() == formula
    bonded = atoms.get_all_distances() < 1.6
    assert (bonded.sum(axis=1) - 1 == np.where(atoms.numbers == 6, 3, 1)).all()
    np.testing.assert_allclose(atoms.positions.mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("n_atoms", range(1, 14))
def test_clusters_are_connected_and_stand_on_their_site(n_atoms):
    particle, support = cluster(n_atoms), sheet()
    touching = particle.get_all_distances() < 3.2
    assert np.linalg.matrix_power(touching.astype(int), n_atoms)[0].all()
    for site in adsorption_sites().values():
        both = adsorbed(support, particle, site)
        platinum = both.positions[both.numbers == 78]
        np.testing.assert_allclose(platinum[platinum[:, 2].argmin()], [*site, 2.2], atol=1e-9)
        assert both.get_masses()[both.numbers == 1] == pytest.approx(HYDROGEN_MASS)


def test_adsorption_sites_are_a_centre_a_bond_and_an_atom():
    carbon = sheet().positions[:24, :2]
    distances = {name: np.sort(np.linalg.norm(carbon - site, axis=1)) for name, site in adsorption_sites().items()}
    np.testing.assert_allclose(distances["hollow"][:6], 1.42, atol=2e-3)
    np.testing.assert_allclose(distances["bridge"][:2], 0.71, atol=2e-3)
    np.testing.assert_allclose(distances["top"][0], 0.0, atol=2e-3)


def test_deformation_energy_counts_from_the_relaxed_parts(tmp_path):
    """Two sizes, labels against energies of the parts that are relaxed and computed here, and hydrogen kept slow."""
    trajectories = platinum_trajectories(METHOD, (300.0,), largest=2, rings=0)
    files = generate(trajectories, 1, tmp_path, Dynamics(), METHOD)
    assert [file.stem for file in files] == [f"Pt{n}_{s}_300K" for n in (1, 2) for s in adsorption_sites()]
    support = relax(sheet(0), EMT(), "sheet")[1]
    for file in files:
        atoms = ase.io.read(file)
        particle = relax(cluster(int(file.stem[2])), EMT(), "Pt")[1]
        expected = atoms.get_potential_energy() - support - particle
        assert atoms.info["deformation_energy"] == pytest.approx(expected, abs=1e-6)


def test_trajectories_of_two_temperatures_have_their_own_names():
    names = trajectory_names(["C60", "C70"], (300.0, 1000.0))
    assert list(names.values()) == ["C60_300K", "C70_300K", "C60_1000K", "C70_1000K"]
