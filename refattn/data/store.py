"""The dataset: structures, graphs, labels and per-site arrays in one HDF5 file (docs/design.md section 8).

A DatasetWriter appends blocks, read_dataset returns a Dataset (arrays in memory) of the whole file or of a slice, and
verify checks everything that the other two promise. FIELDS is the layout: writer, reader and selection follow it.

The file is written in the format of HDF5 1.10 with checksums on metadata and data, so that a damaged byte is an
error and not another number. Compression is gzip, which every HDF5 tool can read.
"""

import contextlib
import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import ase
import h5py
import numpy as np

from refattn.common import hdf5
from refattn.common.files import other_format
from refattn.common.hdf5 import attribute_text, reading_hdf5
from refattn.config import GraphConfig, config_from_dict
from refattn.errors import ConfigError, DataError, in_one_line
from refattn.structures.batch import GraphBatch, ragged_rows, ring_flags

FORMAT = "refattn-dataset"
VERSION = 1
ADVICE = "restore the file, or make it again with `refattn prepare`"
SAME_DISTANCE = 1e-6  # relative; positions far from the origin are rounded
LARGEST_LABEL = 1e100  # a sum of squares is still a number
UNREADABLE = (*hdf5.UNREADABLE, ConfigError)


class Record(typing.NamedTuple):
    """One structure on its way into a dataset."""

    id: str
    atoms: ase.Atoms
    labels: dict[str, float]  # NaN or absent where unknown
    arrays: dict[str, np.ndarray]  # (N, ...) float


class Source(typing.Protocol):
    """Where structures come from: iterated once, a Record at a time, so that its size does not matter."""

    name: str
    licence: str
    citation: str
    fraction: float | None  # part of the input that has been read

    def __iter__(self) -> Iterator[Record]: ...


class Rows(typing.NamedTuple):
    """Structures as they stand in the file; the pointers begin at 0.

    columns : name of FIELDS -> rows;  labels : name -> (S,);  arrays : name -> (N, ...)
    """

    columns: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


class Field(typing.NamedTuple):
    """One dataset of the file: a row per structure, site or edge."""

    path: str
    per: str
    row_shape: tuple[int, ...]
    dtype: str
    unit: str
    meaning: str


