"""refattn predict by processes: the same files, notes and errors as by one process."""

import gzip
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import ase.io
import h5py
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from ase.units import Bohr
from click.testing import CliRunner
from explanation_cases import network
from kept_pool import KeptPool

import refattn
from refattn.cli.main import cli
from refattn.data.sources import pieces
from refattn.data.sources.files import open_files
from refattn.prediction import processes

SMALL = [name for name in g2.names if 2 <= len(g2[name]) <= 6 and set(g2[name].numbers) <= {1, 6, 7, 8}]


@pytest.fixture(scope="module")
def pool():
    kept = KeptPool(2, multiprocessing.get_context("spawn"))
    yield kept
    kept.pool.shutdown()


@pytest.fixture
def kept(pool, monkeypatch):
    """Processes of an earlier test go on."""
    monkeypatch.setattr(processes.concurrent.futures, "ProcessPoolExecutor", pool.started)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Processes start after the first piece, and even small files are cut."""
    monkeypatch.setattr(processes, "ALONE", 0.0)
    monkeypatch.setattr(pieces, "LARGE", 2000)
    monkeypatch.setattr(pieces, "STRUCTURES", 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    refattn.save_checkpoint(folder / "model.h5", network({"variant": "scann+"}, dtype="float32").checkpoint)
    return folder


def predicted(run, *arguments):
    result = CliRunner().invoke(cli, ["predict", str(run), *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def both(run, *arguments):
    """What one process and two give; the same is asserted."""
    alone, shared = (predicted(run, *arguments, "--threads", n) for n in (1, 2))
    assert shared == alone
    return alone


def frames(n, ids=True):
    found = [molecule(SMALL[number % len(SMALL)]) for number in range(n)]
    for number, atoms in enumerate(found):
        atoms.rattle(0.01, seed=number)
        atoms.info = {"id": f"m{number}"} if ids else {}
    return found


def write(path, found):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as stream:
        ase.io.write(stream, found, format="extxyz")
    return path


def content(path):
    """What a file of predictions says."""
    if path.suffix != ".h5":
        return path.read_bytes()
    with h5py.File(path) as file:
        return {name: file[name][()].tolist() for name in file}


@pytest.mark.parametrize("name", ["some.xyz", "some.extxyz.gz"])
def test_a_large_file_is_cut_and_gives_the_same(run, tmp_path, name):
    path = write(tmp_path / name, frames(60, ids=name == "some.xyz"))
    suffixes = (".csv", ".h5") if name == "some.xyz" else (".json", ".extxyz")
    for suffix in suffixes:
        outs = [tmp_path / f"{n}{suffix}" for n in (1, 2)]
        for n, out in enumerate(outs, 1):
            code, _, said = predicted(run, path, "--threads", n, "--out", out)
            assert code == 0 and said.count("60 structures") == 1
        assert content(outs[0]) == content(outs[1])


def test_what_is_left_out_and_what_is_outside_are_the_same(run, kept, tmp_path):
    """A frame that cannot be read, one without a graph, an element never seen, and an id that comes twice."""
    found = frames(60)
    found[30].info["id"] = "m3"
    found[41].positions[1] = found[41].positions[0]
    found[52].numbers[0] = 92
    path = write(tmp_path / "some.xyz", found)
    path.write_text(path.read_text().replace("id=m20", "id=m20 cell=1,2,3,4,5,6,7,8,9"))
    code, out, said = both(run, path, "--skip-bad")
    assert code == 0 and len(out.splitlines()) == 56, said
    assert all(f"left out {id}" in said for id in ("m3", "some-20", "m41", "m52")), said
    code, _, said = both(run, path)
    assert code == 1 and "frame 20" in said


def test_charges_that_no_network_knows_are_said(run, kept, tmp_path):
    found = frames(30)
    for number, charge in ((3, 0), (11, -1), (17, 1.0), (29, 2)):
        found[number].info["charge"] = charge
    _, _, said = both(run, write(tmp_path / "ions.xyz", found))
    assert "note: 3 structures with a charge, such as m11; the network is not told of it" in said
    assert "charge" not in both(run, write(tmp_path / "neutral.xyz", frames(3)))[2]


def test_molecules_in_bohr_are_said(run, kept, tmp_path):
    """Whatever their composition: all of them, 1.89 times as large. An atom alone has no distance."""
    found = [atoms for atoms in frames(30) if len(atoms) > 1]
    path = write(tmp_path / "angstrom.xyz", [*found, Atoms("H", info={"id": "alone"})])
    assert "radii" not in both(run, path)[2]
    for atoms in found:
        atoms.positions /= Bohr
    _, _, said = both(run, write(tmp_path / "bohr.xyz", found))
    assert f"note: {len(found)} structures with no two atoms nearer than 1.3 times their covalent radii" in said
    assert "coordinates are read in Å" in said


def test_a_file_that_cannot_be_cut_on_gives_the_same_error(run, kept, tmp_path):
    path = write(tmp_path / "some.xyz", frames(60))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    code, _, said = both(run, path)
    assert code == 1 and "frame 59" in said and "was cut" in said


def test_folders_prepared_sets_and_several_files(run, kept, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, atoms in enumerate(frames(40)):
        del atoms.info["id"]
        ase.io.write(folder / f"s{number}.xyz", atoms, format="extxyz")
    write(folder / "t.xyz", frames(30))
    prepared = tmp_path / "set.h5"
    refattn.prepare(refattn.open_source(write(tmp_path / "u.xyz", frames(50))), prepared)
    (tmp_path / "other").mkdir()
    one = write(tmp_path / "other" / "v.xyz", frames(80)[50:])
    code, out, said = both(run, folder)
    assert code == 0 and len(out.splitlines()) == 70, said
    code, out, said = both(run, prepared, one)
    assert code == 0 and len(out.splitlines()) == 80, said
    code, out, said = both(run, folder, "--part", "2/3")
    assert code == 0 and 10 < len(out.splitlines()) < 60, said


def test_a_damaged_prepared_set_is_left_out_in_its_turn(run, kept, tmp_path):
    """Where it begins, and in the middle, which leaves out the rows that are read together."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.xyz", frames(9))
    sets = [folder / "b.h5", folder / "c.h5"]
    for number, path in enumerate(sets):
        found = frames(60)
        for atoms in found:
            atoms.info["id"] += f"-{number}"
        refattn.prepare(refattn.open_source(write(tmp_path / "u.xyz", found)), path)
    write(folder / "d.xyz", frames(40)[20:])
    with h5py.File(sets[0], "r+") as file:
        file["structures/z"][file["structures/site_ptr"][30]] = 250
    sets[1].write_bytes(sets[1].read_bytes()[:5000])
    code, out, said = both(run, folder, "--skip-bad")
    assert code == 0 and len(out.splitlines()) == 9 + 60 - 7 + 20, said
    assert said.count("left out b:") == said.count("left out c:") == 1, said
    code, out, said = both(run, folder)
    assert code == 1 and "b.h5" in said and len(out.splitlines()) == 9 + 28


