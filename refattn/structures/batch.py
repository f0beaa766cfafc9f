"""GraphBatch: structures with their Voronoi neighbours as one ragged graph, from the neighbour rule to the kernels."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols, covalent_radii, missing
from numpy.typing import DTypeLike

from refattn.config import GraphConfig, ModelConfig
from refattn.errors import DataError
from refattn.structures.elements import N_CGCNN, cgcnn_features

EDGES_PER_SHARD = 2500  # measured: QM9 trains 7 % faster than with half as many; 128 molecules are four shards
BLOCK = 1 << 14  # structures
SPECIES = 1.5  # about 1 of carbon, nitrogen and oxygen
# The smallest ratio of a distance to the covalent radii together is 0.78 to 1.02 in 20,126 molecules of QM9. Of 21,340
# crystals of the Materials Project 99.9 % have less than 1.22, and six more than 1.3. Where Å are Bohr it is 1.89 times
# as large.
LARGEST_RATIO = 1.3
WITHOUT_BONDS = (
    f"no two atoms nearer than {LARGEST_RATIO} times their covalent radii together, such as {{}}; "
    "coordinates are read in Å"
)
RADII = np.where(covalent_radii == missing, np.inf, covalent_radii)  # Å
WANTED = "give ase.Atoms or a list of them, such as ase.io.read(file, ':')"
Structures = ase.Atoms | Iterable[ase.Atoms]
# Arrays with a row for each site or edge, which are None where they are not known or not needed.
SITE_ARRAYS = ("z", "features", "ring", "omega_max")
EDGE_ARRAYS = ("r", "omega", "weight", "image", "direction", "species")
NETWORK_FLOATS = ("r", "omega", "weight", "features", "ring", "direction", "species")


@dataclasses.dataclass(frozen=True, eq=False)
class GraphBatch:
    """S structures as one graph of N sites and E directed edges, one after the other; nothing is padded.

    The sites of structure s are site_ptr[s]:site_ptr[s + 1], the edges of site i edge_ptr[i]:edge_ptr[i + 1].

    Attributes
    ----------
    site_ptr : (S + 1,) int     int32 where a network reads it, as edge_ptr
    edge_ptr : (N + 1,) int
    nbr : (E,) int32            neighbour site, numbered within the batch; on a GPU a Neighbours (ops/cuda/graph.py)
    z : (N,) int32              atomic numbers
    r : (E,) float              distance to the neighbour, Å
    omega : (E,) float          solid angle of the shared facet, sr
    weight : (E,) float         omega / omega_max of the site
    structure : (S,) int64      number of the structure in its data set; keys its dropout
    features : (N, 92) float    CGCNN features of the elements, where a network asks for them
    ring : (N, 2) float         1 where the site is in a ring, in an aromatic ring; where it is known
    image : (E, 3) int8         periodic image of the neighbour, in cell vectors; where it is known, as omega_max
    omega_max : (N,) float64    largest solid angle of the site before the thresholds, sr
    direction : (E, 3) float    unit vector to the neighbour, where it is known: of the isolated rule, with positions
    species : (E,) float        (sqrt(Z) - 1) / 1.5 of the neighbour, 0 of hydrogen; where direction is
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
    image: np.ndarray | None = None
    omega_max: np.ndarray | None = None
    direction: np.ndarray | None = None
    species: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.site_ptr) - 1

    @functools.cached_property
    def n_edges(self) -> np.ndarray:
        """(S,) int, edges of each structure."""
        return np.diff(self.edge_ptr[self.site_ptr])

    @classmethod
    def from_atoms(
        cls,
        atoms: ase.Atoms,
        config: GraphConfig | None = None,
        name: str | None = None,
        with_directions: bool = False,
        **rule,
    ) -> "GraphBatch":
        """Graph of one structure, with `ring` (N, 2) of the atoms' arrays where it is there.

        Parameters
        ----------
        atoms : ase.Atoms
        config : GraphConfig, optional
            The neighbour rule; or its fields as keywords: rule, r_max, omega_min, weight_min,
            min_distance.
        name : str, optional
            What errors call the structure; by default `id` of its info, or its formula.
        with_directions : bool
            As with_directions gives them, for a network that reads angles.

        Raises StructureError, naming the structure, for one that has no graph (see voronoi_neighbours).
        """
        from refattn.structures.voronoi.neighbours import voronoi_neighbours  # loads the compiler

        config = GraphConfig(**rule) if config is None else config
        name = atoms.info.get("id") if name is None else name
        if name is None:  # a formula takes as long as a graph
            name = atoms.get_chemical_formula() or "structure"
        edges = voronoi_neighbours(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, config, name)
        graph = cls.of_structure(np.asarray(atoms.numbers, dtype=np.int32), *edges, ring_flags(atoms.arrays))
        if with_directions:
            # without a period a cell vector may hold anything
            cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
            graph = graph.with_directions(config.rule, atoms.positions, cell[None])
        return graph

    @classmethod
    def of_structure(cls, z, edge_ptr, nbr, image, r, omega, omega_max, ring=None) -> "GraphBatch":
        """The batch of one structure, from arrays as voronoi_neighbours returns them."""
        return cls(
            site_ptr=np.array([0, len(z)], dtype=np.int32),
            edge_ptr=edge_ptr,
            nbr=nbr,
            z=z,
            r=r,
            omega=omega,
            weight=omega / np.repeat(omega_max, np.diff(edge_ptr)),
            structure=np.zeros(1, dtype=np.int64),
            ring=ring,
            image=image,
            omega_max=omega_max,
        )

    def with_directions(self, rule: str, position: np.ndarray, cell: np.ndarray) -> "GraphBatch":
        """The batch with `direction` and `species`, of sites at `position` (N, 3) in cells (S, 3, 3), Å.

        Under the upstream rule, whose images may count sides of a box of its own, it is the batch itself.
        """
        if rule != "isolated":
            return self
        n_edges = np.diff(self.edge_ptr)
        vector = position[self.nbr] - np.repeat(position, n_edges, axis=0)
        vector += np.einsum("ek,ekx->ex", self.image, np.repeat(cell, self.n_edges, axis=0))
        species = (np.sqrt(self.z[self.nbr]) - 1) / SPECIES
        return dataclasses.replace(self, direction=vector / self.r[:, None], species=species)

    @classmethod
    def concatenate(cls, batches: "Sequence[GraphBatch]") -> "GraphBatch":
        """Batches one after the other, with structures numbered anew; what one of them does not know is left out."""
        if len(batches) == 1:
            return batches[0]
        if not batches:
            nothing = np.zeros(0, np.int32)
            start, float_nothing = np.zeros(1, np.int32), np.zeros(0)
            return cls(start, start, nothing, nothing, *3 * [float_nothing], nothing, ring=np.zeros((0, 2)))

        def joined(name):
            arrays = [getattr(batch, name) for batch in batches]
            return None if any(array is None for array in arrays) else np.concatenate(arrays)

        site_ptr = pointers(np.concatenate([np.diff(batch.site_ptr) for batch in batches]))
        n_sites = [len(batch.z) for batch in batches]
        first_site = np.repeat(np.cumsum([0, *n_sites[:-1]]), [len(batch.nbr) for batch in batches])
        return cls(
            site_ptr=site_ptr,
            edge_ptr=pointers(np.concatenate([np.diff(batch.edge_ptr) for batch in batches])),
            nbr=(joined("nbr") + first_site).astype(np.int32),
            structure=np.arange(len(site_ptr) - 1),
            **{name: joined(name) for name in SITE_ARRAYS + EDGE_ARRAYS},
        )

    def take(self, rows: np.ndarray) -> "GraphBatch":
        """The structures `rows` (K,) int, in that order; one may come several times."""
        site_ptr, sites = ragged_rows(self.site_ptr, rows)
        edge_ptr, edges = ragged_rows(self.edge_ptr, sites)
        shift = np.repeat(site_ptr[:-1] - self.site_ptr[:-1][rows], self.n_edges[rows])
        chosen = {name: (getattr(self, name), sites) for name in SITE_ARRAYS}
        chosen |= {name: (getattr(self, name), edges) for name in EDGE_ARRAYS}
        return GraphBatch(
            site_ptr=site_ptr.astype(self.site_ptr.dtype),
            edge_ptr=edge_ptr.astype(self.edge_ptr.dtype),
            nbr=(self.nbr[edges] + shift).astype(np.int32),
            structure=self.structure[rows],
            **{name: None if values is None else values[where] for name, (values, where) in chosen.items()},
        )

    def blocks(self, rows: np.ndarray) -> "Iterator[GraphBatch]":
        """The structures `rows` (K,), some thousands at a time: for a pass over a large data set that is mapped."""
        return (self.take(rows[first : first + BLOCK]) for first in range(0, len(rows), BLOCK))

    def elements(self, rows: np.ndarray) -> np.ndarray:
        """Atomic numbers, ascending, that the structures `rows` (K,) hold."""
        parts = (rows[first : first + BLOCK] for first in range(0, len(rows), BLOCK))
        found = [np.unique(self.z[ragged_rows(self.site_ptr, part)[1]]) for part in parts]
        return np.unique(np.concatenate([self.z[:0], *found]))

    def renumbered(self) -> "GraphBatch":
        """The same structures with the numbers 0, 1, ..., as a data set of its own."""
        return dataclasses.replace(self, structure=np.arange(len(self)))

    def repeat(self, n: int) -> "GraphBatch":
        """`n` copies of the batch, one after the other, with structures numbered anew."""
        return self.take(np.tile(np.arange(len(self)), n)).renumbered()

    def cut(self, rows: np.ndarray, limit: int = EDGES_PER_SHARD) -> list[np.ndarray]:
        """Cut the structures `rows` (K,) int into the rows of shards, which a thread each computes; see cut_shards."""
        return [rows[part] for part in cut_shards(self.n_edges[rows], limit)]

    def for_network(self, config: ModelConfig, dtype: DTypeLike) -> "GraphBatch":
        """The arrays that a network reads, floats as `dtype`, with the features that it asks for.

        Raises what `check` does.
        """
        self.check(config)
        features = None
        if config.features == "cgcnn":
            features = cgcnn_features(self.z) if self.features is None else self.features
        found = dataclasses.replace(self, features=features, ring=self.ring if config.ring else None)
        if not config.n_angular:
            found = dataclasses.replace(found, direction=None, species=None)
        return found.with_type(dtype)

    def with_type(self, dtype: DTypeLike) -> "GraphBatch":
        """What a network may read, with pointers as int32 and floats as `dtype`; arrays that have it are not copied."""
        types = dict.fromkeys(("site_ptr", "edge_ptr"), np.int32) | dict.fromkeys(NETWORK_FLOATS, dtype)
        arrays = {name: getattr(self, name) for name in types}
        cast = {name: array.astype(types[name], copy=False) for name, array in arrays.items() if array is not None}
        return dataclasses.replace(self, image=None, omega_max=None, **cast)

    def check(self, config: ModelConfig, ids: Sequence[str] | None = None, rows: np.ndarray | None = None) -> None:
        """Raise DataError where a network cannot read a structure: an element outside its table, no ring features.

        ids : (S,) str, optional     what the error calls the structures; their numbers by default
        rows : (n,) int, optional    the structures that it is to read; all by default
        """
        of_cgcnn = config.features == "cgcnn"
        sites = np.flatnonzero(self.z >= (N_CGCNN if of_cgcnn else config.n_elements))
        row = np.searchsorted(self.site_ptr, sites, side="right") - 1
        if rows is not None:
            wanted = np.isin(row, rows)
            sites, row = sites[wanted], row[wanted]
        if len(sites) and of_cgcnn:
            cgcnn_features(self.z[sites])
        elif len(sites):
            raise DataError(
                f"structure {(self.structure if ids is None else ids)[row[0]]} has an atom of atomic number "
                f"{self.z[sites[0]]}, but the network's table ends at {config.n_elements - 1}; raise "
                "model.n_elements or leave the structure out"
            )
        if config.n_angular and self.direction is None:
            raise DataError(
                "the network reads angles (model.n_angular), and the graph is without directions: the rule isolated "
                "has them (refattn prepare --rule isolated), in Python where with_directions is asked for"
            )
        if config.ring and self.ring is None:
            what = f"structure {ids[0]}" if ids is not None and len(self.site_ptr) == 2 else "the data set"
            raise DataError(
                f"the network asks for ring features, but {what} has no per-site array `ring` with two columns "
                "(in a ring, aromatic); add it to the source or set model.ring=false"
            )

    def to(self, ops) -> "GraphBatch":
        """The batch where the operations of a backend compute; `structure`, which the host reads, stays there."""
        if not ops.on_device:
            return self
        placed = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        placed = {name: ops.to_device(array) for name, array in placed.items() if array is not None}
        placed |= {"nbr": ops.transposed(placed["nbr"], len(self.z)), "structure": self.structure}
        return dataclasses.replace(self, **placed)


