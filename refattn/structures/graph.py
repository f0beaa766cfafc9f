"""Graph: one structure with its Voronoi neighbours, as the ragged arrays of docs/design.md section 2."""

import dataclasses

import numpy as np

from refattn.config import GraphConfig
from refattn.structures.voronoi.neighbours import voronoi_neighbours


@dataclasses.dataclass(frozen=True)
class Graph:
    """Sites and edges of one structure; the edges of site i are edge_ptr[i]:edge_ptr[i + 1].

    Attributes
    ----------
    z : (N,) int32              atomic numbers
    edge_ptr : (N + 1,) int32
    nbr : (E,) int32            the neighbour site, 0-based within the structure
    image : (E, 3) int8         the periodic image of the neighbour, in cell vectors
    r : (E,) float64            distance, Å
    omega : (E,) float64        solid angle of the shared facet, sr
    omega_max : (N,) float64    largest solid angle of the site before the thresholds, sr
    """

    z: np.ndarray
    edge_ptr: np.ndarray
    nbr: np.ndarray
    image: np.ndarray
    r: np.ndarray
    omega: np.ndarray
    omega_max: np.ndarray

    @property
    def weight(self):
        """(E,) solid angle over the largest of the site."""
        return self.omega / np.repeat(self.omega_max, np.diff(self.edge_ptr))

    @classmethod
    def from_atoms(cls, atoms, **rule):
        """Graph of an ase.Atoms; keywords are those of GraphConfig (rule, r_max, omega_min, weight_min).

        Raises StructureError, naming the structure, for one that has no graph (see voronoi_neighbours).
        """
        config = GraphConfig(**rule)
        name = atoms.info.get("id")
        if name is None:  # a formula takes as long as a graph
            name = atoms.get_chemical_formula() or "structure"
        edges = voronoi_neighbours(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, config, name)
        return cls(np.asarray(atoms.numbers, dtype=np.int32), *edges)


@dataclasses.dataclass(frozen=True)
class Shard:
    """Whole structures that one thread computes from end to end; indices run within the shard.

    Attributes
    ----------
    site_ptr : (S + 1,) int32, edge_ptr : (N + 1,) int32, nbr : (E,) int32
    z : (N,) int32              atomic numbers
    r, omega : (E,) float       Å, sr
    weight : (E,) float         solid angle over the largest of the site
    structure : (S,) int64      number of the structure in its data set; keys its dropout
    features : (N, 92) float    CGCNN features of the elements, where the network asks for them
    ring : (N, 2) float         in a ring, aromatic, where the network asks for them
    """

    site_ptr: np.ndarray
    edge_ptr: np.ndarray
    nbr: np.ndarray
    z: np.ndarray
    r: np.ndarray
    omega: np.ndarray
    weight: np.ndarray
    structure: np.ndarray
    features: np.ndarray | None = None
    ring: np.ndarray | None = None

    def __len__(self):
        return len(self.site_ptr) - 1


EDGES_PER_SHARD = 2500  # measured: QM9 trains 7 % faster than with half as many; 128 molecules are four shards


def cut_shards(n_edges, limit=EDGES_PER_SHARD):
    """Cut a batch into runs of whole structures with about as many edges each, an even number of runs or one.

    The rule knows neither the machine nor the number of threads, so that they cannot change a result.

    Parameters
    ----------
    n_edges : (S,) int
        Edges of each structure of the batch.
    limit : int
        There are as few runs as keep the edges of one, on average, below it.

    Returns
    -------
    list of slice, each of at least one structure
    """
    total = int(np.sum(n_edges))
    if not len(n_edges):
        return []
    n_shards = 1 if total <= limit else 2 * -(-total // (2 * limit))
    # A structure goes to the run in which its middle edge lies.
    middle = np.cumsum(n_edges) - np.asarray(n_edges) / 2
    run = np.minimum(middle * n_shards // max(total, 1), n_shards - 1)
    ends = np.flatnonzero(np.diff(run)) + 1
    return [slice(int(start), int(stop)) for start, stop in zip([0, *ends], [*ends, len(n_edges)], strict=True)]
