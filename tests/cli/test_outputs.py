"""Files of the user: what is in the way of an output stays, inputs are never written over, two commands keep apart."""

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path

import ase.io
import pytest
from click.testing import CliRunner
from small_data import molecules, small_config, write_molecules

from refattn.cli.main import cli
from refattn.common import files
from refattn.common.files import only_process, remove_leftovers, replacing, temporary_file
from refattn.config import to_toml
from refattn.errors import OutputError
from refattn.training.train import train


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    good = tmp_path_factory.mktemp("good")
    write_molecules(good / "data.h5", n=24)
    ase.io.write(good / "new.extxyz", molecules(3), format="extxyz")
    (good / "exp").mkdir()
    (good / "exp" / "config.toml").write_text("# mine\n" + to_toml(small_config(good / "data.h5", epochs=1)))
    train(small_config(good / "data.h5", epochs=1), good / "run", n_threads=1)
    return good


def digests(place):
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.rglob("*")
        if path.is_file()
    }


def run(command, status=0):
    result = CliRunner().invoke(cli, command.split())
    assert result.exit_code == status, result.output
    assert "fault of refattn" not in result.output
    return result


BYSTANDERS = {
    "predict run new.extxyz --out {}": ["x.csv", "x.json", "x.xyz", "x.extxyz", "x.h5", "run/last.h5", "data.h5"],
    "evaluate run --out {}": ["x.csv"],
    "evaluate run --plot {}": ["x.png"],
    "info data.h5 --plot {}": ["x.png"],
    "prepare new.extxyz {}": ["x.h5", "run/model.h5"],
    "explain run new.extxyz --scores none --no-pages --out .": [
        "structures.csv",
        "explanations.h5",
        "explained.extxyz",
    ],
    "explain run new.extxyz --scores none --out .": ["index.html", "page.css"],
    "embed run new.extxyz --out .": ["embedding.h5", "map.csv", "sites.png"],
    "train exp/config.toml --out .": ["config.toml", "split.json", "log.jsonl", "parity.png"],
    "data generate fullerene {}": ["x.extxyz"],
    "import-keras data.h5 .": ["config.toml"],
}


@pytest.mark.parametrize(("command", "name"), [(c, name) for c, names in BYSTANDERS.items() for name in names])
def test_what_is_no_earlier_output_is_left_alone(place, command, name):
    if not (place / name).exists():
        (place / name).write_text("id,homo (eV)\nmine,-7.5\n")
    before = digests(place)
    result = run(command.format(name), 1)
    assert f"{name.rpartition('/')[2]}" in result.stderr
    assert "--overwrite" in result.stderr
    assert digests(place) == before


AGAIN = (
    *(f"predict run new.extxyz --out x{suffix}" for suffix in (".csv", ".json", ".xyz", ".h5")),
    "predict run new.extxyz --out x.csv --coverage 0.5",
    "evaluate run --coverage 0.5 --out x.csv --plot x.png",
    "info data.h5 --plot x.png",
    "prepare new.extxyz x.h5",
    "explain run new.extxyz --scores none --max-pictures 1 --max-pages 1 --out x",
    "embed run new.extxyz --out x",
)


@pytest.mark.parametrize("command", AGAIN)
def test_earlier_outputs_are_replaced_and_inputs_stay(place, command):
    before = digests(place)
    run(command)
    first = {name for name in digests(place) if name not in before}
    run(command)
    after = digests(place)
    assert {name for name in after if name not in before} == first
    assert before.items() <= after.items()


MINE = (
    "edges.txt",
    "pictures/mine.png",
    "pages/mine.html",
    "pages/mine.txt",
    "validation.html",
    "thumbnails/empty.png",
)


