"""What computes the energies, forces and labels of the homemade sets: GFN2-xTB, or any calculator of ASE."""

import importlib

import ase
from ase.calculators.calculator import Calculator

from refattn.errors import DataError, RefattnError, in_one_line
from refattn.generate.orbitals import METHOD, xtb_calculator, xtb_labels


class XTB:
    """GFN2-xTB by tblite: energy, frontier orbitals, forces and orbital populations. Needs the `xtb` extra."""

    name = METHOD

    def calculator(self) -> Calculator:
        """A fresh ASE calculator. Raises MissingExtra without tblite."""
        return xtb_calculator()

    def labels(self, atoms: ase.Atoms) -> tuple[dict, dict]:
        """Labels and per-site arrays of a structure; see xtb_labels."""
        return xtb_labels(atoms)


class AnyCalculator:
    """Any calculator of ASE, named `module:Class` (or `module:function`): energy and forces, but no orbitals.

    Raises DataError for a name that cannot be imported or called without arguments.
    """

    def __init__(self, name: str):
        self.name = name
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise DataError(f"the calculator {name!r} is not of the form module:Class, such as ase.calculators.emt:EMT")
        try:
            self.make = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # importing runs any code
            raise failure(f"the calculator {name} cannot be imported", error) from None
        self.calculator()

    def calculator(self) -> Calculator:
        """A fresh ASE calculator."""
        try:
            return self.make()
        except Exception as error:  # any code again
            raise failure(f"the calculator {self.name} cannot be made without arguments", error) from None

    def labels(self, atoms: ase.Atoms) -> tuple[dict, dict]:
        """`energy` (eV), and `forces` (N, 3) in eV/Å."""
        atoms = atoms.copy()
        atoms.calc = self.calculator()
        return {"energy": float(atoms.get_potential_energy())}, {"forces": atoms.get_forces()}


Method = XTB | AnyCalculator


def open_method(calculator: str | None = None) -> Method:
    """The method for `calculator`, `module:Class`; GFN2-xTB without one. Raises DataError as AnyCalculator does."""
    return AnyCalculator(calculator) if calculator else XTB()


def failure(what: str, error: Exception) -> RefattnError:
    """The error to raise when a calculator fails; one of our own already is a sentence."""
    if isinstance(error, RefattnError):
        return error
    return DataError(f"{what}: {in_one_line(error)} ({type(error).__name__}); correct it or choose another calculator")
