"""The table of what the model `crystals` says of the sites of known compounds, beside what chemistry knows of them.

    python tools/crystal_sites.py [RUN]

Structures are made of measured lattice constants (R. W. G. Wyckoff, Crystal Structures, 1963; Li2O2: Föppl, Z. anorg.
allg. Chem. 291, 12, 1957), enthalpies of formation at 298 K are those of the CRC Handbook of Chemistry and Physics, of
SrTiO3 that of Robie & Hemingway (USGS Bulletin 2131, 1995), kJ/mol a formula unit. The run has a target e_form and the
head "additive". A bond is shared by its two ends: of a compound AxBy where only A and B touch, both elements have half
of the energy by this count. That is the yardstick of the last column but one.
"""

import argparse
from typing import NamedTuple

import ase
import numpy as np
from ase.build import bulk
from ase.spacegroup import crystal

import refattn

KJ_PER_MOL = 0.01036427  # eV


class Compound(NamedTuple):
    """A crystal and its enthalpy of formation, kJ/mol a formula unit of n_atoms."""

    name: str
    atoms: ase.Atoms
    enthalpy: float
    n_atoms: int


def cell_of(symbols, positions, group, lengths, angles=(90, 90, 90)):
    return crystal(symbols, positions, spacegroup=group, cellpar=[*lengths, *angles], primitive_cell=True)


def compounds() -> list[Compound]:
    """What is asked of the model: elements, compounds of two elements, an oxide and its peroxide, a perovskite."""
    origin, quarter = (0, 0, 0), (0.25, 0.25, 0.25)
    hexagonal = (90, 90, 120)
    return [
        Compound("Si", bulk("Si", "diamond", 5.431), 0.0, 1),
        Compound("Al", bulk("Al", "fcc", 4.049), 0.0, 1),
        Compound("Fe", bulk("Fe", "bcc", 2.866), 0.0, 1),
        Compound("NaCl", bulk("NaCl", "rocksalt", 5.640), -411.2, 2),
        Compound("MgO", bulk("MgO", "rocksalt", 4.212), -601.6, 2),
        Compound("CsCl", bulk("CsCl", "cesiumchloride", 4.123), -443.0, 2),
        Compound("ZnS", bulk("ZnS", "zincblende", 5.409), -206.0, 2),
        Compound("GaAs", bulk("GaAs", "zincblende", 5.653), -71.0, 2),
        Compound("CaF2", cell_of(["Ca", "F"], [origin, quarter], 225, (5.463,) * 3), -1228.0, 3),
        Compound("Li2O", cell_of(["O", "Li"], [origin, quarter], 225, (4.619,) * 3), -597.9, 3),
        Compound(
            "Li2O2",
            cell_of(
                ["Li", "Li", "O"],
                [origin, (1 / 3, 2 / 3, 0.25), (1 / 3, 2 / 3, 0.6497)],
                194,
                (3.187, 3.187, 7.726),
                hexagonal,
            ),
            -634.3,
            4,
        ),
        Compound("TiO2", cell_of(["Ti", "O"], [origin, (0.305, 0.305, 0)], 136, (4.594, 4.594, 2.959)), -944.0, 3),
        Compound(
            "Al2O3",
            cell_of(["Al", "O"], [(0, 0, 0.3522), (0.3063, 0, 0.25)], 167, (4.759, 4.759, 12.99), hexagonal),
            -1675.7,
            5,
        ),
        Compound(
            "SrTiO3",
            cell_of(["Sr", "Ti", "O"], [origin, (0.5, 0.5, 0.5), (0.5, 0.5, 0)], 221, (3.905,) * 3),
            -1672.0,
            5,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="crystals")
    model = refattn.load(parser.parse_args().run)
    print("| crystal | measured, eV/atom | predicted | of each site | shares of the elements | attention of a site |")
    print("| --- | ---: | ---: | --- | --- | --- |")
    for compound in compounds():
        found = refattn.explain(model, compound.atoms, scores=(), target="e_form")
        symbols = np.array(compound.atoms.get_chemical_symbols())
        share = found.beta * found.site_value  # they sum to the prediction
        assert abs(share.sum() - found.value) < 1e-6 * max(1, abs(found.value))
        is_element = compound.enthalpy == 0  # no shares of nothing
        texts = {"each": [], "share": [], "beta": []}
        for symbol in dict.fromkeys(symbols):
            of_it = symbols == symbol
            texts["each"].append(f"{symbol} {found.site_value[of_it].mean():.2f}")
            texts["share"].append("-" if is_element else f"{symbol} {share[of_it].sum() / found.value:.0%}")
            texts["beta"].append(f"{symbol} {found.scaled_beta[of_it].mean():.2f}")
        measured = compound.enthalpy * KJ_PER_MOL / compound.n_atoms
        cells = [compound.name, f"{measured:.2f}", f"{found.value:.2f}", *(", ".join(part) for part in texts.values())]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