def test_what_an_earlier_call_wrote_does_not_stay_beside_the_new_tables(place):
    """Explanations with and without edges, pages and pictures; files of others, links and empty ones stay."""
    command = "explain run {} --scores none --out x"
    run(command.format("new.extxyz") + " --edges --max-pictures 2 --picture-format svg --max-pages 1")
    for name in MINE:
        (place / "x" / name).write_text("" if "empty" in name else "mine")
    (place / "x" / "pictures" / "link.svg").symlink_to(next((place / "x" / "pictures").glob("*.svg")).name)
    ase.io.write(place / "other.extxyz", molecules(5)[3:], format="extxyz")
    before = digests(place / "x")
    assert {"edges.csv", "page.css", "index.html"} <= before.keys()
    (place / "bad.extxyz").write_text("1\nid=bad\nXx 0 0 0\n")
    run(command.format("bad.extxyz"), 1)
    assert before.items() <= digests(place / "x").items()
    run(command.format("other.extxyz") + " --max-pictures 1 --no-pages")
    tables = {"structures.csv", "sites.csv", "explained.extxyz", "explanations.h5"}
    pictures = {path.name for path in (place / "x" / "pictures").iterdir()}
    assert len(pictures) == 3
    assert {name for name in digests(place / "x") if not name.startswith("pictures")} == {*MINE} - {MINE[1]} | tables


def test_pictures_of_an_earlier_call_stay_where_it_had_another_folder(place):
    """Such as pictures that somebody gathers; and a map of sites does not outlive its vectors."""
    run("explain run new.extxyz --scores none --max-pictures 1 --no-pages --out x")
    shutil.copytree(place / "x" / "pictures", place / "y" / "pictures")
    gathered = digests(place / "y")
    run("explain run new.extxyz --scores none --max-pictures 0 --no-pages --out y")
    assert gathered.items() <= digests(place / "y").items()
    run("embed run new.extxyz --out x")
    assert {"site_map.csv", "sites.png", "sites.csv"} <= digests(place / "x").keys()
    run("embed run new.extxyz --out x --no-sites")
    assert not {"site_map.csv", "sites.png"} & digests(place / "x").keys()
    assert "sites.csv" in digests(place / "x")


@pytest.mark.parametrize(
    "command",
    [
        "train exp/config.toml --out exp",
        "predict run x.extxyz --out x.extxyz",
        "predict run/model.h5 x.extxyz --out run/model.h5",
        "predict run x.extxyz --out run/calibration.h5",
        "evaluate run --data data.h5 --out data.h5",
        "prepare x.extxyz x.extxyz",
        "prepare data.h5 data.h5",
    ],
)
@pytest.mark.parametrize("link", ["", "symlink", "link"])
def test_no_input_is_written_over(place, command, link):
    """Nor where --overwrite is given, nor under another name of the same file."""
    shutil.copy(place / "new.extxyz", place / "x.extxyz")
    *words, out = command.split()
    if link and words[0] == "train":
        getattr(os, link)(place / "exp" / "config.toml", place / "config.toml")
        out = "."
    elif link:
        getattr(os, link)(place / out, place / f"other{Path(out).suffix}")
        out = f"other{Path(out).suffix}"
    before = digests(place)
    assert "is the input" in run(" ".join([*words, out, "--overwrite"]), 1).stderr
    assert digests(place) == before


@pytest.mark.parametrize("command", ["prepare new.extxyz {}", "predict run new.extxyz --out {}"])
@pytest.mark.parametrize("name", ["last.h5", "model.h5"])
def test_a_run_is_never_replaced_by_other_outputs(place, command, name):
    shutil.copytree(place / "run", place / "other")
    before = digests(place)
    assert "belongs to a trained run" in run(f"{command.format(f'other/{name}')} --overwrite", 1).stderr
    assert digests(place) == before


def test_bystanders_of_old_temporary_names(place):
    """An input called OUT.part is read, a link of that name is not followed, also where the command fails."""
    shutil.copy(place / "new.extxyz", place / "x.xyz.part")
    (place / "mine").write_text("mine")
    for name in ("x.csv.part", "x.h5.part"):
        (place / name).symlink_to(place / "mine")
    before = digests(place)
    run("predict run x.xyz.part --out x.xyz", 1)  # a format that ASE cannot tell by that name
    assert digests(place) == before
    run("predict run new.extxyz --out x.csv")
    run("prepare new.extxyz x.h5")
    assert before.items() <= digests(place).items()


