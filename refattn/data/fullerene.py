"""The homemade fullerene set: snapshots of carbon cages in Langevin dynamics on GFN2-xTB.

The authors made theirs with density functional theory (Vu et al. 2023, "Fullerene-MD"); this one has the
same kind of structures and targets from a method that runs on a laptop.
"""

import ase.io
from ase.build import molecule

from refattn.data.orbitals import xtb_calculator, xtb_labels
from refattn.data.simulate import Dynamics, Trajectory, generate, relax

TEMPERATURES = (300.0, 600.0, 1000.0)  # K


def cages(start=None):
    """Starting cages: C60 from ASE and, with `start`, those of an extended XYZ file. List of ase.Atoms with `id`."""
    c60 = molecule("C60")
    c60.info["id"] = "C60"
    return [c60] + (ase.io.read(start, index=":") if start else [])


def generate_fullerenes(folder, n_snapshots, start=None, seed=0, temperatures=TEMPERATURES, progress=None):
    """Snapshots of every cage at every temperature, labelled by GFN2-xTB; see simulate.generate.

    Labels: energy, deformation_energy, homo, lumo (eV); arrays: forces (eV/Å), homo_population, lumo_population.
    Raises MissingExtra without tblite.
    """
    relaxed = [relax(cage, xtb_calculator()) for cage in cages(start)]
    trajectories = [Trajectory(f"{c.info['id']}_{t:.0f}K", c, t) for t in temperatures for c in relaxed]
    dynamics = Dynamics(seed=seed)
    return generate(trajectories, n_snapshots, folder, dynamics, xtb_calculator, xtb_labels, progress)
