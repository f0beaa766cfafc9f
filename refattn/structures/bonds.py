"""Structures whose atoms are too far from one another for a bond, as those of a file in Bohr are that is read in Å."""

import numpy as np
from ase.data import chemical_symbols, covalent_radii, missing

from refattn.structures.batch import GraphBatch

# The smallest ratio of a distance to the covalent radii together is 0.78 to 1.02 in 20,126 molecules of QM9. Of 21,340
# crystals of the Materials Project 99.9 % have less than 1.22, and six more than 1.3. Where Å are Bohr it is 1.89 times
# as large.
LARGEST_RATIO = 1.3
WITHOUT_BONDS = f"no two atoms nearer than {LARGEST_RATIO} times their covalent radii together"
IN_ANGSTROM = "coordinates are read in Å"
RADII = np.where(covalent_radii == missing, np.inf, covalent_radii)  # Å


def far_apart(graphs: GraphBatch) -> tuple[np.ndarray, str]:
    """(K,) int, the structures whose smallest distance of neighbours is above LARGEST_RATIO, and which atoms of the
    first of them have it, in words.

    Atoms without neighbours and elements without a known radius say nothing.
    """
    site = np.repeat(np.arange(len(graphs.z)), np.diff(graphs.edge_ptr))
    ratio = graphs.r / (RADII[graphs.z[site]] + RADII[graphs.z[graphs.nbr]])
    rows = np.flatnonzero(_smallest(ratio, graphs) > LARGEST_RATIO)
    if not len(rows):
        return rows, ""
    edges = slice(*graphs.edge_ptr[graphs.site_ptr[rows[0] : rows[0] + 2]].tolist())
    edge = edges.start + int(np.argmin(ratio[edges]))
    one, other = (chemical_symbols[graphs.z[i]] for i in (site[edge], graphs.nbr[edge]))
    return rows, f"{one} and {other} at {graphs.r[edge]:.2f} Å"


def _smallest(values, graphs):
    """Smallest of the values of each structure's edges; 0 where it has none."""
    has_edges = np.flatnonzero(graphs.n_edges)
    smallest = np.zeros(len(graphs))
    if len(has_edges):
        smallest[has_edges] = np.minimum.reduceat(values, graphs.edge_ptr[graphs.site_ptr[has_edges]])
    return smallest