FIELDS = {
    "site_ptr": Field("structures/site_ptr", "structure", (), "i8", "", "structure s: sites site_ptr[s]:site_ptr[s+1]"),
    "z": Field("structures/z", "site", (), "u1", "", "atomic number"),
    "position": Field("structures/position", "site", (3,), "f8", "Å", "Cartesian position"),
    "cell": Field("structures/cell", "structure", (3, 3), "f8", "Å", "cell vectors, one a row"),
    "pbc": Field("structures/pbc", "structure", (3,), "?", "", "periodic along each cell vector"),
    "edge_ptr": Field("graph/edge_ptr", "site", (), "i8", "", "site i: edges edge_ptr[i]:edge_ptr[i+1]"),
    "nbr": Field("graph/nbr", "edge", (), "i4", "", "neighbour site, counted within the structure from 0"),
    "image": Field("graph/image", "edge", (3,), "i1", "cell vectors", "periodic image of the neighbour"),
    "r": Field("graph/r", "edge", (), "f8", "Å", "distance"),
    "omega": Field("graph/omega", "edge", (), "f8", "sr", "solid angle of the shared Voronoi facet"),
    "omega_max": Field("graph/omega_max", "site", (), "f8", "sr", "largest solid angle before the thresholds"),
}
ORIGIN = ("source", "licence", "citation", "created_by")  # attributes of the file
RULE = ("rule", "r_max", "omega_min", "weight_min")  # attributes of /graph that every file has
POINTERS = ("site_ptr", "edge_ptr")  # they have a row more than there are structures or sites


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The graphs of S structures with N sites in all, and what is known of them besides.

    Attributes
    ----------
    graphs : GraphBatch                  structures are numbered from 0
    id : (S,) str
    position : (N, 3) float64            Cartesian, Å; None where it was not read, as cell
    cell : (S, 3, 3) float64             cell vectors, one a row, Å
    pbc : (S, 3) bool                    periodic along each cell vector
    labels : name -> (S,) float64        NaN where unknown
    label_attrs : name -> {"unit", "description", "kind"}; kind is "intensive", "extensive" or ""
    arrays : name -> (N, ...) float64
    graph_config : GraphConfig           the neighbour rule
    attrs : dict                         source, licence, citation, created_by
    skipped : tuple of (id, reason)
    """

    graphs: GraphBatch
    id: np.ndarray
    position: np.ndarray | None
    cell: np.ndarray | None
    pbc: np.ndarray | None
    labels: dict[str, np.ndarray]
    label_attrs: dict[str, dict[str, str]]
    arrays: dict[str, np.ndarray]
    graph_config: GraphConfig
    attrs: dict[str, str]
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.id)

    def select(self, indices: np.ndarray | slice) -> "Dataset":
        """The structures `indices` (numbers, a mask or a slice), in that order, as a Dataset of their own.

        Raises DataError for an index that the dataset does not have.
        """
        try:
            chosen = np.arange(len(self))[indices]
        except IndexError as error:
            raise DataError(f"no such structure in a dataset of {len(self)} ({error}); choose another") from None
        _, sites = ragged_rows(self.graphs.site_ptr, chosen)
        return dataclasses.replace(
            self,
            graphs=self.graphs.take(chosen).renumbered(),
            id=self.id[chosen],
            position=None if self.position is None else self.position[sites],
            cell=None if self.cell is None else self.cell[chosen],
            pbc=None if self.pbc is None else self.pbc[chosen],
            labels={name: values[chosen] for name, values in self.labels.items()},
            arrays={name: values[sites] for name, values in self.arrays.items()},
        )

    def with_directions(self) -> "Dataset":
        """The same with the directions of the edges, which networks read that know angles; from the positions.

        Raises DataError without positions, for the rule upstream, and where the neighbours do not stand as far away as
        the graphs say.
        """
        self._check_positions()
        if self.graph_config.rule != "isolated":
            raise DataError(
                "a network that reads angles (model.n_angular) asks for the rule isolated; the data set was prepared "
                f"with {self.graph_config.rule}; prepare it with --rule isolated"
            )
        graphs = self.graphs.with_directions(self.graph_config.rule, self.position, self.cell)
        if graphs.direction is not None:
            wrong = np.flatnonzero(~(np.abs(np.linalg.norm(graphs.direction, axis=1) - 1) < SAME_DISTANCE))
            if len(wrong):
                site = np.searchsorted(graphs.edge_ptr, wrong[0], side="right") - 1
                where = self.id[np.searchsorted(graphs.site_ptr, site, side="right") - 1]
                raise DataError(f"/graph/r in structure {where} is not the distance of the positions; {ADVICE}")
        return dataclasses.replace(self, graphs=graphs)

    def _check_positions(self):
        if self.position is None:
            raise DataError("the dataset was read without positions; read it with with_positions=True")

    def atoms(self, i: int) -> ase.Atoms:
        """Structure `i` as ase.Atoms; its id and known labels are in `info`, its per-site arrays in `arrays`."""
        self._check_positions()
        sites = slice(self.graphs.site_ptr[i], self.graphs.site_ptr[i + 1])
        atoms = ase.Atoms(self.graphs.z[sites], self.position[sites], cell=self.cell[i], pbc=self.pbc[i])
        known = {name: float(y[i]) for name, y in self.labels.items() if not np.isnan(y[i])}
        atoms.info = {"id": str(self.id[i]), **known}
        for name, values in self.arrays.items():
            atoms.set_array(name, values[sites])
        return atoms


def read_dataset(
    path: Path | str, index: slice | None = None, with_positions: bool = True, with_directions: bool = False
) -> Dataset:
    """Read a dataset, or its structures `index` (a slice of step 1), into memory.

    with_directions : bool    with those of Dataset.with_directions, which take the positions

    Raises DataError for a file that is missing, not HDF5, damaged, of another format or version, or inconsistent, and
    as Dataset.with_directions.
    """
    with open_dataset(path) as file:
        n_structures = check_layout(file)
        start, stop, step = (index or slice(None)).indices(n_structures)
        if step != 1:
            raise DataError("only slices of step 1 are read from the file; read more and use Dataset.select")
        found = _read_slice(file, start, max(start, stop), with_positions or with_directions)
        return found.with_directions() if with_directions else found


@contextlib.contextmanager
def open_dataset(path: Path | str) -> Iterator[h5py.File]:
    """The open HDF5 file, after its format and version; whatever goes wrong while it is read becomes a DataError."""
    try:
        with reading_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"it is HDF5 but not a {FORMAT}; make one with `refattn prepare`")
            if wrong := other_format(file.attrs, FORMAT, VERSION, ADVICE):
                raise DataError(wrong)
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except UNREADABLE as error:
        is_named = Path(path).suffix in (".h5", ".hdf5") and not Path(path).is_dir()
        if not (is_named or isinstance(error, PermissionError) or h5py.is_hdf5(path)):
            raise DataError(
                f"{path}: is no data set; `refattn prepare {path} data.h5` makes one of structures"
            ) from None
        raise DataError(f"{path}: cannot be read as a dataset ({in_one_line(error)}); {ADVICE}") from None


def check_layout(file: h5py.File) -> None:
    """Compare names and shapes in an open dataset with FIELDS; return its number of structures. Raises DataError."""

    def shape(name):
        if not isinstance(file.get(name), h5py.Dataset):
            raise DataError(f"/{name} is missing; {ADVICE}")
        return file[name].shape

    rows = {"structure": shape("structures/id"), "site": shape("structures/z"), "edge": shape("graph/nbr")}
    wanted = {f.path: (rows[f.per][0] + (name in POINTERS), *f.row_shape) for name, f in FIELDS.items()}
    for group, per in (("labels", "structure"), ("arrays", "site")):
        for name in file[group]:
            path = f"{group}/{name}"
            wanted[path] = (*rows[per], *shape(path)[1:]) if group == "arrays" else rows[per]
    wanted["skipped/reason"] = shape("skipped/id")
    for path, expected in wanted.items():
        if path != "skipped/reason" and shape(path) and file[path].dtype.kind not in "biuf":
            raise DataError(f"/{path} does not hold numbers; {ADVICE}")
        if shape(path) != expected:
            raise DataError(f"/{path} has the shape {shape(path)} instead of {expected}; {ADVICE}")
    for name, per in (("site_ptr", "site"), ("edge_ptr", "edge")):
        pointer = file[FIELDS[name].path]
        if pointer[0] != 0 or pointer[-1] != rows[per][0]:
            raise DataError(f"/{FIELDS[name].path} does not run from 0 to {rows[per][0]}; {ADVICE}")
    return rows["structure"][0]


def read_strings(dataset: h5py.Dataset, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Strings of an HDF5 dataset as an array of str."""
    return np.asarray(dataset.asstr()[rows], dtype=str)


