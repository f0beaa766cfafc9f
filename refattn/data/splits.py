"""Splits: which structures to train on, to validate on and to test on. Seeded, and stored by id.

Ids survive a data set that is made again with other neighbours or in another order; row numbers would not. The splits
of the SCANN authors are there by name, see published_split.
"""

import collections
import hashlib
import json
import typing
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refattn.common.files import other_format, replacing
from refattn.common.hdf5 import BLOCK, Strings, json_blocks
from refattn.common.strict_json import to_json, with_keys_once
from refattn.config import Config, DataConfig
from refattn.data.groups import draw_parts, group_numbers, is_table
from refattn.data.store import Dataset
from refattn.errors import ConfigError, DataError, in_one_line

FORMAT = "refattn-split"
PARTS = ("train", "valid", "test")
PREFIX = "published:"  # of the names of published splits in a configuration


class Split(typing.NamedTuple):
    """Three disjoint lists of structure ids, each a list of str or Strings."""

    train: Sequence[str]
    valid: Sequence[str]
    test: Sequence[str]

    @classmethod
    def of_rows(cls, dataset: Dataset, parts: Sequence[np.ndarray]) -> "Split":
        """The Split whose parts are these rows of a Dataset."""
        return cls(*(Strings(dataset.id, rows) for rows in parts))


