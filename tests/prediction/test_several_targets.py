"""Several targets in one network as people meet them: every number stands under the name of its target."""

import csv
import dataclasses
import json

import ase.io
import h5py
import numpy as np
import pytest
import tolerances
from click.testing import CliRunner
from small_data import molecules, small_config, write_properties

import refattn
from refattn.cli.main import cli
from refattn.common import metrics
from refattn.common.attention_metrics import attention_metrics
from refattn.common.metrics import compositions, means_of_groups
from refattn.data.store import read_dataset
from refattn.network import evaluate
from refattn.network.checkpoint import load_checkpoint, save_checkpoint
from refattn.network.evaluate import predict_split, summarise
from refattn.prediction.calibration import Calibration, calibrations_of
from refattn.report.errors_of_run import errors_of_run
from refattn.training.train import train

NAMES = ("spread", "heavy")
FIELDS = ("distance", "lower", "upper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Molecules with the label `heavy` for two of three, a network of both labels, and molecules without labels."""
    folder = tmp_path_factory.mktemp("targets")
    config = small_config(write_properties(folder / "data.h5"), epochs=3)
    data = dataclasses.replace(config.data, target=NAMES, n_valid=16, n_test=16)
    training = dataclasses.replace(config.training, attention={"spread": "population"})
    train(dataclasses.replace(config, data=data, training=training), folder / "run", n_threads=1)
    ase.io.write(folder / "new.extxyz", molecules(7, seed=9), format="extxyz")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return refattn.load(folder / "run")


def command(*arguments, status=0):
    """What a command prints on stdout, or on stderr where it must fail."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.stderr or repr(result.exception)
    return result.stderr if status else result.stdout


def parts_of(folder, model):
    return predict_split(model.checkpoints, read_dataset(folder / "data.h5"), map, "cpu")


# ---- predictions -----------------------------------------------------------------------------------------------------


def test_every_format_tells_the_targets_apart(folder, model, tmp_path):
    paths = {suffix: tmp_path / f"out.{suffix}" for suffix in ("csv", "json", "xyz", "h5")}
    for path in [*paths.values(), *paths.values()]:  # the second time the earlier one is replaced
        command("predict", folder / "run", folder / "new.extxyz", "--coverage", 0.7, "--out", path)
    wanted = model.predict(ase.io.read(folder / "new.extxyz", ":"), coverage=0.7)
    assert wanted.value.shape == wanted.lower.shape == (7, 2)
    with open(paths["csv"], newline="") as stream:
        table = list(csv.DictReader(stream))
    fields = [[f"{field} {name}" for field in FIELDS] for name in NAMES]
    assert list(table[0]) == ["id", "predicted spread", *fields[0], "predicted heavy (atoms)", *fields[1]]
    records, frames = json.loads(paths["json"].read_text()), ase.io.read(paths["xyz"], ":")
    assert records[0]["unit"] == {"spread": "", "heavy": "atoms"}
    with h5py.File(paths["h5"]) as file:
        assert (list(file.attrs["target"]), list(file.attrs["unit"])) == (list(NAMES), ["", "atoms"])
        for name in ("value", *FIELDS):
            assert np.array_equal(file[name], getattr(wanted, name))
        assert np.array_equal(file["attention"], np.concatenate(wanted.attention))
    for k, (name, title) in enumerate(zip(NAMES, ("spread", "heavy (atoms)"), strict=True)):
        assert [float(row[f"predicted {title}"]) for row in table] == wanted.value[:, k].tolist()
        assert [record[name] for record in records] == wanted.value[:, k].tolist()
        np.testing.assert_allclose([frame.info[f"predicted_{name}"] for frame in frames], wanted.value[:, k], rtol=1e-7)
        for n, beta in enumerate(wanted.attention):
            assert records[n]["attention"][name] == beta[:, k].tolist()
            np.testing.assert_allclose(frames[n].arrays[f"attention_{name}"], beta[:, k], atol=1e-7)
        for field in FIELDS:
            values = getattr(wanted, field)[:, k]
            assert [float(row[f"{field} {name}"]) for row in table] == values.tolist()
            assert [record["uncertainty"][name][field] for record in records] == values.tolist()
            np.testing.assert_allclose([frame.info[f"{field}_{name}"] for frame in frames], values, rtol=1e-7)
    cells = command("predict", folder / "run", folder / "new.extxyz").splitlines()[0].split("\t")
    assert cells[1:] == [f"spread {wanted.value[0, 0]:.6g}", f"heavy {wanted.value[0, 1]:.6g} atoms"]


def test_an_ensemble_has_a_spread_of_each(folder, model, tmp_path):
    checkpoint = load_checkpoint(folder / "run" / "model.h5")
    for member in range(2):
        (tmp_path / f"member_{member}").mkdir()
        checkpoint.params["target1.output_b"][...] += member
        save_checkpoint(tmp_path / f"member_{member}" / "model.h5", checkpoint)
    found, alone = (m.predict(molecules(5)) for m in (refattn.load(tmp_path), model))
    std = checkpoint.scale.std[1]
    np.testing.assert_allclose(found.value - alone.value, np.broadcast_to([0, std / 2], (5, 2)), atol=1e-5)
    np.testing.assert_allclose(found.spread, np.broadcast_to([0, std / np.sqrt(2)], (5, 2)), atol=1e-5)


def test_the_calculator_has_every_label(folder, model):
    atoms = molecules(1)[0]
    atoms.calc = refattn.Calculator(folder / "run")
    attention = atoms.calc.get_attention(atoms)
    wanted = model.predict(atoms)
    assert [atoms.calc.results[name] for name in NAMES] == wanted.value[0].tolist()
    assert np.array_equal(attention, wanted.attention[0])


def test_of_many_structures_the_same_is_known_without_keeping_all(folder, model, monkeypatch):
    few = parts_of(folder, model)
    monkeypatch.setattr(evaluate, "MANY", 0)
    monkeypatch.setattr(evaluate, "BLOCK", 3)
    with_attention, without = (
        predict_split(model.checkpoints, read_dataset(folder / "data.h5"), map, "cpu", wanted) for wanted in (1, 0)
    )
    for name, wanted in few.items():
        assert without[name].attention is None and np.array_equal(with_attention[name].attention, wanted.attention)
        for found in (with_attention[name], without[name]):
            for field in ("rows", "composition", "label", "prediction", "predictions"):
                np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field))
            assert found.spread is None and np.array_equal(found.structs[0][:], wanted.structs[0])
    assert summarise(model.checkpoint, without) == summarise(model.checkpoint, few)
    for found, wanted in zip(*(calibrations_of(p["train"], p["valid"]) for p in (without, few)), strict=True):
        np.testing.assert_allclose(found.representation, wanted.representation, atol=tolerances.NETWORK_32)
        assert np.array_equal(found.prediction, wanted.prediction)
    twice = [model.checkpoint, dataclasses.replace(model.checkpoint, mean=model.checkpoint.mean + 1)]
    one = predict_split(twice, read_dataset(folder / "data.h5"), map, "cpu")["test"]
    monkeypatch.undo()
    other = predict_split(twice, read_dataset(folder / "data.h5"), map, "cpu")["test"]
    for field in ("prediction", "spread", "predictions", "attention"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


# ---- intervals -------------------------------------------------------------------------------------------------------


def test_structures_without_a_label_calibrate_nothing(folder, model):
    parts = parts_of(folder, model)
    found = calibrations_of(parts["train"], parts["valid"])
    known = [~np.isnan(parts[part].label[:, 1]) for part in ("train", "valid")]
    assert [len(c.representation) for c in found] == [28, known[0].sum()]
    assert [len(c.label) for c in found] == [16, known[1].sum()]
    without = [part._replace(**{name: getattr(part, name)[k] for name in ("rows", "label")},
                             predictions=part.predictions[:, k], structs=[part.structs[0][k]])
               for part, k in zip((parts["train"], parts["valid"]), known)]  # fmt: skip
    alone = Calibration.of(*without, target=1)
    for name in ("representation", "label", "prediction", "distance"):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(alone, name))


@pytest.mark.usefixtures("drawn")
def test_evaluate_counts_coverage_of_each_where_it_is_known(folder, model, tmp_path):
    options = ("--coverage", 0.7, "--plot", tmp_path / "plot.png")
    command("evaluate", folder / "run", "--calibrate")
    summary = json.loads(command("evaluate", folder / "run", *options, "--json"))
    images = {atoms.info["id"]: atoms for atoms in molecules(60)}
    test = model.checkpoint.split.test
    result = refattn.load(folder / "run").predict([images[id] for id in test], coverage=0.7)
    dataset = read_dataset(folder / "data.h5")
    row = {id: n for n, id in enumerate(dataset.id)}
    for k, name in enumerate(NAMES):
        label = dataset.labels[name][[row[id] for id in test]]
        known = ~np.isnan(label)
        inside = (result.lower[:, k] <= label) & (label <= result.upper[:, k])
        found = summary["targets"][name]["uncertainty"]
        assert (found["n"], found["coverage"]) == (known.sum(), inside[known].mean())
    text = command("evaluate", folder / "run", *options, "--overwrite")
    assert text.count("intervals of 0.7: hold") == 2
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


# ---- attention ------------------------------------------------------------------------------------------------------


def test_measures_of_attention_by_hand():
    """Two structures that are taught, the second without a rank, and one that is not."""
    beta = np.array([0.5, 0.3, 0.2, 0.5, 0.5, 1.0])
    share = np.array([0.2, 0.7, 0.1, 0.5, 0.5, 0.0])
    found = attention_metrics(beta, share, np.array([0, 3, 5, 6]), np.array([1, 6, 6, 6, 6, 6]))
    entropy = -(0.2 * np.log(0.5) + 0.7 * np.log(0.3) + 0.1 * np.log(0.2))
    assert found["cross_entropy"] == pytest.approx((entropy + np.log(2)) / 2)
    assert found["total_variation"] == pytest.approx(0.4 / 2)
    assert (found["n"], found["spearman"], found["spearman_without_hydrogen"]) == (2, pytest.approx(0.5), None)
    assert (found["top_1"], found["top_1_without_hydrogen"]) == (0.5, 1.0)


@pytest.mark.parametrize("beta", [[0.5, 0.5], [0.6, 0.4]])
def test_two_sites_have_no_rank_correlation(beta):
    """Whether attention is even or not: networks and baselines are averaged over the same structures."""
    found = attention_metrics(np.array(beta), np.array([0.9, 0.1]), np.array([0, 2]), np.array([6, 8]))
    assert (found["n"], found["spearman"], found["spearman_without_hydrogen"]) == (1, None, None)


def test_an_array_is_compared_with_attention_element_and_nothing(folder, model):
    """metrics.json and `evaluate --attention` against dictionaries; `population` is even over the heavy atoms."""
    summary = json.loads((folder / "run" / "metrics.json").read_text())
    assert "attention" not in summary["targets"]["heavy"]
    found = summary["targets"]["spread"]["attention"]
    images = {atoms.info["id"]: atoms for atoms in molecules(60)}
    number = {id: n for n, id in enumerate(images)}
    test = [images[id] for id in model.checkpoint.split.test if number[id] % 5]
    heavy = [(atoms.numbers > 1) / (atoms.numbers > 1).sum() for atoms in test]
    beta = [attention[:, 0] for attention in model.predict(test).attention]
    assert (found["array"], found["test"]["network"]["n"]) == ("population", len(test))
    wanted = np.mean([np.abs(b - p).sum() / 2 for b, p in zip(beta, heavy, strict=True)])
    assert found["test"]["network"]["total_variation"] == pytest.approx(wanted, abs=1e-5)
    assert found["test"]["even"]["cross_entropy"] == pytest.approx(np.mean([np.log(len(p)) for p in heavy]))
    assert found["test"]["even"]["spearman"] == 0
    assert found["test"]["element"]["spearman"] > 0.9  # hydrogen has nothing of it
    again = command("evaluate", folder / "run", "--attention", "heavy=population", "--json")
    assert set(json.loads(again)["targets"]["heavy"]["attention"]) == {"array", "train", "valid", "test"}
    text = command("evaluate", folder / "run")
    assert "test, element only" in text and "test, untaught: even" in text
    assert "Its attention was taught population" in errors_of_run(folder / "run", [*NAMES])
    assert "has no array 'orbital'" in command("evaluate", folder / "run", "--attention", "heavy=orbital", status=1)
    assert "choose one of spread, heavy" in command("evaluate", folder / "run", "--attention", "x=population", status=1)


# ---- what is reached without a network -------------------------------------------------------------------------------


def test_the_mean_of_a_composition_by_hand(folder, model):
    """metrics.json against dictionaries of formulas."""
    summary = json.loads((folder / "run" / "metrics.json").read_text())
    dataset, images = read_dataset(folder / "data.h5"), {atoms.info["id"]: atoms for atoms in molecules(60)}
    row = {id: n for n, id in enumerate(dataset.id)}
    predicted = {r["id"]: r for r in csv.DictReader((folder / "run" / "predictions.csv").open())}
    split = model.checkpoint.split
    for name in NAMES:
        label = dict(zip(dataset.id, dataset.labels[name], strict=True))
        learned = {}
        for id in split.train:
            learned.setdefault(images[id].get_chemical_formula(), []).append(label[id])
        learned = {formula: [y for y in values if y == y] for formula, values in learned.items()}
        everything = np.concatenate(list(learned.values()))
        test = [id for id in split.test if label[id] == label[id]]
        means = [np.mean(learned.get(images[id].get_chemical_formula()) or everything) for id in test]
        y = np.array([label[id] for id in test])
        error = y - [float(predicted[id][f"prediction {name}"]) for id in test]
        found = summary["targets"][name]
        assert found["baseline_mae"] == pytest.approx(np.abs(y - everything.mean()).mean())
        assert found["composition_mae"] == pytest.approx(np.abs(y - means).mean())
        if found["composition_r2"] is not None:
            assert found["composition_r2"] == pytest.approx(1 - (error**2).sum() / ((y - means) ** 2).sum())
            said = errors_of_run(folder / "run", [name])
            assert f"R2 against it {found['composition_r2']:.2f}".replace("-", "−") in said
        assert found["composition_known"] == sum(bool(learned.get(images[id].get_chemical_formula())) for id in test)
    assert row and "the training mean of the same composition: MAE" in command("evaluate", folder / "run")


def test_a_composition_that_was_not_trained_on_has_the_mean(monkeypatch):
    z, site_ptr = np.array([1, 8, 1, 8, 1, 1, 6, 1, 6]), np.array([0, 3, 6, 8, 9])
    group = compositions(z, site_ptr)
    assert group[0] == group[1] and len(set(group.tolist())) == 3
    monkeypatch.setattr(metrics, "BLOCK", 1)
    assert np.array_equal(compositions(z, site_ptr), group) and not len(compositions(z[:0], site_ptr[:1]))
    found = means_of_groups(group[:3], np.array([1.0, 2.0, 6.0]), group)
    assert found.tolist() == [1.5, 1.5, 6.0, 3.0]
