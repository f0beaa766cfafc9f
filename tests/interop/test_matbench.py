"""refattn matbench: folds and ids of the benchmark, its file of results, going on, and what is refused."""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import re

import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    max_error,
    mean_absolute_error,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.model_selection import KFold, StratifiedKFold
from small_data import small_config

import refattn
from refattn.cli.main import cli
from refattn.config import DataConfig, load_config, to_toml
from refattn.data.prepare import prepare
from refattn.data.sources import matbench as tasks
from refattn.data.sources.matbench import MatbenchSource, Task
from refattn.data.splits import read_split
from refattn.errors import DataError
from refattn.interop.matbench import prepare_folds, rows_of_folds, scores, train_matbench
from refattn.training.train import Interrupted

N = 25
SHARED, TOO_NEAR = 7, 12  # rows of structures that nothing reads, or that have no graph
# SHA-256 of the ids of the five test parts in matbench_v0.1_validation.json of matbench 0.6
PUBLISHED = "a4c98104515cac0c2f4bf260f48cf9d0f66d44b687789d958e8b5f5fd07b3b68"


def structure(atoms):
    """A Structure as pymatgen's as_dict has it."""
    sites = [
        {"species": [{"element": symbol, "occu": 1}], "abc": abc, "xyz": xyz, "label": symbol, "properties": {}}
        for symbol, abc, xyz in zip(atoms.symbols, atoms.get_scaled_positions().tolist(), atoms.positions.tolist())
    ]
    lattice = {"matrix": atoms.cell.tolist(), "pbc": [True] * 3}
    return {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": lattice, "sites": sites}


def rows():
    """25 crystals of three kinds and many sizes, and their volumes per atom."""
    found = []
    for number in range(N):
        kind = (("LiF", "rocksalt", 4.0), ("C", "diamond", 3.6), ("BN", "zincblende", 3.6))[number % 3]
        atoms = bulk(kind[0], kind[1], a=kind[2] + 0.02 * number)
        found.append([structure(atoms), atoms.get_volume() / 2])
    found[SHARED][0]["sites"][0]["species"] = [{"element": "C", "occu": 0.5}, {"element": "N", "occu": 0.5}]
    found[TOO_NEAR][0]["sites"][1]["abc"] = [0.01, 0, 0]
    return found


def write_task(path, data, columns=("structure", "exfoliation_en"), index=None):
    table = {"index": index or [*range(len(data))], "columns": columns, "data": data}
    path.write_bytes(gzip.compress(json.dumps(table).encode()))
    return path


@pytest.fixture(autouse=True, scope="module")
def small_task():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "matbench_jdft2d", ("exfoliation_en", N, "meV/atom"))
        patch.setitem(tasks.TASKS, "matbench_mp_is_metal", ("is_metal", N, ""))
        yield


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_task(tmp_path_factory.mktemp("task") / "matbench_jdft2d.json.gz", rows())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(to_toml(small_config("", epochs=2)))
    return path


def call(*arguments, status=0):
    result = CliRunner().invoke(cli, ["matbench", *map(str, arguments), "--threads", "1"])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def finished(task, config, tmp_path_factory):
    """Folder and output of all folds: fold 3 trained alone, fold 0 stopped in its second epoch, then the rest."""
    out = tmp_path_factory.mktemp("matbench") / "out"
    alone = call(task, config, "--out", out, "--fold", 3)
    assert "not trained yet: --fold 0, 1, 2, 4" in alone.stderr and "of 1 fold\n" in alone.stdout
    assert "2 structures of 25 without a graph" in alone.stderr and "mb-jdft2d-08: cannot be read" in alone.stderr
    assert not (out / "results.json.gz").exists()
    times = (out / "data.h5").stat().st_mtime_ns, (out / "fold_3" / "model.h5").stat().st_mtime_ns
    calls = iter(range(99))
    settings = dataclasses.replace(
        load_config(config), data=DataConfig(path=str(out / "data.h5"), target="exfoliation_en")
    )
    source = MatbenchSource(task)
    left_out = prepare_folds(source, settings, out)
    with pytest.raises(Interrupted):
        train_matbench(source.task, settings, out, left_out, n_threads=1, stop=lambda: next(calls) == 2)
    result = call(task, config, "--out", out)
    assert times == ((out / "data.h5").stat().st_mtime_ns, (out / "fold_3" / "model.h5").stat().st_mtime_ns)
    return out, result


def read_results(out):
    return json.loads(gzip.decompress((out / "results.json.gz").read_bytes()))


def task_of(label, target="exfoliation_en"):
    return Task("", target, "", label, [f"mb-jdft2d-{row + 1:03d}" for row in range(len(label))])


