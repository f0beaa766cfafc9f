"""Groups of structures that a split keeps together, so that the test is on what is new and not on more of the same.

A group is a trajectory, a composition, an element, a size or a cluster of similar structures. The test part is made of
whole groups; the validation part too, or of other structures of the groups that are trained on (data.valid_by).
"""

import re
import typing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

from refattn.common.hdf5 import UNREADABLE, reading_hdf5
from refattn.common.metrics import N_ATOMIC, compositions, element_counts
from refattn.common.text import counted
from refattn.common.threads import workers
from refattn.config import DataConfig
from refattn.data.sources.labels import name_in, normal, read_table
from refattn.data.store import Dataset
from refattn.errors import DataError, in_one_line

MOST = 0.5  # of the structures: an element that more of them have cannot be left out
CLUSTERS = 10  # of k-means, or three for each fold
TABLES = (".csv", ".tsv", ".txt")  # what the name of a table of groups ends with
ITERATIONS = 100  # of k-means
ON_BOTH_SIDES = 0.01  # of the structures to test on: what the rounding of another processor may move to other clusters


class Groups(typing.NamedTuple):
    """Groups of S structures; a structure of `elements` is in one for each of its elements, any other one in one.

    names : list of str
    rows : list of (n,) int     the structures of each
    """

    names: list[str]
    rows: list[np.ndarray]

    def members(self, chosen: Sequence[int]) -> np.ndarray:
        """The structures of the groups `chosen`, each once and in order."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(self.rows[group] for group in chosen)]))


def group_numbers(dataset: Dataset, data: DataConfig, parts: Sequence[np.ndarray] = ()) -> np.ndarray | None:
    """(S,) int: the group of every structure, of `elements` that of its rarest one; None without data.split_by.

    Raises DataError as groups_of does; and where the groups of a file are not those of a split that was drawn by
    them, whose `parts` are the rows to train on, to validate on and to test on.
    """
    if data.split_by in ("random", "file"):
        return None
    groups = groups_of(dataset, data)
    number = np.full(len(dataset), len(groups.rows))
    for group in sorted(range(len(groups.rows)), key=lambda group: -len(groups.rows[group])):
        number[groups.rows[group]] = group
    if (data.split_by == "cluster" or is_table(data)) and parts:
        train, _, test = (np.bincount(number[rows], minlength=len(groups.rows)) for rows in parts)
        if np.minimum(train, test).sum() > ON_BOTH_SIDES * test.sum():
            raise DataError(
                f"{data.split_group or 'the data set'} gives other groups than those that the split was drawn by; "
                "restore the file that the run was trained with (data.split_group)"
            )
    return number


def groups_of(dataset: Dataset, data: DataConfig) -> Groups:
    """The Groups of a Dataset by data.split_by.

    Raises DataError where data.split_group names nothing that the data set has.
    """
    ways = {"group": _labels_or_ids, "composition": _formulas, "size": _sizes, "cluster": _clusters}
    if data.split_by == "elements":
        return _elements(dataset, data)
    names = ways[data.split_by](dataset, data)
    found, number = np.unique(names, return_inverse=True)
    rows = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    return Groups([str(name) for name in found.tolist()], rows)


def _labels_or_ids(dataset, data):
    """The values of a label or the groups of a table, "" where they are unknown; or the beginnings of the ids, up to a
    text or without the number at the end."""
    wanted = data.split_group
    if wanted in dataset.labels:
        values = dataset.labels[wanted].tolist()
        names = [f"{wanted} = {np.format_float_positional(value + 0.0, trim='-')}" for value in values]
        return np.where(np.isnan(values), "", names)
    ids = dataset.id.tolist()
    if is_table(data):
        groups = _table(wanted)
        return np.array([groups.get(normal(id), "") for id in ids])
    if wanted and not any(wanted in id for id in ids):
        labels = ", ".join(sorted(dataset.labels))
        raise DataError(
            f"data.split_group is {wanted!r}, which is no label and in no id; give a label ({labels}), a table of ids "
            "and groups (.csv), a text up to which the ids of a group are the same, or nothing: ids such as "
            f"{ids[0]!r} without the number at the end"
        )
    return np.array([id.split(wanted, 1)[0] if wanted else re.sub(r"[\W_]*\d+$", "", id) for id in ids])


def is_table(data: DataConfig) -> bool:
    """Whether groups stand in a file of ids and groups."""
    return data.split_by == "group" and Path(data.split_group).suffix.lower() in TABLES


def _table(path):
    """id -> group of a table with two columns and a header; a group may be any text."""
    rows, _ = read_table(path)
    groups = {}
    for line, cells in rows[1:]:
        if len(cells) != 2 or not cells[1].strip():
            raise DataError(f"{path}, line {line}: must have an id and its group; repair the line")
        id = name_in(cells[0])
        if groups.setdefault(id, cells[1].strip()) != cells[1].strip():
            raise DataError(f"{path}, line {line}: the id {id} has another group above; keep one of them")
    return groups


def _formulas(dataset, data):
    number = compositions(dataset.graphs.z, dataset.graphs.site_ptr)
    first = np.unique(number, return_index=True)[1]
    pointer = dataset.graphs.site_ptr
    symbols = [[chemical_symbols[z] for z in dataset.graphs.z[pointer[row] : pointer[row + 1]]] for row in first]
    names = [Formula.from_list(found).format("hill") for found in symbols]
    return np.array(names)[number]


def _sizes(dataset, data):
    n_sites = np.diff(dataset.graphs.site_ptr)
    return np.array([f"{n:>7} sites" for n in n_sites.tolist()])  # sorted as numbers


def _elements(dataset, data):
    """Of every element that at most MOST of the structures have."""
    has = element_counts(dataset.graphs.z, dataset.graphs.site_ptr, N_ATOMIC) > 0
    if data.split_group:
        wanted = atomic_numbers.get(data.split_group, 0)
        if not has[:, wanted].any():
            raise DataError(f"data.split_group is {data.split_group!r}, no element of the data set; give a symbol")
        left_out = [wanted]
    else:
        left_out = np.flatnonzero(has.any(axis=0) & (has.mean(axis=0) <= MOST))
    return Groups([chemical_symbols[z] for z in left_out], [np.flatnonzero(has[:, z]) for z in left_out])


def _clusters(dataset, data):
    point = _embedding(dataset, data.split_group) if data.split_group else _descriptor(dataset)
    spread = point.std(axis=0)
    point = (point - point.mean(axis=0)) / np.where(spread > 0, spread, 1)
    n_clusters = min(max(CLUSTERS, 3 * data.n_folds), len(point))
    return np.array([f"cluster {n:>4}" for n in k_means(point, n_clusters, data.split_seed).tolist()])


def _descriptor(dataset):
    """(S, E + 4) float: shares of the elements, logarithm of the size, mean and spread of the edges' lengths, and edges
    per site."""
    graphs = dataset.graphs
    counts = element_counts(graphs.z, graphs.site_ptr, N_ATOMIC)
    n_sites = counts.sum(axis=1)
    n_edges = np.diff(graphs.edge_ptr[graphs.site_ptr])
    structure = np.repeat(np.arange(len(n_edges)), n_edges)
    mean, square = (
        np.bincount(structure, graphs.r**power, minlength=len(n_edges)) / np.maximum(n_edges, 1) for power in (1, 2)
    )
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    shares = counts[:, counts.any(axis=0)] / n_sites[:, None]
    return np.column_stack([shares, np.log(n_sites), mean, spread, n_edges / n_sites])


def _embedding(dataset, path):
    """The structure vectors of an embedding, as `refattn embed` writes it, in the order of the data set."""
    try:
        with reading_hdf5(path) as file:
            ids = file["structures/id"].asstr()[()].tolist()
            vector = file["structures/structure_vector"][()].astype(float)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an embedding ({in_one_line(error)}); see refattn embed") from None
    row = {id: number for number, id in enumerate(ids)}
    missing = [id for id in dataset.id.tolist() if id not in row]
    if missing:
        raise DataError(f"{path}: lacks {len(missing)} structures, such as {missing[0]!r}; embed the whole data set")
    return vector[[row[id] for id in dataset.id.tolist()]]


@workers(1)  # of BLAS's own threads one: the same bits on any number of cores
def k_means(point: np.ndarray, n_clusters: int, seed: int = 0) -> np.ndarray:
    """(S,) int: the nearest of `n_clusters` centres of the points (S, D), each the mean of the points nearest to it.

    Source   Lloyd, IEEE Trans. Inf. Theory 28, 129 (1982); first centres: Arthur & Vassilvitskii, SODA 2007
    """
    rng = np.random.default_rng(seed)
    centre = point[rng.integers(len(point))][None]
    while len(centre) < n_clusters:
        square = _squares(point, centre).min(axis=1)
        total = square.sum()
        chance = square / total if total > 0 else np.full(len(point), 1 / len(point))
        centre = np.vstack([centre, point[rng.choice(len(point), p=chance)]])
    nearest = None
    for _ in range(ITERATIONS):
        before, nearest = nearest, _squares(point, centre).argmin(axis=1)
        if np.array_equal(before, nearest):
            break
        for k in np.unique(nearest):
            centre[k] = point[nearest == k].mean(axis=0)
    return nearest


def _squares(point, centre):
    """(S, K) squared distances; not below 0 for rounding."""
    product = point @ centre.T
    square = (point**2).sum(axis=1)[:, None] - 2 * product + (centre**2).sum(axis=1)
    return np.maximum(square, 0)


def draw_parts(dataset: Dataset, known: np.ndarray, data: DataConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, to validate on and to test on, of the rows `known`, by data.split_by and data.n_folds.

    Without folds, groups are drawn until they hold n_test structures (of `size` the largest ones, of all others at
    random); of n folds, fold data.fold is the test part. Then the validation part, in the same way from what is left
    (data.valid_by = "group") or structure by structure ("random").

    Raises DataError where no structure is left to train on, and as groups_of does.
    """
    rng = np.random.default_rng(data.split_seed)
    is_known = np.zeros(len(dataset), dtype=bool)
    is_known[known] = True
    shuffled = rng.permutation(known)
    n_test = (data.n_test or max(len(known) // 10, 1)) if data.test_part else 0
    n_valid = data.n_valid or max(len(known) // 10, 1)
    if data.split_by in ("random", "file"):
        groups = Groups([""] * len(known), [row[None] for row in shuffled])
        order = np.arange(len(known))
    else:
        groups = _filled(groups_of(dataset, data), is_known)
        _check_named(dataset, groups, data)
        order = rng.permutation(len(groups.rows)) if data.split_by != "size" else np.arange(len(groups.rows))[::-1]
    folds = _folds(groups, order, data) if data.n_folds else []
    test = groups.members(folds[data.fold] if folds else _first(groups, order, n_test))
    is_test = np.zeros(len(dataset), dtype=bool)
    is_test[test] = True
    left = shuffled[~is_test[shuffled]]
    if data.valid_by == "group" and data.split_by not in ("random", "file"):
        rest = [group for group in order if not is_test[groups.rows[group]].all()]
        chosen = folds[(data.fold + 1) % data.n_folds] if folds else _first(groups, rest, n_valid)
        valid = np.setdiff1d(groups.members(chosen), test)
    else:
        valid = left[:n_valid]
    train = left[~np.isin(left, valid)][: data.n_train or None]
    asked = ("train", train, data.n_train), ("valid", valid, data.n_valid * (data.valid_by == "random"))
    for name, part, wanted in asked:
        if 0 < len(part) < wanted:  # an empty part is refused below
            raise DataError(
                f"data.n_{name} is {wanted}, but {counted(len(known), 'structure')} with the label leave {len(part)} "
                "for it; ask for fewer, or give a data set with more"
            )
    if not (len(train) and len(valid) and all(folds)) or (data.test_part and not len(test)):
        if data.split_by in ("random", "file"):
            raise DataError(
                f"{counted(len(known), 'structure')} with the label cannot fill every part of the split; "
                "give a data set with more, smaller parts (data.n_valid, data.n_test), or fewer folds"
            )
        raise DataError(
            f"data.split_by = {data.split_by!r} makes {counted(len(groups.rows), 'group')} of the structures with the "
            f"label, and a part of the split stays empty; choose {_advice(data)}"
        )
    return train, valid, shuffled[is_test[shuffled]]


def _check_named(dataset, groups, data):
    """Raise DataError where the label or table of groups says nothing of structures, which may be of any group."""
    if data.split_by != "group" or not (data.split_group in dataset.labels or is_table(data)):
        return
    lacks = [row for name, rows in zip(groups.names, groups.rows, strict=True) if not name for row in rows]
    if lacks:
        where = f"{data.split_group} (data.split_group)"
        if data.split_group not in dataset.labels:
            where = f"line in {where}, below a header such as id,group"
        raise DataError(
            f"of {counted(len(lacks), 'structure')} with the label to learn, such as {dataset.id[lacks[0]]}, there is "
            f"no {where}, so nobody knows their group; give it to them, or leave them out"
        )


def _filled(groups, is_known):
    """The groups of the structures that are known, of which there are some."""
    found = [(name, rows[is_known[rows]]) for name, rows in zip(groups.names, groups.rows, strict=True)]
    found = [(name, rows) for name, rows in found if len(rows)]
    return Groups([name for name, _ in found], [rows for _, rows in found])


def _advice(data):
    """What to do where there are too few groups."""
    ways = []
    if data.test_part and data.n_test:
        ways.append("fewer structures to test on (data.n_test)")
    if data.n_folds:
        ways.append("fewer folds")
    if data.valid_by == "group":
        ways.append("data.valid_by = 'random'")
    if data.split_by == "group":
        ways.append("smaller groups (data.split_group)")
    if data.split_by == "elements" and not data.split_group:
        ways.append(f"a data set with more elements that at most {MOST:.0%} of the structures have")
    return f"{', '.join(ways)} or another data.split_by" if ways else "another data.split_by"


def _first(groups, order, n_wanted):
    """The first groups in an order that hold n_wanted structures together."""
    chosen = []
    held = set()
    while len(chosen) < len(order) and len(held) < n_wanted:
        chosen.append(order[len(chosen)])
        held.update(groups.rows[chosen[-1]].tolist())
    return chosen


def _folds(groups, order, data):
    """Groups of each fold: of `size` in the order of size, of all others the largest first into the smallest fold."""
    if data.split_by in ("random", "size"):
        ends = np.cumsum([len(groups.rows[group]) for group in order])
        number = np.minimum((ends - 1) * data.n_folds // ends[-1], data.n_folds - 1)
        return [[group for group, n in zip(order, number) if n == fold] for fold in range(data.n_folds)]
    folds = [[] for _ in range(data.n_folds)]
    sizes = [0] * data.n_folds
    for group in sorted(order, key=lambda group: -len(groups.rows[group])):
        smallest = int(np.argmin(sizes))
        folds[smallest].append(group)
        sizes[smallest] += len(groups.rows[group])
    return folds
