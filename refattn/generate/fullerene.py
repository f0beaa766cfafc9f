"""The homemade fullerene set: snapshots of carbon cages in Langevin dynamics on GFN2-xTB.

The authors made theirs with density functional theory (Vu et al. 2023, "Fullerene-MD"); this one has the
same kind of structures and targets from a method that runs on a laptop.
"""

from collections.abc import Sequence
from pathlib import Path

import ase
from ase.build import molecule

from refattn.data.sources.files import FilesSource
from refattn.generate.dynamics import Trajectory, relax, single_threaded, trajectory_names
from refattn.generate.methods import Method

TEMPERATURES = (300.0, 600.0, 1000.0)  # K
CAGES = Path(__file__).parents[1] / "data" / "sets" / "cages.extxyz"


def cages(start: Path | str | None = None) -> dict[str, ase.Atoms]:
    """Starting cages by their names: C60 from ASE, and those of the extended XYZ file `start`.

    By default C36, C50, C70 and C72: the isomers of lowest energy in FullereneNet (MIT licence), relaxed here by
    GFN2-xTB. Raises DataError for a file that cannot be read.
    """
    return {"C60": molecule("C60")} | {record.id: record.atoms for record in FilesSource(start or CAGES)}


def cage_trajectories(
    method: Method, temperatures: Sequence[float] = TEMPERATURES, start: Path | str | None = None
) -> list[Trajectory]:
    """Trajectories of every cage at every temperature (K), for dynamics.generate; the cages are relaxed by `method`.

    deformation_energy counts from the relaxed cage. Raises DataError as cages, trajectory_names and relax do.
    """
    starts = cages(start)
    names = trajectory_names(starts, temperatures)
    with single_threaded(method):
        relaxed = {name: relax(cage, method.calculator(), name) for name, cage in starts.items()}
    return [Trajectory(name, relaxed[cage][0], t, relaxed[cage][1]) for (cage, t), name in names.items()]