def test_folds_are_those_of_the_benchmark():
    for n in (23, N, 636):
        label = (np.random.default_rng(n).random(n) < 0.4).astype(float)
        for target, kind in (("n", KFold), ("is_metal", StratifiedKFold)):
            parts = kind(5, shuffle=True, random_state=18012019).split(label, label)
            found = rows_of_folds(task_of(label, target))
            assert all(np.array_equal(rows, test) for rows, (_, test) in zip(found, parts, strict=True))
    task = task_of(np.zeros(636))
    ids = [[task.ids[row] for row in rows] for rows in rows_of_folds(task)]
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == PUBLISHED


def test_scores_are_those_of_scikit_learn():
    label, prediction = np.random.default_rng(0).normal(size=(2, 9))
    label[0] = 1e-6
    true, guess = label > 0, prediction > 0
    expected = {
        "accuracy": accuracy_score(true, guess),
        "balanced_accuracy": balanced_accuracy_score(true, guess),
        "f1": f1_score(true, guess),
        "rocauc": roc_auc_score(true, guess),
    }
    found = scores(task_of(label, "is_metal"), true.astype(float), prediction + 0.5)
    assert found == pytest.approx(expected, rel=1e-14)
    expected = {
        "mae": mean_absolute_error(label, prediction),
        "rmse": root_mean_squared_error(label, prediction),
        "mape": np.mean(np.abs((prediction - label) / label)[1:]),
        "max_error": max_error(label, prediction),
    }
    assert scores(task_of(label), label, prediction) == pytest.approx(expected, rel=1e-14)


def test_results_are_what_the_leaderboard_validates(task, finished):
    """What matbench 0.6 asks for in MatbenchBenchmark.from_dict and MatbenchTask.validate."""
    found = read_results(finished[0])
    digest = found.pop("hash")
    assert hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest() == digest
    assert re.fullmatch(r"\d{4}\.\d\d\.\d\d \d\d:\d\d\.\d\d", found.pop("datestamp"))
    results = found["tasks"]["matbench_jdft2d"].pop("results")
    assert found == {
        "@module": "matbench.bench",
        "@class": "MatbenchBenchmark",
        "version": "0.6",
        "benchmark_name": "matbench_v0.1",
        "user_metadata": {"algorithm": f"refattn {refattn.__version__}"},
        "tasks": {
            "matbench_jdft2d": {
                "@module": "matbench.task",
                "@class": "MatbenchTask",
                "benchmark_name": "matbench_v0.1",
                "dataset_name": "matbench_jdft2d",
            }
        },
    }
    label = np.array([value for _, value in rows()])
    assert [*results] == [f"fold_{fold}" for fold in range(5)]
    for fold, part in zip(results.values(), rows_of_folds(task_of(label))):
        assert fold.keys() == {"data", "parameters", "scores"}
        assert {*fold["data"]} == {f"mb-jdft2d-{row + 1:02d}" for row in part}
        prediction = np.array([fold["data"][f"mb-jdft2d-{row + 1:02d}"] for row in part])
        assert all(type(value) is float for value in [*fold["data"].values(), *fold["scores"].values()])
        assert fold["scores"] == scores(task_of(label), label[part], prediction)
        assert fold["parameters"]["model"]["width"] == 16
        for row in {SHARED, TOO_NEAR} & {*part.tolist()}:
            assert fold["data"][f"mb-jdft2d-{row + 1:02d}"] == np.delete(label, part).mean()


def test_what_is_printed(finished):
    out, result = finished
    errors = [fold["scores"]["mae"] for fold in read_results(out)["tasks"]["matbench_jdft2d"]["results"].values()]
    title, _, test, *baselines = result.stdout.splitlines()
    assert title.startswith("exfoliation_en (meV/atom)") and title.endswith("of 5 folds")
    assert [float(cell.strip(",")) for cell in test.split()[1:]] == [
        N, *(float(f"{error:.4g}") for error in (np.mean(errors), np.std(errors, ddof=1), *errors))
    ]  # fmt: skip
    assert "always the training mean: MAE" in baselines[0] and "same composition: MAE" in baselines[1]


def test_every_fold_validates_on_a_tenth_of_its_own(finished):
    tested = []
    for fold in range(5):
        split = read_split(finished[0] / f"fold_{fold}" / "split.json")
        assert len(split.valid) == (N - 2 - len(split.test)) // 10
        assert len({*split.train, *split.valid, *split.test}) == N - 2
        tested += split.test
    assert len({*tested}) == len(tested) == N - 2


