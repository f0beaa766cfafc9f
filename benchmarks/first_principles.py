"""Attention that GFN2-xTB taught, and GFN2-xTB itself, beside orbitals from first principles.

    python tools/sample_part.py SPLIT qm9.extxyz.gz sample.xyz 500
    refattn data orbitals sample.xyz b3lyp.extxyz --method 'b3lyp/6-31g*'
    python benchmarks/first_principles.py molecules-orbitals b3lyp.extxyz [--json OUT]

SPLIT is that of the run of molecules-orbitals, of which the test part is sampled; RUN has the targets xtb_homo and
xtb_lumo. Populations are Löwdin's of B3LYP and Mulliken's of GFN2-xTB, both means over orbitals within 0.3 eV; "one
orbital" is what attention was taught, the frontier orbital of GFN2-xTB alone. The element alone has the mean population
of its atoms in these very molecules, which flatters it.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np

import refattn
from refattn.common.attention_metrics import attention_metrics, attention_of, element_weights
from refattn.common.files import write_text
from refattn.common.strict_json import to_json
from refattn.generate.first_principles import DEGENERATE
from refattn.generate.orbitals import xtb_labels
from refattn.structures.batch import pointers

SHOWN = {
    "spearman_without_hydrogen": "rank, heavy atoms",
    "top_1_without_hydrogen": "first of them found",
    "total_variation": "total variation",
}
ANOTHER = "another orbital in GFN2-xTB"
OTHER = 0.5  # total variation from which on two orbitals are called different


def compare(model: refattn.Model, molecules: list) -> dict:
    """{orbital: {pair: measures}} of molecules with the arrays homo_population and lumo_population."""
    predicted = model.predict(molecules)
    z = np.concatenate([atoms.numbers for atoms in molecules])
    site_ptr = pointers([len(atoms) for atoms in molecules])
    near = [xtb_labels(atoms, DEGENERATE)[1] for atoms in molecules]
    single = [xtb_labels(atoms)[1] for atoms in molecules]
    found = {}
    for orbital in ("homo", "lumo"):
        k = predicted.target.index(f"xtb_{orbital}")
        name = f"{orbital}_population"
        exact = np.concatenate([atoms.arrays[name] for atoms in molecules])
        taught = np.concatenate([beta[:, k] for beta in predicted.attention]).astype(float)
        teacher, one = (np.concatenate([arrays[name] for arrays in each]) for each in (near, single))
        element = attention_of(element_weights(exact, site_ptr, z, 119)[z], site_ptr)
        pairs = {
            "attention, B3LYP": (taught, exact),
            "GFN2-xTB, B3LYP": (teacher, exact),
            "element alone, B3LYP": (element, exact),
            "attention, GFN2-xTB": (taught, teacher),
            "attention, GFN2-xTB, one orbital": (taught, one),
            "GFN2-xTB, one orbital, B3LYP": (one, exact),
        }
        found[orbital] = {pair: attention_metrics(a, b, site_ptr, z) for pair, (a, b) in pairs.items()}
        for what, share in ((ANOTHER, teacher), (f"{ANOTHER}, one orbital", one)):
            apart = np.add.reduceat(np.abs(share - exact), site_ptr[:-1]) / 2
            found[orbital][what] = float((apart > OTHER).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("orbitals", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    molecules = ase.io.read(asked.orbitals, ":")
    found = compare(refattn.load(asked.run), molecules)
    print(f"| {len(molecules)} molecules | | {' | '.join(SHOWN.values())} |")
    print("| --- | --- |" + " ---: |" * len(SHOWN))
    for orbital, pairs in found.items():
        for pair, measures in pairs.items():
            if isinstance(measures, dict):
                print(f"| {orbital.upper()} | {pair} | " + " | ".join(f"{measures[name]:.3f}" for name in SHOWN) + " |")
        for what in (ANOTHER, f"{ANOTHER}, one orbital"):
            print(f"| {orbital.upper()} | {what}: {100 * pairs[what]:.1f} % |" + " |" * len(SHOWN))
    if asked.json:
        write_text(asked.json, to_json({"n": len(molecules), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
