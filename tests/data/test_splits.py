"""Splits: disjoint, seeded, independent of everything but ids, counts and seed; the authors' split; damaged files."""

import hashlib
import json
import random
import struct
import types

import numpy as np
import pytest
from handmade import line, write

from refattn.common import hdf5
from refattn.common.hdf5 import Strings
from refattn.common.strict_json import to_json
from refattn.config import DataConfig
from refattn.data import splits
from refattn.data.splits import (
    PUBLISHED_SPLITS,
    Split,
    choose_split,
    make_split,
    published_split,
    read_split,
    resolve_split,
    split_indices,
    write_split,
)
from refattn.data.store import read_dataset
from refattn.errors import DataError, OutputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    pairs = [line(f"s{i}", 1 + i % 3, {"homo": float(i)} if i % 5 else {}) for i in range(50)]
    return read_dataset(write(tmp_path_factory.mktemp("split") / "set.h5", pairs))


@pytest.mark.parametrize(
    ("n", "wanted", "sizes"),
    [
        (100, (0, 0, 0), (80, 10, 10)),
        (3, (0, 0, 0), (1, 1, 1)),
        (100, (30, 0, 5), (30, 10, 5)),
        (10, (4, 3, 3), (4, 3, 3)),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_sizes_and_disjointness(n, wanted, sizes, legacy):
    parts = split_indices(n, *wanted, seed=3, legacy=legacy)
    assert tuple(map(len, parts)) == sizes
    everything = np.concatenate(parts)
    assert len(np.unique(everything)) == len(everything)
    assert everything.min() >= 0
    assert everything.max() < n


@pytest.mark.parametrize(("n", "wanted"), [(2, (0, 0, 0)), (0, (0, 0, 0)), (10, (9, 0, 1)), (10, (11, 0, 0))])
def test_too_few_structures(n, wanted):
    """Nobody is told to ask for fewer who asked for none."""
    with pytest.raises(DataError, match="ask for fewer" if any(wanted) else "give a data set with more"):
        split_indices(n, *wanted)


def test_seeds_and_nested_training_sets():
    small, large = split_indices(1000, 100, seed=1), split_indices(1000, 800, seed=1)
    for a, b in zip(small[1:], large[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(small[0], large[0][:100])
    assert not np.array_equal(small[0], split_indices(1000, 100, seed=2)[0])


def test_authors_split():
    """First numbers of the authors' permutation of QM9: docs/authors_code.md, section 3."""
    train, valid, test = split_indices(130831, 110000, 10000, 10831, seed=0, legacy=True)
    assert train[:5].tolist() == [130195, 68784, 7957, 25911, 20168]
    order = np.random.RandomState(0).permutation(130831)
    assert valid[0] == order[110000]
    assert test[-1] == order[-1]
    assert len(test) == 10831


def shuffled(n, seed=0):
    """The numbers below n as NumPy's legacy generator permutes them, with Python's Mersenne Twister instead.

    The state of a seed is that of Matsumoto & Nishimura's init_genrand; a number up to i is drawn by cutting 32 bits
    to the length of i until it fits; Fisher and Yates exchange from the end.
    """
    state = [seed]
    for i in range(1, 624):
        state.append((1812433253 * (state[-1] ^ (state[-1] >> 30)) + i) & 0xFFFFFFFF)
    twister, order = random.Random(), list(range(n))
    twister.setstate((3, (*state, 624), None))
    for i in range(n - 1, 0, -1):
        mask = (1 << i.bit_length()) - 1
        while (j := twister.getrandbits(32) & mask) > i:
            pass
        order[i], order[j] = order[j], order[i]
    return order


@pytest.mark.parametrize("name", PUBLISHED_SPLITS)
def test_published_permutations(name):
    """The checksums that the package carries, from another generator and with another packing of the numbers."""
    sizes, _, sha256 = PUBLISHED_SPLITS[name]
    order = shuffled(sum(sizes))
    assert hashlib.sha256(struct.pack(f"<{len(order)}q", *order)).hexdigest() == sha256


class Shape:
    """What published_split looks at in a data set."""

    def __init__(self, ids, sizes):
        self.id = np.array(ids)
        self.graphs = types.SimpleNamespace(site_ptr=np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self):
        return len(self.id)


def test_published_split_of_qm9_does_not_depend_on_the_order():
    draw = random.Random(2)
    numbers = sorted(draw.sample(range(1, 133886), 130831))
    n_sites = {number: 3 + number % 27 for number in numbers}
    theirs = sorted(numbers, key=lambda number: n_sites[number])  # stable
    wanted = [f"gdb_{theirs[i]}" for i in shuffled(130831)]
    draw.shuffle(numbers)
    dataset = Shape([f"gdb_{number}" for number in numbers], [n_sites[number] for number in numbers])
    split = published_split(dataset, "qm9", (110_000, 0, 10_831))
    assert [*map(len, split)] == [110_000, 10_000, 10_831]
    assert split.train + split.valid + split.test == wanted
    with pytest.raises(DataError, match="ids gdb_NUMBER"):
        published_split(Shape([f"mol_{number}" for number in numbers], [3] * len(numbers)), "qm9")


@pytest.mark.parametrize("name", ["materials_project", "smfe12"])
def test_published_splits_of_files_in_their_order(name):
    """The Materials Project is sorted by size first, the authors' archives are not."""
    n = sum(PUBLISHED_SPLITS[name][0])
    sizes = [2 + (7 * i) % 50 for i in range(n)]
    split = published_split(Shape([f"s{i}" for i in range(n)], sizes), name)
    theirs = sorted(range(n), key=sizes.__getitem__) if name == "materials_project" else range(n)
    assert split.train + split.valid + split.test == [f"s{theirs[i]}" for i in shuffled(n)]
    assert [*map(len, split)] == [*PUBLISHED_SPLITS[name][0]]


def test_published_splits_that_do_not_fit(dataset):
    message = r"smfe12 is one of 3304 structures, the data set has 50; .*leave data.split empty"
    with pytest.raises(DataError, match=message):
        published_split(dataset, "smfe12")
    with pytest.raises(DataError, match="no published split 'qm7'; there are qm9,"):
        published_split(dataset, "qm7")
    whole = Shape([f"s{i}" for i in range(3304)], [13] * 3304)
    with pytest.raises(DataError, match="data.n_valid is 100, but the published split of smfe12 has 166 there"):
        published_split(whole, "smfe12", (2973, 100, 165))


def test_the_configuration_chooses(dataset, tmp_path):
    drawn = choose_split(dataset, DataConfig(target="homo", n_train=9, split_seed=7))
    assert drawn == make_split(dataset, ["homo"], 9, seed=7)
    write_split(tmp_path / "split.json", drawn)
    assert choose_split(dataset, DataConfig(split=str(tmp_path / "split.json"))) == drawn
    sizes = {f"n_{name}": len(ids) for name, ids in zip(splits.PARTS, drawn)}
    assert choose_split(dataset, DataConfig(split=str(tmp_path / "split.json"), **sizes)) == drawn
    for name, size in sizes.items():
        with pytest.raises(DataError, match=rf"data\.{name} is {size - 1}, but .*split\.json has {size} there"):
            choose_split(dataset, DataConfig(split=str(tmp_path / "split.json"), **{name: size - 1}))
    with pytest.raises(DataError, match="smfe12 is one of 3304"):
        choose_split(dataset, DataConfig(split="published:smfe12"))
    whole = Shape([f"s{i}" for i in range(3304)], [13] * 3304)
    assert choose_split(whole, DataConfig(split="published:smfe12")) == published_split(whole, "smfe12")


def test_unknown_labels_are_in_no_part(dataset):
    split = make_split(dataset, ["homo"], seed=4)
    ids = set(split.train + split.valid + split.test)
    assert ids == {f"s{i}" for i in range(50) if i % 5}
    assert all(isinstance(id, str) for id in ids)
    with pytest.raises(DataError, match="'gap'.*homo"):
        make_split(dataset, ["gap"])


def test_written_read_and_resolved(dataset, tmp_path):
    split = make_split(dataset, ["homo"], seed=5)
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json") == split
    assert len(list(tmp_path.iterdir())) == 1
    shuffled = dataset.select(np.random.default_rng(0).permutation(50))
    for ids, rows in zip(split, resolve_split(split, shuffled), strict=True):
        assert shuffled.id[rows].tolist() == ids
    with pytest.raises(DataError, match="lacks 1 of 2 ids.*'nobody'"):
        resolve_split(Split(["s1"], ["nobody"], []), dataset)
    with pytest.raises(OutputError, match="cannot be written"):
        write_split(tmp_path / "none" / "split.json", split)


def test_a_split_written_by_hand(tmp_path):
    path, parts = tmp_path / "split.json", {"train": ["a"], "valid": ["b"], "test": []}
    path.write_text(json.dumps({"format": "refattn-split", "version": 1, **parts}))
    assert read_split(path) == Split(["a"], ["b"], [])
    for name in ("train", "valid"):
        path.write_text(json.dumps({"format": "refattn-split", "version": 1, **parts, name: []}))
        with pytest.raises(DataError, match=f"the part {name} is empty"):
            read_split(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"train": ["a"], "valid": ["b"], "test": [], "train": ["c"]', "has the key 'train' twice in one object"),
        (
            '"train": ["a"], "valid": ["b"], "test": [], "holdout": ["c"]',
            "has 'holdout', which is none of train, valid",
        ),
        ('"train": ["a"], "valid": ["b"]', 'write "test": \\[\\] for no test part'),
        ('"train": ["a"], "valid": [1], "test": []', "must be lists of ids, which are texts"),
    ],
)
def test_what_is_wrong_in_a_split_is_said(tmp_path, text, said):
    path = tmp_path / "split.json"
    path.write_text(f'{{"format": "refattn-split", "version": 1, {text}}}')
    with pytest.raises(DataError, match=said):
        read_split(path)


def test_a_split_from_other_editors(tmp_path):
    """With a byte order mark; and with an id in another Unicode form, which is said."""
    path = tmp_path / "split.json"
    text = json.dumps({"format": "refattn-split", "version": 1, "train": ["u\u0308"], "valid": ["b"], "test": []})
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    split = read_split(path)
    dataset = read_dataset(write(tmp_path / "set.h5", [line(id, 1, {"homo": 1.0}) for id in ("\u00fc", "b")]))
    with pytest.raises(DataError, match="lacks 1 of 2 ids of the split.*which is there in another Unicode form"):
        resolve_split(split, dataset)
    for missing in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(DataError, match="cannot be read .*name a split.json"):
            read_split(missing)


def test_damaged_files(tmp_path):
    path = tmp_path / "split.json"
    write_split(path, Split(["a", "ü"], ["b"], ["c"]))
    good = path.read_text()
    changes = [good[:size] for size in range(0, len(good) - 1, 7)]
    changes += [
        good.replace('"a"', '"x"'),
        good.replace('"a"', "1"),
        good.replace("valid", "value"),
        "[]",
        "null",
        "[" * 9999,
    ]
    changes += [good.replace("refattn-split", "other"), good.replace('"version": 1', '"version": 2')]
    for text in changes:
        path.write_text(text)
        with pytest.raises(DataError, match=str(path)):
            read_split(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError):
        read_split(path)
    with pytest.raises(DataError):
        read_split(tmp_path / "absent.json")
    write_split(path, Split(["a"], ["a"], ["c"]))
    with pytest.raises(DataError, match="twice"):
        read_split(path)
    assert json.loads(good)["train"] == ["a", "ü"]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_ids_that_are_no_text_yet_are_those_of_lists(dataset, tmp_path, monkeypatch, size):
    """In files and checksums too, whatever the blocks are."""
    for module in (splits, hdf5):
        monkeypatch.setattr(module, "BLOCK", size)
    text = np.array(["s7", "ü", "s3", 's"', "s1"])
    rows = np.array([4, 0, 1])
    for parts in (([*"abc"], [], ["d"]), ([], [], []), ([], ["ü", 's"'], ["s1"])):
        wanted = Split(*parts)
        found = Split(*(Strings(np.array([id.encode() for id in part], "S8")) for part in parts))
        assert found == wanted and wanted == found and found.train + found.test == wanted.train + wanted.test
        assert "".join(hdf5.json_blocks(found)) == "".join(hdf5.json_blocks(wanted)) == json.dumps([*wanted])
        write_split(tmp_path / "split.json", found)
        head = {"format": splits.FORMAT, "version": 1, "sha256": hashlib.sha256(json.dumps([*wanted]).encode())}
        head["sha256"] = head["sha256"].hexdigest()
        whole = to_json({**head, **wanted._asdict()}, indent=1, ensure_ascii=False)
        assert (tmp_path / "split.json").read_text(encoding="utf-8") == whole
    chosen = Strings(text, rows)
    assert [*chosen] == [chosen[0], *chosen[1:]] == ["s1", "s7", "ü"] and chosen != ["s1", "s7", "s7"]
    split = make_split(dataset, ["homo"], seed=3)
    lists = Split(*map(list, split))
    of_bytes = Split(*(Strings(np.array([id.encode() for id in part])) for part in lists))
    for other in (split, lists, of_bytes):
        assert all(map(np.array_equal, resolve_split(other, dataset), resolve_split(lists, dataset)))
    for row, id in zip(resolve_split(of_bytes, dataset)[0], split.train, strict=True):
        assert dataset.id[row] == id
