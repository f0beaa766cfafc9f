"""What simpler methods make of a label of FullereneNet's cages, the HOMO, on the split of a run of `fullerenes`.

    gunzip -c fullerenes.extxyz.gz > fullerenes.extxyz
    python benchmarks/fullerene_baselines.py fullerenes.extxyz RUN/split.json [--sizes 1280 2560] [--xtb 300]

Kernel ridge regression (Gaussian kernel; its width and the ridge by the validation set) on the mean SOAP of the atoms
(DScribe), on the levels of Hückel's theory nearest to HOMO and LUMO, the number of atoms and its inverse, and on both;
with --sizes for parts of the training set too. --xtb N asks what a quantum chemical method of its own makes of it: the
levels of GFN2-xTB of N cages of the validation and test set (tblite), with the number of atoms and its inverse, fitted
linearly to the label, errors by ten-fold cross-validation.
It runs in the environment of the peers (benchmarks/accuracy/README.md), without refattn.
"""

import argparse
import itertools
import json

import ase.io
import numpy as np
from dscribe.descriptors import SOAP

BOND = 1.75  # Å
DECAYS = (np.inf, 0.5, 0.3106)  # Å, of the integrals with the length of the bond; the last by Longuet-Higgins & Salem
NEAR = 3  # levels on either side of the gap
CUTOFFS = (5.0, 6.0)  # Å
EXPONENTS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # times the squared distance, 200 in the mean
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)


def levels(atoms: ase.Atoms) -> list[float]:
    """Hückel's levels near the gap for every one of DECAYS, and the number of atoms and its inverse."""
    r = atoms.get_all_distances()
    bonded = (r > 0) & (r < BOND)
    half = len(atoms) // 2
    found = [len(atoms), 1 / len(atoms)]
    for decay in DECAYS:
        energies = np.linalg.eigvalsh(-np.where(bonded, np.exp(-(r - 1.40) / decay), 0.0))
        found += energies[half - NEAR : half + NEAR].tolist()
    return found


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T


def errors(features: np.ndarray, label: np.ndarray, parts: list) -> tuple[float, float]:
    """(validation, test) mean absolute errors of the kernel and the ridge that are the best on the validation set."""
    train, valid, test = parts
    spread = features[train].std(0)
    features = (features[:, spread > 0] - features[train][:, spread > 0].mean(0)) / spread[spread > 0]
    features *= 10 / np.sqrt(features.shape[1])
    mean = label[train].mean()
    apart = [squared_distances(features[part], features[train]) for part in parts]
    found = []
    for exponent, ridge in itertools.product(EXPONENTS, RIDGES):
        weights = np.linalg.solve(np.exp(-exponent * apart[0]) + ridge * np.eye(len(train)), label[train] - mean)
        off = [
            np.abs(np.exp(-exponent * d) @ weights + mean - label[part]) for d, part in zip(apart[1:], (valid, test))
        ]
        found.append(tuple(float(each.mean()) for each in off))
    return min(found)


def xtb_levels(atoms: ase.Atoms) -> np.ndarray:
    """The levels NEAR the gap by GFN2-xTB, eV; the HOMO is number NEAR - 1."""
    from ase.units import Bohr, Hartree
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / Bohr)
    calculator.set("verbosity", 0)
    n_occupied = 2 * len(atoms)  # four electrons an atom
    return calculator.singlepoint().get("orbital-energies")[n_occupied - NEAR : n_occupied + NEAR] * Hartree


def linear_error(features: np.ndarray, label: np.ndarray, n_folds: int = 10) -> float:
    """Mean absolute error of linear regression on folds that it does not see."""
    features = np.c_[(features - features.mean(0)) / features.std(0), np.ones(len(features))]
    fold = np.arange(len(label)) % n_folds
    off = [
        np.abs(features[fold == k] @ np.linalg.lstsq(features[fold != k], label[fold != k])[0] - label[fold == k])
        for k in range(n_folds)
    ]
    return float(np.concatenate(off).mean())


def compare_xtb(cages: list[ase.Atoms], label: np.ndarray, levels: np.ndarray) -> None:
    """Print what a linear function of the levels of GFN2-xTB makes of the label."""
    of_xtb = np.array([xtb_levels(atoms) for atoms in cages])
    homo, size = of_xtb[:, NEAR - 1 : NEAR], levels[:, :2]
    for name, features in {
        "its HOMO": homo,
        "its HOMO and the size": np.c_[homo, size],
        "its levels and the size": np.c_[of_xtb, size],
        "its levels and Hückel's": np.c_[of_xtb, levels],
    }.items():
        print(f"GFN2-xTB, {name}: {linear_error(features, label):.4f} of {len(cages)} cages", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures")
    parser.add_argument("split")
    parser.add_argument("--label", default="homo")
    parser.add_argument("--sizes", type=int, nargs="+", default=[], help="of the training set, beside all of it")
    parser.add_argument("--xtb", type=int, default=0, metavar="N", help="levels of GFN2-xTB of N cages")
    asked = parser.parse_args()
    cages = list(ase.io.iread(asked.structures))
    row = {str(atoms.info["id"]): n for n, atoms in enumerate(cages)}
    with open(asked.split, encoding="utf-8") as stream:
        split = json.load(stream)
    parts = [np.array([row[id] for id in split[name]]) for name in ("train", "valid", "test")]
    label = np.array([atoms.info[asked.label] for atoms in cages])
    of_levels = np.array([levels(atoms) for atoms in cages])
    random = np.random.default_rng(0)
    if asked.xtb:
        chosen = random.permutation(np.concatenate(parts[1:]))[: asked.xtb]
        compare_xtb([cages[n] for n in chosen], label[chosen], of_levels[chosen])
    of_atoms = [
        SOAP(species=["C"], r_cut=r_cut, n_max=8, l_max=6, sigma=0.3, average="off").create(cages) for r_cut in CUTOFFS
    ]
    soap = {r_cut: np.array([each.mean(0) for each in found]) for r_cut, found in zip(CUTOFFS, of_atoms)}
    drawn = random.permutation(parts[0])
    print(f"{asked.label}, eV: always the mean {np.abs(label[parts[0]].mean() - label[parts[2]]).mean():.4f}")
    for name, features in {
        "Hückel's levels": of_levels,
        **{f"mean SOAP, {r_cut:g} Å": values for r_cut, values in soap.items()},
        **{f"mean SOAP, {r_cut:g} Å, and levels": np.c_[values, of_levels] for r_cut, values in soap.items()},
    }.items():
        for size in (*asked.sizes, len(parts[0])):
            valid, test = errors(features, label, [drawn[:size], *parts[1:]])
            print(f"{name}, {size} cages: validation {valid:.4f}, test {test:.4f}", flush=True)


if __name__ == "__main__":
    main()
