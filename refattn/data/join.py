"""join: the parts of a source that jobs prepared (parts.py), as the data set that one job would have made.

Arrays are copied in blocks; memory holds the ids and a few numbers for every structure.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from refattn.common.hdf5 import attribute_text
from refattn.config import GraphConfig
from refattn.data.sources.labels import normal
from refattn.data.store import (
    FIELDS,
    ORIGIN,
    POINTERS,
    Rows,
    check_layout,
    open_dataset,
    read_graph_config,
    read_rows,
    read_strings,
)
from refattn.data.writer import DatasetWriter
from refattn.errors import DataError
from refattn.structures.batch import pointers, ragged_rows

BLOCK = 1 << 14  # structures that are copied at once
REPEATED = "its id is also that of a structure of an earlier part; give each its own"


@dataclasses.dataclass(frozen=True)
class PartFile:
    """What is known of the file of a part; see parts.PartOfSource.

    id : (S,) bytes                      UTF-8
    order : (S + G,) int                 place in the source of every structure with a graph, then of those without
    skipped : list of (id, reason)       G without a graph, then others
    """

    path: Path
    number: int
    count: int
    by_files: bool
    whole: dict
    id: np.ndarray
    order: np.ndarray
    skipped: list[tuple[str, str]]
    n_skipped: list[int]
    label_attrs: dict[str, dict[str, str]]
    attrs: dict[str, str]
    graph_config: GraphConfig

    @classmethod
    def read(cls, path: Path | str) -> "PartFile":
        """Raises DataError for a file that is no part."""
        with open_dataset(path) as file:
            check_layout(file)
            if "part" not in file:
                raise DataError("is no part of a data set; give those that `refattn prepare --part K/N` made")
            group = file["part"]
            number, count, by_files = (int(group.attrs[name]) for name in ("number", "count", "by_files"))
            has_graph = group["has_graph"][()].astype(bool)
            place = np.concatenate([np.flatnonzero(has_graph), np.flatnonzero(~has_graph)])
            skipped = [read_strings(file[f"skipped/{name}"]).tolist() for name in ("id", "reason")]
            found = cls(
                path=Path(path),
                number=number,
                count=count,
                by_files=bool(by_files),
                whole=json.loads(attribute_text(group, "whole")),
                id=file["structures/id"][()],
                order=place if by_files else place * count + number - 1,
                skipped=list(zip(*skipped, strict=True)),
                n_skipped=group.attrs["n_skipped"].tolist(),
                label_attrs={name: {k: attribute_text(y, k) for k in y.attrs} for name, y in file["labels"].items()},
                attrs={name: attribute_text(file, name) for name in ORIGIN},
                graph_config=read_graph_config(file),
            )
            counts = len(found.id), found.n_skipped[0], sum(found.n_skipped)
            fits = counts == (has_graph.sum(), (~has_graph).sum(), len(found.skipped))
            if not (fits and 1 <= number <= count and len(found.n_skipped) == 3 and isinstance(found.whole, dict)):
                raise DataError("its group /part does not fit the rest; prepare the part again")
            return found


@dataclasses.dataclass(frozen=True)
class JoinReport:
    """What join did; `n_repeated` structures had the id of one in an earlier part, and were left out."""

    n_parts: int
    n_structures: int
    n_skipped: int
    n_repeated: int


def join(
    paths: Sequence[Path | str],
    out: Path | str,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    locked: bool = False,
    unique: bool = False,
) -> JoinReport:
    """Write the data set `out` of all parts of a source.

    It is the one that `prepare` makes of the source at once, array by array. Only a structure with the id of one in
    another file, which prepare leaves out too, has another reason in /skipped.

    Parameters
    ----------
    paths : list of path                the parts, in any order
    progress : callable (done, total)   structures
    locked : bool                       see DatasetWriter
    unique : bool                       refuse a structure with the id of another, left out or not

    Raises DataError where parts are missing, repeated or of another data set, naming them, OutputError.
    """
    parts = sorted((PartFile.read(path) for path in paths), key=lambda part: part.number)
    check_parts(parts)
    label_attrs = _label_attrs(parts)
    if unique and _has_clash(parts):
        raise DataError(f"{parts[0].path}: an id of its data set is also in another part; give every structure its own")
    repeated = _repeated(parts)
    starts = pointers([len(part.id) for part in parts])
    order = np.arange(starts[-1])
    if not parts[0].by_files:
        order = np.argsort(np.concatenate([part.order[: len(part.id)] for part in parts]), kind="stable")
    order = order[~np.concatenate(repeated)[order]]
    if not len(order):
        raise DataError(f"{parts[0].path}: no part has a structure; check the source")
    origin = {name: parts[0].attrs[name] for name in ORIGIN if name != "created_by"}
    writer = DatasetWriter(
        out, parts[0].graph_config, **origin, label_attrs=label_attrs, overwrite=overwrite, locked=locked
    )
    with writer:
        for first in range(0, len(order), BLOCK):
            writer.add_rows(_block(parts, starts, order[first : first + BLOCK]))
            if progress:
                progress(min(first + BLOCK, len(order)), len(order))
        writer.ids = np.concatenate([part.id for part in parts])[order]
        for id, reason in _skipped(parts, repeated):
            writer.skip(id, reason)
    return JoinReport(len(parts), len(order), len(writer.skipped), int(starts[-1]) - len(order))


def check_parts(parts: Sequence[PartFile]) -> None:
    """Raise DataError where parts, sorted, are not those of one source, each of them once."""
    first = parts[0]
    for part in parts[1:]:
        other = [name for name, value in first.whole.items() if part.whole.get(name) != value]
        other += ["number of parts"] * (part.count != first.count)
        if other:
            what = ", ".join(other)
            raise DataError(
                f"{part.path}: is a part of another data set than {first.path} (what differs: {what}); leave it out"
            )
    for one, other in itertools.pairwise(parts):
        if one.number == other.number:
            raise DataError(
                f"{other.path}: is part {one.number}/{one.count} again, as {one.path}; leave one of them out"
            )
    missing = sorted({*range(1, first.count + 1)} - {part.number for part in parts})
    if missing:
        names = ", ".join(f"{number}/{first.count}" for number in missing[:20]) + (" ..." if len(missing) > 20 else "")
        raise DataError(f"{first.path}: of its data set is missing part {names}; prepare it with --part")


def _label_attrs(parts):
    """The attributes of all labels. Raises DataError where two parts have one in different units."""
    found = {}
    for part in parts:
        for name, attrs in part.label_attrs.items():
            unit = found.setdefault(name, attrs).get("unit")
            if attrs.get("unit") != unit:
                raise DataError(
                    f"{part.path}: {name} is in {attrs.get('unit') or 'no unit'}, in an earlier part in "
                    f"{unit or 'no unit'}; prepare all parts with --unit {name}=UNIT"
                )
    return found


def _skipped(parts, repeated):
    """(id, reason) of everything left out, in the order in which prepare says it.

    repeated : list of (S,) bool     of each part
    """
    found = []
    for part, is_repeated in zip(parts, repeated, strict=True):
        n_graph, n_unnamed, _ = part.n_skipped
        pairs = part.skipped + [(id.decode(), REPEATED) for id in part.id[is_repeated].tolist()]
        for number, pair in enumerate(pairs):
            kind = (number >= n_graph) + (number >= n_graph + n_unnamed)
            in_turn = kind == 0 and not part.by_files
            place = (0, part.order[len(part.id) + number]) if in_turn else (part.number, number)
            found.append((kind, *place, pair))
    return [pair for *_, pair in sorted(found, key=lambda item: item[:3])]


def _repeated(parts):
    """A mask for each part: its structures whose id an earlier part has, with a graph or without."""
    ids = [np.array([id.encode() for id, _ in part.skipped[: part.n_skipped[0]]], "S") for part in parts]
    everything = _compared([array for part, without in zip(parts, ids) for array in (without, part.id)])
    is_first = np.zeros(len(everything), bool)
    is_first[np.unique(everything, return_index=True)[1]] = True
    ends = np.cumsum([len(without) + len(part.id) for part, without in zip(parts, ids)])
    return [~is_first[end - len(part.id) : end] for part, end in zip(parts, ends)]


def _has_clash(parts):
    """Whether two structures, with a graph or left out for the lack of one or of an id, have ids that are one."""
    without = [id.encode() for part in parts for id, _ in part.skipped[: sum(part.n_skipped[:2])]]
    ids = _compared([np.array(without, "S"), *(part.id for part in parts)])
    return len(np.unique(ids)) < len(ids)


def _compared(arrays):
    """All ids, (S,) bytes of each array, as a source compares them: in Unicode's composed form."""
    ids = np.concatenate(arrays)
    return np.array([id if id.isascii() else normal(id.decode()).encode() for id in ids.tolist()], "S")


