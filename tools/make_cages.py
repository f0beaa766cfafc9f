"""Makes cages of carbon beside given ones, with Hückel's levels, from which a network learns before it sees the given.

    python tools/make_cages.py fullerenes.extxyz.gz cages.extxyz --split RUN/split.json --number 12000

A walk of Stone-Wales rotations starts from a cage of the training part and passes through cages with rings of 5 to 7
atoms, of which there are many more than fullerenes. Springs between first and second neighbours shape the cage; bonds
have lengths by their order in Hückel's theory. How well fullerenes are made again of their topology is printed.
`homo`, `lumo` and `gap` are in units of |beta_0|, populations as of huckel_populations.py.

Source   Stone & Wales, Chem. Phys. Lett. 128, 501 (1986); Coulson, Proc. R. Soc. Lond. A 169, 413 (1939), for the
         order of a bond and its length
"""

import argparse
from pathlib import Path

import ase
import ase.io
import numpy as np
import scipy.optimize
import scipy.sparse
from huckel_populations import BOND, levels_of, populations

from refattn.common.files import replacing
from refattn.data.sources.registry import open_source
from refattn.data.splits import read_split

RINGS = (5, 7)  # atoms of the smallest and the largest ring
STEPS = 8  # rotations of the longest walk
SINGLE = 1.71  # Å, length of a bond without pi order; fitted, with the next, to the bonds of 200 fullerenes
PER_ORDER = 0.54  # Å, what a pi order of 1 takes of it
SECOND = 0.4  # spring of second neighbours; that of bonds is 1
TOO_NEAR = 2.0  # Å, of atoms that are not bonded


def neighbours_of(atoms: ase.Atoms) -> np.ndarray:
    """(N, 3) int: the neighbours of each atom, counter-clockwise seen from outside. Raises ValueError for no cage."""
    r = atoms.get_all_distances()
    bonded = (r > 0) & (r < BOND)
    if (bonded.sum(axis=1) != 3).any():
        raise ValueError("an atom has not three neighbours")
    nbr = np.nonzero(bonded)[1].reshape(-1, 3)
    x = atoms.positions - atoms.positions.mean(axis=0)
    to = atoms.positions[nbr] - atoms.positions[:, None]
    turn = np.einsum("ij,ij->i", np.cross(to[:, 0] - to[:, 1], to[:, 1] - to[:, 2]), x)
    return np.where((turn > 0)[:, None], nbr, nbr[:, [0, 2, 1]])


def after(nbr: np.ndarray, a: int, b: int) -> int:
    """The neighbour of b that comes after a: the next atom on the ring to the left of the way from a to b."""
    return nbr[b, (int(np.flatnonzero(nbr[b] == a)[0]) + 2) % 3]


def ring(nbr: np.ndarray, a: int, b: int) -> list[int]:
    """The atoms of the ring to one side of the bond from a to b, from a on; up to 12."""
    found = [a, b]
    while len(found) < 12:
        c = after(nbr, found[-2], found[-1])
        if c == a:
            return found
        found.append(c)
    return found


def rotated(nbr: np.ndarray, a: int, b: int) -> np.ndarray | None:
    """The neighbours after the bond between a and b was turned by a right angle; None where a ring is out of RINGS."""
    one, other = ring(nbr, a, b), ring(nbr, b, a)
    b1, a1 = one[2], one[-1]  # the ring a b b1 ... a1 on one side, b a a2 ... b2 on the other
    a2, b2 = other[2], other[-1]
    ends = ring(nbr, a2, a), ring(nbr, b1, b)
    if min(len(one), len(other)) == RINGS[0] or max(map(len, ends)) == RINGS[1]:
        return None
    if len({a, b, a1, a2, b1, b2}) < 6 or a2 in nbr[b2] or a1 in nbr[b1]:
        return None
    new = nbr.copy()
    new[a], new[b] = (b1, a1, b), (a, a2, b2)
    new[a2][nbr[a2] == a] = b
    new[b1][nbr[b1] == b] = a
    return new


def adjacency(nbr: np.ndarray) -> np.ndarray:
    """(N, N) bool: which atoms are bonded."""
    found = np.zeros((len(nbr), len(nbr)), bool)
    found[np.repeat(np.arange(len(nbr)), 3), nbr.ravel()] = True
    return found


