"""Text and numbers of others through the commands; runs that are killed, states of another kind, unwritable streams."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase.build import molecule
from click.testing import CliRunner
from qm9_molecules import METHANE
from small_data import molecules, small_config, write_molecules

from refattn.cli import options
from refattn.cli.main import FAULT, cli
from refattn.cli.options import StatusLine, note
from refattn.config import to_toml
from refattn.data.sources.labels import LabelTable
from refattn.errors import RunError
from refattn.network.checkpoint import load_checkpoint, save_checkpoint
from refattn.prediction import run_directory
from refattn.training import train as module
from refattn.training.train import train


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    good = tmp_path_factory.mktemp("good")
    write_molecules(good / "data.h5", n=24)
    train(small_config(good / "data.h5", epochs=2), good / "run", n_threads=1)
    return good


def run(*words, status=0):
    result = CliRunner().invoke(cli, [*map(str, words)])
    assert result.exit_code == status, result.output
    assert FAULT not in result.output
    return result


def refused(*words):
    result = run(*words, status=1)
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("refattn: ")
    return result.stderr


IDS = ["\x1b[2Jm0", "=cmd|' /C calc'!A0", "-1", "a\x9bb", "$x$ β"]


def test_ids_of_others(place):
    """A terminal obeys none of them, a spreadsheet calculates none, and a table of labels has them back."""
    structures = molecules(len(IDS))
    for atoms, id in zip(structures, IDS):
        atoms.info["id"] = id
    ase.io.write("x.extxyz", structures, format="extxyz")
    for command in ("predict run x.extxyz --out x.csv", "predict run x.extxyz", "predict run x.extxyz --json"):
        assert run(*command.split()).output.replace("\n", "").replace("\t", "").isprintable()
    run(*["predict", "run", "x.extxyz", "--out", "x.h5", "--overwrite"])
    run(*["explain", "run", "x.extxyz", "--scores", "none", "--out", "e", "--no-pages", "--max-pictures", "1"])
    for path in ("x.csv", "e/sites.csv"):
        with open(path, newline="", encoding="utf-8") as stream:
            cells = {row["id"] for row in csv.DictReader(stream)}
        assert not any(cell.startswith(("=", "-")) for cell in cells)
    assert {*LabelTable("x.csv").rows} == {*IDS}
    ase.io.write("bad.extxyz", [structures[0], molecule("SO2")], format="extxyz")
    assert "\x1b" not in run(*["predict", "run", "bad.extxyz", "--skip-bad"]).stderr


@pytest.mark.usefixtures("drawn")
def test_units_and_labels_in_pictures(place):
    write_molecules("data.h5", n=24)
    with h5py.File("data.h5", "r+") as file:
        file["labels/spread"].attrs["unit"] = "$\\frac{"
    run("info", "data.h5", "--plot", "x.png")
    (place / "c.toml").write_text(to_toml(small_config("data.h5", epochs=1)))
    run(*["train", "c.toml", "--out", "new", "--threads", "1"])
    assert all((place / "new" / f"{name}.png").stat().st_size > 5000 for name in ("curve", "parity"))


def test_file_names_that_are_no_text(place):
    name = os.fsdecode(b"m\xff.xyz")
    ase.io.write(name, molecule("H2O"), format="extxyz")
    for suffix in ("csv", "json", "xyz", "h5"):
        assert "\\udcff" in run("predict", "run", name, "--out", f"x.{suffix}").output + (
            place / f"x.{suffix}"
        ).read_text(errors="replace")
    run("explain", "run", name, "--scores", "none", "--out", "e", "--no-pages")
    shutil.copytree("run", os.fsdecode(b"run\xff"))
    run("predict", os.fsdecode(b"run\xff"), name, "--json")
    run("explain", os.fsdecode(b"run\xff"), name, "--scores", "none", "--out", "f", "--no-pages")
    run("embed", os.fsdecode(b"run\xff"), name, "--out", "g")
    shutil.copy("data.h5", os.fsdecode(b"\xff.h5"))
    (place / "c.toml").write_text(to_toml(small_config("data.h5", epochs=1)))
    assert "text in UTF-8" in refused("train", "c.toml", "--data", os.fsdecode(b"\xff.h5"), "--out", "new")


def test_a_del_in_the_path_of_the_data(place):
    shutil.copy("data.h5", "a\x7fb.h5")
    (place / "c.toml").write_text(to_toml(small_config("a\x7fb.h5", epochs=1)))
    run(*["train", "c.toml", "--out", "new", "--threads", "1"])
    run("info", "new")
    run(*["train", "--out", "new", "--resume", "--threads", "1"])


@pytest.mark.parametrize("digits", [400, 5000])
def test_integers_of_many_digits(place, digits):
    number = "9" * digits
    for text in (METHANE.replace("5", number, 1), METHANE.replace("gdb 1", f"gdb {number}", 1)):
        (place / "dsgdb9nsd_000001.xyz").write_text(text)
        assert "restore" in refused("prepare", ".", "x.h5", "--keep-uncharacterized", "--format", "qm9")
    (place / "list.txt").write_text(f"{number} x\n")
    assert "lists no molecule" in refused("prepare", ".", "x.h5", "--uncharacterized", "list.txt", "--format", "qm9")
    element = {"material_id": "mp-1", "structure": "", "band_gap": 0}
    text = json.dumps([element]).replace('"band_gap": 0', f'"band_gap": {number}')
    (place / "mp.json").write_text(text)
    assert "mp.json" in refused("prepare", "mp.json", "x.h5", "--format", "materials_project")
    cell = "\n".join(f"_cell_{name} {value}" for name, value in zip(CELL, (4, 4, 4, 90, 90, 90)))
    site = "loop_\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\nNa 0 0 0\n"
    for tag in ("_chemical_formula_sum Na", "_cell_formula_units_z ", "_symmetry_Int_Tables_number "):
        (place / "x.cif").write_text(f"data_x\n{cell}\n{tag}{number}\n{site}")
        result = CliRunner().invoke(cli, ["prepare", "x.cif", "x.h5", "--overwrite", "--r-max", "6"])
        assert FAULT not in result.output


CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
OTHERS = {
    "history": [3, [3], [{}], [], [{"epoch": "1", "train_mae": 1, "valid_mae": 1, "seconds": 1}]],
    "place": [
        None,
        {},
        {**run_directory.EPOCH_START, "epoch": -1},
        {**run_directory.EPOCH_START, "batch": 10**6},
        {**run_directory.EPOCH_START, "epoch": 50},
    ],
    "schedule": [[], {}, {"rate": "fast"}],
    "digests": [3],
    "adam_step": [-1, "x", 1.5],
    "adam_m": [np.zeros(3)],
}


def test_states_of_another_kind(place):
    good = load_checkpoint("run/last.h5")
    for name, values in OTHERS.items():
        for value in values:
            checkpoint = load_checkpoint("run/last.h5")
            checkpoint.state = {**good.state, name: value}
            save_checkpoint("run/last.h5", checkpoint)  # with the right checksum
            with pytest.raises(RunError, match="lacks the state of the optimiser"):
                train(None, "run", n_threads=1, resume=True)


class Killed(BaseException):
    """As a kill -9, but that files of this process are closed."""


@pytest.mark.parametrize("writes", range(9))
def test_a_run_goes_on_from_every_moment(place, monkeypatch, writes):
    """A kill before the Nth file that a training writes; then the same command, or --resume, gives the same network."""
    done = []

    def counted(function):
        def write(path, *rest):
            if len(done) == writes:
                raise Killed
            done.append(path)
            function(path, *rest)

        return write

    config = small_config("data.h5", epochs=2)
    with monkeypatch.context() as patch:
        for name in ("save_checkpoint", "write_text", "write_split"):
            patch.setattr(module, name, counted(getattr(module, name)))
        with pytest.raises(Killed):
            train(config, "new", n_threads=1)
    has_begun = Path("new/last.h5").exists()
    assert has_begun == (writes > 0)
    train(None if has_begun else config, "new", n_threads=1, resume=has_begun)
    assert {path.name for path in Path("new").iterdir()} == {*run_directory.FILES} - {"roc.png"}
    for name in ("model.h5", "last.h5"):
        found, wanted = load_checkpoint(f"new/{name}"), load_checkpoint(f"run/{name}")
        assert found.params.vector.tobytes() == wanted.params.vector.tobytes()


@pytest.mark.parametrize("kind", ["--ensemble", "--folds"])
@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_run_does_not_become_several(good, kind, more):
    message = refused("train", "--data", good / "data.h5", "--out", good / "run", kind, 2, *more)
    assert "holds a single run" in message and "--resume" not in message


def test_a_file_that_another_program_writes(place):
    with h5py.File("data.h5", "r+"):
        code = "import sys; from refattn.cli.main import cli; cli(['info', 'data.h5'])"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "another program has it open for writing" in result.stderr


def test_a_stderr_that_nobody_reads(monkeypatch):
    class Broken:
        def isatty(self):
            return True

        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = write

    monkeypatch.setattr(sys, "stderr", Broken())
    note("text")
    StatusLine().update("text")
    StatusLine().line("text")
    monkeypatch.setattr(sys, "stderr", None)
    options.note("text")
    StatusLine().line("text")


def test_faults_of_our_own_are_said_to_be(monkeypatch):
    monkeypatch.setattr("refattn.cli.info.available_cores", lambda: [].pop())
    result = CliRunner().invoke(cli, ["info"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"refattn: {FAULT} (IndexError, pop from empty list); report it with")
    monkeypatch.setenv("REFATTN_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(cli, ["info"]).exception, IndexError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_stdout():
    code = "import sys; from refattn.cli.main import cli; cli(['data', 'list'])"
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "the system refuses" in result.stderr
    assert signal.getsignal(signal.SIGPIPE)


def test_units_that_only_a_name_says_are_printed(place):
    structures = molecules(3)
    for number, atoms in enumerate(structures):
        atoms.info = {"id": f"m{number}", "homo": -0.2, "lumo": 0.1, "spread": 1.0}
    ase.io.write("x.extxyz", structures, format="extxyz")
    (place / "t.csv").write_text("id,gap (Hartree)\nm0,1\nm1,2\nm2,3\n")
    said = run("prepare", "x.extxyz", "x.h5", "--labels", "t.csv", "--unit", "lumo=Hartree").output
    assert "not given is the usual one of the name: homo (eV); for another give --unit NAME=UNIT" in said
    assert "labels: gap (Hartree) of 3, homo (eV) of 3, lumo (Hartree) of 3, spread (no unit) of 3" in said
    said = run("prepare", "x.extxyz", "x.h5", "--unit", "gpa=eV").output
    assert "the unit of gpa is given, which is no label; there are homo, lumo, spread" in said
    for number, atoms in enumerate(structures):
        atoms.info = {"id": f"n{number}", "lumo": 0.1}
    ase.io.write("y.extxyz", structures, format="extxyz")
    said = run("prepare", "y.extxyz", "x.h5", "--append", "--unit", "homo=Hartree").output
    assert "the unit of homo is given, which is no label; there are lumo" in said
    said = refused("prepare", "y.extxyz", "x.h5", "--append", "--r-max", "5", "--omega-min", "0.4")
    assert "it was made with r_max 4.0 (here: 5.0); append" in said


def test_an_experiment_that_does_not_exist(place):
    for name in ("mine.toml", "qm9_gap10k", 300 * "n"):
        message = refused("train", name, "--data", "data.h5")
        assert f"{name}: there is no such file, and no such experiment; the experiments are " in message
        assert "qm9_gap_10k" in message
    assert "molecules: is a built-in data set and no experiment; give it as --data molecules" in refused(
        "train", "molecules"
    )
    said = refused("train", "--data", "fullerenes")
    assert "no such built-in data set; there are molecules, fullerene, pt-graphene" in said
    said = refused("train", "fullerene")
    assert "fullerene_md_upstream.h5, which fullerene trains on: there is no such file; give your data set by" in said


TABLE = "id,a\nm0,1\n"
REFUSED = {
    "predict run labels.csv": "has no column smiles, so it holds no structures; name it so, or give a table of labels",
    "prepare s.extxyz x.h5 --labels nothere.csv": "nothere.csv: there is no such file; check the path of the table",
    "predict molecule-orbitals s.extxyz": "(crystals, fullerenes, molecules-b3lyp, molecules-orbitals)",
    "predict run s.extxyz --out nodir/x.csv": "nodir/x.csv: cannot be written, there is no folder nodir; make it, or",
    "prepare s.extxyz nodir/x.h5": "nodir/x.h5: cannot be written, there is no folder ",
    "neighbours s.extxyz --out nodir/x.h5": "nodir/x.h5: cannot be written, there is no folder nodir; make it, or",
    "evaluate run --attention homo=site": "--attention homo=site: the model has no such target; choose one of spread",
    "train --out run --resume --ensemble 3": "run: holds a single run and no ensemble; leave --ensemble out, or choose",
    "train --out run --resume --folds 3": "run: holds a single run and no folds; leave --folds out, or choose another",
    "verify data.h5": "data.h5: is a file, and no directory of a run; give the directory of a run of `refattn train`",
    "train --data data.h5 --target spread --set training.attention=site": 'such as { homo = "homo_population" }',
    "train --data none.h5 --target spread": "none of the 3 structures has a known spread; choose another label or",
    "train --data one.h5 --target spread --folds 2": "1 structure with the label cannot fill every part of the split;",
    "train --data one.h5 --target spread": "needs more than the 1 with the label; give a data set with more",
}


def test_messages_name_what_was_typed(place):
    ase.io.write("s.extxyz", molecules(2), format="extxyz")
    (place / "labels.csv").write_text(TABLE)
    write_molecules("none.h5", n=3, labels=[np.nan] * 3)
    write_molecules("one.h5", n=1)
    for command, message in REFUSED.items():
        said = refused(*command.split())
        assert message in said, command
        assert "Errno" not in said and ".part" not in said


def test_files_of_a_newer_version(place):
    reading = {
        "run/model.h5": "info run",
        "run/calibration.h5": "evaluate run --coverage 0.5",
        "data.h5": "info data.h5",
    }
    for path, command in reading.items():
        shutil.copy(path, "kept")
        with h5py.File(path, "r+") as file:
            file.attrs["version"] = 99
        said = refused(*command.split())
        assert "version 99, and this refattn reads version 1; a newer refattn wrote it: install that one" in said
        shutil.copy("kept", path)
    commands = {"split": "--data data.h5 --target spread --set data.split=split.json", "ensemble": "--out new --resume"}
    (place / "new").mkdir()
    for name, command in commands.items():
        path = place / ("new" if name == "ensemble" else "") / f"{name}.json"
        path.write_text(json.dumps({"format": f"refattn-{name}", "version": 99}))
        said = refused("train", *command.split())
        assert f"{name}.json: is a refattn-{name} of version 99, and this refattn reads version 1; a newer" in said


def test_one_is_one(place):
    """No command speaks of 1 structures."""
    ase.io.write("one.extxyz", molecules(1), format="extxyz")
    plain = "--scores none --no-pages --max-pictures 0"
    commands = ("neighbours one.extxyz --out x.csv", "predict run one.extxyz", "prepare one.extxyz x.h5")
    for words in (*commands, "embed run one.extxyz --out new", f"explain run one.extxyz --out new {plain}"):
        said = run(*words.split()).output
        assert "1 structure" in said and not re.search(r"\b1 [a-z]+s\b", said)


def test_nothing_is_said_of_nothing_nor_twice(place):
    ase.io.write("one.extxyz", molecules(1), format="extxyz")
    assert "structures\t" not in run("embed", "run", "one.extxyz", "--out", "new").stdout
    said = run("prepare", "one.extxyz", "x.h5", "--r-max", "0.5").stdout
    assert "0 edges" in said and "note: no site has a neighbour up to 0.5 Å" in said
    assert run("evaluate", "run", "--coverage", "0.5").output.count("drawn as the") == 1
    assert run("predict", "run", "one.extxyz", "--coverage", "0.5").output.count("drawn as the") == 1
