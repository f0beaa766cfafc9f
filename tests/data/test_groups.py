"""Splits by groups: whole groups are new, every way to make them, folds, and what cannot be split."""

import dataclasses
import re

import numpy as np
import pytest
from handmade import line, write

from refattn.config import Config, DataConfig
from refattn.data.groups import group_numbers, groups_of, k_means
from refattn.data.notes import notes_on
from refattn.data.splits import choose_split, make_split, resolve_split
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


def test_groups_stand_in_a_table(dataset, tmp_path):
    """Groups of any text, by the ids of the data set; a table may have others too."""
    kind = {id: ("bulk, strained", "Zelle ä", "7")[n % 7 % 3] for n, id in enumerate(IDS)}
    lines = ["id;config_type", *(f"{id};{group}" for id, group in kind.items() if id != IDS[0]), "another;surface"]
    path = tmp_path / "groups.csv"
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    data = DataConfig(target="homo", split_by="group", split_group=str(path))
    assert groups_of(dataset, data).names == ["", *sorted({*kind.values()})]  # the one without a label has no group
    found = choose_split(dataset, data)
    check(found, kind.get)
    parts = resolve_split(found, dataset)
    assert not {*group_numbers(dataset, data, parts)[parts[2]]} & {*group_numbers(dataset, data, parts)[parts[0]]}
    path.write_text("id,g\n" + "".join(f"{id},{n % 2}\n" for n, id in enumerate(IDS)))
    with pytest.raises(DataError, match="gives other groups than those that the split was drawn by; restore the file"):
        group_numbers(dataset, data, parts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "id,g\n" + "".join(f"{id},a\n" for id in IDS[2:]),
            f"^of 1 structure with the label to learn, such as {IDS[1]}, there is no ",
        ),
        (
            "".join(f"{id},a\n" for id in IDS[1:]),
            f"such as {IDS[1]}, there is no line in .*below a header such as id,group",
        ),
        (f"id,g\n{IDS[0]},a\n{IDS[0]},b\n", f"line 3: the id {IDS[0]} has another group above"),
        (f"id,g\n{IDS[0]},\n", "line 2: must have an id and its group"),
        (f"id,g,h\n{IDS[0]},a,b\n", "line 2: must have an id and its group"),
        ("id,g\n" + "".join(f"{id},a\n" for id in IDS), "makes 1 group of .* and a part of the split stays empty"),
        (None, "groups.csv: there is no such file"),
    ],
)
def test_a_table_without_the_groups_is_refused(dataset, tmp_path, text, words):
    path = tmp_path / "groups.csv"
    if text:
        path.write_text(text)
    with pytest.raises(DataError, match=words):
        choose_split(dataset, DataConfig(target="homo", split_by="group", split_group=str(path), n_valid=2))


def test_an_element_that_most_have_is_not_left_out(tmp_path):
    pairs = [line(f"s{i}", 2, {"homo": 1.0 * i}, z=8 if i < 4 else 6) for i in range(20)]
    set_of_two = read_dataset(write(tmp_path / "set.h5", pairs))
    split = choose_split(set_of_two, DataConfig(target="homo", split_by="elements"))
    assert {*split.test} == {"s0", "s1", "s2", "s3"}
    assert group_numbers(set_of_two, DataConfig(split_by="elements")).tolist() == [0] * 4 + [1] * 16
    with pytest.raises(DataError, match="makes 1 group of the structures with the label, and a part of the"):
        choose_split(set_of_two, DataConfig(target="homo", split_by="elements", n_folds=3))


