"""The dataset file against its documented layout (docs/design.md section 8), read with h5py, and against damage."""

import dataclasses
import itertools

import h5py
import numpy as np
import pytest
from handmade import CONFIG, chains, line, write

from refattn.data.store import FIELDS, read_dataset, verify
from refattn.data.writer import DatasetWriter
from refattn.errors import DataError


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return write(tmp_path_factory.mktemp("set") / "set.h5", chains(), licence="CC0", citation="none").read_bytes()


@pytest.fixture
def path(tmp_path, content):
    (tmp_path / "set.h5").write_bytes(content)
    return tmp_path / "set.h5"


def same(a, b):
    """Every array of two Datasets, bit for bit."""
    for name in ("id", "position", "cell", "pbc"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for field in dataclasses.fields(a.graphs):
        mine, theirs = getattr(a.graphs, field.name), getattr(b.graphs, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
    for group in ("labels", "arrays"):
        assert getattr(a, group).keys() == getattr(b, group).keys()
        for name, values in getattr(a, group).items():
            np.testing.assert_array_equal(values, getattr(b, group)[name], err_msg=name)


def test_layout_is_the_documented_one(path):
    with h5py.File(path) as file:
        assert file.attrs["format"] == "refattn-dataset"
        assert file.attrs["version"] == 1
        assert [file.attrs[name] for name in ("source", "licence", "citation")] == ["by hand", "CC0", "none"]
        assert file.attrs["created_by"].startswith("refattn")
        assert dict(file["graph"].attrs) == dataclasses.asdict(CONFIG)
        assert file["structures/site_ptr"][:].tolist() == [0, 3, 4, 6, 10]
        assert file["structures/z"].dtype == np.uint8
        assert file["structures/z"][:].tolist() == [6] * 4 + [8] * 2 + [6] * 4
        assert file["structures/position"][:, 0].tolist() == [0, 1.5, 3, 0, 0, 1.5, 0, 1.5, 3, 4.5]
        assert file["structures/position"].attrs["unit"] == "Å"
        assert file["structures/cell"].shape == (4, 3, 3)
        assert file["structures/cell"][2, 1, 1] == 8
        assert file["structures/pbc"][:].tolist() == [[True, False, True]] * 4
        assert file["structures/id"].asstr()[:].tolist() == ["a", "b", "ü c", "d"]
        assert file["graph/edge_ptr"][:].tolist() == [0, 1, 3, 4, 4, 5, 6, 7, 9, 11, 12]
        assert file["graph/nbr"].dtype == np.int32
        assert file["graph/nbr"][:].tolist() == [
            1,
            0,
            2,
            1,
            1,
            0,
            1,
            0,
            2,
            1,
            3,
            2,
        ]
        assert file["graph/image"].dtype == np.int8
        assert file["graph/image"].shape == (12, 3)
        assert file["graph/r"].dtype == np.float64
        assert file["graph/omega"].shape == (12,)
        assert file["graph/omega_max"][:].tolist() == [2.5] * 10
        np.testing.assert_array_equal(file["labels/homo"][:], [-1.5, np.nan, 2.5, np.nan])
        np.testing.assert_array_equal(file["labels/gap"][:], [np.nan, np.nan, 7, np.nan])
        assert dict(file["labels/homo"].attrs) == {"unit": "eV", "description": "an orbital", "kind": "intensive"}
        np.testing.assert_array_equal(file["arrays/population"][:], [np.nan] * 4 + [0.25, 0.75] + [np.nan] * 4)
        assert file["skipped/id"].shape == file["skipped/reason"].shape == (0,)


def test_read_gives_back_what_was_written(path):
    dataset = read_dataset(path)
    verify(path)
    assert len(dataset) == 4
    assert dataset.graph_config == CONFIG
    assert dataset.attrs["licence"] == "CC0"
    assert dataset.label_attrs["gap"] == {"unit": "", "description": "", "kind": ""}
    graph = chains()[3][1]
    last = dataset.select([3])
    for name in ("z", "nbr", "image", "r", "omega", "omega_max", "edge_ptr", "weight"):
        np.testing.assert_array_equal(getattr(last.graphs, name), getattr(graph, name), err_msg=name)
    atoms = dataset.atoms(2)
    assert atoms == chains()[2][0].atoms
    assert atoms.info == {"id": "ü c", "homo": 2.5, "gap": 7.0}
    assert atoms.arrays["population"].tolist() == [0.25, 0.75]


@pytest.mark.parametrize(("a", "b"), [(0, 4), (1, 3), (2, 2), (3, None), (0, 0), (-2, None)])
def test_slice_of_the_file_is_a_selection(path, a, b):
    same(read_dataset(path, slice(a, b)), read_dataset(path).select(slice(a, b)))


def test_select_in_any_order(path):
    dataset = read_dataset(path)
    chosen = dataset.select([2, 0, 2])
    assert chosen.id.tolist() == ["ü c", "a", "ü c"]
    assert chosen.graphs.site_ptr.tolist() == [0, 2, 5, 7]
    assert chosen.graphs.nbr.tolist() == [1, 0, 3, 2, 4, 3, 6, 5]
    same(chosen.select([1, 0]).select([1]), dataset.select([2]))
    same(dataset.select(dataset.labels["homo"] > 0), dataset.select([2]))
    same(dataset.select([-1]), dataset.select([3]))
    for wrong in ([4], [-5], [True]):
        with pytest.raises(DataError):
            dataset.select(wrong)


def test_without_positions(path):
    dataset = read_dataset(path, with_positions=False)
    assert dataset.position is None
    assert dataset.select([1]).position is None
    with pytest.raises(DataError, match="positions"):
        dataset.atoms(0)


def test_append_equals_writing_at_once(path, tmp_path):
    first = write(tmp_path / "first.h5", chains()[:2])
    write(first, chains()[2:], append=True, source="by another hand")
    same(read_dataset(first), read_dataset(path))
    verify(first)
    assert read_dataset(first).attrs["source"] == "by hand; by another hand"
    with DatasetWriter(first, CONFIG, append=True, label_attrs={"homo": {"unit": "eV"}}) as writer:
        writer.skip("e", "was ill")
    assert read_dataset(first).skipped == (("e", "was ill"),)


def test_append_that_does_not_fit_changes_nothing(path):
    before = path.read_bytes()
    other_rule = dataclasses.replace(CONFIG, r_max=9.0)
    for config, attrs, pairs in (
        (other_rule, {"homo": {"unit": "eV"}}, []),
        (CONFIG, {"homo": {"unit": "Hartree"}}, [line("z", 2, {"homo": 1.0})]),
        (CONFIG, {"homo": {"unit": "eV"}}, [line("b", 2)]),
    ):
        with pytest.raises(DataError), DatasetWriter(path, config, label_attrs=attrs, append=True) as writer:
            writer.add([record for record, _ in pairs], [graph for _, graph in pairs])
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["set.h5"]


@pytest.mark.parametrize(
    "pairs",
    [
        [line("a", 1), line("a", 2)],
        [line("", 1)],
        [line("line\nbreak", 1)],
        [line("a", 1, {"x/y": 1.0})],
        [line("a", 1, arrays={"p": np.zeros(2)})],
        [line("a", 1, arrays={"p": np.zeros(1)}), line("b", 2, arrays={"p": np.zeros((2, 3))})],
    ],
)
def test_data_that_do_not_fit_leave_no_file(tmp_path, pairs):
    with pytest.raises(DataError):
        write(tmp_path / "set.h5", pairs)
    assert not list(tmp_path.iterdir())


def test_an_exception_leaves_the_old_file(path):
    before = path.read_bytes()
    records, graphs = map(list, zip(*chains(), strict=True))

    def interrupted(writer):
        writer.add(records, graphs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), DatasetWriter(path, CONFIG) as writer:
        interrupted(writer)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_targets_that_cannot_be_written(tmp_path):
    for target in (tmp_path, tmp_path / "none" / "set.h5"):
        with pytest.raises(DataError), DatasetWriter(target, CONFIG):
            pass
    with pytest.raises(DataError), DatasetWriter(tmp_path / "set.h5", CONFIG, append=True):
        pass


def test_files_that_are_not_datasets(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "empty.h5").write_bytes(b"")
    h5py.File(tmp_path / "other.h5", "w").close()
    for name in ("text.h5", "empty.h5", "other.h5", "absent.h5", "."):
        with pytest.raises(DataError, match=str(tmp_path)):
            read_dataset(tmp_path / name)
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    for name in ("water.xyz", "."):
        with pytest.raises(DataError, match="is no data set; `refattn prepare .* data.h5` makes one of structures"):
            read_dataset(tmp_path / name)


def test_every_cut_and_many_flipped_bytes_are_errors_or_harmless(path):
    """A cut is always noticed. A flipped byte is noticed, or lies in unused space and changes no array."""
    good, whole = path.read_bytes(), read_dataset(path)
    for size in [0, 1, 7, 8, 48, 100, *range(200, len(good), 16001), len(good) - 1]:
        path.write_bytes(good[:size])
        with pytest.raises(DataError):
            read_dataset(path)
    places = [*range(48), *np.random.default_rng(0).integers(48, len(good), 100).tolist()]
    n_noticed = 0
    for place in places:
        damaged = bytearray(good)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            same(read_dataset(path), whole)
        except DataError:
            n_noticed += 1
    assert n_noticed >= 40  # the 48 bytes of the superblock are all under its checksum


REQUIRED = [*(field.path for field in FIELDS.values()), "structures/id", "skipped/reason"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *itertools.product(REQUIRED, ("missing", "short", "group", "text")),
        *itertools.product(["labels/homo"], ("short", "group", "text")),
    ],
)
def test_missing_and_wrong_datasets(path, name, damage):
    with h5py.File(path, "r+") as file:
        shape = file[name].shape
        del file[name]
        if damage == "short":
            file[name] = np.zeros((shape[0] + 3, *shape[1:]))
        elif damage == "group":
            file.create_group(name)
        elif damage == "text" and name not in ("structures/id", "skipped/reason"):
            file.create_dataset(name, shape, h5py.string_dtype())
        elif damage == "text":
            file.create_dataset(name, (1,) if "skipped" in name else shape, "f8")
    with pytest.raises(DataError, match=str(path)):
        read_dataset(path)


@pytest.mark.parametrize("group", ["labels", "arrays", "graph", "structures", "skipped"])
def test_missing_groups_and_attributes(path, group):
    with h5py.File(path, "r+") as file:
        del file[group]
    with pytest.raises(DataError):
        read_dataset(path)


@pytest.mark.parametrize(
    ("where", "name", "value"), [("/", "format", "x"), ("/", "version", 2), ("graph", "rule", "x")]
)
@pytest.mark.parametrize("change", ["value", "remove"])
def test_other_attributes(path, where, name, value, change):
    with h5py.File(path, "r+") as file:
        if change == "value":
            file[where].attrs[name] = value
        else:
            del file[where].attrs[name]
    with pytest.raises(DataError):
        read_dataset(path)


@pytest.mark.parametrize(
    ("name", "place", "value", "in_read"),
    [
        ("graph/nbr", 5, 2, True),
        ("graph/nbr", 0, -1, True),
        ("graph/edge_ptr", 2, 5, True),
        ("graph/edge_ptr", -1, 13, True),
        ("structures/site_ptr", 1, 4, True),
        ("structures/site_ptr", 0, -1, True),
        ("structures/site_ptr", -1, 2**60, True),
        ("graph/r", 3, 0.0, False),
        ("graph/r", 3, np.nan, False),
        ("graph/omega", 3, 13.0, False),
        ("graph/omega", 3, -0.5, False),
        ("graph/omega_max", 1, 0.5, False),
        ("structures/position", 4, np.inf, False),
        ("structures/z", 4, 119, False),
        ("structures/id", 3, "a", False),
        ("labels/homo", 0, np.inf, False),
    ],
)
def test_broken_promises(path, name, place, value, in_read):
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        data[place] = value
        file[name][...] = data
    with pytest.raises(DataError, match="the id a occurs" if name.endswith("/id") else name):
        (read_dataset if in_read else verify)(path)
