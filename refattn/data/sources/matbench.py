"""The structure tasks of Matbench v0.1, as matminer distributes them: `matbench_jdft2d.json.gz` and others.

A table: {"index": [0, 1, ...], "columns": ["structure", TARGET], "data": [[pymatgen's structure, number], ...]}. It is
cut into its rows while it is read, so that memory does not depend on its length. Which task it is, its columns and the
number of its rows say. Structure n, from 1, has Matbench's id, mb-jdft2d-001, with as many digits as the last one has.

Source   materialsproject/matbench 0.6: matbench_v0.1_dataset_metadata.json (targets, sizes, units), data_ops.py (ids)
"""

import typing
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from refattn.common.jsoncutter import JsonCutter
from refattn.data.sources.pymatgen import atoms_of, unpacked_text
from refattn.data.store import LARGEST_LABEL, Record
from refattn.errors import DataError, in_one_line

# Those with structures. Name: target, number of structures, unit.
TASKS = {
    "matbench_jdft2d": ("exfoliation_en", 636, "meV/atom"),
    "matbench_phonons": ("last phdos peak", 1265, "cm^-1"),
    "matbench_dielectric": ("n", 4764, ""),
    "matbench_log_gvrh": ("log10(G_VRH)", 10987, "log10(GPa)"),
    "matbench_log_kvrh": ("log10(K_VRH)", 10987, "log10(GPa)"),
    "matbench_perovskites": ("e_form", 18928, "eV/unit cell"),
    "matbench_mp_gap": ("gap pbe", 106113, "eV"),
    "matbench_mp_e_form": ("e_form", 132752, "eV/atom"),
    "matbench_mp_is_metal": ("is_metal", 106113, ""),
}
UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError, zlib.error)
UNUSABLE = (DataError, ValueError, TypeError, LookupError, AttributeError)  # of one structure


class Task(typing.NamedTuple):
    """What is to be predicted of S structures.

    label : (S,) float64     of a class 0 or 1
    ids : list of str
    """

    name: str
    target: str
    unit: str
    label: np.ndarray
    ids: list[str]

    @property
    def of_class(self) -> bool:
        """Whether the target is a class."""
        return self.target == "is_metal"


class MatbenchSource:
    """Iterable of Record with the target as label.

    Attributes
    ----------
    task : Task
    skipped : list of (id, reason)      structures that cannot be read, so far
    fraction : float                    part of the file that has been read
    units : dict                        target -> unit
    name, licence, citation : str

    Raises
    ------
    DataError
        For a file that is damaged, or of no task with structures.
    """

    licence = ""
    citation = "Dunn et al., npj Comput. Mater. 6, 138 (2020)"

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.task = read_task(self.path)
        self.name = f"Matbench v0.1, {self.task.name}"
        self.units = {self.task.target: self.task.unit}
        self.skipped = []
        self.fraction = 0.0

    def __iter__(self) -> Iterator[Record]:
        rows = _places(self.path, self._progress)
        structures = (value[0] for key, value in rows if key == "data")
        for id, label, structure in zip(self.task.ids, self.task.label.tolist(), structures, strict=True):
            try:
                atoms = atoms_of(structure)
            except UNUSABLE as error:
                self.skipped.append((id, f"cannot be read ({in_one_line(error)})"))
                continue
            atoms.info["id"] = id
            yield Record(id, atoms, {self.task.target: label}, {})

    def _progress(self, fraction):
        self.fraction = fraction


def read_task(path: Path) -> Task:
    """The Task of a file. Raises DataError, see MatbenchSource."""
    others = {}
    labels = []
    try:
        for key, value in _places(path):
            if key == "data":
                _, label = value
                labels.append(label)
            else:
                others[key] = value
        kind, target = others["columns"]
        if others["index"] != [*range(len(labels))]:
            raise ValueError("its index does not count the rows from 0")
    except UNREADABLE as error:
        raise DataError(
            f"{path}: is no table of structures and a target ({in_one_line(error)}); get it again"
        ) from None
    name = _name_of(path, kind, target, len(labels))
    types = {bool} if target == "is_metal" else {int, float}
    for number, label in enumerate(labels):
        if type(label) not in types or not abs(label) < LARGEST_LABEL:
            raise DataError(f"{path}: {target} of row {number} is {label!r:.40}, no label; get the file again")
    prefix = name.replace("matbench", "mb").replace("_", "-")
    digits = len(str(len(labels)))
    ids = [f"{prefix}-{number:0{digits}d}" for number in range(1, len(labels) + 1)]
    return Task(name, target, TASKS[name][2], np.array(labels, float), ids)


def _name_of(path, kind, target, n_rows):
    """The name of the task. Raises DataError for one without structures, and for a part of a task."""
    known = {name: size for name, (its_target, size, _) in TASKS.items() if (kind, target) == ("structure", its_target)}
    for name, size in known.items():
        if n_rows == size:
            return name
    if known:
        sizes = " or ".join(f"{size} ({name})" for name, size in known.items())
        raise DataError(f"{path}: has {n_rows} structures instead of {sizes}, so its folds are others; get it again")
    what = f"the columns {kind!r:.40} and {target!r:.40}, which are no task of Matbench v0.1"
    if kind == "composition":
        what = "compositions without structures, of which refattn makes no graph"
    raise DataError(f"{path}: has {what}; the tasks are {', '.join(TASKS)}")


def _places(path: Path, progress: Callable[[float], None] = lambda fraction: None) -> Iterator[tuple[str, object]]:
    """(key, value) of the table, row by row; see JsonCutter.table."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    size = max(path.stat().st_size, 1)
    try:
        with open(path, "rb") as raw:
            for place in JsonCutter(unpacked_text(path, raw)).table("data"):
                progress(min(raw.tell() / size, 1.0))
                yield place
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read further ({in_one_line(error)}); get it again") from None