def test_zero_has_one_sign(dataset):
    values = np.where(np.arange(len(dataset)) % 2, 0.0, -0.0)
    signed = dataclasses.replace(dataset, labels={**dataset.labels, "traj": values})
    assert groups_of(signed, DataConfig(split_by="group", split_group="traj")).names == ["traj = 0"]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"split_by": "composition", "n_test": 100}, r"fewer structures to test on \(data.n_test\) or another"),
        (
            {"split_by": "elements", "split_group": "C", "n_test": 90, "valid_by": "group"},
            "data.valid_by = 'random' or",
        ),
    ],
)
def test_the_advice_is_about_what_was_asked(dataset, settings, advice):
    with pytest.raises(DataError, match=advice) as caught:
        choose_split(dataset, DataConfig(target="homo", **settings))
    assert "more elements" not in str(caught.value)


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
        ({"split": "split.json", "split_by": "file", "valid_by": "group"}, "data.valid_by is 'group'"),
        ({"split": "split.json", "split_group": "_"}, "data.split_group is '_'"),
        ({"split_by": "size", "split_group": "_"}, "data.split_group is '_', which has no effect"),
        ({"split_by": "composition", "split_group": "O"}, "data.split_group is 'O', which has no effect"),
        ({"n_folds": 3, "test_part": False}, "each of 3 folds is the test part of a run"),
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


def test_structures_of_an_unknown_group_are_in_none(tmp_path):
    """They may be of any group; those without the label to learn do not matter."""
    pairs = [line(f"s{i}", 1, {"homo": 1.0 * i, **({"t": i // 3} if i % 3 else {})}) for i in range(12)]
    data = DataConfig(target="homo", split_by="group", split_group="t")
    with pytest.raises(DataError, match="4 structures with the label to learn, such as s0, there is no t"):
        choose_split(read_dataset(write(tmp_path / "set.h5", pairs)), data)
    pairs = [line(f"s{i}", 1, {"homo": 1.0 * i, "t": i // 3} if i % 3 else {}) for i in range(12)]
    split = choose_split(read_dataset(write(tmp_path / "other.h5", pairs)), data)
    assert sorted(map(len, split)) == [2, 2, 4] or sorted(map(len, split)) == [1, 2, 5]


def test_groups_without_a_label_fill_no_fold(tmp_path):
    pairs = [line(f"g{i // 3}_{i % 3}", 1, {"homo": 1.0 * i} if i < 9 else {}) for i in range(12)]
    dataset = read_dataset(write(tmp_path / "set.h5", pairs))
    for fold in range(4):
        with pytest.raises(
            DataError, match="makes 3 groups of the structures with the label.*choose fewer folds, small"
        ):
            choose_split(dataset, DataConfig(target="homo", split_by="group", n_folds=4, fold=fold))


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({"split_by": "size"}, "choose another data.split_by"),
        ({"split_by": "composition", "valid_by": "group"}, "choose data.valid_by = 'random' or another data.split_by"),
        ({"split_by": "elements"}, "choose a data set with more elements that at most 50% of the structures have or"),
    ],
)
def test_advice_can_be_followed(tmp_path, settings, way):
    dataset = read_dataset(write(tmp_path / "set.h5", [line(f"s{i}", 1, {"homo": 1.0 * i}) for i in range(9)]))
    with pytest.raises(DataError, match=re.escape(way)):
        choose_split(dataset, DataConfig(target="homo", **settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_test": 5, "n_folds": 4, "fold": 1}, ["data.n_test = 5 has no effect: fold 1 of 4 is the test part"]),
        ({"n_test": 5, "test_part": False}, ["data.n_test = 5 has no effect: data.test_part is false"]),
        (
            {"n_test": 5, "split_by": "elements", "split_group": "F"},
            ["data.n_test = 5 has no effect: all structures with F are the test part"],
        ),
        (
            {"n_valid": 5, "n_folds": 4, "split_by": "size", "valid_by": "group"},
            ["data.n_valid = 5 has no effect: the fold after the test part is the validation part"],
        ),
        ({"n_valid": 5, "n_test": 5, "split_by": "size", "valid_by": "group"}, []),
    ],
)
def test_sizes_without_effect_are_said(dataset, settings, said):
    config = Config(data=DataConfig(target="homo", **settings))
    assert notes_on(config, dataset, (np.arange(3),) * 3) == said