def split_indices(
    n: int, n_train: int = 0, n_valid: int = 0, n_test: int = 0, seed: int = 0, legacy: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw three disjoint sets of the numbers 0 to n - 1.

    The test set is drawn first, then the validation set, so that both stay the same when n_train changes.

    Parameters
    ----------
    n_train, n_valid, n_test : int
        Sizes. 0 stands for a tenth of n (valid, test, at least 1) and for what the other two leave (train).
    legacy : bool
        Draw as the authors' code does: NumPy's legacy generator, training set first (scann/utils/general.py).

    Returns
    -------
    train, valid, test : arrays of int64

    Raises DataError when n is too small for the sizes.
    """
    asked = n_train, n_valid, n_test
    n_valid = n_valid or max(n // 10, 1)
    n_test = n_test or max(n // 10, 1)
    n_train = n_train or max(n - n_valid - n_test, 1)
    if n_train + n_valid + n_test > n:
        wanted = f"{n_train} + {n_valid} + {n_test} structures (train + valid + test)"
        advice = "ask for fewer" if any(asked) else "give a data set with more"
        raise DataError(f"a split of {wanted} needs more than the {n} with the label; {advice}")
    if legacy:
        order = np.random.RandomState(seed).permutation(n)
        return order[:n_train], order[n_train:][:n_valid], order[n_train + n_valid :][:n_test]
    order = np.random.default_rng(seed).permutation(n)
    return order[n_test + n_valid :][:n_train], order[n_test:][:n_valid], order[:n_test]


def choose_split(dataset: Dataset, data: DataConfig) -> Split:
    """The Split that a DataConfig asks for: a published one, that of a file, or one that is drawn.

    Raises DataError as published_split, read_split, make_split and draw_parts do, and for sizes that are not those of a
    file, ConfigError for a setting that the others leave without effect.
    """
    _check_settings(data)
    sizes = data.n_train, data.n_valid, data.n_test
    if data.split.startswith(PREFIX):
        return published_split(dataset, data.split.removeprefix(PREFIX), sizes)
    if data.split:
        split = read_split(data.split)
        _check_sizes(sizes, [len(ids) for ids in split], data.split)
        return split
    if data.split_by != "random" or data.n_folds or not data.test_part:
        parts = draw_parts(dataset, _some_labelled_rows(dataset, data.targets), data)
        return Split.of_rows(dataset, parts)
    return make_split(dataset, data.targets, data.n_train, data.n_valid, data.n_test, data.split_seed)


def _check_settings(data):
    """Raise ConfigError where groups are asked for that the split would not keep apart, and folds without a test part.

    DataConfig itself takes such settings, so that runs that have them are still read.
    """
    by_groups = data.split_by not in ("random", "file")
    if data.split and by_groups:
        raise ConfigError(
            f'data.split_by is {data.split_by!r}, but data.split names the parts; set data.split_by to "file" or leave '
            "data.split empty"
        )
    if not by_groups:
        for name, idle in (("split_group", ""), ("valid_by", "random")):
            if getattr(data, name) != idle:
                raise ConfigError(
                    f"data.{name} is {getattr(data, name)!r}, but data.split_by is {data.split_by!r}, which makes no "
                    'groups; set data.split_by too, such as "group"'
                )
    if data.split_group and data.split_by in ("composition", "size"):
        raise ConfigError(
            f"data.split_group is {data.split_group!r}, which has no effect on data.split_by = {data.split_by!r}; "
            "leave it empty, or choose another data.split_by"
        )
    if data.n_folds and not data.test_part:
        raise ConfigError(
            f"data.test_part is false, which leaves nothing to test on, but each of {data.n_folds} folds is the test "
            "part of a run; set data.test_part to true, or train without folds"
        )


def _check_sizes(asked, found, what):
    """Raise DataError where (n_train, n_valid, n_test), 0 for any, are not those of a split that is not drawn."""
    for part, wanted, size in zip(PARTS, asked, found, strict=True):
        if wanted not in (0, size):
            raise DataError(
                f"data.n_{part} is {wanted}, but {what} has {size} there; leave it at 0, or draw a split: leave "
                "data.split empty"
            )


def make_split(
    dataset: Dataset, targets: Sequence[str], n_train: int = 0, n_valid: int = 0, n_test: int = 0, seed: int = 0
) -> Split:
    """Split the structures of a Dataset of which at least one label of `targets` is known; the rest is in no part.

    Returns a Split. Raises DataError for a label that the data set does not have, and as split_indices does.
    """
    known = _some_labelled_rows(dataset, targets)
    parts = split_indices(len(known), n_train, n_valid, n_test, seed)
    return Split.of_rows(dataset, [known[part] for part in parts])


def published_split(dataset: Dataset, name: str, sizes: tuple[int, int, int] = (0, 0, 0)) -> Split:
    """The split of the SCANN authors, `name` one of PUBLISHED_SPLITS, for a Dataset of the whole set.

    They number the structures, draw a permutation of the numbers with seed 0 and take the parts off it one after the
    other. The order in which they number is that of the data set as `refattn prepare` makes it of the published files;
    for QM9 and the Materials Project a stable sort by the number of atoms comes first. QM9's molecules are put into
    the order of their gdb numbers here, so that QM9's split does not depend on the order of the data set.

    What is verified: that the set has as many structures as theirs, and that the permutation is the one whose checksum
    stands here (for QM9 a run of their code showed its first numbers). What is not: the ids themselves, since no list
    of the ids of any part is known; and, but for QM9, that the structures stand in the order of the files.

    Parameters
    ----------
    sizes : (n_train, n_valid, n_test), 0 for any
        What the configuration says of them.

    Raises
    ------
    DataError
        An unknown name, a data set with another number of structures, or sizes that are not those of the split.

    Source   sinhvt3421/scann--material 1.0, train.py (set_seed(0)), scann/utils/general.py (split_data), configs/*.yaml
             and scann/utils/dataset/*.py
    """
    if name not in PUBLISHED_SPLITS:
        raise DataError(f"there is no published split {name!r}; there are {', '.join(PUBLISHED_SPLITS)}")
    n_parts, sort, sha256 = PUBLISHED_SPLITS[name]
    n = sum(n_parts)
    found = len(dataset)
    if found != n:
        raise DataError(
            f"the published split of {name} is one of {n} structures, the data set has {found}; prepare the whole set "
            "(/skipped in it says what was left out), or draw a split: leave data.split empty"
        )
    _check_sizes(sizes, n_parts, f"the published split of {name}")
    parts = split_indices(n, *n_parts, legacy=True)
    if hashlib.sha256(np.concatenate(parts).astype("<i8").tobytes()).hexdigest() != sha256:
        raise DataError(f"this NumPy draws another permutation than the published split of {name}; install NumPy 1.26")
    order = sort(dataset)
    return Split.of_rows(dataset, [order[part] for part in parts])


def _as_it_is(dataset):
    return np.arange(len(dataset))


def _by_size(dataset):
    return np.argsort(np.diff(dataset.graphs.site_ptr), kind="stable")


def _by_size_and_gdb_number(dataset):
    try:
        number = [int(id.removeprefix("gdb_")) for id in dataset.id.tolist()]
    except ValueError:
        raise DataError("the published split of qm9 needs the ids gdb_NUMBER; prepare QM9's own files") from None
    return np.lexsort((number, np.diff(dataset.graphs.site_ptr)))


# Sizes of train, valid and test, the order of the structures, and the SHA-256 of the permutation, as little-endian
# integers of 8 bytes, train first.
PUBLISHED_SPLITS = {
    "qm9": (
        (110_000, 10_000, 10_831),
        _by_size_and_gdb_number,
        "77989252ff8c8309ea7b219943daf0d125303346daf87750b1f0bafcc1198c12",
    ),
    "materials_project": (
        (60_000, 4_867, 4_239),
        _by_size,
        "1ecb979a3da922f6aef3cee4c3ff589cf2efbcfc96cbd25733cb28e8923f20b7",
    ),
    "fullerene_md": ((2_700, 150, 150), _as_it_is, "d60d4b998adbaa4eac5e95eee2944d55214a1c054198dc91bfb905022a7b594e"),
    "pt_graphene_md": (
        (17_332, 2_168, 2_166),
        _as_it_is,
        "294532735e709ee6af199ed12d65c87d3887e535bcecad5c0fc3b483009a911c",
    ),
    "smfe12": ((2_973, 166, 165), _as_it_is, "36e3c282a8e92c2df0792ea2ec7ce6c1851af76f0d294a2daf15b93b30f75d8f"),
}


def labels_of_target(dataset: Dataset, target: str) -> np.ndarray:
    """The labels `target` (S,) of a Dataset, NaN where unknown. Raises DataError when there is no such label."""
    if target not in dataset.labels:
        names = ", ".join(sorted(dataset.labels)) or "none"
        raise DataError(f"the data set has no label {target!r}; its labels are: {names}")
    return dataset.labels[target]


def labels_of_targets(dataset: Dataset, targets: Sequence[str]) -> np.ndarray:
    """The labels of K targets (S, K) of a Dataset, read-only. Raises DataError as labels_of_target does."""
    if len(targets) == 1:  # no copy of what may be mapped
        return labels_of_target(dataset, targets[0])[:, None]
    return np.column_stack([labels_of_target(dataset, target) for target in targets])


def labelled_rows(dataset: Dataset, targets: Sequence[str]) -> np.ndarray:
    """Row numbers of the structures with at least one label of `targets`. Raises DataError as labels_of_target does."""
    return np.flatnonzero(~np.isnan(labels_of_targets(dataset, targets)).all(axis=1))


def _some_labelled_rows(dataset, targets):
    """The same, at least one; or DataError."""
    known = labelled_rows(dataset, targets)
    if not len(known):
        names = " or ".join(targets)
        raise DataError(f"none of the {len(dataset)} structures has a known {names}; choose another label or data set")
    return known


def check_parts(dataset: Dataset, config: Config, parts: tuple[np.ndarray, ...]) -> None:
    """Raise DataError where a label is missing: a structure's only one, or a target's all; where one of a class is
    neither 0 nor 1; where a structure to train on has no weight, though there are some; and where a table has other
    groups than those that the split was drawn by.

    parts : the structures to train on, to validate on and to test on
    """
    rows = np.concatenate(parts)
    targets = config.data.targets
    label = labels_of_targets(dataset, targets)
    wrong = np.isinf(label[rows]).any(axis=1) | np.isnan(label[rows]).all(axis=1)
    if wrong.any():
        where = dataset.id[rows[np.argmax(wrong)]]
        names = f"label {targets[0]}" if len(targets) == 1 else f"labels {', '.join(targets)}"
        raise DataError(f"the {names} of structure {where} is not finite; correct it or leave it out")
    if config.of_class:
        check_classes(dataset, config, rows)
    if config.data.weight:
        _check_weights(dataset, config.data.weight, parts[0])
    if is_table(config.data):
        group_numbers(dataset, config.data, parts)
    for name, part in zip(("train", "validate"), parts, strict=False):
        for target, column in zip(targets, label[part].T, strict=True):
            if np.isnan(column).all():
                raise DataError(f"no structure to {name} on has the label {target}; choose another split or target")


def check_classes(dataset: Dataset, config: Config, rows: np.ndarray) -> None:
    """Raise DataError where a known label of the structures `rows` (S,) is no class, neither 0 nor 1."""
    label = labels_of_targets(dataset, config.data.targets)
    wrong = ~(np.isnan(label[rows]) | np.isin(label[rows], (0, 1)))
    if wrong.any():
        row, k = np.argwhere(wrong)[0]
        raise DataError(
            f"the label {config.data.targets[k]} of structure {dataset.id[rows[row]]} is {label[rows[row], k]:.6g}; "
            f"with the loss {config.training.loss} it must be 0 or 1"
        )


def _check_weights(dataset, name, rows):
    weight = labels_of_target(dataset, name)[rows]
    wrong = ~(np.isfinite(weight) & (weight > 0))
    if wrong.any():
        where = np.argmax(wrong)
        raise DataError(
            f"the weight {name} of structure {dataset.id[rows[where]]} is {weight[where]:.6g}; it must be a finite "
            "number greater than 0"
        )


def write_split(path: Path | str, split: Split) -> None:
    """Write a Split as JSON with a checksum of its ids; the file appears complete or not at all. Raises OutputError."""
    head = to_json({"format": FORMAT, "version": 1, "sha256": _checksum(split)}, indent=1)
    with replacing(path) as part, open(part, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(head.removesuffix("\n}"))
        for name, ids in split._asdict().items():
            stream.write(f',\n "{name}": [')
            for start in range(0, len(ids), BLOCK):
                text = to_json(list(ids[start : start + BLOCK]), indent=1, ensure_ascii=False)
                stream.write(("," if start else "") + text[1:-2].replace("\n ", "\n  "))
            stream.write("\n ]" if len(ids) else "]")
        stream.write("\n}")


def read_split(path: Path | str) -> Split:
    """Read a Split from JSON, as write_split leaves it in a run or as somebody wrote it by hand:

        {"format": "refattn-split", "version": 1, "train": ["id", ...], "valid": [...], "test": [...]}

    `test` may be empty. `sha256`, a checksum of the ids, may be absent; where it is there it has to fit.

    Raises DataError for a file that is missing, of another kind, changed or cut, for an id or a key that occurs twice,
    for another key and for an empty training or validation set.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({in_one_line(error)}); name a split.json") from None
    try:
        content = json.loads(text, object_pairs_hook=with_keys_once)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as a split ({in_one_line(error)}); repair it") from None
    if wrong := other_format(content if isinstance(content, dict) else {}, FORMAT, 1, "give the split of a run"):
        raise DataError(f"{path}: {wrong}")
    if unknown := content.keys() - {"format", "version", "sha256", *PARTS}:
        raise DataError(f"{path}: has {min(unknown)!r}, which is none of train, valid and test; rename or remove it")
    parts = [content.get(name) for name in PARTS]
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in parts):
        raise DataError(
            f'{path}: train, valid and test must be lists of ids, which are texts; write "test": [] for no test part'
        )
    split = Split(*parts)
    if content.get("sha256", _checksum(split)) != _checksum(split):
        raise DataError(
            f"{path}: the ids do not fit their checksum; restore it, or remove sha256 if they were changed on purpose"
        )
    everything = split.train + split.valid + split.test
    if len(set(everything)) < len(everything):
        twice = collections.Counter(everything).most_common(1)[0][0]
        raise DataError(f"{path}: the id {twice!r} is in the split twice; a structure may be in one part only")
    for name in ("train", "valid"):
        if not getattr(split, name):
            raise DataError(f"{path}: the part {name} is empty; a training needs at least one structure in it")
    return split


def resolve_split(split: Split, dataset: Dataset) -> tuple[np.ndarray, ...]:
    """Row numbers of a Split in a Dataset: three arrays of int64, in the split's order.

    Raises DataError that names the first id that the data set lacks.
    """
    if all(isinstance(ids, Strings) and ids.values is dataset.id and ids.rows is not None for ids in split):
        return tuple(ids.rows for ids in split)
    known = _as_bytes(Strings(dataset.id))
    order = np.argsort(known)
    known = known[order]
    parts = []
    missing = []
    for ids in split:
        wanted = _as_bytes(ids)
        place = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        is_there = known[place] == wanted if len(known) else np.zeros(len(wanted), bool)
        missing += [ids[row] for row in np.flatnonzero(~is_there).tolist()]
        parts.append(order[place] if is_there.all() else place)
    if missing:
        count = f"{len(missing)} of {sum(map(len, split))}"
        composed = unicodedata.normalize("NFC", missing[0])
        is_there = composed in {unicodedata.normalize("NFC", id) for id in dataset.id.tolist()}
        form = " (which is there in another Unicode form)" if is_there else ""
        raise DataError(
            f"the data set lacks {count} ids of the split, such as {missing[0]!r}{form}; use the data set of the split"
        )
    return tuple(parts)


def _as_bytes(ids):
    """(S,) bytes of UTF-8 of ids; another order than that of text does not matter."""
    if isinstance(ids, Strings) and ids.values.dtype.kind == "S":
        return ids.values if ids.rows is None else ids.values[ids.rows]
    blocks = [[id.encode("utf-8", "surrogatepass") for id in ids[start : start + BLOCK]]
              for start in range(0, len(ids), BLOCK)]  # fmt: skip
    return np.concatenate([np.zeros(0, "S1"), *(np.array(block, "S") for block in blocks)])


def _checksum(split):
    digest = hashlib.sha256()
    for text in json_blocks(split):
        digest.update(text.encode())
    return digest.hexdigest()
