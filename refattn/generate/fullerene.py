"""The homemade fullerene set: snapshots of carbon cages in Langevin dynamics on GFN2-xTB.

The authors made theirs with density functional theory (Vu et al. 2023, "Fullerene-MD"); this one has the
same kind of structures and targets from a method that runs on a laptop.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import ase
from ase.build import molecule

from refattn.data.sources.files import FilesSource
from refattn.generate.dynamics import Dynamics, Trajectory, generate, relax, single_threaded, trajectory_names
from refattn.generate.methods import XTB, Method

TEMPERATURES = (300.0, 600.0, 1000.0)  # K
CAGES = Path(__file__).parents[1] / "data" / "sets" / "cages.extxyz"


def cages(start: Path | str | None = None) -> dict[str, ase.Atoms]:
    """Starting cages by their names: C60 from ASE, and those of the extended XYZ file `start`.

    By default C36, C50, C70 and C72: the isomers of lowest energy in FullereneNet (MIT licence), relaxed here by
    GFN2-xTB. Raises DataError for a file that cannot be read.
    """
    return {"C60": molecule("C60")} | {record.id: record.atoms for record in FilesSource(start or CAGES)}


def generate_fullerenes(
    folder: Path,
    n_snapshots: int,
    start: Path | str | None = None,
    seed: int = 0,
    temperatures: Sequence[float] = TEMPERATURES,
    method: Method | None = None,
    jobs: int = 1,
    progress: Callable[..., None] | None = None,
) -> list[Path]:
    """Snapshots of every cage at every temperature, labelled by `method` (GFN2-xTB); see simulate.generate.

    Labels of GFN2-xTB: energy, deformation_energy (above that of the relaxed cage), homo, lumo (eV); arrays: forces
    (eV/Å), homo_population, lumo_population. Raises MissingExtra without tblite, and DataError as cages,
    trajectory_names and generate do.
    """
    method = method or XTB()
    starts = cages(start)
    names = trajectory_names(starts, temperatures)
    with single_threaded(method):
        relaxed = {name: relax(cage, method.calculator(), name) for name, cage in starts.items()}
    trajectories = [Trajectory(name, relaxed[cage][0], t, relaxed[cage][1]) for (cage, t), name in names.items()]
    return generate(trajectories, n_snapshots, folder, Dynamics(seed=seed), method, jobs, progress)
