"""HDF5 on a disk that fills up, and HDF5 files that are not what they say."""

import errno
import resource
import signal

import h5py
import numpy as np
import pytest

from refattn.common import hdf5
from refattn.common.hdf5 import UNREADABLE, NewFile, append, chunk_rows, reading_hdf5, write_strings
from refattn.common.outputs import is_output


@pytest.fixture
def limit_files():
    """A function that limits the size of files, in bytes: writes beyond fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def fill(path, rows=40):
    """A file of two data sets that grow, one of them compressed, which are read back between."""
    path.touch()
    with NewFile(path) as file:
        for name, options in (("plain", {}), ("packed", {"compression": "gzip", "fletcher32": True})):
            file.create_dataset(name, (0, 64), "f4", maxshape=(None, 64), chunks=(16, 64), **options)
        for number in range(rows):
            for name in ("plain", "packed"):
                append(file[name], np.random.default_rng(number).random((8, 64)))
                assert file[name][-1, 0] == file[name][len(file[name]) - 1, 0]
            file.check()
    with reading_hdf5(path) as file:
        return file["plain"][()], file["packed"][()]


def test_a_full_disk_is_an_error_wherever_it_happens(tmp_path, limit_files):
    """The process lives on, which HDF5 alone does not grant, and the next file is whole."""
    plain, packed = fill(tmp_path / "whole.h5")
    np.testing.assert_array_equal(plain, packed)
    size = (tmp_path / "whole.h5").stat().st_size
    for number in range(33):
        limit_files(size * number // 33)
        with pytest.raises(OSError) as caught:
            fill(tmp_path / "full.h5")
        assert caught.value.errno == errno.EFBIG
    limit_files(resource.RLIM_INFINITY)
    np.testing.assert_array_equal(fill(tmp_path / "full.h5")[0], plain)


def make(path, build, **options):
    with h5py.File(path, "w", **options) as file:
        build(file)


HUGE = {
    "contiguous": lambda file: file.create_dataset("x", (1 << 31,), "f4"),
    "chunked": lambda file: file.create_dataset("x", (1 << 31,), "f4", chunks=(1024,)),
    "packed": lambda file: file.create_dataset("x", (1 << 31,), "f4", chunks=(1024,), compression="gzip"),
    "a chunk": lambda file: file.create_dataset("x", (1,), "f4", maxshape=(None,), chunks=(1 << 28,)),
    "in all": lambda file: [file.create_dataset(f"x{n}", (1 << 22,), "f4", chunks=(1024,)) for n in range(8)],
    "strings": lambda file: file.create_dataset("x", (1 << 28,), h5py.string_dtype()),
    "link": lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/hostname", "y")),
    "soft link": lambda file: file.__setitem__("x", h5py.SoftLink("/y")),
    "raw data elsewhere": lambda file: file.create_dataset("x", (4,), "u1", external=[("/etc/hostname", 0, 4)]),
    "virtual": lambda file: file.create_virtual_dataset("x", h5py.VirtualLayout((4,), "f4")),
    "many": lambda file: [file.create_group(f"g{n}") for n in range(120)],
}


@pytest.mark.parametrize("what", HUGE)
@pytest.mark.parametrize("libver", ["earliest", "v110"])
def test_sizes_and_links_are_looked_at_before_reading(tmp_path, monkeypatch, what, libver):
    monkeypatch.setattr(hdf5, "HDF5_OBJECTS", 100)
    monkeypatch.setattr(hdf5, "_look_from_outside", lambda *_: None)  # which has a test of its own
    make(tmp_path / "x.h5", HUGE[what], libver=(libver, "latest"))
    with pytest.raises(UNREADABLE, match=r"declares|link|another file|objects"), reading_hdf5(tmp_path / "x.h5"):
        pass


def test_a_group_in_itself_has_an_end(tmp_path):
    make(tmp_path / "x.h5", lambda file: file.create_group("g").__setitem__("again", file["/"]), libver="v110")
    with reading_hdf5(tmp_path / "x.h5") as file:
        assert list(file) == ["g"]


def test_a_file_without_checksums_is_opened_by_another_process_first(tmp_path, monkeypatch):
    make(tmp_path / "x.h5", lambda file: file.create_dataset("x", data=[1.0]), libver="earliest")
    with reading_hdf5(tmp_path / "x.h5") as file:
        assert file["x"][0] == 1
    for code, words in (("while True: pass", "finds no end"), ("import os; os.abort()", "crashes")):
        monkeypatch.setattr(hdf5, "LOOK", code)
        monkeypatch.setattr(hdf5, "HDF5_SECONDS", 0.3 if "no end" in words else 20)
        hdf5._look_from_outside.cache_clear()
        with pytest.raises(OSError, match=words), reading_hdf5(tmp_path / "x.h5"):
            pass
    hdf5._look_from_outside.cache_clear()
    (tmp_path / "y").write_bytes(b"text" * 1000)  # no HDF5 at all: nobody is asked
    with pytest.raises(OSError, match="signature"), reading_hdf5(tmp_path / "y"):
        pass


def test_outputs_are_known_by_their_format(tmp_path):
    (tmp_path / "x.h5").touch()
    with NewFile(tmp_path / "x.h5") as file:
        file.attrs["format"] = "refattn-model"
        write_strings(file, "ids", ["a", "β", ""])
        write_strings(file, "none", [])
        write_strings(file, "text", "β\n")
    with reading_hdf5(tmp_path / "x.h5") as file:
        assert file["ids"].asstr()[()].tolist() == ["a", "β", ""]
        assert file["none"].asstr()[()].tolist() == []
        assert file["text"].asstr()[()] == "β\n"
    assert is_output(tmp_path / "x.h5", "refattn-model")
    assert not is_output(tmp_path / "x.h5", "refattn-dataset")


def test_files_of_few_rows_are_small(tmp_path):
    for shape, dtype in (((), "f8"), ((256,), "f4"), ((7, 8), "f8"), ((100_000,), "f4")):
        chunk = (chunk_rows(shape, dtype), *shape)
        with h5py.File(tmp_path / "few.h5", "w") as file:
            data = file.create_dataset("rows", (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk)
            append(data, np.ones((1, *shape)))
        assert (tmp_path / "few.h5").stat().st_size < 30_000 + 4 * np.prod(shape)
