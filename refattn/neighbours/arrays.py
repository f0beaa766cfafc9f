"""Neighbours as other programs take them: ASE's neighbour lists, and the edges of PyTorch Geometric and DGL."""

import ase
import numpy as np

from refattn.errors import ConfigError
from refattn.neighbours.cells import voronoi
from refattn.structures.batch import GraphBatch

# ASE's letters, and after them our own
QUANTITIES = {"i": "i", "j": "j", "d": "r", "D": "vector", "S": "image", "o": "omega", "a": "area", "v": "volume"}


def neighbour_list(quantities: str, atoms: ase.Atoms, **thresholds: float) -> np.ndarray | tuple[np.ndarray, ...]:
    """Voronoi neighbours in the manner of ase.neighborlist.neighbor_list.

    Parameters
    ----------
    quantities : str      a letter for every array: i first atom, j second atom, d distance Å, D vector Å, S image, as
                          ASE has them; o solid angle sr, a area of the facet Å^2, v volume of its pyramid Å^3
    atoms : ase.Atoms
    thresholds            those of refattn.neighbours.voronoi; by default all neighbours

    Returns
    -------
    the array of every letter, in their order; one array for one letter
    """
    unknown = set(quantities) - QUANTITIES.keys()
    if unknown or not quantities:
        raise ConfigError(f"there is no quantity {''.join(sorted(unknown))!r}; choose of {''.join(QUANTITIES)}")
    found = voronoi(atoms, **thresholds)
    arrays = tuple(getattr(found, QUANTITIES[letter]) for letter in quantities)
    return arrays if len(arrays) > 1 else arrays[0]


def edge_index(graph: GraphBatch) -> np.ndarray:
    """The edges of a graph as (2, E) int64: where a message comes from, the neighbour, and where it goes, the centre.

    torch.from_numpy of it is PyTorch Geometric's `edge_index`; dgl.graph(tuple(...)) of the tensors is DGL's graph.
    `graph.r` and `graph.omega` are features of the edges in the same order, `np.repeat(np.arange(S),
    np.diff(graph.site_ptr))` is PyTorch Geometric's `batch`.
    """
    centre = np.repeat(np.arange(len(graph.z)), np.diff(graph.edge_ptr))
    return np.stack([np.asarray(graph.nbr, dtype=np.int64), centre])
