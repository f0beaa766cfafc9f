"""Data sets that are mapped: what is read is what memory holds, bit for bit, and so is what is trained on it."""

import dataclasses
import os

import numpy as np
import pytest
from small_data import small_config, write_molecules, write_properties

from refattn.config import GraphConfig
from refattn.data import builtin, mapped
from refattn.data.mapped import HEAD, open_mapped
from refattn.data.store import read_dataset
from refattn.errors import DataError
from refattn.training.train import train


@pytest.fixture
def path(tmp_path):
    return write_properties(tmp_path / "set.h5")


def check_equal(found, wanted):
    for field in dataclasses.fields(wanted.graphs):
        mine, theirs = getattr(found.graphs, field.name), getattr(wanted.graphs, field.name)
        if field.name not in ("image", "omega_max"):
            np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
            assert mine is None or mine.dtype == theirs.dtype
    np.testing.assert_array_equal(found.id, wanted.id)
    for group in ("labels", "arrays"):
        assert getattr(found, group).keys() == getattr(wanted, group).keys()
        for name, values in getattr(wanted, group).items():
            np.testing.assert_array_equal(getattr(found, group)[name], values, err_msg=name)
    for name in ("label_attrs", "graph_config", "attrs", "skipped"):
        assert getattr(found, name) == getattr(wanted, name)


def test_a_mapped_set_is_the_one_in_memory(path, monkeypatch):
    """Written once, in blocks, and anew when the data set has changed."""
    monkeypatch.setattr(mapped, "BLOCK", 7)
    check_equal(open_mapped(path), read_dataset(path))
    flat = path.with_name("set.h5.mapped")
    written = os.stat(flat).st_mtime_ns
    dataset = open_mapped(path)
    assert os.stat(flat).st_mtime_ns == written and not dataset.graphs.r.flags.writeable
    write_properties(path, n=20, seed=1)
    check_equal(open_mapped(path), read_dataset(path))
    assert {file.name for file in path.parent.iterdir()} == {"set.h5", "set.h5.mapped"}


def test_a_mapped_set_has_the_directions_of_edges_where_a_network_reads_angles(path, monkeypatch):
    """The flat file without them gives way to one with them, which serves both."""
    monkeypatch.setattr(mapped, "BLOCK", 7)
    plain, wanted = read_dataset(path), read_dataset(path, with_directions=True)
    assert wanted.graphs.direction.any() and plain.graphs.direction is None
    check_equal(open_mapped(path), plain)
    check_equal(open_mapped(path, with_directions=True), wanted)
    written = os.stat(path.with_name("set.h5.mapped")).st_mtime_ns
    check_equal(open_mapped(path), plain)
    assert os.stat(path.with_name("set.h5.mapped")).st_mtime_ns == written


def test_directions_of_a_rule_without_are_refused(tmp_path, monkeypatch):
    path = write_molecules(tmp_path / "upstream.h5", rule="upstream")
    for limit in (1 << 30, 0):
        monkeypatch.setattr(builtin, "MAPPED", limit)
        with pytest.raises(DataError, match=r"upstream\.h5: a network that reads angles .* asks for the rule isolated"):
            builtin.open_data(path, None, with_directions=True)
    assert [file.name for file in tmp_path.iterdir()] == ["upstream.h5"]
    with pytest.raises(DataError, match="^molecules: a network that reads angles"):
        builtin.open_data("molecules", GraphConfig(rule="upstream"), with_directions=True)


def test_a_damaged_flat_file_is_refused(path):
    """Kernels follow its numbers unchecked; one that was cut, or belongs to nothing, leads nowhere."""
    arrays = open_mapped(path).graphs
    flat = path.with_name("set.h5.mapped")
    content = flat.read_bytes()
    nbr = content.index(np.ascontiguousarray(arrays.nbr).tobytes(), HEAD)
    for place, value in ((nbr, 10**6), (nbr, -1), (HEAD + 8, -5), (HEAD + 8, 10**9)):
        damaged = bytearray(content)
        damaged[place : place + 4] = np.int32(value).tobytes()
        flat.write_bytes(damaged)
        with pytest.raises(DataError, match=r"set\.h5\.mapped: is damaged .*remove it"):
            open_mapped(path)
    flat.write_bytes(content[:-100])
    with pytest.raises(DataError, match="was cut"):
        open_mapped(path)
    for other in (b"", b"nonsense", mapped.MARK + b"[]"):
        flat.write_bytes(other)
        check_equal(open_mapped(path), read_dataset(path))


@pytest.mark.parametrize("n_angular", [0, 3])
def test_training_on_a_mapped_set_has_the_same_bits(path, monkeypatch, n_angular):
    config = small_config(path, epochs=1)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_angular=n_angular))
    results = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(builtin, "MAPPED", limit)
        out = path.parent / f"run{limit}"
        train(config, out, n_threads=1)
        results.append([(out / name).read_bytes() for name in ("predictions.csv", "split.json", "config.toml")])
        assert path.with_name("set.h5.mapped").exists() is (limit == 0)
    assert results[0] == results[1]