def read_graph_config(file: h5py.File) -> GraphConfig:
    """The neighbour rule that an open dataset was made with."""
    attrs = file["graph"].attrs
    names = [field.name for field in dataclasses.fields(GraphConfig) if field.name in attrs or field.name in RULE]
    values = {name: attrs[name] if name == "rule" else float(attrs[name]) for name in names}
    return config_from_dict({"graph": values}, "/graph").graph


def read_rows(file: h5py.File, start: int, stop: int, with_positions: bool = True) -> Rows:
    """The structures from `start` up to `stop` of an open dataset, whose promises are not checked."""
    site_ptr = _column(file, "site_ptr", slice(start, stop + 1))
    sites = slice(site_ptr[0], site_ptr[-1])
    edge_ptr = _column(file, "edge_ptr", slice(sites.start, sites.stop + 1))
    rows = {"structure": slice(start, stop), "site": sites, "edge": slice(edge_ptr[0], edge_ptr[-1])}
    names = [name for name in FIELDS if name not in POINTERS and (with_positions or name != "position")]
    columns = {name: _column(file, name, rows[FIELDS[name].per]) for name in names}
    columns |= {"site_ptr": site_ptr - site_ptr[0], "edge_ptr": edge_ptr - edge_ptr[0]}
    labels = {name: labels[start:stop].astype(float) for name, labels in file["labels"].items()}
    arrays = {name: values[sites].astype(float) for name, values in file["arrays"].items()}
    return Rows(columns, labels, arrays)


def _read_slice(file, start, stop, with_positions):
    columns, labels, arrays = read_rows(file, start, stop, with_positions)
    skipped = zip(read_strings(file["skipped/id"]).tolist(), read_strings(file["skipped/reason"]).tolist(), strict=True)
    id = read_strings(file["structures/id"], slice(start, stop))
    _check_pointers(columns, id)
    _check_promises(columns, id, labels)
    return Dataset(
        graphs=_graphs(columns, ring_flags(arrays)),
        id=id,
        position=columns.get("position"),
        cell=columns["cell"],
        pbc=columns["pbc"],
        labels=labels,
        label_attrs={name: {k: attribute_text(y, k) for k in y.attrs} for name, y in file["labels"].items()},
        arrays=arrays,
        graph_config=read_graph_config(file),
        attrs={name: attribute_text(file, name) if name in file.attrs else "" for name in ORIGIN},
        skipped=tuple(skipped),
    )


def _column(file, name, rows):
    """The rows of a field, in its type. Raises DataError for a number that the type does not hold."""
    field = FIELDS[name]
    found = file[field.path][rows]
    if found.dtype == field.dtype:
        return found
    with np.errstate(invalid="ignore"):  # of NaN, which is no integer
        values = found.astype(field.dtype)
    if np.dtype(field.dtype).kind != "f" and not np.array_equal(values, found):
        raise DataError(f"/{field.path} holds numbers that are none of the type {np.dtype(field.dtype)}; {ADVICE}")
    return values


