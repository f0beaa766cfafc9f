"""Molecules and crystals that several tests use."""

import itertools

import ase
import ase.build
import numpy as np
from ase.spacegroup import crystal


def rutile():
    """TiO2, a = 4.594, c = 2.959 Å, u = 0.305: Ti and O are the two classes of equivalent sites."""
    cell = [4.594, 4.594, 2.959, 90, 90, 90]
    return crystal(["Ti", "O"], basis=[(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=cell)


def rattled_salt():
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def ethanol():
    return ase.build.molecule("CH3CH2OH")


def slab():
    atoms = ase.build.fcc111("Cu", (2, 2, 2), vacuum=6.0, periodic=False)
    atoms.rattle(0.05, seed=2)
    return atoms


def benzene():
    return ase.build.molecule("C6H6")


def c60():
    """A truncated icosahedron with edges of 1.44 Å. (In ase.build.molecule("C60") equivalent bonds differ by
    2e-3 Å, which the normalised attention turns into a spread of 2e-3 of beta.)
    """
    phi = (1 + np.sqrt(5)) / 2
    corners = np.array([(0, 1, 3 * phi), (1, 2 + phi, 2 * phi), (phi, 2, phi**3)])
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    corners = (corners[:, None] * signs).reshape(-1, 3)
    corners = np.unique(np.concatenate([np.roll(corners, n, axis=1) for n in range(3)]), axis=0)
    return ase.Atoms("C60", 0.72 * corners)


def moved(atoms, order):
    """Turned about an odd axis together with its cell, shifted, and the sites in another order."""
    atoms = atoms[order]
    atoms.rotate(77.7, (1, 2, -0.5), rotate_cell=True)
    atoms.translate((1.3, -2.1, 0.7))
    return atoms
