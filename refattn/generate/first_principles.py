"""Frontier orbitals of a molecule from first principles, by PySCF: a yardstick beside GFN2-xTB's.

Results are kept on disk by a digest of structure and method, so that nothing is computed twice and what was stopped
goes on where it was.
"""

import contextlib
import hashlib
import json
import os
import warnings
from pathlib import Path

import ase
import numpy as np
from ase.data import atomic_numbers
from ase.units import Hartree

from refattn.common.files import make_directory, write_text
from refattn.common.strict_json import to_json
from refattn.errors import DataError, MissingExtra, OutputError, in_one_line
from refattn.generate.orbitals import METHOD, check_closed_shells, xtb_labels

DEGENERATE = 0.3  # eV; orbitals nearer than that to the frontier one are taken together
VERSION = 2  # of what is kept; since 2 with core potentials
ARRAYS = ("homo_population", "lumo_population", "homo_mulliken", "lumo_mulliken")


def cache_folder() -> Path:
    """Where results are kept: REFATTN_CACHE, or refattn in XDG_CACHE_HOME, or in ~/.cache."""
    own = os.environ.get("REFATTN_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refattn"


def orbital_labels(atoms: ase.Atoms, method: str) -> tuple[dict, dict]:
    """Energies and populations of HOMO and LUMO of a molecule with closed shells, from the disk or by PySCF.

    The population of an orbital c on atom A is Löwdin's, sum over mu in A of (S^1/2 c)_mu^2 with the overlap S of the
    atomic orbitals, and Mulliken's, sum over mu in A of c_mu (S c)_mu; both sum to 1. They are means over the occupied
    orbitals (for the HOMO) or empty ones (for the LUMO) within DEGENERATE of the frontier orbital.

    Parameters
    ----------
    method : str     FUNCTIONAL/BASIS as PySCF names them, such as b3lyp/6-31g*; hf/BASIS for Hartree-Fock; or
                     gfn2-xtb, by tblite

    Returns
    -------
    labels : dict    `homo`, `lumo` in eV, of GFN2-xTB `xtb_homo`, `xtb_lumo`
    arrays : dict    ARRAYS (N,): the first two are Löwdin's, of GFN2-xTB Mulliken's too

    Raises DataError for a method or a molecule that cannot be computed, MissingExtra without the extra for it.

    Source   Löwdin, J. Chem. Phys. 18, 365 (1950); Mulliken, J. Chem. Phys. 23, 1833 (1955)
    """
    if method.lower() == METHOD.lower():
        levels, found = xtb_labels(atoms, DEGENERATE)
        arrays = {name: found[name.replace("mulliken", "population")] for name in ARRAYS}
        return {f"xtb_{name}": levels[name] for name in ("homo", "lumo")}, arrays
    positions = np.round(atoms.positions - atoms.positions.mean(axis=0), 6).tolist()
    key = json.dumps([VERSION, method.lower(), atoms.numbers.tolist(), positions])
    path = cache_folder() / "orbitals" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        arrays = {name: np.array(kept["arrays"][name], dtype=float) for name in ARRAYS}
        if all(values.shape == (len(atoms),) for values in arrays.values()):
            return kept["labels"], arrays
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not there, or damaged: computed again
    levels, occupied, c, overlap, atom = solve(atoms, method)
    labels, arrays = frontier(levels, occupied, c, overlap, atom, len(atoms))
    content = {"method": method, "labels": labels, "arrays": {name: x.tolist() for name, x in arrays.items()}}
    with contextlib.suppress(OutputError, OSError):  # nothing is kept on a disk that takes nothing
        make_directory(path.parent)
        write_text(path, to_json(content) + "\n")
    return labels, arrays


def frontier(
    levels: np.ndarray, occupied: np.ndarray, c: np.ndarray, overlap: np.ndarray, atom: np.ndarray, n_atoms: int
) -> tuple[dict, dict]:
    """What orbital_labels returns, of the orbitals of a molecule.

    Parameters
    ----------
    levels : (M,) float       energies, eV
    occupied : (M,) bool
    c : (P, M) float          coefficients; column m is orbital m
    overlap : (P, P) float    of the atomic orbitals
    atom : (P,) int           of each atomic orbital
    """
    value, vector = np.linalg.eigh(overlap)
    root = (vector * np.sqrt(np.maximum(value, 0))) @ vector.T
    homo, lumo = levels[occupied].max(), levels[~occupied].min()
    arrays = {}
    for name, level, of_kind in (("homo", homo, occupied), ("lumo", lumo, ~occupied)):
        chosen = c[:, of_kind & (np.abs(levels - level) <= DEGENERATE)]
        for kind, weights in (("population", (root @ chosen) ** 2), ("mulliken", chosen * (overlap @ chosen))):
            arrays[f"{name}_{kind}"] = np.bincount(atom, weights=weights.mean(axis=1), minlength=n_atoms)
    return {"homo": float(homo), "lumo": float(lumo)}, {name: arrays[name] for name in ARRAYS}


def solve(atoms: ase.Atoms, method: str) -> tuple:
    """The arguments of `frontier` but the last, by PySCF. Raises DataError and MissingExtra as orbital_labels does."""
    try:
        from pyscf import dft, gto, scf
    except ImportError:
        raise MissingExtra("PySCF is not installed: run `pip install 'refattn[pyscf]'` to compute orbitals") from None
    id = atoms.info.get("id", "structure")
    functional, slash, basis = method.partition("/")
    if not (functional and slash and basis):
        raise DataError(f"the method {method!r} is neither FUNCTIONAL/BASIS, such as b3lyp/6-31g*, nor gfn2-xtb")
    check_closed_shells(atoms)
    sites = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of catalogues where a basis may be
            potentials = _core_potentials(set(atoms.get_chemical_symbols()), basis)
            molecule = gto.M(atom=sites, basis=basis, ecp=potentials, verbose=0)
            _check_cores(molecule, potentials, method)
            field = scf.RHF(molecule) if functional.lower() == "hf" else dft.RKS(molecule, xc=functional)
            field.kernel()
    except DataError as error:
        raise DataError(f"structure {id}: {error}") from None
    except Exception as error:  # PySCF raises any kind for an unknown basis, functional or element
        raise DataError(f"structure {id}: PySCF cannot compute {method} ({in_one_line(error)})") from None
    if not field.converged:
        raise DataError(f"structure {id}: {method} does not converge; leave it out, or choose another method")
    if (field.mo_occ > 0).all():
        raise DataError(f"structure {id}: {method} has no empty orbital, so no LUMO; choose a larger basis")
    atom = np.array([label[0] for label in molecule.ao_labels(fmt=None)])
    return field.mo_energy * Hartree, field.mo_occ > 0, field.mo_coeff, field.get_ovlp(), atom


def _core_potentials(symbols, basis):
    """Symbol -> name of the effective core potential, of the elements for which `basis` has one in PySCF."""
    from pyscf.gto.basis import load_ecp

    found = {}
    for symbol in symbols:
        with contextlib.suppress(Exception):  # PySCF raises any kind for a basis without potentials
            if load_ecp(basis, symbol):
                found[symbol] = basis
    return found


def _check_cores(molecule, potentials, method):
    """Raise DataError for an element that has neither a core potential nor functions for its core.

    Two Gaussians for a Slater 1s function of exponent Z have the exponents 0.85 Z^2 and 0.15 Z^2, more have larger ones
    (Hehre et al., J. Chem. Phys. 51, 2657 (1969)). In PySCF's bases for the valence the largest is 0.47 Z^2.
    """
    for k, symbol in enumerate(molecule.elements):
        z = atomic_numbers[symbol]
        shells = [shell for shell in molecule.atom_shell_ids(k) if molecule.bas_angular(shell) == 0]
        largest = max((molecule.bas_exp(shell).max() for shell in shells), default=0)
        if z > 2 and symbol not in potentials and largest < 0.6 * z**2:
            raise DataError(f"{method} has no functions for the core of {symbol}; choose another basis")
