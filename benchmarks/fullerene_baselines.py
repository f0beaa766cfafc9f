"""What simpler methods make of a label of FullereneNet's cages, the HOMO, on the split of a run of `fullerenes`.

    gunzip -c fullerenes.extxyz.gz > fullerenes.extxyz
    python benchmarks/fullerene_baselines.py fullerenes.extxyz RUN/split.json

Kernel ridge regression (Gaussian kernel; its width and the ridge by the validation set) on the mean SOAP of the atoms
(DScribe), on the levels of Hückel's theory nearest to HOMO and LUMO, the number of atoms and its inverse, and on both.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("structures")
    parser.add_argument("split")
    parser.add_argument("--label", default="homo")
    asked = parser.parse_args()
    cages = list(ase.io.iread(asked.structures))
    row = {str(atoms.info["id"]): n for n, atoms in enumerate(cages)}
    with open(asked.split, encoding="utf-8") as stream:
        split = json.load(stream)
    parts = [np.array([row[id] for id in split[name]]) for name in ("train", "valid", "test")]
    label = np.array([atoms.info[asked.label] for atoms in cages])
    of_levels = np.array([levels(atoms) for atoms in cages])
    of_atoms = [
        SOAP(species=["C"], r_cut=r_cut, n_max=8, l_max=6, sigma=0.3, average="off").create(cages) for r_cut in CUTOFFS
    ]
    soap = {r_cut: np.array([each.mean(0) for each in found]) for r_cut, found in zip(CUTOFFS, of_atoms)}
    print(f"{asked.label}, eV: always the mean {np.abs(label[parts[0]].mean() - label[parts[2]]).mean():.4f}")
    for name, features in {
        "Hückel's levels": of_levels,
        **{f"mean SOAP, {r_cut:g} Å": values for r_cut, values in soap.items()},
        **{f"mean SOAP, {r_cut:g} Å, and levels": np.c_[values, of_levels] for r_cut, values in soap.items()},
    }.items():
        valid, test = errors(features, label, parts)
        print(f"{name}: validation {valid:.4f}, test {test:.4f}", flush=True)


if __name__ == "__main__":
    main()
