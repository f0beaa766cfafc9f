"""A prepare that is killed, interrupted or stopped by a full disk goes on, and makes the same file to the last bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write as write_atoms

from refattn.config import GraphConfig
from refattn.data import prepare as module
from refattn.data.blocks import FinishedBlocks
from refattn.data.prepare import prepare
from refattn.data.sources.files import FilesSource
from refattn.data.writer import DatasetWriter
from refattn.errors import DataError, OutputError
from refattn.structures.batch import GraphBatch

N, BLOCK = 160, 8  # structures, and structures of a block
NAMES = ["CH4", "NH3", "H2O", "C6H6", "C2H6", "CH3OH", "HCN", "CO2"]


def structures(n):
    """`n` molecules and crystals with labels and, now and then, an array; every 13th has two sites in one place."""
    rng, found = np.random.default_rng(5), []
    for number in range(n):
        atoms = bulk("NaCl", "rocksalt", a=5.6) if number % 9 == 4 else molecule(NAMES[number % len(NAMES)])
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info = {"id": f"m{number}", "homo": -0.5 * number}
        if number > 20:
            atoms.set_array("population", rng.random(len(atoms)))
        if number % 13 == 7:
            atoms.positions[0] = atoms.positions[1]
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("resume") / "set.extxyz"
    write_atoms(path, structures(N), format="extxyz")
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_STRUCTURES", BLOCK)


def content(path):
    """Everything in an HDF5 file: attributes and the bytes of arrays, by name."""
    found = {}
    with h5py.File(path) as file:
        found["/"] = dict(file.attrs)

        def add(name, item):
            found[f"{name}@"] = dict(item.attrs)
            if isinstance(item, h5py.Dataset):
                found[name] = (item.dtype, item.shape, item[()].tobytes())

        file.visititems(add)
    return found


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """A function that runs `refattn ARGUMENTS`, or kills it when `until` returns; returns its exit status."""
    if not hasattr(os, "fork"):
        pytest.skip("Windows has no kill -9")
    log = tmp_path_factory.mktemp("command") / "log"
    helper = [sys.executable, Path(__file__).parents[1] / "helpers" / "forking.py", log]
    with subprocess.Popen(helper, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def run(*arguments, until=None):
            print(json.dumps([str(argument) for argument in arguments]), file=server.stdin, flush=True)
            child = int(server.stdout.readline())
            if until is not None:
                until()
                os.kill(child, signal.SIGKILL)
            print(file=server.stdin, flush=True)
            return int(server.stdout.readline())

        yield run
        server.stdin.close()


def test_killed_at_any_moment(source, tmp_path, command):
    """Ten outputs, each killed twice at a moment that is drawn: after so many blocks and milliseconds."""
    assert command("prepare", source, tmp_path / "whole.h5", "--threads", 2) == 0
    whole, draw, killed_with = content(tmp_path / "whole.h5"), random.Random(0), []
    for trial in range(10):
        out = tmp_path / f"{trial}.h5"
        arguments = ("prepare", source, out, "--threads", 1 + trial % 3)
        for _ in range(2):
            n_blocks, seconds = draw.randint(0, N // BLOCK), draw.choice([0, 0.002, 0.02])
            status = command(*arguments, until=lambda: wait_for(out, n_blocks, seconds))  # noqa: B023  it is called now
            assert status in (0, -signal.SIGKILL)
            assert not out.exists() or content(out) == whole
            if status:
                killed_with.append(count_blocks(out))
        assert command(*arguments) == 0
        assert content(out) == whole
        assert [path.name for path in tmp_path.glob(f"{trial}.h5*")] == [out.name]
    assert len(killed_with) >= 10
    assert len(set(killed_with)) >= 5  # at different moments


def count_blocks(out):
    """The number of blocks that a run has finished."""
    return len(list(Path(f"{out}.parts").glob("*.block")))


def wait_for(out, n_blocks, seconds):
    """Return when `out` is there or has so many finished blocks, and some seconds more have passed."""
    end = time.monotonic() + 30
    while count_blocks(out) < n_blocks and not out.exists() and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(seconds)


def test_a_data_set_in_the_making_is_left_to_its_process(source, tmp_path, command):
    with DatasetWriter(tmp_path / "set.h5", GraphConfig()):
        assert command("prepare", source, tmp_path / "set.h5") == 1
        assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".part"]
    assert [path.name for path in tmp_path.iterdir()] == ["set.h5"]
    assert content(tmp_path / "set.h5")["structures/z"][1] == (0,)


class Interrupted(FilesSource):
    """A source that raises an exception at structure `at`."""

    def __init__(self, path, at, error):
        super().__init__(path)
        self.at, self.error = at, error

    def __iter__(self):
        for number, record in enumerate(super().__iter__()):
            if number == self.at:
                raise self.error
            yield record


@pytest.fixture
def whole(source, tmp_path, small_blocks):
    prepare(FilesSource(source), tmp_path / "whole.h5")
    whole = content(tmp_path / "whole.h5")
    (tmp_path / "whole.h5").unlink()
    return whole


def interrupt(source, out, at=100, error=KeyboardInterrupt, **settings):
    with pytest.raises(error):
        prepare(Interrupted(source, at, error("stop")), out, **settings)
    return sorted(Path(f"{out}.parts").glob("*.block"))


def test_graphs_are_not_made_twice(source, tmp_path, whole, monkeypatch):
    made, from_atoms, notes, seen = [], GraphBatch.from_atoms, [], []
    blocks = interrupt(source, tmp_path / "set.h5", n_threads=2)
    assert 6 <= len(blocks) <= 12  # of 12 that were read; those that waited for a thread are left out
    assert [path.name for path in tmp_path.iterdir()] == ["set.h5.parts"]
    monkeypatch.setattr(GraphBatch, "from_atoms", lambda atoms, *rule: made.append(atoms) or from_atoms(atoms, *rule))
    report = prepare(
        FilesSource(source), tmp_path / "set.h5", note=notes.append, progress=lambda *counts: seen.append(counts)
    )
    assert content(tmp_path / "set.h5") == whole
    assert report.n_resumed == 8 * len(blocks) == N - len(made)
    assert report.n_skipped == 12  # every 13th from the 7th on
    assert seen[0][::2] == (8, 8)
    assert seen[-1] == (N, N, report.n_resumed)
    assert not notes
    assert [path.name for path in tmp_path.iterdir()] == ["set.h5"]


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "swap", "missing", "folder"])
def test_damaged_blocks_are_made_again(source, tmp_path, whole, damage):
    blocks = interrupt(source, tmp_path / "set.h5")
    for number, block in enumerate(blocks[:6]):
        good = block.read_bytes()
        flipped = bytearray(good)
        flipped[(number * 997) % len(good)] ^= 1 << number
        block.unlink()
        if damage == "folder":
            block.mkdir()
        elif damage != "missing":
            changed = {"cut": good[: -1 - 100 * number], "empty": b"", "flip": flipped, "swap": blocks[7].read_bytes()}
            block.write_bytes(changed[damage])
    if damage == "folder":  # the file cannot be written: an error of the disk, which keeps the others
        with pytest.raises(OutputError, match=r"set.h5.parts: cannot be written"):
            prepare(FilesSource(source), tmp_path / "set.h5")
        for block in blocks[:6]:
            block.rmdir()
    report = prepare(FilesSource(source), tmp_path / "set.h5")
    assert report.n_resumed == 8 * (len(blocks) - 6)
    assert content(tmp_path / "set.h5") == whole
    assert [path.name for path in tmp_path.iterdir()] == ["set.h5"]


def test_a_checkpoint_of_another_command_is_discarded(source, tmp_path, small_blocks):
    out, notes = tmp_path / "set.h5", []
    interrupt(source, out)
    report = prepare(FilesSource(source), out, GraphConfig(r_max=3.0), note=notes.append)
    assert report.n_resumed == 0
    assert len(notes) == 1
    assert "another command" in notes[0]
    interrupt(source, out)
    os.utime(source, ns=(1, 1))  # the source has changed
    assert prepare(FilesSource(source), out, note=notes.append).n_resumed == 0
    assert len(notes) == 2


def test_the_structures_themselves_are_compared(source, tmp_path, small_blocks):
    """Same size, same time, another position: that block is computed, even though the command is the same."""
    copy, out = tmp_path / "copy.extxyz", tmp_path / "set.h5"
    copy.write_bytes(source.read_bytes())
    blocks, before = interrupt(copy, out), copy.stat().st_mtime_ns
    text = copy.read_text()
    copy.write_text(text[:300] + text[300:].replace("0.0", "0.1", 1))
    os.utime(copy, ns=(before, before))
    assert prepare(FilesSource(copy), out).n_resumed == 8 * (len(blocks) - 1)
    changed = content(out)
    prepare(FilesSource(copy), out)
    assert content(out) == changed


@pytest.mark.parametrize(
    ("error", "kept"), [(KeyboardInterrupt, True), (MemoryError, True), (OutputError, True), (DataError, False)]
)
def test_what_keeps_a_checkpoint(source, tmp_path, small_blocks, error, kept):
    interrupt(source, tmp_path / "set.h5", error=error)
    assert [path.name for path in tmp_path.iterdir()] == ["set.h5.parts"] * kept


def test_append_goes_on_and_keeps_the_original(source, tmp_path, small_blocks):
    write_atoms(tmp_path / "first.extxyz", molecule("C2H4"), format="extxyz")
    for name in ("a.h5", "b.h5"):
        prepare(FilesSource(tmp_path / "first.extxyz"), tmp_path / name)
    before = (tmp_path / "a.h5").read_bytes()
    assert interrupt(source, tmp_path / "a.h5", append=True)
    assert (tmp_path / "a.h5").read_bytes() == before
    assert prepare(FilesSource(source), tmp_path / "a.h5", append=True).n_resumed > 0
    prepare(FilesSource(source), tmp_path / "b.h5", append=True)
    assert content(tmp_path / "a.h5") == content(tmp_path / "b.h5")


def test_files_of_others_are_left_alone(tmp_path):
    folder = tmp_path / "set.h5.parts"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with FinishedBlocks(tmp_path / "set.h5", {}) as checkpoint:
        checkpoint.open()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "command.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="is no folder of finished blocks"):
        FinishedBlocks(tmp_path / "set.h5", {}).open()
    (tmp_path / "other.h5.parts").symlink_to(folder)
    with pytest.raises(OutputError, match="is no folder of finished blocks"):
        FinishedBlocks(tmp_path / "other.h5", {}).open()
