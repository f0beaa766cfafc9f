"""Damaged inputs through the command line: one sentence, exit status 1 or 2, no traceback, nothing half-written.

`good` holds intact files of every kind; a case copies it, damages one file and runs a command that reads this file.
"""

import contextlib
import shutil
import signal
import subprocess
import sys
import tarfile
import warnings

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner
from damage import cut, cut_in_a_line, drops, fills, flip, folder, put, remove, swap, swaps, texts, values
from qm9_molecules import METHANE
from small_data import molecules, small_config, write_molecules
from upstream_fixtures import unpack_model

from refattn.cli.main import cli
from refattn.config import to_toml
from refattn.data.store import read_dataset
from refattn.training.train import train

NAN, INF = float("nan"), float("inf")
CELL = "0 2.8 2.8 2.8 0 2.8 2.8 2.8 0"
WATER = """3
Properties=species:S:1:pos:R:3 id=w1 gap=7
O 0 0 0.1
H 0 0.75 -0.5
H 0 -0.75 -0.5
"""
SALT = f"""2
Lattice="{CELL}" Properties=species:S:1:pos:R:3 id=salt gap=1.25 pbc="T T T"
Na 0 0 0
Cl 2.8 2.8 2.8
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Intact files of every kind that refattn reads."""
    good = tmp_path_factory.mktemp("good")
    for name, text in {"water": WATER, "salt": SALT, "set": WATER + SALT}.items():
        (good / f"{name}.extxyz").write_text(text)
    (good / "folder").mkdir()
    ase.io.write(good / "folder" / "salt.cif", bulk("NaCl", "rocksalt", a=5.6))
    ase.io.write(good / "folder" / "POSCAR", bulk("Cu"))
    (good / "labels.csv").write_text("id,gap\nsalt,8.5\nPOSCAR,0\n")
    (good / "dsgdb9nsd_000001.xyz").write_text(METHANE)
    with tarfile.open(good / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        archive.add(good / "dsgdb9nsd_000001.xyz", "dsgdb9nsd_000001.xyz")
    ase.io.write(good / "molecules.extxyz", molecules(3), format="extxyz")
    write_molecules(good / "data.h5", n=24)
    config = small_config(good / "data.h5", epochs=1)
    (good / "config.toml").write_text(to_toml(config))
    train(config, good / "run", n_threads=1)
    for picture in (good / "run").glob("*.png"):
        picture.unlink()
    unpack_model("s_plus", good)
    return good


@pytest.fixture
def place(good, tmp_path, monkeypatch):
    """A copy of the good files as the working directory."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)
    yield tmp_path
    signal.signal(signal.SIGINT, handler)  # `refattn train` takes Ctrl-C


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def run(command):
    """The command in this process, without a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = CliRunner().invoke(cli, command.split())
    assert not caught, [str(warning.message) for warning in caught]
    return result


def check_refusal(result, before, place):
    """One sentence on stderr, and every file as it was."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    check_message(result.exit_code, result.stderr)
    assert files(place) == before


def check_message(status, stderr):
    lines = stderr.splitlines()
    assert "Traceback" not in stderr
    if status == 2:
        assert lines[0].startswith("Usage: ") and lines[-1].startswith("Error: ")
        return
    assert status == 1
    assert len(lines) == 1 and lines[0].startswith("refattn: ") and len(lines[0]) < 700, stderr
    assert "; " in lines[0]  # what is wrong; what to do


PARTS = (0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
CUTS = {f"cut at {part}": cut(part) for part in PARTS}
LINES = {f"cut in a line at {part}": cut_in_a_line(part) for part in PARTS}
JUNK = {
    "binary": put(b"\x00\x01\x02\xff\xfe" * 40),
    "text": put("nothing"),
    "HDF5 mark": put(b"\x89HDF\r\n\x1a\n" + bytes(200)),
    "a folder": folder,
    "missing": remove,
}
OTHER = {name: JUNK[name] for name in ("binary", "text", "HDF5 mark")}  # for files in a folder, which may be missing


ATOM = swaps(
    "O 0 0 0.1",
    *("O 0 nan 0.1", "O inf 0 0.1", "O 1e300 0 0", "Xx 0 0 0", "X 0 0 0", "119 0 0 0", "O 0 0.75 -0.5"),
    *("O 0 0", "O 0 0 0.1 7", "O 0 0 zero", "\0", ""),
)
FRAME = {
    **swaps("3\n", "2\n", "4\n", "0\n", "-3\n", "3.5\n", "three\n", "99999999999999999999\n"),
    **swaps("species:S:1:pos:R:3", "pos:R:3", "species:S:1", "species:S:1:pos:R:2", "a:b", ":"),
}
PERIODS = {
    **swaps(CELL, "0 0 0 0 0 0 0 0 0", "1 2 3", "nan 0 0 0 1 0 0 0 1", "1 0 0 2 0 0 0 0 1", "1e300 0 0 0 1 0 0 0 1"),
    **swaps(CELL, "1e-3 0 0 0 1e3 0 0 0 1e3", "0 1e-4 1e-4 1e-4 0 1e-4 1e-4 1e-4 0", "a b c d e f g h i"),
    **swaps("Cl 2.8 2.8 2.8", "Cl 2.8 2.8 nan", "Cl 0 0 0", "Cl 1e30 0 0", "Cl 1e18 0 0", "Cl 5.6 5.6 0"),
}
LABELS = swaps("gap=7", "gap=inf", "gap=1e999", "gap=1e200", "gap=7,5", "gap=7eV", "gap=0x7")
TWICE = swaps("id=w1", "id=salt")
TABLE = texts(
    *("id,gap\nsalt,x\nPOSCAR,0\n", "id,gap\nsalt,1e999\nPOSCAR,0\n", "id,gap\nsalt\nPOSCAR,0\n", "id\nsalt\nPOSCAR\n"),
    *("id;gap\nsalt,1\nPOSCAR,0\n", "id,gap\nsalt,1,2\nPOSCAR,0\n", "id,gap\ngold,1\n", "id,\nsalt,1\nPOSCAR,2\n"),
    *("salt,1\nPOSCAR,1\n", "id,gap,gap\nsalt,1,2\nPOSCAR,0,0\n", "id,a/b\nsalt,1\nPOSCAR,1\n"),
    *('id,gap\n"salt,1\nPOSCAR,0\n', "id,gap\nsalt,1\nsalt,1\nPOSCAR,0\n", "id,gap\nsalt,inf\nPOSCAR,0\n"),
)
TOML = texts(
    *("x = " + "9" * 5000, "x = " + "[" * 5000, "[model]\nradial_max = " + "9" * 400, "[model]\nn_layers = 1000000"),
    *(
        "[model]\nwidth = -8",
        "[model]\nwidth = 'a'",
        "[model]\nn_heads = 3",
        "[modle]",
        "[model]\nfoo = 1",
        "model = 3",
    ),
    *("[data]\ntarget = 'nothing'", "[data]\ntarget = 'spread'\nn_train = 1000", "[training]\nlearning_rate = nan"),
    *("[training]\nseed = 99999999999999999999", "[training]\nepochs = true", "[model]\nn_radial = 0"),
    *("[training]\ndtype = 'float16'", "[data]\ntarget = 'spread'\n[graph]\nr_max = 7.0", "\ufeff[model]"),
    *("[data]\ntarget = 'spread'\n[model]\nring = true", "[data]\ntarget = 'spread'\n[model]\nn_elements = 3"),
)
STORE = {
    **drops("structures/z", "graph/nbr", "structures/id", "skipped", "graph@r_max", "@format", "@version", "arrays"),
    **drops("labels", "graph", "structures"),
    **values("@format", "other", 3),
    **values("@version", 2, "x"),
    **values("graph@rule", "x"),
    **values("graph@r_max", "x", NAN),
    **values("graph/nbr", np.arange(3)),
    **values("structures/z", np.zeros(128), np.full(128, 200)),
    **values("structures/id", np.arange(24), np.array([b"\xff"] * 24), np.array([b"a"] * 24)),
    **values("labels/spread", np.array([b"a"] * 24), np.zeros((24, 2)), np.linspace(1, 2, 24) * 1e300),
    **values("structures/site_ptr", np.full(25, -1), np.arange(25)),
    **values("graph/edge_ptr", np.full(129, 2**60)),
}
ROWS = fills(graph__nbr=999, graph__r=NAN, graph__omega=-1, graph__omega_max=0, structures__z=0, labels__spread=INF)
MODEL = {
    **drops("parameters", "parameters/hidden_w", "config", "elements", "split", "split/test", "@format", "@version"),
    **drops("@mean", "@std", "@unit"),
    **values("@format", "other"),
    **values("@version", 2),
    **values("@mean", NAN, "x", 1.0),
    **values("@std", INF, 0.0),
    **values("config", "", "[model]\nn_layers = 3\n", "x = " + "[" * 5000, 3),
    **values("elements", np.array([-1, 200]), np.array([1e30]), 3),
    **values("split/train", np.arange(4), np.array([b"m0", b"m0"]), 3),
    **values("parameters/hidden_w", np.zeros((3, 3)), np.array([b"a"]), np.zeros((16, 16), complex)),
    **values("parameters/output_b", np.array([NAN]), np.array([1e300]), np.array([0.5])),
}
STATE = {
    **drops("state", "state/adam_m", "state/place"),
    **values("state/adam_m", np.zeros(3), "x"),
    **values("state/adam_step", "-1", "1e999"),
    **values("state/place", "{}", "{", '{"epoch": -1}'),
    **values("state/history", "3", "[]"),
}
KERAS = {
    **drops("model_weights", "@model_config", "model_weights@layer_names"),
    **values("@model_config", "", "[]", '{"config": {"layers": 3}}'),
}
ALONE = ("prepare {} out.h5", "predict run {} --out out.json")
CONTENT = ("prepare {} out.h5",)
# File, ways to damage it, commands that read it ({} stands for the file).
CASES = [
    ("water.extxyz", {**CUTS, **JUNK, **ATOM, **FRAME}, ALONE),
    ("salt.extxyz", PERIODS, (*CONTENT, "prepare {} out.h5 --rule upstream")),
    ("set.extxyz", {**LABELS, "cut": cut(0.6)}, CONTENT),
    ("molecules.extxyz", {"cut": cut(0.6)}, ("predict run {}", "predict run {} --out out.xyz")),
    (
        "labels.csv",
        {**{what: CUTS[what] for what in CUTS if what != "cut at 0.5"}, **JUNK, **TABLE},
        ("prepare folder out.h5 --labels {}",),
    ),
    ("dsgdb9nsd.xyz.tar.bz2", {**CUTS, **JUNK}, ("prepare {} out.h5 --keep-uncharacterized",)),
    ("dsgdb9nsd_000001.xyz", {**CUTS, **OTHER}, ("prepare . out.h5 --keep-uncharacterized",)),
    ("data.h5", {**CUTS, **JUNK, **STORE}, ("info {}", "prepare water.extxyz {} --append")),
    ("data.h5", {**ROWS, "junk": put("x")}, ("train config.toml --data {} --out new", "evaluate run --data {}")),
    ("data.h5", drops("labels/spread"), ("evaluate run --data {} --out out.csv", "train config.toml --data {}")),
    ("data.h5", values("labels/spread", np.full(24, NAN)), ("evaluate run --data {} --out out.csv",)),
    ("config.toml", {**LINES, **JUNK, **TOML}, ("train {} --data data.h5 --out new --epochs 1",)),
    ("config.toml", {"cut": cut_in_a_line(0.5)}, ("gradcheck {}",)),
    ("run/model.h5", {**CUTS, **JUNK}, ("info run", "evaluate run --out out.csv", "train --out run --resume")),
    ("run/model.h5", MODEL, ("predict run molecules.extxyz --out out.h5",)),
    ("run/model.h5", {"cut": cut(0.8)}, ("train config.toml --out new --init run",)),
    ("run/last.h5", {**CUTS, **JUNK, **STATE}, ("train --out run --resume",)),
    ("run/metrics.json", {**CUTS, **OTHER, "a folder": folder, **texts("[" * 100000)}, ("info run",)),
    ("s_plus.h5", {**CUTS, **JUNK, **KERAS}, ("import-keras {} new --target homo",)),
]
# Options that cannot be met. water.extxyz/x is a path below a file, where not even root can write.
OPTIONS = """
prepare water.extxyz water.extxyz/x.h5
prepare water.extxyz none/x.h5
prepare water.extxyz folder
predict run molecules.extxyz --out water.extxyz/x.csv
predict run molecules.extxyz --out none/x.h5
predict run molecules.extxyz --out out.png
predict run molecules.extxyz --out folder
predict run
predict run molecules.extxyz --out none/x.json
predict run molecules.extxyz --out water.extxyz/x.xyz
predict run set.extxyz --out out.csv
predict none molecules.extxyz
predict run none.xyz
predict run molecules.extxyz --out molecules.extxyz
predict run molecules.extxyz --out ./folder/../molecules.extxyz
predict run/model.h5 molecules.extxyz --out run/model.h5
evaluate run --data data.h5 --out data.h5
prepare water.extxyz water.extxyz
prepare folder folder/POSCAR
prepare folder labels.csv --labels labels.csv
info none
evaluate run --out none/x.csv
evaluate run --out water.extxyz/x.csv
evaluate folder
evaluate data.h5
train config.toml --out water.extxyz
train config.toml --out water.extxyz/x
train none.toml
train folder
train config.toml --out new --data none.h5
train config.toml --out new --init none
train --resume
train config.toml --out new --set model.foo=1
train config.toml --out new --set foo
train --out none --resume
train config.toml --out new --set model.width=99999999
train config.toml --out new --epochs 0
train config.toml --out new --target none
train config.toml --out run
train config.toml --out new --init s_plus.h5
import-keras s_plus.h5 water.extxyz --target x
import-keras s_plus.h5 run --target x
import-keras s_plus.h5 new
import-keras s_plus.h5 new --target x --std 0
import-keras s_plus.h5 new --target x --mean nan
import-keras s_plus.h5 new --target x --omega-min nan
prepare water.extxyz out.h5 --r-max -1
prepare water.extxyz out.h5 --omega-min nan
prepare water.extxyz out.h5 --limit 0
prepare water.extxyz run
prepare water.extxyz out.h5 --labels none.csv
prepare water.extxyz out.h5 --unit gap
info config.toml
prepare water.extxyz data.h5 --append --rule upstream
prepare molecules.extxyz data.h5 --append
evaluate run --threads 0
predict run molecules.extxyz --device none
gradcheck none.toml
nothing
""".strip().splitlines()


@pytest.mark.parametrize(
    ("name", "damage", "command"),
    [
        pytest.param(name, damage, command, id=f"{command.format(name)}: {what}".encode("unicode_escape").decode())
        for name, damages, commands in CASES
        for what, damage in damages.items()
        for command in commands
    ],
)
def test_damaged_files(place, name, damage, command):
    damage(place / name)
    before = files(place)
    check_refusal(run(command.format(name)), before, place)


# File, ways to damage it, a command that goes on without what is damaged.
LEFT_OUT = [
    ("folder/salt.cif", {**CUTS, **OTHER}, "prepare folder out.h5"),
    ("folder/POSCAR", {**CUTS, **OTHER}, "prepare folder out.h5"),
    (
        "set.extxyz",
        {**TWICE, **swaps("O 0 0 0.1", "Xx 0 0 0", "O 0 0", "O 0 0 nan", "O 0 0.75 -0.5")},
        "prepare {} out.h5",
    ),
    ("labels.csv", texts("id,gap\nsalt,1\n"), "prepare folder out.h5 --labels {}"),
]


@pytest.mark.parametrize(
    ("name", "damage", "command"),
    [
        pytest.param(
            name, damage, command, id=f"{command.format(name)}: {name} {what}".encode("unicode_escape").decode()
        )
        for name, damages, command in LEFT_OUT
        for what, damage in damages.items()
    ],
)
def test_damaged_structures_are_left_out(place, name, damage, command):
    damage(place / name)
    before = files(place)
    result = run(command.format(name))
    assert result.exit_code == 0, result.output
    assert "1 structure, 1 left out" in result.stdout.splitlines()[-1]
    (reason,) = (reason for _, reason in read_dataset(place / "out.h5").skipped)
    assert "; " in reason and len(reason) < 600
    assert {file: content for file, content in files(place).items() if file != "out.h5"} == before


@pytest.mark.parametrize("command", OPTIONS)
def test_impossible_options(place, command):
    before = files(place)
    check_refusal(run(command), before, place)


FLIPPED = {
    "data.h5": "evaluate run --data data.h5 --out result",
    "run/model.h5": "predict run molecules.extxyz --out result.csv",
    "run/last.h5": "train --out run --resume",
    "dsgdb9nsd.xyz.tar.bz2": "prepare dsgdb9nsd.xyz.tar.bz2 result --keep-uncharacterized",
}


@pytest.fixture(scope="module")
def wanted(good, tmp_path_factory):
    """The results of the commands in FLIPPED for intact files."""
    results = {}
    for name, command in FLIPPED.items():
        place = tmp_path_factory.mktemp("wanted")
        shutil.copytree(good, place, dirs_exist_ok=True)
        with contextlib.chdir(place):
            assert run(command).exit_code == 0
        results[name] = results_in(place)
    return results


def results_in(place):
    """The files that the commands of FLIPPED make."""
    return {path.name: path.read_bytes() for path in (*place.glob("result*"), *place.glob("run/predictions.csv"))}


@pytest.mark.parametrize("n_bytes", [1, 30])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FLIPPED)
def test_changed_bytes_are_found_or_do_no_harm(place, wanted, name, seed, n_bytes):
    """Data sets and models carry checksums: a flipped byte is an error, unless it lies where nothing is read."""
    flip(seed, n_bytes)(place / name)
    before = files(place)
    result = run(FLIPPED[name])
    if result.exit_code:
        check_refusal(result, before, place)
    else:
        assert results_in(place) == wanted[name]


@pytest.mark.parametrize("seed", range(6))
def test_changed_bytes_of_keras_models(place, seed):
    """Keras files have no checksum, so a flipped byte of a weight cannot be found; the run is complete or absent."""
    flip(seed, 60)(place / "s_plus.h5")
    before = files(place)
    result = run("import-keras s_plus.h5 new --target homo")
    if result.exit_code:
        check_refusal(result, before, place)
    else:
        assert {path.name for path in (place / "new").iterdir()} == {"model.h5", "config.toml"}
        assert run("info new").exit_code == 0


@pytest.mark.parametrize("damage", [remove, cut(0.5), put(b"\xff\x00")], ids=["missing", "cut", "binary"])
@pytest.mark.parametrize("name", ["config.toml", "predictions.csv", "log.jsonl"])
def test_files_for_people_are_not_read(place, name, damage):
    """model.h5 and last.h5 hold everything: what else lies in a run directory may be damaged."""
    damage(place / "run" / name)
    for command in ("predict run molecules.extxyz --out out.csv", "evaluate run", "info run"):
        assert run(command).exit_code == 0


def test_a_structure_without_a_graph_is_left_out_and_recorded(place):
    swap("O 0 0 0.1", "O 0 nan 0.1")(place / "set.extxyz")
    result = run("prepare set.extxyz out.h5")
    assert result.exit_code == 0
    assert "w1: the position of atom 0 is not finite" in result.stdout


@pytest.mark.parametrize(
    ("name", "damage", "command"),
    [
        ("run/model.h5", flip(3, 200), "predict run molecules.extxyz --out out.csv"),
        ("config.toml", put("[model]\nfoo = 1"), "train config.toml --out new"),
    ],
)
def test_in_a_process_of_its_own(place, name, damage, command):
    damage(place / name)
    before = files(place)
    result = subprocess.run(
        [sys.executable, "-m", "refattn.cli.main", *command.split()], capture_output=True, text=True
    )
    check_message(result.returncode, result.stderr)
    assert result.stdout == ""
    assert files(place) == before


def test_there_are_enough_cases():
    assert sum(len(damages) * len(commands) for _, damages, commands in CASES) + len(OPTIONS) > 400
