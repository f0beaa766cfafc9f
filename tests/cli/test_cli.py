"""The command line from end to end, in process, and the authors' models through import-keras and predict."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ase
import ase.io
import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from small_data import label, molecules
from upstream_fixtures import VARIANTS, open_network, unpack_model, variant

from refattn.cli import options
from refattn.cli.main import COMMANDS, cli
from refattn.cli.train import read_settings
from refattn.config import load_config
from refattn.prediction.predictor import Model
from refattn.prediction.run_directory import free_directory

GRAPHS = Path(__file__).parents[1] / "data" / "graphs.h5"
SMALL = """
[model]
n_layers = 1
width = 16
n_heads = 4
global_width = 16
head_width = 16
embedding_width = 8
n_elements = 10
[data]
target = "spread"
[training]
epochs = 2
batch_size = 8
"""


def run(*arguments):
    """The command in this process; it must end well."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr or repr(result.exception)
    return result


def refused(status, *arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == status, repr(result.exception)
    return result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Structures, a configuration, and what prepare and train make of them."""
    folder = tmp_path_factory.mktemp("cli")
    images = molecules(40)
    for atoms in images:
        atoms.info["spread"] = label(atoms)
    ase.io.write(folder / "set.extxyz", images, format="extxyz")
    (folder / "small.toml").write_text(SMALL)
    run("prepare", folder / "set.extxyz", folder / "set.h5", "--unit", "spread=Å")
    run("train", folder / "small.toml", "--data", folder / "set.h5", "--out", folder / "run")
    return folder


# ---- documentation -------------------------------------------------------------------------------------------------


def all_commands(group=cli, name="refattn"):
    """(name, command) of every command, those of groups within groups too."""
    for child in group.list_commands(None):
        command = group.get_command(None, child)
        yield f"{name} {child}", command
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{name} {child}")


@pytest.mark.parametrize(("name", "command"), [pytest.param(*pair, id=pair[0]) for pair in all_commands()])
def test_every_command_and_option_is_documented(name, command):
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, f"{name}: {parameter.name}"
    output = run(*name.split()[1:], "--help").stdout
    assert output.startswith("Usage: ")
    for argument in (p for p in command.params if isinstance(p, click.Argument)):
        assert argument.make_metavar(click.Context(command)).strip("[].") in command.help.upper() + output


def test_the_list_of_commands_is_complete():
    output = run("--help").stdout
    assert all(f"  {name}  " in output for name in COMMANDS)
    assert all(text.endswith(".") for text in COMMANDS.values())


def test_help_is_quick_and_imports_nothing_large():
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from refattn.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "large = {'numpy', 'numba', 'ase', 'h5py', 'scipy', 'matplotlib'} & sys.modules.keys()\n"
        "print(time.perf_counter() - start, *sorted(large), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *large = result.stderr.split()
    assert not large
    assert float(seconds) < 1  # 0.1 s on an idle machine; a busy one is slow


# ---- prepare, train, evaluate, predict, info -----------------------------------------------------------------------


def test_prepare_reports_as_json(folder, tmp_path):
    report = json.loads(run("prepare", folder / "set.extxyz", tmp_path / "set.h5", "--json", "--limit", 7).stdout)
    assert report["n_structures"] == 7
    assert report["n_skipped"] == 0


def test_evaluate_equals_metrics_json(folder):
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    summary = json.loads(run("evaluate", folder / "run", "--json").stdout)
    for part in ("train", "valid", "test"):
        assert summary[part] == metrics[part]
    assert summary["unit"] == "Å"
    assert "spread (Å)" in run("evaluate", folder / "run").stdout


def test_evaluate_on_another_set_leaves_out_what_was_trained_on(folder, tmp_path):
    """By the graphs, whatever they are called, and of what is left all is evaluated."""
    images = ase.io.read(folder / "set.extxyz", ":11")
    parts = json.loads((folder / "run" / "split.json").read_text())
    ids = [f"m{number}" for number in range(11)]
    n_trained, n_validated = (len({*ids} & {*parts[name]}) for name in ("train", "valid"))
    assert n_trained and n_validated
    for number, atoms in enumerate(images):
        atoms.info["id"] = f"n{number}"
    ase.io.write(tmp_path / "renamed.extxyz", images, format="extxyz")
    run("prepare", tmp_path / "renamed.extxyz", tmp_path / "renamed.h5")
    result = run("evaluate", folder / "run", "--data", tmp_path / "renamed.h5", "--json")
    assert json.loads(result.stdout)["test"]["n"] == 11 - n_trained - n_validated
    counts = f"trained on {n_trained} of these 11 structures, and validated on {n_validated}: left out"
    assert counts in result.stderr
    run("prepare", folder / "set.extxyz", tmp_path / "set.h5", "--limit", 11)
    options = ["--keep-seen", "--json", "--out", tmp_path / "out.csv"]
    result = run("evaluate", folder / "run", "--data", tmp_path / "set.h5", *options)
    assert json.loads(result.stdout)["test"]["n"] == 11
    assert "kept, as --keep-seen asks" in result.stderr
    wanted = {row["id"]: row["prediction"] for row in rows_of(folder / "run" / "predictions.csv")}
    found = {row["id"]: row["prediction"] for row in rows_of(tmp_path / "out.csv")}
    assert len(found) == 11
    for id, value in found.items():
        assert float(value) == pytest.approx(float(wanted[id]), rel=1e-5)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_predictions_are_the_same_in_every_format(folder, tmp_path):
    source, paths = (
        folder / "set.extxyz",
        {s: tmp_path / f"out{s}" for s in (".csv", ".json", ".xyz", ".extxyz", ".h5")},
    )
    for path in paths.values():
        assert f"40 structures, written to {path}" in run("predict", folder / "run", source, "--out", path).stderr
    table = rows_of(paths[".csv"])
    ids, value = [row["id"] for row in table], np.array([float(row["spread (Å)"]) for row in table])
    assert ids == [f"m{number}" for number in range(40)]
    records = json.loads(paths[".json"].read_text())
    assert [record["id"] for record in records] == ids
    assert [record["spread"] for record in records] == value.tolist()
    assert {record["unit"] for record in records} == {"Å"}
    attention = [record["attention"] for record in records]
    assert paths[".extxyz"].read_bytes() == paths[".xyz"].read_bytes()
    frames = ase.io.read(paths[".xyz"], ":")
    assert [frame.info["id"] for frame in frames] == ids
    np.testing.assert_allclose([frame.info["predicted_spread"] for frame in frames], value, rtol=1e-7)
    for frame, expected in zip(frames, attention, strict=True):
        np.testing.assert_allclose(frame.arrays["attention"], expected, atol=1e-8)
    with h5py.File(paths[".h5"]) as file:
        assert dict(file.attrs) == {"format": "refattn-predictions", "version": 1, "target": "spread", "unit": "Å"}
        assert file["id"].asstr()[:].tolist() == ids
        assert file["value"][:].tolist() == value.tolist()
        assert np.diff(file["site_ptr"][:]).tolist() == [len(part) for part in attention]
        assert file["attention"][:].tolist() == [number for part in attention for number in part]


def test_predictions_on_stdout(folder):
    plain = run("predict", folder / "run", folder / "set.extxyz").stdout.splitlines()
    lines = run("predict", folder / "run", folder / "set.extxyz", "--json").stdout.splitlines()
    assert len(plain) == len(lines) == 40
    for text, record in zip(plain, map(json.loads, lines), strict=True):
        assert text == f"{record['id']}\t{record['spread']:.6g} Å"
        assert sum(record["attention"]) == pytest.approx(1, abs=1e-6)
    for files, third in (([folder / "set.extxyz"], plain[2::3]), (3 * [folder / "set.extxyz"], plain)):
        assert run("predict", folder / "run", *files, "--part", "3/3").stdout.splitlines() == third


def test_info(folder):
    for path, wanted in (
        (folder / "run", {"target": "spread", "unit": "Å", "elements": ["H", "C", "N", "O"]}),
        (folder / "run" / "last.h5", {"target": "spread"}),
        (folder / "set.h5", {"structures": 40, "skipped": 0}),
    ):
        facts = json.loads(run("info", path, "--json").stdout)
        assert {name: facts[name] for name in wanted} == wanted
        assert all(name in run("info", path).stdout for name in facts)
    assert json.loads(run("info", "--json").stdout)["versions"].keys() >= {"python", "numpy", "numba", "ase"}


def test_evaluate_says_when_the_graphs_are_others(folder, tmp_path):
    run("prepare", folder / "set.extxyz", tmp_path / "set.h5", "--r-max", 3)
    result = run("evaluate", folder / "run", "--data", tmp_path / "set.h5")
    assert "prepared with r_max 3.0, the model was trained with r_max 4.0;" in result.stderr


def test_evaluate_refuses_another_unit_and_elements_never_seen(folder, tmp_path):
    run("prepare", folder / "set.extxyz", tmp_path / "nm.h5", "--unit", "spread=nm")
    message = refused(1, "evaluate", folder / "run", "--data", tmp_path / "nm.h5")
    assert "spread is in nm, the model predicts it in Å" in message
    strange = molecules(3)
    strange[1].numbers[0] = 9
    for atoms in strange:
        atoms.positions *= 1.01
        atoms.info["spread"] = label(atoms)
    ase.io.write(tmp_path / "f.extxyz", strange, format="extxyz")
    run("prepare", tmp_path / "f.extxyz", tmp_path / "f.h5")
    assert "structure m1 holds F," in refused(1, "evaluate", folder / "run", "--data", tmp_path / "f.h5")
    result = run("evaluate", folder / "run", "--data", tmp_path / "f.h5", "--skip-bad", "--json")
    assert json.loads(result.stdout)["test"]["n"] == 2
    assert "left out m1: structure m1 holds F" in result.stderr


@pytest.mark.usefixtures("drawn")
def test_an_empty_test_set_and_a_label_without_spread(folder, tmp_path):
    """What is not defined is null in JSON, which has no NaN, and a dash in the table."""
    parts = {"train": [f"m{i}" for i in range(30)], "valid": ["m30"], "test": []}
    (tmp_path / "split.json").write_text(json.dumps({"format": "refattn-split", "version": 1, **parts}))
    options = ["--set", f"data.split={tmp_path / 'split.json'}", "--epochs", 1, "--tensorboard"]
    result = run("train", folder / "small.toml", "--data", folder / "set.h5", "--out", tmp_path / "run", *options)
    header, _, valid, test = result.stdout.splitlines()
    assert header.split() == ["spread", "(Å)", "n", "MAE", "RMSE", "R2"]
    assert len(header) == len(valid) == len(test)
    assert valid.split()[0::4] == ["valid", "-"]
    assert test.split() == ["test", "0", "-", "-", "-"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert b"valid_mae" in next((tmp_path / "run" / "tensorboard").iterdir()).read_bytes()
    assert metrics["test"] == {"n": 0, "mae": None, "rmse": None, "r2": None}
    assert metrics["valid"]["r2"] is None
    assert "-" in run("info", tmp_path / "run").stdout
    assert json.loads(run("evaluate", tmp_path / "run", "--json").stdout)["valid"]["r2"] is None


def test_prepare_says_which_labels_it_stored(folder, tmp_path):
    out = run("prepare", folder / "set.extxyz", tmp_path / "set.h5", "--unit", "spread=Å").stdout
    assert out.splitlines()[-1] == "40 structures, 0 left out; labels: spread (Å) of 40"
    report = json.loads(run("prepare", folder / "set.extxyz", tmp_path / "set.h5", "--json").stdout)
    assert report["labels"] == {"spread": ""}


def test_files_of_one_name_and_bad_structures(folder, tmp_path):
    good, bad, strange = molecules(3)
    bad.positions[1] = bad.positions[0]
    strange.numbers[0] = 9
    for name, atoms in zip("abc", (good, bad, strange), strict=True):
        (tmp_path / name).mkdir()
        atoms.center(3)
        ase.io.write(tmp_path / name / "POSCAR", atoms, format="vasp")
    paths = [str(tmp_path / name / "POSCAR") for name in "abc"]
    result = run("predict", folder / "run", paths[0], folder / "set.extxyz", *paths[1:], "--skip-bad")
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [paths[0], *(f"m{i}" for i in range(40))]
    first, second, third, last = result.stderr.splitlines()
    assert first.startswith(f"left out {paths[1]}: atoms")
    assert f"1 such as {paths[0]} with periodic directions" in third
    assert "holds F, which the model never saw" in second and paths[2] in second
    assert last == "41 structures, 2 left out"
    assert paths[1] in refused(1, "predict", folder / "run", *paths)


def test_ctrl_c_and_errors_of_the_system_end_in_one_sentence(folder, monkeypatch):
    for error, status, text in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left"), 1, "No space"),
    ):
        monkeypatch.setattr(Model, "predict_stream", lambda *_, error=error, **__: throw(error))
        message = refused(status, "predict", folder / "run", folder / "set.extxyz")
        assert message.startswith("refattn: ") and text in message and len(message.splitlines()) == 1


def throw(error):
    raise error


# ---- settings, and what is refused ---------------------------------------------------------------------------------


def test_set_changes_the_configuration(folder, tmp_path):
    out, options = tmp_path / "run", ("--set", "model.variant=scann", "--set", "training.seed=5", "--epochs", 1)
    run("train", folder / "small.toml", "--data", folder / "set.h5", "--out", out, *options)
    config = json.loads(run("info", out, "--json").stdout)["config"]
    assert 'variant = "scann"\n' in config
    assert "seed = 5" in config
    assert "epochs = 1\n" in config


@pytest.mark.parametrize("assignment", ["model.n_hats=4", "modell.n_heads=4", "training.epochs=many", "n_heads"])
def test_set_names_the_key_that_it_does_not_know(folder, tmp_path, assignment):
    message = refused(1, "train", folder / "small.toml", "--out", tmp_path / "run", "--set", assignment)
    assert assignment.partition("=")[0].split(".")[-1] in message or "modell" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [[], ["--out", "x", "--overwrite"]])
def test_resume_needs_a_folder_and_keeps_what_is_there(more):
    assert "--resume needs the run's directory" in refused(2, "train", "--resume", *more)


def test_resume_is_the_same_command_again(folder, tmp_path):
    """It begins a run, goes on with it, for more epochs too, and refuses settings that the run does not have."""
    command = ["train", folder / "small.toml", "--data", folder / "set.h5", "--out", tmp_path / "run", "--resume"]
    assert "training in" in run(*command).stderr
    first = (tmp_path / "run" / "model.h5").read_bytes()
    assert "had reached its end" in run(*command).stderr
    assert (tmp_path / "run" / "model.h5").read_bytes() == first
    message = refused(1, *command, "--set", "training.seed=9", "--set", "model.n_heads=2")
    assert "model.n_heads = " in message and "(asked for: 2), training.seed = " in message
    longer = run(*command, "--epochs", 9).stderr
    assert "resuming in" in longer and "now ends after 9" in longer and "epoch   9/9 " in longer
    assert load_config(tmp_path / "run" / "config.toml").training.epochs == 9
    assert "training.epochs = 9" in refused(1, *command, "--epochs", 8)
    assert "epoch  10/10 " in run("train", "--out", tmp_path / "run", "--resume", "--epochs", 10).stderr
    assert "the same bits after" in run("verify", tmp_path / "run").stdout  # with the learning rates of each time


def test_a_log_has_a_line_a_minute(monkeypatch, capsys):
    clock = iter([0, 59, 60, 60, 119, 120, 120])
    monkeypatch.setattr(options, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    status = options.StatusLine()
    for number in range(4):
        status.update(f"state {number}")
    assert capsys.readouterr().err == "state 1\nstate 3\n"


def test_resume_of_a_finished_run(folder):
    before = (folder / "run" / "model.h5").read_bytes()
    result = run("train", "--out", folder / "run", "--resume")
    assert "spread" in result.stdout and "resuming" not in result.stderr and "pictures are in" not in result.stderr
    assert "had reached its end, and nothing was trained; for more give a larger --epochs" in result.stderr
    assert (folder / "run" / "model.h5").read_bytes() == before


def test_resume_of_a_run_that_ended_by_patience(folder, tmp_path):
    """Other epochs are of no use to it, so that something else is advised."""
    command = ["train", folder / "small.toml", "--data", folder / "set.h5", "--out", tmp_path / "run", "--epochs", 30]
    run(*command, "--set", "training.patience=1", "--set", "training.learning_rate=0.05")
    result = run("train", "--out", tmp_path / "run", "--resume")
    assert "did not improve for training.patience epochs" in result.stderr
    assert "resuming" not in result.stderr and "--epochs" not in result.stderr


def test_an_edited_configuration_is_noticed(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    settings = tmp_path / "run" / "config.toml"
    assert "edited" not in run("evaluate", tmp_path / "run").stderr
    settings.write_text(
        settings.read_text().replace("batch_size = 8", "batch_size = 9").replace("seed = 0", "seed = 4")
    )
    wanted = (
        "was edited, but the run has its own record: data.split_seed = 4 (the run's: 0), training.batch_size = 9 (the"
    )
    for command in ("evaluate", "info"):
        assert wanted in run(command, tmp_path / "run").stderr
    settings.write_text("model = 5")
    assert "there is no section [model]" in run("info", tmp_path / "run").stderr
    assert "the run has its own record" in run("train", "--out", tmp_path / "run", "--resume").stderr
    assert "edited" not in run("evaluate", tmp_path / "run").stderr


def test_predict_says_what_lies_outside_of_the_training_set(folder, tmp_path):
    large, apart, usual = molecules(3)
    large = large + ase.Atoms("C20", positions=[[30 + 1.4 * k, 0, 0] for k in range(20)])
    apart.positions *= 3
    for number, atoms in enumerate((large, apart, usual)):
        atoms.info["id"] = f"x{number}"
    ase.io.write(tmp_path / "new.extxyz", [large, apart, usual], format="extxyz")
    text = run("predict", folder / "run", tmp_path / "new.extxyz").stderr
    assert text.count("note: ") == 2
    assert "note: 1 structure with no two atoms nearer than 1.3 times their covalent radii together, such as x1" in text
    assert "2 of 3 structures lie outside of what the model was trained on: 1 such as x0 with " in text
    assert f"{len(large)} sites (training: " in text and "such as x1 with an edge of " in text
    assert "outside" not in run("predict", folder / "run", folder / "set.extxyz").stderr


def test_a_run_is_not_overwritten(folder):
    before = (folder / "run" / "model.h5").read_bytes()
    message = refused(1, "train", folder / "small.toml", "--data", folder / "set.h5", "--out", folder / "run")
    assert "already holds a run" in message
    assert (folder / "run" / "model.h5").read_bytes() == before


def test_targets_add_up():
    settings = read_settings(None, "set.h5", ("homo", "lumo"), None, (), None)
    assert settings.data.targets == ("homo", "lumo")
    assert read_settings(None, "set.h5", ("homo",), None, (), None).data.target == "homo"
    assert "different ones" in refused(1, "train", "--data", "set.h5", "--target", "homo", "--target", "homo")


def test_default_directories_are_numbered(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run("train", folder / "small.toml", "--data", folder / "set.h5", "--epochs", 1)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["spread", "spread-2"]
    assert free_directory("spread") == Path("runs/spread-3")


def test_init_starts_from_the_other_run(folder, tmp_path):
    out, slow = tmp_path / "run", ["--set", "training.learning_rate=1e-9", "--set", "training.learning_rate_min=1e-9"]
    options = ["--data", folder / "set.h5", "--out", out, "--init", folder / "run", "--epochs", 1, *slow]
    run("train", folder / "small.toml", *options)
    before, after = (json.loads((path / "metrics.json").read_text()) for path in (folder / "run", out))
    assert after["test"]["mae"] == pytest.approx(before["test"]["mae"], rel=1e-3)
    run("train", folder / "small.toml", *options, "--resume")
    options[5] = out
    message = refused(1, "train", folder / "small.toml", *options, "--resume")
    assert f"its run did not begin with {out}" in message
    assert "it begins with other parameters; give the --init" in refused(1, "verify", out)
    assert "the same bits after" in run("verify", out, "--init", folder / "run").stdout


def test_ones_own_data_need_a_target(folder):
    message = refused(2, "train", "--data", folder / "set.h5")
    assert "name what to learn by --target; the labels of " in message and message.endswith("set.h5 are: spread\n")


# ---- the authors' models -------------------------------------------------------------------------------------------


def write_fixtures(path, fixture):
    """The fixture's structures, those of them whose coordinates are in graphs.h5, as extended XYZ; their numbers."""
    names, known = [name.decode() for name in fixture.graph["structures"]], []
    with h5py.File(GRAPHS) as file:
        ids = [id.decode() for id in file["id"][:]]
        for number, name in enumerate(names):
            if name not in ids:
                continue
            row = ids.index(name)
            sites = slice(*file["site_ptr"][row : row + 2])
            where = {"scaled_positions" if file["periodic"][row] else "positions": file["position"][sites]}
            atoms = ase.Atoms(file["z"][sites], **where, cell=file["cell"][row], pbc=file["periodic"][row])
            atoms.info["id"] = name
            if fixture.ring is not None:
                rings = fixture.ring[slice(*fixture.graph["site_ptr"][number : number + 2])]
                atoms.set_array("ring", rings.astype(float))
            ase.io.write(path, atoms, format="extxyz", append=True)
            known.append(number)
    return known


@pytest.mark.parametrize("name", VARIANTS)
def test_the_authors_models_give_the_authors_predictions(name, tmp_path):
    with open_network() as file:
        fixture = variant(file, name)
        wanted = fixture.group["f64/pred"][()]
    known = write_fixtures(tmp_path / "set.extxyz", fixture)
    assert len(known) >= 5
    run("import-keras", unpack_model(name, tmp_path), tmp_path / "run", "--target", "property")
    where = (tmp_path / "run", tmp_path / "set.extxyz", "--out", tmp_path / "out.csv")
    run("predict", *where, "--threads", 1, "--min-distance", 0)  # some of the fixtures are no molecules
    found = [float(row["property"]) for row in rows_of(tmp_path / "out.csv")]
    np.testing.assert_allclose(found, wanted[known], rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_import_takes_label_and_scale(tmp_path):
    model = unpack_model("s_base", tmp_path)
    assert "--target" in refused(2, "import-keras", model, tmp_path / "run")
    run("import-keras", model, tmp_path / "run", "--target", "homo", "--unit", "eV", "--mean", -6.5, "--std", 0.5)
    facts = json.loads(run("info", tmp_path / "run", "--json").stdout)
    assert {name: facts[name] for name in ("target", "unit", "mean", "std")} == {
        "target": "homo", "unit": "eV", "mean": -6.5, "std": 0.5,
    }  # fmt: skip
    assert "already holds a model" in refused(1, "import-keras", model, tmp_path / "run", "--target", "homo")
    assert "has no data of its own; give --data" in refused(1, "evaluate", tmp_path / "run")


def test_import_knows_the_units_of_known_labels(tmp_path):
    model = unpack_model("s_base", tmp_path)
    facts = json.loads(run("import-keras", model, tmp_path / "run", "--target", "alpha", "--json").stdout)
    assert (facts["target"], facts["unit"], facts["mean"], facts["std"]) == ("alpha", "Bohr^3", 0, 1)
    assert "there is no such file" in refused(1, "import-keras", tmp_path / "none.h5", tmp_path / "new")
    assert "there is no such file" in refused(1, "info", tmp_path / "none.h5")