def test_overwrite_replaces_what_is_asked_for(place):
    (place / "x.csv").write_text("mine")
    run("predict run new.extxyz --out x.csv --overwrite")
    (place / "x.h5").write_text("mine")
    run("prepare new.extxyz x.h5 --overwrite")
    (place / "new").mkdir()
    (place / "new" / "split.json").write_text("mine")
    run("train exp/config.toml --out new --overwrite")
    assert "already holds a run" in run("train exp/config.toml --out new", 1).stderr
    run("train exp/config.toml --out new --overwrite --epochs 2")
    assert len((place / "new" / "log.jsonl").read_text().splitlines()) == 2


def test_pictures_of_others_get_names_of_their_own(place):
    (place / "x" / "pictures").mkdir(parents=True)
    (place / "x" / "pictures" / "m0.png").write_text("mine")
    run("explain run new.extxyz --scores none --max-pictures 1 --no-pages --out x")
    assert (place / "x" / "pictures" / "m0.png").read_text() == "mine"
    assert (place / "x" / "pictures" / "m0-2.png").exists()


def test_two_commands_with_one_output(place):
    """The second is refused at once, and leaves what the first writes alone."""
    (place / "new").mkdir()
    before = digests(place)
    for path, command in (
        ("x.h5", "prepare new.extxyz x.h5"),
        ("new", "train exp/config.toml --out new"),
        ("run", "train --out run --resume"),
        ("run", "evaluate run --calibrate"),
        ("x.extxyz", "data generate fullerene x.extxyz"),
    ):
        with only_process(path):
            assert "another process is writing it" in run(command, 1).stderr
    assert digests(place) == before


def test_without_locks_the_file_of_the_lock_decides(place, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with only_process("x.h5"):
        assert (
            "another process is writing it, or was killed; if none is, remove"
            in run("prepare new.extxyz x.h5", 1).stderr
        )
    run("prepare new.extxyz x.h5")
    assert not [*place.glob(".refattn*")]


def test_of_many_that_ask_at_once_one_has_the_lock(tmp_path):
    inside, most, refused = [], [], []

    def ask():
        for _ in range(200):
            try:
                with only_process(tmp_path / "x"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except OutputError:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 800


def test_temporary_files_are_new_and_those_of_killed_processes_removed(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("old")
    with pytest.raises(OutputError, match="x: cannot be written"), replacing(tmp_path / "x") as part:
        part.write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert {path.name for path in tmp_path.iterdir()} == {"x"}
    dead = tmp_path / f".refattn-{'0' * 16}.part"
    dead.write_text("of a process that was killed")
    with temporary_file(tmp_path) as part:
        remove_leftovers(tmp_path)
        assert part.exists()
        assert not dead.exists()
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 16)
    dead.symlink_to(tmp_path / "x")
    with pytest.raises(OutputError), replacing(tmp_path / "y"):
        pass
    assert (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("still_has_it", [False, True])
def test_a_temporary_file_that_is_taken_for_a_leftover_is_made_again(still_has_it, tmp_path, monkeypatch):
    """Another process that looks for leftovers between the making of the file and its lock: it has removed the file, or
    has the lock and is about to."""
    fcntl = pytest.importorskip("fcntl")
    lock = fcntl.flock
    removed = []

    def beside_another(handle, how):
        if not removed:
            removed.extend(tmp_path.iterdir())
            if still_has_it:
                raise BlockingIOError
            removed[0].unlink()
        return lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", beside_another)
    with temporary_file(tmp_path) as part:
        removed[0].unlink(missing_ok=True)
        assert part.exists()
        assert len(removed) == 1
        assert part != removed[0]