def _graphs(columns, ring):
    """The GraphBatch of checked columns of a file."""
    site_ptr, edge_ptr, omega = columns["site_ptr"], columns["edge_ptr"], columns["omega"]
    first_site = np.repeat(site_ptr[:-1], np.diff(edge_ptr[site_ptr]))
    return GraphBatch(
        site_ptr=site_ptr,
        edge_ptr=edge_ptr,
        nbr=(columns["nbr"] + first_site).astype(np.int32),
        z=columns["z"].astype(np.int32),
        r=columns["r"],
        omega=omega,
        weight=omega / np.repeat(columns["omega_max"], np.diff(edge_ptr)),
        structure=np.arange(len(site_ptr) - 1),
        ring=ring,
        image=columns["image"],
        omega_max=columns["omega_max"],
    )


def _check_pointers(columns, id):
    """Nothing may point outside: compiled kernels follow these numbers without a check of their own.

    columns : name of FIELDS -> rows;  id : (S,) str
    """
    sizes, degrees, nbr = np.diff(columns["site_ptr"]), np.diff(columns["edge_ptr"]), columns["nbr"]
    for name, n_rows in (("site_ptr", len(columns["z"])), ("edge_ptr", len(nbr))):
        if np.any((columns[name] < 0) | (columns[name] > n_rows)):  # beyond, the differences may wrap around
            raise DataError(f"/{FIELDS[name].path} leads beyond the {n_rows} rows that it divides; {ADVICE}")
    if np.any(sizes <= 0) or columns["site_ptr"][-1] != len(columns["z"]):
        raise DataError(f"/structures/site_ptr does not divide the sites into structures; {ADVICE}")
    if np.any(degrees < 0) or columns["edge_ptr"][-1] != len(nbr):
        raise DataError(f"/graph/edge_ptr does not divide the edges among the sites; {ADVICE}")
    edges_of = np.add.reduceat(degrees, columns["site_ptr"][:-1]) if len(id) else degrees
    outside = (nbr < 0) | (nbr >= np.repeat(sizes, edges_of))
    if outside.any():
        structure = np.searchsorted(np.cumsum(edges_of), np.argmax(outside), side="right")
        raise DataError(f"/graph/nbr leaves its structure in {id[structure]}; {ADVICE}")


def _check_promises(columns, id, labels):
    """Values are in their ranges and ids unique, or a DataError for the first breach, naming array and structure."""
    structure_of_site = np.repeat(np.arange(len(id)), np.diff(columns["site_ptr"]))
    degrees = np.diff(columns["edge_ptr"])
    structure_of = {
        "structure": np.arange(len(id)),
        "site": structure_of_site,
        "edge": np.repeat(structure_of_site, degrees),
    }
    sphere = 4 * np.pi * (1 + 1e-9)
    z, r, omega, omega_max = (columns[name] for name in ("z", "r", "omega", "omega_max"))
    promises = [
        ("z", (z >= 1) & (z <= 118), "from 1 to 118"),
        ("cell", np.isfinite(columns["cell"]).all(axis=(1, 2)), "finite"),
        ("r", (r > 0) & np.isfinite(r), "finite and greater than 0"),
        ("omega", (omega > 0) & (omega <= sphere), "above 0 and at most 4 pi"),
        ("omega_max", (omega_max >= 0) & (omega_max <= sphere), "from 0 to 4 pi"),
        ("omega", omega <= np.repeat(omega_max, degrees) * (1 + 1e-9), "at most /graph/omega_max"),
    ]
    if "position" in columns:
        promises.append(("position", np.isfinite(columns["position"]).all(axis=1), "finite"))
    for name, holds, wanted in promises:
        if not holds.all():
            where = id[structure_of[FIELDS[name].per][np.argmin(holds)]]
            raise DataError(f"/{FIELDS[name].path} in structure {where} is not {wanted}; {ADVICE}")
    for name, y in labels.items():
        if np.any(np.abs(y) > LARGEST_LABEL):
            where = id[np.argmax(np.abs(y) > LARGEST_LABEL)]
            raise DataError(f"/labels/{name} of {where} is infinite or above {LARGEST_LABEL:g}; {ADVICE}")
    ids, counts = np.unique(id, return_counts=True)
    if np.any(counts > 1):
        raise DataError(f"the id {ids[np.argmax(counts)]} occurs {counts.max()} times; ids must be unique")


def verify(path: Path | str) -> None:
    """Check every promise of the format, positions included. Raises DataError for the first breach."""
    read_dataset(path)
