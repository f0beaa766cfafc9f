"""The homemade fullerene set: snapshots of carbon cages in Langevin dynamics on GFN2-xTB.

The authors made theirs with density functional theory (Vu et al. 2023, "Fullerene-MD"); this one has the
same kind of structures and targets from a method that runs on a laptop.
"""

import math
from pathlib import Path

import threadpoolctl
from ase.build import molecule

from refattn.data.files import FilesSource
from refattn.data.orbitals import xtb_calculator, xtb_labels
from refattn.data.simulate import Dynamics, Trajectory, generate, relax
from refattn.errors import DataError

TEMPERATURES = (300.0, 600.0, 1000.0)  # K
CAGES = Path(__file__).parent / "sets" / "cages.extxyz"


def cages(start=None):
    """Starting cages, a list of ase.Atoms with `id`: C60 from ASE, and those of the extended XYZ file `start`.

    By default C36, C50, C70 and C72: the isomers of lowest energy in FullereneNet (MIT licence), relaxed here by
    GFN2-xTB. Raises DataError for a file that cannot be read.
    """
    c60 = molecule("C60")
    c60.info["id"] = "C60"
    others = [record.atoms for record in FilesSource(start or CAGES)]
    return [c60] + others


def generate_fullerenes(folder, n_snapshots, start=None, seed=0, temperatures=TEMPERATURES, progress=None):
    """Snapshots of every cage at every temperature, labelled by GFN2-xTB; see simulate.generate.

    Labels: energy, deformation_energy, homo, lumo (eV); arrays: forces (eV/Å), homo_population, lumo_population.
    On one thread, because sums on several depend on their number. Raises MissingExtra without tblite, and DataError
    for temperatures that are not finite and above 0 or that would share a trajectory.
    """
    names = [f"{t:g}K" for t in temperatures]
    if not all(0 < t < math.inf for t in temperatures):
        raise DataError(f"a temperature of {', '.join(names)} is not finite and above 0; correct it")
    if len(set(names)) < len(names):
        raise DataError(f"the temperatures {', '.join(names)} name a trajectory twice; give each of them once")
    xtb_calculator()  # loads the library whose threads are limited below
    with threadpoolctl.threadpool_limits(limits=1):
        relaxed = [relax(cage, xtb_calculator()) for cage in cages(start)]
        trajectories = [
            Trajectory(f"{c.info['id']}_{name}", c, t) for name, t in zip(names, temperatures) for c in relaxed
        ]
        dynamics = Dynamics(seed=seed)
        return generate(trajectories, n_snapshots, folder, dynamics, xtb_calculator, xtb_labels, progress)