def _block(parts, starts, rows):
    """Rows of the structures `rows`, numbered through all parts, in that order."""
    owner = np.searchsorted(starts, rows, side="right") - 1
    pieces = []
    place = np.empty(len(rows), np.int64)  # in the pieces, one after the other
    n_before = 0
    for number in np.unique(owner).tolist():
        mine = rows[owner == number] - starts[number]
        with open_dataset(parts[number].path) as file:
            pieces.append(read_rows(file, int(mine[0]), int(mine[-1]) + 1))
        place[owner == number] = n_before + mine - mine[0]
        n_before += len(pieces[-1].columns["pbc"])
    return _taken(pieces, place)


def _taken(pieces, place):
    """The structures `place` of Rows behind each other."""
    names = [name for name in FIELDS if name not in POINTERS]
    columns = {name: np.concatenate([piece.columns[name] for piece in pieces]) for name in names}
    sizes, degrees = (np.concatenate([np.diff(piece.columns[name]) for piece in pieces]) for name in POINTERS)
    site_ptr, sites = ragged_rows(pointers(sizes), place)
    edge_ptr, edges = ragged_rows(pointers(degrees), sites)
    rows = {"structure": place, "site": sites, "edge": edges}
    columns = {name: values[rows[FIELDS[name].per]] for name, values in columns.items()}
    labels = _together([(piece.labels, len(piece.columns["pbc"])) for piece in pieces], place)
    arrays = _together([(piece.arrays, len(piece.columns["z"])) for piece in pieces], sites)
    return Rows(columns | {"site_ptr": site_ptr, "edge_ptr": edge_ptr}, labels, arrays)


def _together(groups, rows):
    """name -> rows of what dicts of arrays have behind each other, NaN where one lacks a name.

    groups : list of (dict, number of rows)
    """
    shapes = {name: values.shape[1:] for group, _ in groups for name, values in group.items()}
    return {
        name: np.concatenate([group.get(name, np.full((n, *shape), np.nan)) for group, n in groups])[rows]
        for name, shape in shapes.items()
    }
