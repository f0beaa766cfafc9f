"""Which data a network was trained on: digests of graphs and labels, so that other data are noticed, and how far the
training structures reach, so that other structures are."""

import hashlib
import typing
from collections.abc import Mapping, Sequence

import h5py
import numpy as np

from refattn.common.hdf5 import write_strings
from refattn.data.splits import Split, labels_of_targets, resolve_split
from refattn.data.store import Dataset
from refattn.errors import DataError
from refattn.structures.batch import GraphBatch

GRID = 1e5  # of distances (Å) and solid angles (sr): another processor rounds their last bits differently


class Fingerprint(typing.NamedTuple):
    """Of the structures of a split, in the order train, valid, test.

    graphs : (S,) uint64     digests of their graphs
    labels : tuple of str    digests of the labels of each target, and of the structures' weights where there are some
    """

    graphs: np.ndarray
    labels: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, labels: Sequence[str], rows: Sequence[np.ndarray]) -> "Fingerprint":
        """Of the structures `rows` of a Dataset, a part after the other."""
        everything = np.concatenate(rows)
        label = labels_of_targets(dataset, labels)[everything]
        digests = [hashlib.sha256(np.where(np.isnan(y), np.nan, y).tobytes()).hexdigest() for y in label.T]
        return cls(graph_digests(dataset.graphs, everything), tuple(digests))

    @classmethod
    def read(cls, group: h5py.Group) -> "Fingerprint":
        """Of a model file."""
        return cls(group["graphs"][()].astype(np.uint64), tuple(group["labels"].asstr()[()].tolist()))

    def seen(self, split: Split, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S,) bool, twice: which digests are of graphs that were trained on, and which of others validated on."""
        n_train, n_valid = len(split.train), len(split.valid)
        trained = np.isin(digests, self.graphs[:n_train])
        return trained, np.isin(digests, self.graphs[n_train : n_train + n_valid]) & ~trained

    def write(self, file: h5py.File) -> None:
        """Into a model file."""
        file["fingerprint/graphs"] = self.graphs
        write_strings(file, "fingerprint/labels", self.labels)


class Extent(typing.NamedTuple):
    """How far the structures reach that a network was trained on.

    sites : (2,) float       smallest and largest number of sites
    edges : (2,) float       shortest and longest edge, Å; zeros where there is none
    periodic : (2,) float    1 where some of them are finite, 1 where some are periodic; None where that is unknown
    """

    sites: np.ndarray
    edges: np.ndarray
    periodic: np.ndarray | None = None

    @classmethod
    def of(cls, dataset: Dataset, rows: np.ndarray) -> "Extent":
        """Of the structures `rows` of a Dataset."""
        n_sites = np.diff(dataset.graphs.site_ptr)[rows]
        r = [end for block in dataset.graphs.blocks(rows) if len(block.r) for end in (block.r.min(), block.r.max())]
        periodic = dataset.pbc[rows].any(axis=1)
        edges = min(r, default=0), max(r, default=0)
        found = (n_sites.min(), n_sites.max()), edges, (not periodic.all(), periodic.any())
        return cls(*np.array(found, dtype=float))

    def write(self, file: h5py.File) -> None:
        """Into a model file."""
        file["extent"] = np.array([part for part in self if part is not None])


def same_data(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether two trainings had the same graphs and labels, as far as that is known."""
    return None in (one, other) or (one.labels == other.labels and np.array_equal(one.graphs, other.graphs))


def graph_digests(graphs: GraphBatch, rows: np.ndarray) -> np.ndarray:
    """(S,) uint64 of the structures `rows`: of their elements, edges, distances and solid angles; not of their ids."""
    digests = (digest for block in graphs.blocks(rows) for digest in _digests(block))
    return np.fromiter(digests, np.uint64, len(rows))


def _digests(graphs):
    """As ints, of every structure."""
    r, omega = (np.rint(array * GRID).astype(np.int32) for array in (graphs.r, graphs.omega))
    for row in range(len(graphs)):
        first, last = graphs.site_ptr[row : row + 2].tolist()
        pointers = graphs.edge_ptr[first : last + 1]
        edges = slice(pointers[0], pointers[-1])
        parts = graphs.z[first:last], np.diff(pointers), graphs.nbr[edges] - first, r[edges], omega[edges]
        data = b"".join(part.astype(np.int32).tobytes() for part in parts)
        yield int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def check_fingerprint(
    wanted: Fingerprint | None, dataset: Dataset, labels: Sequence[str], units: Mapping[str, str], split: Split
) -> None:
    """Raise DataError where a Dataset is not the one of a training; `wanted` is None where that is unknown.

    labels : names of these; units : of those that have to have one
    """
    if wanted is None:
        return
    advice = "use the run's data set, or train anew on this one"
    found = Fingerprint.of(dataset, labels, resolve_split(split, dataset))
    for label, ours, theirs in zip(labels, wanted.labels, found.labels, strict=True):
        unit_found = dataset.label_attrs[label].get("unit", "")
        unit = units.get(label, unit_found)
        if unit != unit_found:
            raise DataError(f"{label} is in {unit_found or 'no unit'}, the run's was in {unit or 'no unit'}; {advice}")
        if ours != theirs:
            raise DataError(f"the labels {label} are not those that the run was trained on; {advice}")
    other = np.flatnonzero(found.graphs != wanted.graphs)
    if len(other):
        id = [*split.train, *split.valid, *split.test][other[0]]
        what = (
            f"graph of {id} is not the one" if len(other) == 1 else f"graphs of {len(other)}, as of {id}, are not those"
        )
        raise DataError(f"the {what} that the run was trained on; {advice}")
