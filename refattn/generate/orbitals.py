"""Frontier orbitals of one structure from GFN2-xTB: the labels and the yardstick of the homemade sets."""

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from ase.units import Bohr, Hartree

from refattn.errors import DataError, MissingExtra, in_one_line

METHOD = "GFN2-xTB"


def _tblite():
    try:
        from tblite import ase, interface
    except ImportError:
        raise MissingExtra("tblite is not installed: run `pip install 'refattn[xtb]'` to compute with xTB") from None
    return ase, interface


def xtb_calculator() -> Calculator:
    """A fresh ASE calculator for GFN2-xTB. Raises MissingExtra without the `xtb` extra."""
    return _tblite()[0].TBLite(method=METHOD, verbosity=0)


def check_closed_shells(atoms: ase.Atoms) -> None:
    """Raise DataError for a periodic structure, and for an odd number of electrons: which orbital is its HOMO?"""
    id = atoms.info.get("id", "structure")
    if not len(atoms):
        raise DataError(f"structure {id} has no atoms; leave it out")
    if atoms.pbc.any() or int(atoms.numbers.sum()) % 2:
        what = "periodic" if atoms.pbc.any() else "of an odd number of electrons"
        raise DataError(f"structure {id} is {what}; only molecules with closed shells are computed, leave it out")


def xtb_labels(atoms: ase.Atoms, degenerate: float = 0.0) -> tuple[dict, dict]:
    """Energy, frontier orbitals, forces and orbital populations of a molecule by GFN2-xTB.

    The population of an orbital c on atom A is Mulliken's, sum over mu in A of c_mu (S c)_mu, with the
    overlap S of the atomic orbitals; it sums to 1 over the molecule.

    Parameters
    ----------
    atoms : ase.Atoms
        A molecule; positions in Å.
    degenerate : float, eV
        Populations are the mean over the occupied (of the HOMO) or empty orbitals (of the LUMO) whose energies differ
        from the frontier orbital's by at most this.

    Returns
    -------
    labels : dict
        `energy`, `homo`, `lumo` in eV.
    arrays : dict
        `forces` (N, 3) in eV/Å, `homo_population` and `lumo_population` (N,), dimensionless.

    Raises DataError for what check_closed_shells refuses and where the calculation fails, MissingExtra without the
    `xtb` extra.

    Source   Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019); Mulliken, J. Chem. Phys. 23, 1833 (1955)
    """
    check_closed_shells(atoms)
    interface = _tblite()[1]
    try:
        return _frontier(interface, atoms, degenerate)
    except (RuntimeError, ValueError, IndexError) as error:  # what tblite raises, and a system without an orbital
        raise DataError(
            f"structure {atoms.info.get('id', 'structure')}: {METHOD} fails ({in_one_line(error)}); leave it out"
        ) from None


def _frontier(interface, atoms, degenerate):
    calculator = interface.Calculator(METHOD, atoms.numbers, atoms.positions / Bohr)
    calculator.set("verbosity", 0)
    calculator.set("save-integrals", 1)
    result = calculator.singlepoint()
    levels = result["orbital-energies"] * Hartree
    homo = round(result["orbital-occupations"].sum() / 2) - 1  # they are fractions near a small gap
    occupied = np.arange(len(levels)) <= homo
    atom_of_orbital = calculator.get("shell-map")[calculator.get("orbital-map")]

    def population(level):
        alike = (np.abs(levels - levels[level]) <= degenerate) & (occupied == occupied[level])
        c = result["orbital-coefficients"][:, alike]
        weights = (c * (result["overlap-matrix"] @ c)).mean(axis=1)
        return np.bincount(atom_of_orbital, weights=weights, minlength=len(atoms))

    labels = {"energy": result["energy"] * Hartree, "homo": levels[homo], "lumo": levels[homo + 1]}
    arrays = {
        "forces": -result["gradient"] * Hartree / Bohr,
        "homo_population": population(homo),
        "lumo_population": population(homo + 1),
    }
    return {name: float(value) for name, value in labels.items()}, arrays