def test_the_same_command_trains_nothing_again(task, config, finished):
    out, result = finished
    before = {path: path.stat().st_mtime_ns for path in out.glob("fold_*/*")}
    again = call(task, config, "--out", out, "--json")
    assert {path: path.stat().st_mtime_ns for path in out.glob("fold_*/*")} == before
    summary = json.loads(again.stdout)
    assert summary["folds"] == [0, 1, 2, 3, 4] and summary["n_left_out"] == 2
    assert f"{summary['targets']['exfoliation_en']['test']['mae']:.4g}" in result.stdout


def test_a_class(config, tmp_path):
    data = [[crystal, len(crystal["sites"][0]["species"][0]["element"]) == 2] for crystal, _ in rows()]
    path = write_task(tmp_path / "matbench_mp_is_metal.json.gz", data, ("structure", "is_metal"))
    result = call(path, config, "--out", tmp_path / "out", "--epochs", 1)
    found = read_results(tmp_path / "out")["tasks"]["matbench_mp_is_metal"]["results"]
    label = np.array([float(value) for _, value in data])
    assert label.sum() == 9
    for fold, part in zip(found.values(), rows_of_folds(task_of(label, "is_metal")), strict=True):
        prediction = np.array([*fold["data"].values()])
        assert ((prediction > 0) & (prediction < 1)).all() and label[part].any()
        assert fold["scores"] == scores(task_of(label, "is_metal"), label[part], prediction)
    assert re.search(r"rocauc +: .* in the mean", result.stdout) and re.search(r"\n  auc  ", result.stdout)
    other = call(path, config, "--out", tmp_path / "out", "--set", "training.loss=mae", status=1)
    assert "has a class to predict; set training.loss=cross_entropy" in other.stderr


def test_what_stands_in_the_way(task, config, finished, tmp_path):
    out = finished[0]
    other = call(task, config, "--out", out, "--set", "training.seed=3", "--fold", 1, status=1)
    assert "training.seed = 0 (asked for: 3)" in other.output
    changed = rows()
    changed[0][1] += 1
    write_task(tmp_path / "task.json.gz", changed)
    assert "is not the data set of matbench_jdft2d" in call(tmp_path / "task.json.gz", "--out", out, status=1).output
    (tmp_path / "results.json.gz").write_text("mine")
    assert "no earlier output" in call(task, config, "--out", tmp_path, status=1).output
    call(task, config, "--out", tmp_path, "--fold", 5, status=2)


def test_files_that_are_no_task(tmp_path):
    path = tmp_path / "matbench_any.json.gz"
    good = [[{"sites": []}, 1.0]] * N
    refused = {
        "compositions without structures": {"data": [["Fe", 1.0]], "columns": ["composition", "yield strength"]},
        "row 1 is 1, no label": {"data": [[{}, True], *[[{}, 1]] * (N - 1)], "columns": ["structure", "is_metal"]},
        "row 3 is False, no label": {"data": [*good[:3], *[[{}, False]] * (N - 3)]},
        "no task of Matbench": {"data": good, "columns": ["structure", "age"]},
        "has 3 structures instead of 25": {"data": good[:3]},
        "instead of 18928 .matbench_perovskites. or 132752": {"data": good, "columns": ["structure", "e_form"]},
        "row 24 is 'x', no label": {"data": [*good[:-1], [{}, "x"]]},
        "row 0 is nan, no label": {"data": [[{}, float("nan")], *good[1:]]},
        "does not count the rows": {"data": good, "index": [*range(1, N + 1)]},
        "too many values": {"data": [*good[:-1], [{}, 1, 2]]},
        "is no table": {"data": [*good[:-1], 7]},
    }
    for sentence, table in refused.items():
        write_task(path, **table)
        result = call(path, "--out", tmp_path / "out", status=1)
        assert re.search(sentence, result.stderr), result.stderr
        assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert "no such file" in call(tmp_path / "absent.json.gz", "--out", tmp_path / "out", status=1).stderr
    with pytest.raises(DataError, match="cannot be read|no structure"):
        prepare(MatbenchSource(write_task(path, good)), tmp_path / "data.h5")


def test_damaged_files(task, tmp_path):
    text = gzip.decompress(task.read_bytes())
    path = tmp_path / "matbench_jdft2d.json"
    for at in range(0, len(text), len(text) // 40):
        for damaged in (text[:at], text[:at] + b"\xff" + text[at:], text[:at] + b"]" + text[at:]):
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):
                for record in MatbenchSource(path):
                    assert record.id.startswith("mb-jdft2d-")
    packed = task.read_bytes()
    (tmp_path / "cut.json.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="cannot be read further"):
        MatbenchSource(tmp_path / "cut.json.gz")


def test_prepare_takes_the_file_too(task, tmp_path):
    result = CliRunner().invoke(cli, ["prepare", str(task), str(tmp_path / "data.h5")])
    assert "23 structures, 2 left out; labels: exfoliation_en (meV/atom) of 23" in result.stdout, result.output
