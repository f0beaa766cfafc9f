"""Splits: which structures to train on, to validate on and to test on. Seeded, and stored by id.

Ids survive a data set that is made again with other neighbours or in another order; row numbers would not.
"""

import hashlib
import json
import typing
from pathlib import Path

import numpy as np

from refattn.atomic import write_text
from refattn.errors import DataError
from refattn.strict_json import to_json

FORMAT = "refattn-split"
PARTS = ("train", "valid", "test")


class Split(typing.NamedTuple):
    """Three disjoint lists of structure ids."""

    train: list
    valid: list
    test: list


def split_indices(n, n_train=0, n_valid=0, n_test=0, seed=0, legacy=False):
    """Draw three disjoint sets of the numbers 0 to n - 1.

    The test set is drawn first, then the validation set, so that both stay the same when n_train changes.

    Parameters
    ----------
    n : int
    n_train, n_valid, n_test : int
        Sizes. 0 stands for a tenth of n (valid, test, at least 1) and for what the other two leave (train).
    seed : int
    legacy : bool
        Draw as the authors' code does: NumPy's legacy generator, training set first (SEMANTICS.md, section 3).

    Returns
    -------
    train, valid, test : arrays of int64

    Raises DataError when n is too small for the sizes.
    """
    n_valid, n_test = n_valid or max(n // 10, 1), n_test or max(n // 10, 1)
    n_train = n_train or max(n - n_valid - n_test, 1)
    if n_train + n_valid + n_test > n:
        wanted = f"{n_train} + {n_valid} + {n_test} structures (train + valid + test)"
        raise DataError(f"a split of {wanted} needs more than the {n} that have the label; ask for fewer")
    if legacy:
        order = np.random.RandomState(seed).permutation(n)
        return order[:n_train], order[n_train:][:n_valid], order[n_train + n_valid :][:n_test]
    order = np.random.default_rng(seed).permutation(n)
    return order[n_test + n_valid :][:n_train], order[n_test:][:n_valid], order[:n_test]


def make_split(dataset, target, n_train=0, n_valid=0, n_test=0, seed=0, legacy=False):
    """Split the structures of a Dataset whose label `target` is known; the rest is in no part.

    With `legacy` the structures are first sorted by their number of sites (stable), as the authors' code does;
    QM9 in its own order then gives the published split.

    Returns a Split. Raises DataError for a label that the data set does not have, and as split_indices does.
    """
    known = labelled_rows(dataset, target)
    if legacy:
        known = known[np.argsort(np.diff(dataset.site_ptr)[known], kind="stable")]
    parts = split_indices(len(known), n_train, n_valid, n_test, seed, legacy)
    return Split(*(dataset.id[known[part]].tolist() for part in parts))


def labels_of_target(dataset, target):
    """The labels `target` (S,) of a Dataset, NaN where unknown. Raises DataError when there is no such label."""
    if target not in dataset.labels:
        names = ", ".join(sorted(dataset.labels)) or "none"
        raise DataError(f"the data set has no label {target!r}; its labels are: {names}")
    return dataset.labels[target]


def labelled_rows(dataset, target):
    """Row numbers of the structures whose label `target` is known. Raises DataError as labels_of_target does."""
    return np.flatnonzero(~np.isnan(labels_of_target(dataset, target)))


def write_split(path, split):
    """Write a Split as JSON with a checksum of its ids; the file appears complete or not at all. Raises OutputError."""
    content = {"format": FORMAT, "version": 1, "sha256": _checksum(split), **split._asdict()}
    write_text(path, to_json(content, indent=1, ensure_ascii=False))


def read_split(path):
    """Read a Split from JSON, as write_split leaves it in a run or as somebody wrote it by hand:

        {"format": "refattn-split", "version": 1, "train": ["id", ...], "valid": [...], "test": [...]}

    `test` may be empty. `sha256`, a checksum of the ids, may be absent; where it is there it has to fit.

    Raises DataError for a file that is missing, of another kind, changed or cut, for an id that occurs twice and for
    an empty training or validation set.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as a split ({error}); restore it or start the run again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != 1:
        raise DataError(f"{path}: is not a {FORMAT} of version 1; give the split of a run")
    parts = [content.get(name) for name in PARTS]
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in parts):
        raise DataError(f"{path}: train, valid and test must be lists of ids; restore it or start the run again")
    split = Split(*parts)
    if content.get("sha256", _checksum(split)) != _checksum(split):
        raise DataError(f"{path}: the ids do not fit their checksum; restore it or start the run again")
    everything = split.train + split.valid + split.test
    if len(set(everything)) < len(everything):
        raise DataError(f"{path}: an id is in the split twice; a structure may be in one part only")
    for name in ("train", "valid"):
        if not getattr(split, name):
            raise DataError(f"{path}: the part {name} is empty; a training needs at least one structure in it")
    return split


def resolve_split(split, dataset):
    """Row numbers of a Split in a Dataset: three arrays of int64, in the split's order.

    Raises DataError that names the first id that the data set lacks.
    """
    row = {id: number for number, id in enumerate(dataset.id.tolist())}
    missing = [id for ids in split for id in ids if id not in row]
    if missing:
        count = f"{len(missing)} of {sum(map(len, split))}"
        raise DataError(f"the data set lacks {count} ids of the split, such as {missing[0]!r}; use the run's data set")
    return tuple(np.array([row[id] for id in ids], dtype=np.int64) for ids in split)


def _checksum(split):
    return hashlib.sha256(json.dumps(list(split)).encode("utf-8")).hexdigest()
