"""DatasetWriter: the dataset file of store.py, written in blocks.

Everything goes to a new file beside the target, which is renamed when the last block is in: a run that fails or is
killed leaves the target as it was. Ids and reasons are kept in memory and written last, with one length for all.
"""

import contextlib
import dataclasses
import importlib.metadata
import shutil
from pathlib import Path

import h5py
import numpy as np

from refattn.common.files import cannot_be_written, only_process, put_in_place, temporary_file
from refattn.common.hdf5 import NewFile, append, chunk_rows
from refattn.common.outputs import check_no_run, is_output
from refattn.config import GraphConfig
from refattn.data import store
from refattn.data.store import FIELDS, POINTERS, Record, Rows
from refattn.errors import DataError
from refattn.structures.batch import GraphBatch, pointers

CHUNK_BYTES = 1 << 16  # 64 KiB: a slice reads little else, and a large set has few chunks
# gzip takes 10 % off coordinates and angles, and makes writing ten and reading five times as slow: not for those.
COMPRESSED = {"shuffle": True, "compression": "gzip", "compression_opts": 1}
PLAIN = ("position", "r", "omega", "omega_max")
NO_ATTRS = {"unit": "", "description": "", "kind": ""}


class DatasetWriter:
    """Writes a dataset; use it in a `with` statement, which renames the file at its end.

    Parameters
    ----------
    path : path
        The file to make; a data set that it holds is replaced, another file is not.
    graph_config : GraphConfig
        The rule that the graphs were made with.
    source, licence, citation : str
        Where the structures come from.
    label_attrs : dict, optional
        name -> {"unit", "description", "kind"} for labels that may occur.
    append : bool
        Keep what `path` holds and add to it; rule, units and ids have to fit.
    overwrite : bool
        Replace `path` even if it is no data set.
    locked : bool
        Whether the caller keeps other processes from writing `path` (only_process).

    Raises
    ------
    DataError, OutputError
        Data that do not fit the format, or a file that cannot be written; the target is left as it was.
    """

    def __init__(
        self,
        path: Path | str,
        graph_config: GraphConfig,
        source: str = "",
        licence: str = "",
        citation: str = "",
        label_attrs: dict[str, dict] | None = None,
        append: bool = False,
        overwrite: bool = False,
        locked: bool = False,
    ):
        self.path = Path(path)
        self.overwrite = overwrite
        self.locked = locked
        self.graph_config = graph_config
        self.append = append
        self.origin = {"source": source, "licence": licence, "citation": citation}
        self.label_attrs = label_attrs or {}
        self.part = None
        self.stack = contextlib.ExitStack()
        self.ids = {}  # a dict keeps the order and finds duplicates; add_rows is told an array of UTF-8 at the end
        self.skipped = []
        self.units = {}  # of the labels of the dataset to append to
        self.open = {}  # path -> dataset; to open one for every block would pack and unpack its last chunk every time
        self.n_structures = self.n_sites = self.n_edges = 0

    def __enter__(self) -> "DatasetWriter":
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise DataError(f"{self.path}: is a folder or lies in none; give a file in a folder that exists")
        if not (self.append or self.overwrite) and self.path.exists() and not is_output(self.path, store.FORMAT):
            raise DataError(f"{self.path}: exists and is not a {store.FORMAT}; remove it, or choose another file")
        check_no_run(self.path)
        with contextlib.ExitStack() as stack:  # which undoes what was done when a step fails
            if not self.locked:
                stack.enter_context(only_process(self.path))
            previous = self._check_previous() if self.append else None
            try:
                self.part = stack.enter_context(temporary_file(self.path.parent))
                if previous:
                    shutil.copyfile(self.path, self.part)
                self.file = stack.enter_context(NewFile(self.part, "r+" if previous else "w"))
                self._write_head(previous)
                self.file.check()
            except OSError as error:
                raise cannot_be_written(self.path, error) from None
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with self.stack:
            try:
                if kind is None:
                    self._write_strings()
                self.file.close()
                if kind is None:
                    put_in_place(self.part, self.path)
            except OSError as problem:
                if kind is None:  # else the first error is to be seen
                    raise cannot_be_written(self.path, problem) from None

    def add(self, records: list[Record], graphs: list[GraphBatch]) -> None:
        """Append structures: a list of Record and their graphs, in order. Raises as the class says."""
        if not records:
            return
        for record in records:
            self._add_id(record.id)
        names = dict.fromkeys(name for record in records for name in record.labels)
        self._check_units(names)
        labels = {name: np.array([record.labels.get(name, np.nan) for record in records]) for name in names}
        self.add_rows(Rows(_block_columns(records, graphs), labels, self._block_arrays(records)))

    def add_rows(self, rows: Rows) -> None:
        """Append structures as they stand in a dataset; `ids` (S,) of UTF-8 is set before the end."""
        columns = dict(rows.columns)
        n_structures, n_sites = len(columns["pbc"]), len(columns["z"])
        columns["site_ptr"] = self.n_sites + columns["site_ptr"][1:]
        columns["edge_ptr"] = self.n_edges + columns["edge_ptr"][1:]
        try:
            for name, field in FIELDS.items():
                self._extend(field.path, columns[name])
            for name in rows.labels.keys() - self.file["labels"].keys():
                self._create_label(name)
            for name, values in rows.arrays.items():
                if name not in self.file["arrays"]:
                    _check_name(name, self.path)
                    before = np.full((self.n_sites, *values.shape[1:]), np.nan)
                    self._create(f"arrays/{name}", before, np.nan, False)
            self._extend_all("labels", rows.labels, n_structures)
            self._extend_all("arrays", rows.arrays, n_sites)
            self.file.check()
        except OSError as error:
            raise cannot_be_written(self.path, error) from None
        self.n_structures += n_structures
        self.n_sites += n_sites
        self.n_edges += len(columns["nbr"])

    def skip(self, id: str, reason: str) -> None:
        """Record that a structure of the source is not in the dataset, and why."""
        self.skipped.append((id, reason))

    def label_units(self) -> dict[str, str]:
        """Name -> unit of every label that the file holds."""
        return {name: str(label.attrs["unit"]) for name, label in self.file["labels"].items()}

    def _check_units(self, names):
        """Labels of the dataset to append to keep their unit."""
        for name in names.keys() & self.units.keys():
            unit, wanted = self.units[name], self.label_attrs.get(name, NO_ATTRS)["unit"]
            if unit != wanted:
                raise DataError(
                    f"{self.path}: the unit of /labels/{name} is {unit!r}, not {wanted!r}; append in that unit"
                )

    def _check_previous(self):
        """Ids, skipped and counts of the dataset to append to, into self; True if all is well."""
        store.verify(self.path)
        with store.open_dataset(self.path) as file:
            rule = store.read_graph_config(file)
            if rule != self.graph_config:
                theirs, ours = dataclasses.asdict(rule), dataclasses.asdict(self.graph_config)
                changed = [
                    f"{name} {value} (here: {ours[name]})" for name, value in theirs.items() if value != ours[name]
                ]
                raise DataError(
                    f"it was made with {', '.join(changed)}; append with the same rule, or write another file"
                )
            self.units = {name: str(label.attrs["unit"]) for name, label in file["labels"].items()}
            self.ids = dict.fromkeys(store.read_strings(file["structures/id"]).tolist())
            skipped = (store.read_strings(file[f"skipped/{name}"]).tolist() for name in ("id", "reason"))
            self.skipped = list(zip(*skipped, strict=True))
            self.n_structures = len(self.ids)
            self.n_sites = len(file["structures/z"])
            self.n_edges = len(file["graph/nbr"])
        return True

    def _write_head(self, previous):
        head = self.file.attrs
        if previous:
            for name, text in self.origin.items():
                known = str(head.get(name, ""))
                head[name] = known if text in known.split("; ") else f"{known}; {text}".removeprefix("; ")
            return
        head.update({"format": store.FORMAT, "version": store.VERSION, "created_by": f"refattn {_version()}"})
        head.update(self.origin)
        for name, field in FIELDS.items():
            values = np.zeros((1 if name in POINTERS else 0, *field.row_shape), field.dtype)
            dataset = self._create(field.path, values, compress=name not in PLAIN)
            dataset.attrs.update({"unit": field.unit, "description": field.meaning})
        self.file["graph"].attrs.update(dataclasses.asdict(self.graph_config))
        self.file.create_group("labels")
        self.file.create_group("arrays")

    def _create(self, path, values, fillvalue=None, compress=True):
        """A resizable dataset that holds `values`, with checksums."""
        return self.file.create_dataset(
            path,
            data=values,
            maxshape=(None, *values.shape[1:]),
            chunks=(chunk_rows(values.shape[1:], values.dtype, CHUNK_BYTES), *values.shape[1:]),
            fillvalue=fillvalue,
            fletcher32=True,
            **(COMPRESSED if compress else {}),
        )

    def _extend(self, path, values):
        if path not in self.open:
            self.open[path] = self.file[path]
        append(self.open[path], values)

    def _add_id(self, id):
        if not id.isprintable() or not id:
            raise DataError(f"{self.path}: the id {id!r} cannot be stored; give every structure an id of its own")
        if id in self.ids:
            raise DataError(f"{self.path}: the id {id} occurs twice; give every structure an id of its own")
        self.ids[id] = None

    def _create_label(self, name):
        _check_name(name, self.path)
        label = self._create(f"labels/{name}", np.full(self.n_structures, np.nan), fillvalue=np.nan)
        label.attrs.update({**NO_ATTRS, **self.label_attrs.get(name, {})})

    def _extend_all(self, group, values, n):
        """Enlarge every dataset of a group by `n` rows, by NaN where there are no values."""
        for name, data in self.file[group].items():
            rows = values[name] if name in values else np.full((n, *data.shape[1:]), np.nan)
            self._extend(f"{group}/{name}", rows)

    def _block_arrays(self, records):
        """name -> (N, ...): the per-site arrays of a block; sites of structures without them get NaN."""
        arrays = {}
        shapes = {name: data.shape[1:] for name, data in self.file["arrays"].items()}  # of a row of each
        ends = np.cumsum([len(record.atoms) for record in records])
        for record, end in zip(records, ends, strict=True):
            for name, values in record.arrays.items():
                wanted = (len(record.atoms), *shapes.setdefault(name, values.shape[1:]))
                if values.shape != wanted:
                    what = f"the array {name} of {record.id} has the shape {values.shape} instead of {wanted}"
                    raise DataError(f"{self.path}: {what}; it must be the same for every structure")
                if name not in arrays:
                    arrays[name] = np.full((ends[-1], *wanted[1:]), np.nan)
                arrays[name][end - len(record.atoms) : end] = values
        return arrays

    def _write_strings(self):
        columns = {"structures/id": self.ids, "skipped/id": [i for i, _ in self.skipped]}
        columns["skipped/reason"] = [reason for _, reason in self.skipped]
        for path, texts in columns.items():
            if not isinstance(texts, np.ndarray):
                texts = np.array([text.encode("utf-8", "replace") for text in texts], "S")
            length = int(np.char.str_len(texts).max(initial=1))
            if path in self.file:
                del self.file[path]
            self._create(path, texts.astype(h5py.string_dtype("utf-8", length)))


def _block_columns(records, graphs):
    """The rows of FIELDS for a block of structures."""
    names = ("z", "nbr", "image", "r", "omega", "omega_max")
    columns = {name: np.concatenate([getattr(graph, name) for graph in graphs]) for name in names}
    columns["site_ptr"] = pointers([len(graph.z) for graph in graphs])
    columns["edge_ptr"] = pointers(np.concatenate([np.diff(graph.edge_ptr) for graph in graphs]))
    columns["position"] = np.concatenate([record.atoms.positions for record in records])
    # without a period a cell vector may hold anything, a file finite numbers only
    columns["cell"] = np.nan_to_num([record.atoms.cell.array for record in records], nan=0.0, posinf=0.0, neginf=0.0)
    columns["pbc"] = np.stack([record.atoms.pbc for record in records])
    return columns


def _check_name(name, path):
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise DataError(f"{path}: {name!r} cannot name a label or array; rename it without '/'")


def _version():
    try:
        return importlib.metadata.version("refattn")
    except importlib.metadata.PackageNotFoundError:  # run from the source tree
        return "(not installed)"
