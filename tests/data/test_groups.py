"""Splits by groups: whole groups are new, every way to make them, folds, and what cannot be split."""

import dataclasses

import numpy as np
import pytest
from handmade import line, write

from refattn.config import DataConfig
from refattn.data.groups import group_numbers, groups_of, k_means
from refattn.data.splits import choose_split, make_split
from refattn.data.store import read_dataset
from refattn.errors import ConfigError, DataError

WAYS = {
    "group": lambda id: id.split("-")[0],
    "composition": lambda id: (SIZE[id], Z[id]),
    "size": lambda id: SIZE[id],
    "elements": lambda id: Z[id],
}
IDS = [f"{'abcdefgh'[i % 8]}{i % 4}-{i:03}" for i in range(96)]
SIZE = {id: 1 + i % 6 for i, id in enumerate(IDS)}
Z = {id: (6, 7, 8, 9)[i % 4] for i, id in enumerate(IDS)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """96 chains, of which every 16th has no label."""
    labels = [{"homo": float(i), "temperature": float(i % 3)} if i % 16 else {} for i in range(96)]
    pairs = [line(id, SIZE[id], known, z=Z[id]) for id, known in zip(IDS, labels)]
    return read_dataset(write(tmp_path_factory.mktemp("groups") / "set.h5", pairs))


def check(split, group):
    """Disjoint, without unknown labels, and no group of the test part in the others."""
    ids = [id for part in split for id in part]
    assert len(ids) == len({*ids}) == len({*ids} & {id for i, id in enumerate(IDS) if i % 16})
    train, valid, test = ({group(id) for id in part} for part in split)
    assert not test & (train | valid)
    return train, valid, test


@pytest.mark.parametrize("valid_by", ["random", "group"])
@pytest.mark.parametrize("way", WAYS)
def test_a_test_part_of_whole_groups(dataset, way, valid_by):
    data = DataConfig(target="homo", split_by=way, valid_by=valid_by, split_seed=1)
    split = choose_split(dataset, data)
    train, valid, test = check(split, WAYS[way])
    assert len(split.test) >= 9 and sum(map(len, split)) == 90
    assert valid <= train if valid_by == "random" else not valid & train
    assert choose_split(dataset, data) == split
    if way == "size":
        assert min(test) > max(train)
    else:
        others = [choose_split(dataset, dataclasses.replace(data, split_seed=seed)).test for seed in range(9)]
        assert any({*other} != {*split.test} for other in others)


@pytest.mark.parametrize("way", ["random", *WAYS, "cluster"])
def test_every_structure_is_tested_on_in_one_fold(dataset, way):
    group = WAYS.get(way, lambda id: id)
    splits = [choose_split(dataset, DataConfig(target="homo", split_by=way, n_folds=4, fold=k)) for k in range(4)]
    for split in splits:
        check(split, group)
        assert sum(map(len, split)) == 90
    tested = [id for split in splits for id in split.test]
    assert len(tested) == 90 and len({*tested}) == 90
    if way != "cluster":
        assert all(12 <= len(split.test) <= 33 for split in splits)


def test_groups_by_a_label_a_text_and_an_element(dataset):
    found = choose_split(dataset, DataConfig(target="homo", split_by="group", split_group="temperature"))
    temperature = dict(zip(IDS, dataset.labels["temperature"].tolist()))
    check(found, temperature.get)
    found = groups_of(dataset, DataConfig(split_by="group", split_group="1-"))
    assert found.names[:2] == ["a0-000", "a0-008"] and {"b", "f"} <= {*found.names}
    found = choose_split(dataset, DataConfig(target="homo", split_by="elements", split_group="F"))
    assert {Z[id] for id in found.test} == {9} and 9 not in {Z[id] for id in found.train + found.valid}
    for way, message in (("group", "no label and in no id"), ("elements", "no element of the data set")):
        with pytest.raises(DataError, match=message):
            choose_split(dataset, DataConfig(target="homo", split_by=way, split_group="Xy"))


def test_an_element_that_most_have_is_not_left_out(tmp_path):
    pairs = [line(f"s{i}", 2, {"homo": 1.0 * i}, z=8 if i < 4 else 6) for i in range(20)]
    set_of_two = read_dataset(write(tmp_path / "set.h5", pairs))
    split = choose_split(set_of_two, DataConfig(target="homo", split_by="elements"))
    assert {*split.test} == {"s0", "s1", "s2", "s3"}
    assert group_numbers(set_of_two, DataConfig(split_by="elements")).tolist() == [0] * 4 + [1] * 16
    with pytest.raises(DataError, match="makes 1 group, and a part of the split stays empty"):
        choose_split(set_of_two, DataConfig(target="homo", split_by="elements", n_folds=3))


def test_no_test_part(dataset):
    for way in ("random", "group"):
        split = choose_split(dataset, DataConfig(target="homo", split_by=way, test_part=False))
        assert [*map(len, split)] == [81, 9, 0]


def test_defaults_draw_as_before(dataset):
    assert choose_split(dataset, DataConfig(target="homo", split_seed=3)) == make_split(dataset, ["homo"], seed=3)
    assert group_numbers(dataset, DataConfig()) is None


@pytest.mark.parametrize("way", [{"split_by": "composition"}, {"n_folds": 3}, {"test_part": False}])
@pytest.mark.parametrize("part", ["n_train", "n_valid"])
def test_more_than_there_is_is_refused(dataset, way, part):
    with pytest.raises(DataError, match=rf"data\.{part} is 1000, but 90 structures with the label leave \d+ for it"):
        choose_split(dataset, DataConfig(**way, **{part: 1000}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split_group": "_"}, "data.split_group is '_'"),
        ({"valid_by": "group"}, "data.valid_by is 'group'"),
        ({"valid_by": "group", "n_folds": 3}, "data.valid_by is 'group'"),
        ({"split": "split.json", "split_by": "group"}, "data.split names the parts"),
        ({"split": "published:qm9", "split_by": "composition"}, "data.split names the parts"),
    ],
)
def test_groups_that_the_split_would_not_keep_apart_are_refused(dataset, settings, words):
    with pytest.raises(ConfigError, match=words):
        choose_split(dataset, DataConfig(**settings))


def test_groups_of_a_label_are_as_many_as_its_values(tmp_path):
    values = [20240101123456.0, 20240101123499.0, 1e15 + 1, 1e15 + 2, 0.1, 0.1 + 2**-50, -3.0, -3.0]
    pairs = [line(f"s{i}", 1, {"t": value}) for i, value in enumerate(values)]
    dataset = read_dataset(write(tmp_path / "set.h5", pairs))
    found = groups_of(dataset, DataConfig(split_by="group", split_group="t"))
    assert len(found.rows) == len({*values}) == 7
    assert "t = 20240101123456" in found.names and "t = -3" in found.names


def test_k_means_finds_what_lies_apart():
    centre = np.array([[0.0, 0], [9, 0], [0, 9], [9, 9]])
    point = np.repeat(centre, 25, axis=0) + np.random.default_rng(0).normal(size=(100, 2))
    found = k_means(point, 4)
    assert all(len({*found[25 * k : 25 * k + 25]}) == 1 for k in range(4)) and len({*found.tolist()}) == 4
    assert set(k_means(np.zeros((3, 2)), 3).tolist()) == {0}


@pytest.mark.parametrize(
    "wrong",
    [{"n_folds": 1}, {"n_folds": 3, "fold": 3}, {"fold": 1}, {"split_by": "file"}, {"split": "x", "n_folds": 2}],
)
def test_settings_that_fit_no_split(wrong):
    with pytest.raises(ConfigError):
        DataConfig(**wrong)
