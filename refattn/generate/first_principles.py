"""Frontier orbitals of a molecule from first principles, by PySCF: a yardstick beside GFN2-xTB's.

Results are kept on disk by a digest of structure and method, so that nothing is computed twice and what was stopped
goes on where it was.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from refattn.common.files import make_directory, write_text
from refattn.common.strict_json import to_json
from refattn.errors import DataError, MissingExtra, OutputError, in_one_line
from refattn.generate.orbitals import METHOD, check_closed_shells, xtb_labels

DEGENERATE = 0.3  # eV; orbitals nearer than that to the frontier one are taken together
VERSION = 2  # of what is kept; since 2 with core potentials
ARRAYS = ("homo_population", "lumo_population", "homo_mulliken", "lumo_mulliken")
ORBITALS = ("homo", "lumo")
FITTED = 500  # atomic orbitals from which on integrals are by density fitting: hours less for C60, levels a meV away
BLOCK = 2**22  # numbers: values of atomic orbitals at points that are held at once, 32 MiB


@dataclasses.dataclass(frozen=True)
class FrontierOrbitals:
    """HOMO and LUMO of a molecule.

    Attributes
    ----------
    atoms : ase.Atoms
    method : str
    labels, arrays : dict     see orbital_labels
    coefficients : dict       "homo", "lumo" -> (P, n) float, of P atomic orbitals in the n orbitals that are taken
                              together; empty for GFN2-xTB
    """

    atoms: ase.Atoms
    method: str
    labels: dict
    arrays: dict
    coefficients: dict = dataclasses.field(default_factory=dict)

    def densities(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Electrons/Å^3 at points (G, 3), Å: {"homo": (G,), "lumo": (G,)}, of one electron each.

        rho(r) = 1/n sum_m (sum_mu c[mu,m] chi_mu(r))^2 over the n orbitals that are taken together; chi are the atomic
        orbitals. A mean over a degenerate set has the symmetry of the molecule, whichever members PySCF finds.

        Raises MissingExtra without PySCF.
        """
        pyscf = _pyscf()
        molecule = _molecule(self.atoms, self.method)
        found = {name: np.empty(len(points)) for name in self.coefficients}
        length = max(1, BLOCK // molecule.nao)
        for start in range(0, len(points), length):
            rows = slice(start, start + length)
            values = pyscf.dft.numint.eval_ao(molecule, np.asarray(points[rows], dtype=float) / Bohr)
            for name, c in self.coefficients.items():
                found[name][rows] = ((values @ c) ** 2).mean(axis=1) / Bohr**3
        return found


def cache_folder() -> Path:
    """Where results are kept: REFATTN_CACHE, or refattn in XDG_CACHE_HOME, or in ~/.cache."""
    own = os.environ.get("REFATTN_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refattn"


def orbital_labels(atoms: ase.Atoms, method: str, report: Callable[[str], object] | None = None) -> tuple[dict, dict]:
    """Energies and populations of HOMO and LUMO of a molecule with closed shells, from the disk or by PySCF.

    The population of an orbital c on atom A is Löwdin's, sum over mu in A of (S^1/2 c)_mu^2 with the overlap S of the
    atomic orbitals, and Mulliken's, sum over mu in A of c_mu (S c)_mu; both sum to 1. They are means over the occupied
    orbitals (for the HOMO) or empty ones (for the LUMO) within DEGENERATE of the frontier orbital. Molecules of FITTED
    and more atomic orbitals have their Coulomb and exchange integrals by density fitting, with PySCF's auxiliary basis.

    Parameters
    ----------
    method : str     FUNCTIONAL/BASIS as PySCF names them, such as b3lyp/6-31g*; hf/BASIS for Hartree-Fock; or
                     gfn2-xtb, by tblite
    report : callable, optional     called with how far PySCF is, in words, at the start and after every cycle

    Returns
    -------
    labels : dict    `homo`, `lumo` in eV, of GFN2-xTB `xtb_homo`, `xtb_lumo`
    arrays : dict    ARRAYS (N,): the first two are Löwdin's, of GFN2-xTB Mulliken's too

    Raises DataError for a method or a molecule that cannot be computed, MissingExtra without the extra for it.

    Source   Löwdin, J. Chem. Phys. 18, 365 (1950); Mulliken, J. Chem. Phys. 23, 1833 (1955)
    """
    found = _kept(atoms, method) or frontier_orbitals(atoms, method, report)
    return found.labels, found.arrays


def frontier_orbitals(atoms: ase.Atoms, method: str, report: Callable[[str], object] | None = None) -> FrontierOrbitals:
    """The FrontierOrbitals of a molecule with closed shells, from the disk or by PySCF; GFN2-xTB's lack coefficients.

    Parameters and errors are those of orbital_labels.
    """
    if method.lower() == METHOD.lower():
        levels, found = xtb_labels(atoms, DEGENERATE)
        arrays = {name: found[name.replace("mulliken", "population")] for name in ARRAYS}
        return FrontierOrbitals(atoms, method, {f"xtb_{name}": levels[name] for name in ORBITALS}, arrays)
    kept = _kept(atoms, method)
    if kept and kept.coefficients:
        return kept
    found = FrontierOrbitals(atoms, method, *frontier(*solve(atoms, method, report), len(atoms)))
    content = {"method": method, "labels": found.labels}
    for name in ("arrays", "coefficients"):
        content[name] = {key: x.tolist() for key, x in getattr(found, name).items()}
    path = _path(atoms, method)
    with contextlib.suppress(OutputError, OSError):  # nothing is kept on a disk that takes nothing
        make_directory(path.parent)
        write_text(path, to_json(content) + "\n")
    return found


def _path(atoms, method):
    """Where the result of a structure and method is kept."""
    positions = np.round(atoms.positions - atoms.positions.mean(axis=0), 6).tolist()
    key = json.dumps([VERSION, method.lower(), atoms.numbers.tolist(), positions])
    return cache_folder() / "orbitals" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _kept(atoms, method):
    """The FrontierOrbitals that are kept, or None where there are none or they are damaged.

    Files of before coefficients were kept have none; their labels and populations hold.
    """
    if method.lower() == METHOD.lower():
        return None
    try:
        kept = json.loads(_path(atoms, method).read_text(encoding="utf-8"))
        arrays = {name: np.array(kept["arrays"][name], dtype=float) for name in ARRAYS}
        coefficients = {name: np.array(c, dtype=float) for name, c in kept.get("coefficients", {}).items()}
        are_whole = all(c.ndim == 2 for c in coefficients.values()) and coefficients.keys() in ({*ORBITALS}, set())
        if are_whole and all(values.shape == (len(atoms),) for values in arrays.values()):
            return FrontierOrbitals(atoms, method, kept["labels"], arrays, coefficients)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # not there, or damaged: computed again
    return None


def frontier(
    levels: np.ndarray, occupied: np.ndarray, c: np.ndarray, overlap: np.ndarray, atom: np.ndarray, n_atoms: int
) -> tuple[dict, dict, dict]:
    """Labels, arrays and coefficients of FrontierOrbitals, of all orbitals of a molecule.

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
    arrays, coefficients = {}, {}
    for name, level, of_kind in (("homo", homo, occupied), ("lumo", lumo, ~occupied)):
        chosen = coefficients[name] = c[:, of_kind & (np.abs(levels - level) <= DEGENERATE)]
        for kind, weights in (("population", (root @ chosen) ** 2), ("mulliken", chosen * (overlap @ chosen))):
            arrays[f"{name}_{kind}"] = np.bincount(atom, weights=weights.mean(axis=1), minlength=n_atoms)
    return {"homo": float(homo), "lumo": float(lumo)}, {name: arrays[name] for name in ARRAYS}, coefficients


def solve(atoms: ase.Atoms, method: str, report: Callable[[str], object] | None = None) -> tuple:
    """The arguments of `frontier` but the last, by PySCF. Raises DataError and MissingExtra as orbital_labels does."""
    pyscf = _pyscf()
    id = atoms.info.get("id", "structure")
    functional, slash, basis = method.partition("/")
    if not (functional and slash and basis):
        raise DataError(f"the method {method!r} is neither FUNCTIONAL/BASIS, such as b3lyp/6-31g*, nor gfn2-xtb")
    check_closed_shells(atoms)
    try:
        molecule = _molecule(atoms, method)
        _check_cores(molecule, method)
        is_hf = functional.lower() == "hf"
        field = pyscf.scf.RHF(molecule) if is_hf else pyscf.dft.RKS(molecule, xc=functional)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if molecule.nao >= FITTED:
                field = field.density_fit()
            if report is not None:
                report(f"{id}: {molecule.nao} atomic orbitals")
                field.callback = lambda state: report(_cycle_in_words(id, state))
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


def _cycle_in_words(id, state):
    """How far PySCF is, after a cycle: what is left of the gradient of the energy, and where it stops."""
    return f"{id}: cycle {state['cycle'] + 1}, gradient {state['norm_gorb']:.0e} of {state['conv_tol_grad']:.0e}"


def _pyscf():
    """PySCF with what is used of it. Raises MissingExtra."""
    try:
        import pyscf.dft
        import pyscf.gto
        import pyscf.scf
    except ImportError:
        raise MissingExtra("PySCF is not installed: run `pip install 'refattn[pyscf]'` to compute orbitals") from None
    return pyscf


def _molecule(atoms, method):
    """PySCF's molecule, with the atomic orbitals of the method."""
    basis = method.partition("/")[2]
    sites = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of catalogues where a basis may be
        potentials = _core_potentials(set(atoms.get_chemical_symbols()), basis)
        return _pyscf().gto.M(atom=sites, basis=basis, ecp=potentials, verbose=0)


def _core_potentials(symbols, basis):
    """Symbol -> name of the effective core potential, of the elements for which `basis` has one in PySCF."""
    from pyscf.gto.basis import load_ecp

    found = {}
    for symbol in symbols:
        with contextlib.suppress(Exception):  # PySCF raises any kind for a basis without potentials
            if load_ecp(basis, symbol):
                found[symbol] = basis
    return found


def _check_cores(molecule, method):
    """Raise DataError for an element that has neither a core potential nor functions for its core.

    Two Gaussians for a Slater 1s function of exponent Z have the exponents 0.85 Z^2 and 0.15 Z^2, more have larger ones
    (Hehre et al., J. Chem. Phys. 51, 2657 (1969)). In PySCF's bases for the valence the largest is 0.47 Z^2.
    """
    for k, symbol in enumerate(molecule.elements):
        z = atomic_numbers[symbol]
        shells = [shell for shell in molecule.atom_shell_ids(k) if molecule.bas_angular(shell) == 0]
        largest = max((molecule.bas_exp(shell).max() for shell in shells), default=0)
        if z > 2 and symbol not in molecule.ecp and largest < 0.6 * z**2:
            raise DataError(f"{method} has no functions for the core of {symbol}; choose another basis")