def springs_of(nbr: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (P, 2) of first and second neighbours, their lengths (P,) in Å, and their springs (P,)."""
    n = len(nbr)
    c = np.linalg.eigh(-adjacency(nbr).astype(float))[1][:, : n // 2]
    bond = SINGLE - PER_ORDER * 2 * c @ c.T
    found = [(a, b, bond[a, b], 1.0) for a in range(n) for b in nbr[a] if a < b]
    for a in range(n):
        for k in range(3):
            b, c = nbr[a, k], nbr[a, k - 2]
            size = len(ring(nbr, b, a) if after(nbr, b, a) == c else ring(nbr, c, a))
            cos = np.cos(np.pi * (1 - 2 / size))
            p, q = bond[a, b], bond[a, c]
            found.append((b, c, np.sqrt(p * p + q * q - 2 * p * q * cos), SECOND))
    pairs = np.array([pair[:2] for pair in found])
    lengths, springs = np.array([pair[2:] for pair in found]).T
    return pairs, lengths, springs


def shaped(nbr: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(N, 3) Å: the minimum of the springs, from `positions` on."""
    pairs, lengths, springs = springs_of(nbr)
    rows = np.repeat(np.arange(len(pairs)), 2)
    signs = np.tile([1.0, -1.0], len(pairs))
    difference = scipy.sparse.csr_matrix((signs, (rows, pairs.ravel())), shape=(len(pairs), len(nbr)))

    def energy(flat):
        d = difference @ flat.reshape(-1, 3)
        r = np.sqrt((d * d).sum(axis=1))
        off = r - lengths
        pull = (2 * springs * off / r)[:, None] * d
        return (springs * off * off).sum(), (difference.T @ pull).ravel()

    found = scipy.optimize.minimize(energy, positions.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return found.x.reshape(-1, 3)


def is_cage(nbr: np.ndarray, positions: np.ndarray) -> bool:
    """Whether the bonds are as `nbr` says, and no other atoms are near each other."""
    r = ase.Atoms(f"C{len(nbr)}", positions).get_all_distances()
    bonded = adjacency(nbr)
    return bool((r[bonded] < BOND - 0.1).all() and (r[bonded] > 1.3).all() and (r[~bonded & (r > 0)] > TOO_NEAR).all())


def walk(nbr: np.ndarray, positions: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Another cage, by up to STEPS rotations of bonds; None where the walk ends in none."""
    for _ in range(random.integers(1, STEPS + 1)):
        for _ in range(100):
            a = random.integers(len(nbr))
            new = rotated(nbr, a, random.choice(nbr[a]))
            if new is not None:
                break
        else:
            return None
        nbr, positions = new, shaped(new, positions)
        if not is_cage(nbr, positions):
            return None
    return nbr, positions


def check(cages: list[ase.Atoms]) -> None:
    """Print how far bonds and levels of cages made of their topology are from the given ones."""
    bonds = []
    levels = []
    for atoms in cages:
        nbr = neighbours_of(atoms)
        own = ase.Atoms(atoms.numbers, shaped(nbr, atoms.positions))
        i, j = np.repeat(np.arange(len(nbr)), 3), nbr.ravel()
        bonds.append(np.abs(own.get_all_distances()[i, j] - atoms.get_all_distances()[i, j]).mean())
        levels.append(np.abs(np.subtract(frontier(own), frontier(atoms))))
    homo, lumo = np.mean(levels, axis=0)
    print(
        f"{len(cages)} cages made again: bonds differ by {np.mean(bonds):.4f} Å, HOMO by {homo:.4f}, "
        f"LUMO by {lumo:.4f} beta_0"
    )


def frontier(atoms: ase.Atoms) -> tuple[float, float]:
    """HOMO and LUMO in units of |beta_0|."""
    levels = levels_of(atoms)[0]
    return levels[len(atoms) // 2 - 1], levels[len(atoms) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", type=Path, required=True, help="of a run; its training part is walked from")
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    training = set(read_split(asked.split).train)
    cages = [record.atoms for record in open_source(asked.source) if record.id in training]
    random = np.random.default_rng(asked.seed)
    check([cages[n] for n in random.permutation(len(cages))[:100]])
    starts = [(neighbours_of(atoms), atoms.positions) for atoms in cages]
    with replacing(asked.out) as part, open(part, "w", encoding="utf-8") as stream:
        number = 0
        while number < asked.number:
            found = walk(*starts[random.integers(len(starts))], random)
            if found is None:
                continue
            atoms = ase.Atoms(f"C{len(found[0])}", found[1])
            homo, lumo = frontier(atoms)
            atoms.info = {"id": f"cage-{number}", "homo": homo, "lumo": lumo, "gap": lumo - homo}
            for name, values in populations(atoms).items():
                atoms.set_array(name, values)
            ase.io.write(stream, atoms, format="extxyz")
            number += 1


if __name__ == "__main__":
    main()