def ring_flags(arrays: dict) -> np.ndarray | None:
    """The per-site array `ring` (N, 2) of a dict of arrays; None where there is none of this shape."""
    ring = arrays.get("ring")
    return ring if ring is not None and ring.shape[1:] == (2,) else None


def pointers(counts: np.ndarray) -> np.ndarray:
    """(K + 1,) int64: where runs of `counts` (K,) rows begin and end."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def ragged_rows(ptr: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pointers and rows of the runs `chosen` of a ragged array: values[rows] holds them one after the other.

    Parameters
    ----------
    ptr : (S + 1,) int;  chosen : (K,) int

    Returns
    -------
    new_ptr : (K + 1,) int64;  rows : (new_ptr[-1],) int64
    """
    counts = ptr[1:][chosen] - ptr[:-1][chosen]
    new_ptr = pointers(counts)
    rows = np.repeat(ptr[:-1][chosen] - new_ptr[:-1], counts) + np.arange(new_ptr[-1])
    return new_ptr, rows


def cut_shards(n_edges: np.ndarray, limit: int = EDGES_PER_SHARD) -> list[slice]:
    """Cut a batch into runs of whole structures with about as many edges each, an even number of runs or one.

    The rule knows neither the machine nor the number of threads, so that they cannot change a result.

    Parameters
    ----------
    n_edges : (S,) int
        Edges of each structure of the batch.
    limit : int
        There are as few runs as keep the edges of one, on average, below it; two from half of it on, for two threads.

    Returns
    -------
    list of slice, each of at least one structure
    """
    total = int(np.sum(n_edges))
    if not len(n_edges):
        return []
    n_shards = 1 if 2 * total <= limit else 2 * -(-total // (2 * limit))
    # A structure goes to the run in which its middle edge lies.
    middle = np.cumsum(n_edges) - np.asarray(n_edges) / 2
    run = np.minimum(middle * n_shards // max(total, 1), n_shards - 1)
    ends = np.flatnonzero(np.diff(run)) + 1
    return [slice(int(start), int(stop)) for start, stop in zip([0, *ends], [*ends, len(n_edges)], strict=True)]


def far_apart(graphs: GraphBatch) -> tuple[np.ndarray, str]:
    """(K,) int, the structures whose smallest distance of neighbours is above LARGEST_RATIO, and which atoms of the
    first of them have it, in words.

    Atoms without neighbours and elements without a known radius say nothing.
    """
    site = np.repeat(np.arange(len(graphs.z)), np.diff(graphs.edge_ptr))
    ratio = graphs.r / (RADII[graphs.z[site]] + RADII[graphs.z[graphs.nbr]])
    structure = np.repeat(np.arange(len(graphs)), graphs.n_edges)
    n_near = np.bincount(structure[ratio <= LARGEST_RATIO], minlength=len(graphs))
    rows = np.flatnonzero((graphs.n_edges > 0) & (n_near == 0))
    if not len(rows):
        return rows, ""
    edges = slice(*graphs.edge_ptr[graphs.site_ptr[rows[0] : rows[0] + 2]].tolist())
    edge = edges.start + int(np.argmin(ratio[edges]))
    one, other = (chemical_symbols[graphs.z[i]] for i in (site[edge], graphs.nbr[edge]))
    return rows, f"{one} and {other} at {graphs.r[edge]:.2f} Å"


def checked_structures(structures: Structures) -> list[ase.Atoms]:
    """One ase.Atoms or an iterable of them as a list. Raises TypeError for anything else."""
    if isinstance(structures, ase.Atoms):
        return [structures]
    if isinstance(structures, str | bytes | Path) or not isinstance(structures, Iterable):
        raise TypeError(f"the structures are {structures!r:.60}; {WANTED}")
    structures = list(structures)
    for number, atoms in enumerate(structures):
        check_atoms(number, atoms)
    return structures


def check_atoms(number: int, atoms: object) -> None:
    """Raise TypeError where structure `number` is no ase.Atoms."""
    if not isinstance(atoms, ase.Atoms):
        raise TypeError(f"structure {number} is of type {type(atoms).__name__}; {WANTED}")


Graph = GraphBatch  # its name for those who make one structure's