def test_pieces_of_large_structures_have_few(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "SITES", 30)
    found = [bulk("Cu", cubic=True) * (1, 1, n) for n in (1, 2, 3, 20, 1, 1, 1, 1)]
    for number, atoms in enumerate(found):
        atoms.info = {"id": f"c{number}"}
    text = write(tmp_path / "some.xyz", found)
    refattn.prepare(refattn.open_source(text), tmp_path / "set.h5")
    monkeypatch.setattr(pieces, "LARGE", 100)
    for path, sizes in ((text, [4, 4]), (tmp_path / "set.h5", [3, 1, 4])):
        cut = [[record.id for record in piece] for piece in pieces.pieces(open_files([path]))]
        assert [len(ids) for ids in cut] == sizes
        assert list(itertools.chain(*cut)) == [f"c{number}" for number in range(8)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_one_that_asked(run, tmp_path, how):
    """Killed, so that it can tell nobody; or interrupted with all of them, as a terminal does, while they start."""
    path = write(tmp_path / "some.xyz", frames(3000))
    text = (
        "import sys\nfrom refattn.cli.main import cli\nfrom refattn.data.sources import pieces\n"
        "from refattn.prediction import processes\npieces.LARGE = 2000\nprocesses.ALONE = 0\nprocesses.AHEAD = 1\n"
        "if __name__ == '__main__':\n    cli(sys.argv[1:])\n"
    )
    script = tmp_path / "predict.py"
    script.write_text(text)
    command = [sys.executable, str(script), "predict", str(run), str(path), "--threads", "2"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:
        children = []
        for _ in range(600):
            children = children_of(process.pid)
            if len(children) >= 3 or process.poll() is not None:  # with the tracker of resources
                break
            time.sleep(0.05)
        assert children and process.poll() is None
        if how == signal.SIGINT:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        if how != signal.SIGKILL:
            said = process.stderr.read()
            assert "Traceback" not in said and "Warning" not in said
    for _ in range(100):
        if not any(map(is_alive, children)):
            return
        time.sleep(0.1)
    raise AssertionError(f"{children} go on")


def test_sigterm_waits_for_a_process_that_is_half_started(run, tmp_path):
    """The signal comes when the first process runs and was not told yet what to do; another thread receives it."""
    path = write(tmp_path / "some.xyz", frames(300))
    script = tmp_path / "predict.py"
    script.write_text(
        "import multiprocessing.util, os, signal, sys, threading, time\nfrom refattn.cli.main import cli\n"
        "from refattn.data.sources import pieces\nfrom refattn.prediction import processes\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "pieces.LARGE = 2000\nprocesses.ALONE = 0\nstart = multiprocessing.util.spawnv_passfds\n"
        "def start_and_hear(path, args, fds):\n    pid = start(path, args, fds)\n"
        "    if '--multiprocessing-fork' in args:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(0.5)\n    return pid\n"
        "multiprocessing.util.spawnv_passfds = start_and_hear\n"
        "if __name__ == '__main__':\n    cli(sys.argv[1:])\n"
    )
    command = [sys.executable, str(script), "predict", str(run), str(path), "--threads", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def children_of(pid):
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            try:
                with open(f"/proc/{folder}/stat") as stream:
                    words = stream.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[1]) == pid:
                found.append(int(folder))
    return found


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
