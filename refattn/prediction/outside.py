"""What the user of a network should know of the structures that it is given."""

from collections.abc import Sequence

import ase
import numpy as np
from ase.data import chemical_symbols

from refattn.common.text import counted
from refattn.network.checkpoint import Checkpoint
from refattn.structures.batch import GraphBatch
from refattn.structures.bonds import IN_ANGSTROM, WITHOUT_BONDS, far_apart

BESIDE = 0.05  # Å; an edge that is longer or shorter than all in training by less is none to speak of


class Outside:
    """Counts the structures that lie outside of what a network was trained on.

    Nothing is known to be outside where the Checkpoint has no extent of the training set.
    """

    def __init__(self, checkpoint: Checkpoint):
        self.extent = checkpoint.extent
        self.elements = checkpoint.elements
        self.ids = set()
        self.n = 0
        self.found = {}
        self.charged = []  # ids
        self.n_apart = 0
        self.apart = ""  # the first of them, with what far_apart says

    def add(self, ids: Sequence[str], structures: Sequence[ase.Atoms], graphs: GraphBatch) -> None:
        """Look at some structures, called `ids` in notes, and their graphs."""
        self.n += len(ids)
        self.charged += [id for id, atoms in zip(ids, structures, strict=True) if atoms.info.get("charge")]
        rows, said = far_apart(graphs)
        if len(rows):
            self.n_apart += len(rows)
            self.apart = self.apart or f"{ids[rows[0]]}, {said}"
        if self.extent is None:
            return
        (fewest, most), (shortest, longest) = self.extent.sites, self.extent.edges
        n_sites = np.diff(graphs.site_ptr)
        sites_of = f"{{:g}} sites (training: {fewest:g} to {most:g})"
        self._count(sites_of, ids, np.flatnonzero((n_sites < fewest) | (n_sites > most)), n_sites)
        n_edges = np.diff(graphs.edge_ptr[graphs.site_ptr])
        self._count("no neighbours at all", ids, np.flatnonzero(n_edges == 0), n_edges)
        owner = np.repeat(np.arange(len(ids)), n_edges)
        odd = (graphs.r < shortest - BESIDE) | (graphs.r > longest + BESIDE)
        rows, first = np.unique(owner[odd], return_index=True)
        edge_of = f"an edge of {{:.2f}} Å (training: {shortest:.2f} to {longest:.2f})"
        self._count(edge_of, ids, rows, dict(zip(rows.tolist(), graphs.r[odd][first], strict=True)))
        owner = np.repeat(np.arange(len(ids)), n_sites)
        odd = ~np.isin(graphs.z, self.elements) & bool(self.elements)
        rows, first = np.unique(owner[odd], return_index=True)
        names = {row: chemical_symbols[z] for row, z in zip(rows.tolist(), graphs.z[odd][first], strict=True)}
        self._count("the element {}, never seen in training", ids, rows, names)
        if self.extent.periodic is not None:
            had_finite, had_periodic = self.extent.periodic
            periodic = np.array([atoms.pbc.any() for atoms in structures], dtype=bool)
            if not had_periodic:
                rows = np.flatnonzero(periodic)
                self._count("periodic directions (training: all finite)", ids, rows, periodic)
            if not had_finite:
                rows = np.flatnonzero(~periodic)
                self._count("no periodic direction (training: all periodic)", ids, rows, periodic)

    def _count(self, text, ids, rows, values):
        """`text` with a value of each of the structures `rows`."""
        for row in rows.tolist():
            self.ids.add(ids[row])
            count, example = self.found.get(text, (0, f"{ids[row]} with {text.format(values[row])}"))
            self.found[text] = count + 1, example

    def merge(self, other: "Outside") -> None:
        """Add what was found of other structures."""
        self.n += other.n
        self.charged += other.charged
        self.n_apart += other.n_apart
        self.apart = self.apart or other.apart
        self.ids |= other.ids
        for text, (count, example) in other.found.items():
            known = self.found.get(text, (0, example))
            self.found[text] = known[0] + count, known[1]

    def notes(self) -> list[str]:
        """A note where there are such structures, one of charges, and one of atoms that are far from one another."""
        notes = []
        if self.charged:
            n = counted(len(self.charged), "structure")
            notes.append(f"note: {n} with a charge, such as {self.charged[0]}; the network is not told of it")
        if self.apart:
            n = counted(self.n_apart, "structure")
            notes.append(f"note: {n} with {WITHOUT_BONDS}, such as {self.apart}; {IN_ANGSTROM}")
        if not self.found:
            return notes
        kinds = "; ".join(f"{count} such as {example}" for count, example in self.found.values())
        lie = "lies" if len(self.ids) == 1 else "lie"
        n = counted(self.n, "structure")
        return [*notes, f"note: {len(self.ids)} of {n} {lie} outside of what the model was trained on: {kinds}"]
