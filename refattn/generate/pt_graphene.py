"""The homemade Pt/graphene set: snapshots of platinum clusters on a sheet of graphene in Langevin dynamics on GFN2-xTB.

The authors made theirs with density functional theory (Vu et al. 2023, "Pt/graphene-MD"); this one has the same kind
of structures and the same target, the deformation energy, from a method that runs on a laptop.
"""

import itertools
from collections.abc import Sequence

import ase
import numpy as np
from ase import Atoms
from ase.build import graphene
from ase.cluster import Icosahedron
from scipy.spatial import KDTree

from refattn.generate.dynamics import Trajectory, relax, single_threaded, trajectory_names
from refattn.generate.methods import Method

TEMPERATURES = (300.0, 600.0, 1000.0)  # K
LARGEST = 13  # atoms of the largest cluster, an icosahedron
CC_BOND = 1.42  # Å, as the two below; at the start
CH_BOND = 1.09
PT_PT = 2.77
HEIGHT = 2.2  # Å, of the lowest platinum atom above the sheet at the start
TILT = (0.10, 0.23, 1.0)  # 1, the direction in which a cluster grows; off every axis, so that no two atoms are level
# u. Hydrogen moves as slowly as tritium does, so that steps of 2 fs resolve its vibrations too. Averages over
# configurations do not depend on masses, which enter the kinetic energy alone.
HYDROGEN_MASS = 3.016


def sheet(rings: int = 1) -> ase.Atoms:
    """A hexagon of graphene with hydrogen at its rim, flat around the origin, unrelaxed.

    Parameters
    ----------
    rings : int
        Rings of hexagons around the central one: 1 makes coronene (C24H12), 2 circumcoronene (C54H18).
    """
    size = 2 * rings + 4
    plane = graphene(size=(size, size, 1))
    a, b = plane.cell[0] / size, plane.cell[1] / size
    first, second = plane.positions[:2]  # bonded; opposite to a bond of an atom is the centre of a hexagon
    positions = plane.positions - (2 * first - second + (size // 2) * (a + b))
    steps = range(-rings, rings + 1)  # a and b enclose 120 degrees: i a + j b is max(|i|, |j|, |i - j|) hexagons away
    centres = [i * a + j * b for i, j in itertools.product(steps, steps) if abs(i - j) <= rings]
    carbon = positions[KDTree(centres).query(positions)[0] < 1.1 * CC_BOND]
    tree = KDTree(carbon)
    hydrogen = []
    for position in carbon:
        near = carbon[tree.query_ball_point(position, 1.1 * CC_BOND)]
        if len(near) == 3:  # itself and two neighbours
            outwards = 3 * position - near.sum(axis=0)
            hydrogen.append(position + CH_BOND * outwards / np.linalg.norm(outwards))
    return Atoms(f"C{len(carbon)}H{len(hydrogen)}", np.vstack([carbon, hydrogen]))


def cluster(n_atoms: int) -> ase.Atoms:
    """The lowest 1 to 13 atoms of a tilted icosahedron of platinum, unrelaxed."""
    whole = Icosahedron("Pt", noshells=2, latticeconstant=PT_PT * np.sqrt(2)).positions
    return Atoms(f"Pt{n_atoms}", whole[np.argsort(whole @ TILT)[:n_atoms]])


def adsorption_sites() -> dict[str, np.ndarray]:
    """Name -> (2,) position in the plane of sheet(), Å: the centre of a hexagon, a bond of it and an atom of it."""
    atom = CC_BOND * np.array([0.0, 1.0])
    neighbour = CC_BOND * np.array([np.sqrt(3) / 2, 0.5])
    return {"hollow": np.zeros(2), "bridge": (atom + neighbour) / 2, "top": atom}


def adsorbed(support: ase.Atoms, particle: ase.Atoms, site: np.ndarray) -> ase.Atoms:
    """`particle` on `support`, its lowest atom HEIGHT above the position `site` (2,); hydrogen gets HYDROGEN_MASS."""
    particle = particle.copy()
    lowest = particle.positions[particle.positions[:, 2].argmin()]
    particle.translate(np.append(site, support.positions[:, 2].mean() + HEIGHT) - lowest)
    both = support + particle
    both.set_masses(np.where(both.numbers == 1, HYDROGEN_MASS, both.get_masses()))
    return both


def platinum_trajectories(
    method: Method, temperatures: Sequence[float] = TEMPERATURES, largest: int = LARGEST, rings: int = 1
) -> list[Trajectory]:
    """Trajectories of every cluster of 1 to `largest` atoms on every site at every temperature (K), for generate.

    deformation_energy counts from the relaxed sheet and the relaxed cluster, far from each other. Raises DataError as
    trajectory_names and relax do.
    """
    sites = adsorption_sites()
    starts = {f"Pt{n}_{site}": (n, site) for n in range(1, largest + 1) for site in sites}
    names = trajectory_names(starts, temperatures)
    with single_threaded(method):
        support, support_energy = relax(sheet(rings), method.calculator(), "the sheet")
        particles = {n: relax(cluster(n), method.calculator(), f"Pt{n}") for n in range(1, largest + 1)}
    trajectories = []
    for (start, temperature), name in names.items():
        n_atoms, site = starts[start]
        particle, energy = particles[n_atoms]
        together = adsorbed(support, particle, sites[site])
        trajectories.append(Trajectory(name, together, temperature, support_energy + energy))
    return trajectories
