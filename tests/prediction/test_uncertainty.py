"""Intervals, distances and the figures of `refattn evaluate --coverage`: against their definitions, by other means."""

import csv
import dataclasses
import json
import math
from fractions import Fraction

import ase.io
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from damage import cut, drop, fill, flip, put, replace
from extras import needs_crepes
from scipy.spatial.distance import cdist
from scipy.stats import betabinom, spearmanr
from small_data import label, molecules, small_config, write_molecules

import refattn
from refattn.cli.main import cli
from refattn.common.threads import workers
from refattn.data.store import read_dataset
from refattn.errors import ConfigError, DataError, RunError
from refattn.network.evaluate import EvaluatedPart
from refattn.network.model import forward
from refattn.prediction.calibration import Calibration
from refattn.prediction.predictor import Model
from refattn.prediction.uncertainty import (
    NOMINAL,
    Conformal,
    TrainingSet,
    conformal_quantile,
    coverage_error,
    held_coverage,
    rank_correlation,
    reliability,
)
from refattn.training.train import train

FLOAT32 = 2e-5  # representations of order 1 in float32, of the same structure in other shards, added up 16 times

# ---- the quantile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 9, 10, 19, 37])
@pytest.mark.parametrize("coverage", ["0.1", "0.3", "0.5", "0.7", "0.9", "0.95"])
def test_quantile_is_the_smallest_score_that_enough_are_below(n, coverage):
    """Brute force: the smallest score with at least (n + 1) coverage of the n scores at or below it, ties too."""
    scores = np.random.default_rng(n).integers(0, 12, n).astype(float)
    wanted = [s for s in scores if (scores <= s).sum() >= (n + 1) * Fraction(coverage)]
    if wanted:
        assert conformal_quantile(scores, float(coverage)) == min(wanted)
    else:
        least = math.ceil(Fraction(coverage) / (1 - Fraction(coverage)))
        assert n < least
        with pytest.raises(DataError, match=f"needs at least {least} validation structures, the run has {n};"):
            conformal_quantile(scores, float(coverage))


@pytest.mark.parametrize("coverage", [0, 1, -0.5, 90, float("nan")])
def test_what_is_no_coverage(coverage):
    with pytest.raises(ConfigError, match="must be between 0 and 1"):
        conformal_quantile(np.ones(50), coverage)


def test_coverage_is_what_the_theorem_says():
    """4,000 draws of 30 + 1 exchangeable structures, errors with heavy tails, uncertainties that say little of them:
    between coverage and coverage + 1 / (n + 1) (Lei et al. 2018, theorem 2.2), within four standard errors."""
    rng, n, n_draws, coverage = np.random.default_rng(1), 30, 4000, 0.8
    distance = rng.lognormal(size=(n_draws, n + 1))
    error = rng.standard_t(2, size=(n_draws, n + 1)) * distance ** rng.choice([-1, 0, 1], size=(n_draws, 1))
    held = 0
    for d, e in zip(distance, error):
        conformal = Conformal(e[:n], np.zeros((1, n)), d[None, :n], [])
        held += abs(e[n]) <= conformal.half_width(d[n:], coverage)[0]
    noise = 4 * math.sqrt(coverage * (1 - coverage) / n_draws)
    assert coverage - noise <= held / n_draws <= coverage + 1 / (n + 1) + noise


@needs_crepes
@pytest.mark.parametrize("n", [30, 250, 1000])  # (n + 1) coverage is no integer, which crepes may round to the next
def test_intervals_are_those_of_crepes(n):
    """Its normalised regressor with the same uncertainties; distances of many sizes, no two errors alike."""
    from crepes import ConformalRegressor

    rng = np.random.default_rng(n)
    label, prediction = rng.normal(size=n), rng.normal(size=n)
    distance, new = rng.lognormal(size=n), rng.lognormal(size=50)
    conformal = Conformal(label, prediction[None], distance[None], [])
    oracle = ConformalRegressor().fit(label - prediction, conformal.uncertainty(distance))
    for coverage in (0.5, 0.8, 0.9, 0.95):
        low, high = oracle.predict_int(np.zeros(50), conformal.uncertainty(new), confidence=coverage).T
        half = conformal.half_width(new, coverage)
        np.testing.assert_allclose(high, half, rtol=1e-12)
        np.testing.assert_allclose(low, -half, rtol=1e-12)


def test_coverage_of_new_groups():
    """2,000 draws of 9 + 1 groups of 1 to 12 structures that share most of their error, small groups the largest: with
    the groups the intervals hold what was asked of a new group, without them less."""
    rng, n_draws, coverage = np.random.default_rng(3), 2000, 0.7
    held = np.zeros(2)
    for _ in range(n_draws):
        sizes = rng.integers(1, 13, size=10)
        group = np.repeat(np.arange(10), sizes)
        error = np.abs(rng.normal(size=10)[group] + 0.1 * rng.normal(size=len(group))) - 0.2 * sizes[group]
        known = group < 9
        for k, groups in enumerate((group[known], None)):
            held[k] += (error[~known] <= conformal_quantile(error[known], coverage, groups)).mean()
    noise = 4 * math.sqrt(coverage * (1 - coverage) / n_draws)
    assert held[0] / n_draws >= coverage - noise
    assert held[1] / n_draws < coverage - noise


def test_groups_of_one_are_structures():
    score = np.random.default_rng(4).random(40)
    for coverage in (0.1, 0.5, 0.9, 0.975):
        assert conformal_quantile(score, coverage, np.arange(40)) == conformal_quantile(score, coverage)
    with pytest.raises(DataError, match="at least 9 validation groups of structures, the run has 4"):
        conformal_quantile(score, 0.9, np.arange(40) % 4)


# ---- distances and scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_train", "n"), [(1, 3), (4, 10), (700, 300)])
def test_distance_is_the_mean_to_the_nearest_five(n_train, n, monkeypatch):
    """Against scipy's cdist, with one dimension that is constant, as many threads and as few columns as one likes."""
    rng = np.random.default_rng(n)
    train_set, x = (rng.normal(3, np.arange(1, 9), (m, 8)).astype(np.float32) for m in (n_train, n))
    train_set[:, 2] = 1.5
    std = train_set.astype(float).std(axis=0)
    std[std == 0] = 1
    wanted = np.sort(cdist(x / std, train_set / std), axis=1)[:, :5].mean(axis=1)
    space = TrainingSet(train_set)
    found = space.distance(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with workers(2) as run:
        assert np.array_equal(space.distance(x, run), found)
    assert space.distance(x[:0]).shape == (0,)
    monkeypatch.setattr("refattn.prediction.uncertainty.COLUMNS", 3)
    np.testing.assert_allclose(space.distance(x), found, rtol=1e-6)


def test_a_large_set_is_calibrated_on_some_of_it(monkeypatch):
    """The same structures at every call, only those with a label, and no more than the limits."""
    monkeypatch.setattr("refattn.prediction.calibration.MAX_TRAIN", 50)
    monkeypatch.setattr("refattn.prediction.calibration.MAX_VALID", 20)
    rng = np.random.default_rng(0)
    label = np.where(np.arange(90) % 3, rng.normal(size=90), np.nan)[:, None]
    structs = [rng.normal(size=(90, 4)).astype(np.float32)]
    part = EvaluatedPart(None, None, None, label, label, None, label[None], structs)
    found, again = (Calibration.of(part, part) for _ in range(2))
    assert [len(getattr(found, name)) for name in ("representation", "label", "distance")] == [50, 20, 20]
    assert np.array_equal(found.label, again.label) and np.isfinite(found.label).all()
    assert len(np.unique(found.representation, axis=0)) == 50
    assert np.array_equal(found.prediction, found.label)


def test_a_copy_of_training_structures_has_no_distance_and_still_an_uncertainty():
    train_set = np.repeat(np.random.default_rng(0).normal(size=(3, 4)), 5, axis=0).astype(np.float32)
    space = TrainingSet(train_set)
    assert space.distance(train_set[:1]) == 0
    for distances in (np.zeros((1, 20)), np.ones((1, 20))):
        conformal = Conformal(np.arange(20.0), np.zeros((1, 20)), distances, [space])
        assert np.isfinite(conformal.score).all()
        assert conformal.half_width(np.zeros(1), 0.5) > 0


def test_reliability_by_hand():
    """Ten validation errors 1 to 10 at distance 2: q = 9 for 0.8; half-widths at distance 1, 2, 4 are 4.5, 9, 18."""
    conformal = Conformal(np.arange(1.0, 11.0), np.zeros((1, 10)), np.full((1, 10), 2.0), [])
    labels, distance = np.array([4.0, 10.0, -17.0, 30.0]), np.array([1.0, 2.0, 4.0, 4.0])
    found = reliability(conformal, 0.8, labels, np.zeros(4), distance)
    assert found["coverage"] == 0.5
    assert found["mean_width"] == pytest.approx(2 * (4.5 + 9 + 18 + 18) / 4)
    assert found["spearman"] == pytest.approx(spearmanr(np.abs(labels), distance)[0])
    # for 0.1 to 0.9 the quantile is 2, 3, 4, 5, 6, 7, 8, 9, 10; half-widths are 0.5, 1, 2 and 2 times that
    held = [sum(abs(y) <= q * d / 2 for y, d in zip(labels, distance)) / 4 for q in range(2, 11)]
    assert found["curve"] == {"wanted": list(NOMINAL), "found": held}
    assert found["calibration_error"] == pytest.approx(np.mean([abs(h - (n + 1) / 10) for n, h in enumerate(held)]))
    with pytest.raises(DataError, match="no test structures"):
        reliability(conformal, 0.8, labels[:0], labels[:0], labels[:0])


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 8, (2, 50)).astype(float)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b)[0], rel=1e-12)
    assert rank_correlation(a, np.ones(50)) is None


# ---- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of 60 molecules, a run on 32 of them with 16 to validate and 12 to test, and other molecules."""
    folder = tmp_path_factory.mktemp("uncertainty")
    write_molecules(folder / "data.h5")
    config = small_config(folder / "data.h5", epochs=2)
    data = dataclasses.replace(config.data, n_valid=16, n_test=12)
    train(dataclasses.replace(config, data=data), folder / "run", n_threads=1)
    ase.io.write(folder / "new.extxyz", molecules(7, seed=9), format="extxyz")
    return folder


def structs_by_hand(model, path, ids):
    """Representations of structures of a data set, all in one shard, and their numbers of sites."""
    dataset = read_dataset(path)
    rows = np.array([dataset.id.tolist().index(id) for id in ids])
    shard = dataset.graphs.take(rows).for_network(model.config.model, "float32")
    struct = forward(model.checkpoint.params, shard, model.config.model, model.ops).read_outs[0].struct
    return np.append(struct, np.diff(shard.site_ptr)[:, None], axis=1)


def test_intervals_of_a_run_by_hand(folder):
    """Distance, scores, quantile and ends of every interval, from representations and labels alone."""
    model, images = refattn.load(folder / "run"), {atoms.info["id"]: atoms for atoms in molecules(60)}
    split = model.checkpoint.split
    struct = {part: structs_by_hand(model, folder / "data.h5", getattr(split, part)) for part in split._fields}
    std = struct["train"].astype(float).std(axis=0)
    std[std == 0] = 1

    def distance(part):
        return np.sort(cdist(struct[part] / std, struct["train"] / std), axis=1)[:, :5].mean(axis=1)

    y = np.array([label(images[id]) for id in split.valid])
    scores = np.abs(y - model.predict([images[id] for id in split.valid]).value) / distance("valid")
    q = np.sort(scores)[math.ceil(17 * 0.8) - 1]
    result = model.predict([images[id] for id in split.test], coverage=0.8)
    assert result.spread is None
    np.testing.assert_allclose(result.distance, distance("test"), rtol=1e-3)
    np.testing.assert_allclose(result.upper - result.value, q * distance("test"), rtol=2e-3)
    np.testing.assert_allclose(result.value - result.lower, q * distance("test"), rtol=2e-3)


def test_what_was_not_asked_for_is_not_there(folder):
    model, structures = refattn.load(folder / "run"), molecules(5)
    plain, asked = model.predict(structures), model.predict(structures, uncertainty=True)
    assert plain.spread is plain.distance is plain.lower is plain.upper is asked.lower is None
    assert np.array_equal(plain.value, asked.value)
    assert asked.distance.shape == (5,)
    with pytest.raises(RunError, match="a network without a run"):
        Model(model.checkpoint).predict(structures, uncertainty=True)


def test_threads_and_blocks_do_not_matter(folder):
    model, structures = refattn.load(folder / "run"), molecules(40)
    one, two = (model.predict(structures, n_threads=n, coverage=0.5) for n in (1, 2))
    for name in ("value", "distance", "lower", "upper"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    parts = [result for _, result in model.predict_stream(structures, block=7, coverage=0.5)]
    np.testing.assert_allclose(np.concatenate([part.lower for part in parts]), one.lower, atol=50 * FLOAT32)


def test_structures_of_another_kind_have_wider_intervals(folder):
    """Stretched molecules are farther from what was trained on; measured: 1.8 times as wide."""
    model, usual = refattn.load(folder / "run"), molecules(20, seed=4)
    strange = [atoms.copy() for atoms in usual]
    for atoms in strange:
        atoms.positions *= 1.6
    near, far = (model.predict(structures, coverage=0.5) for structures in (usual, strange))
    assert np.mean(far.upper - far.lower) > 1.4 * np.mean(near.upper - near.lower)


def test_held_coverage_is_what_nine_of_ten_validation_sets_hold():
    """By drawing: of uniform scores the quantile is the share that it holds."""
    for n, coverage in ((12, 0.5), (24, 0.7), (99, 0.9)):
        rng = np.random.default_rng(n)
        held = [conformal_quantile(rng.random(n), coverage) for _ in range(4000)]
        assert held_coverage(n, coverage) == pytest.approx(np.quantile(held, (0.05, 0.95)), abs=0.02)


def test_the_error_of_a_measured_coverage_is_that_of_the_beta_binomial_distribution():
    """By SciPy's, and by drawing the scores of validation and test sets."""
    for n, n_test, coverage in ((12, 7, 0.5), (431, 441, 0.9)):
        found = coverage_error(n, n_test, coverage)
        rank = math.ceil((n + 1) * Fraction(str(coverage)))
        mean, variance = betabinom.stats(n_test, rank, n + 1 - rank)
        assert (found["expected"], found["both"]) == pytest.approx((mean / n_test, variance**0.5 / n_test))
        assert found["both"] ** 2 == pytest.approx(found["test"] ** 2 + found["validation"] ** 2)
        rng = np.random.default_rng(n)
        held = [(rng.random(n_test) <= conformal_quantile(rng.random(n), coverage)).mean() for _ in range(2000)]
        assert (np.mean(held), np.std(held)) == pytest.approx((found["expected"], found["both"]), rel=0.06)


# ---- the command line ------------------------------------------------------------------------------------------------


def command(*arguments, status=0):
    """What a command prints on stdout, or on stderr where it must fail."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.stderr or repr(result.exception)
    return result.stderr if status else result.stdout


@pytest.mark.parametrize("line", [("predict", "new.extxyz"), ("evaluate",)])
def test_intervals_of_few_structures_have_a_note(folder, line):
    arguments = [line[0], folder / "run", *(folder / name for name in line[1:]), "--coverage", 0.7]
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert "the intervals of spread rest on 16 validation structures; 0.7 were asked for, and 9 of 10" in result.stderr


@pytest.mark.usefixtures("drawn")
def test_evaluate_equals_what_predict_says(folder, tmp_path):
    model, images = refattn.load(folder / "run"), {atoms.info["id"]: atoms for atoms in molecules(60)}
    test = [images[id] for id in model.checkpoint.split.test]
    y = np.array([label(atoms) for atoms in test])
    options = ("--coverage", 0.8, "--plot", tmp_path / "plot.png")
    found = json.loads(command("evaluate", folder / "run", *options, "--json"))["uncertainty"]
    result = model.predict(test, coverage=0.8)
    assert found["coverage"] == np.mean((result.lower <= y) & (y <= result.upper))
    assert found["mean_width"] == pytest.approx(np.mean(result.upper - result.lower), rel=1e-3)
    assert found["spearman"] == pytest.approx(spearmanr(np.abs(y - result.value), result.distance)[0], abs=0.02)
    off = []
    for wanted in NOMINAL:
        ends = model.predict(test, coverage=wanted)
        off.append(abs(np.mean((ends.lower <= y) & (y <= ends.upper)) - wanted))
    assert found["calibration_error"] == pytest.approx(np.mean(off))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    text = command("evaluate", folder / "run", *options)
    assert f"intervals of 0.8: hold {found['coverage']:.4f} of 12 labels" in text


def test_every_format_has_the_columns(folder, tmp_path):
    paths = {suffix: tmp_path / f"out.{suffix}" for suffix in ("csv", "json", "xyz", "h5")}
    for path in paths.values():
        command("predict", folder / "run", folder / "new.extxyz", "--coverage", 0.9, "--out", path)
    wanted = refattn.load(folder / "run").predict(ase.io.read(folder / "new.extxyz", ":"), coverage=0.9)
    names = ("distance", "lower", "upper")
    with open(paths["csv"], newline="") as stream:
        table = list(csv.DictReader(stream))
    assert list(table[0]) == ["id", "spread", *names]  # `spread` is the label here
    records, frames = json.loads(paths["json"].read_text()), ase.io.read(paths["xyz"], ":")
    with h5py.File(paths["h5"]) as file:
        for name in names:
            values = getattr(wanted, name)
            assert [float(row[name]) for row in table] == values.tolist() == file[name][:].tolist()
            assert [record["uncertainty"][name] for record in records] == values.tolist()
            np.testing.assert_allclose([frame.info[name] for frame in frames], values, rtol=1e-7)
    line = command("predict", folder / "run", folder / "new.extxyz", "--uncertainty").splitlines()[0]
    assert line.endswith(f"\tdistance {wanted.distance[0]:.6g}")


@pytest.mark.parametrize(
    "damage",
    [
        *(cut(0), cut(0.5), put("nothing"), flip(1, 40), drop("label"), drop("@sha256"), drop("@model")),
        *(fill("label", np.nan, 3), fill("representation", 0, 2), replace("distance", "far"), replace("@version", 2)),
        replace("prediction", np.zeros(3)),
    ],
)
def test_a_damaged_calibration_is_refused_in_one_sentence(folder, tmp_path, damage):
    for name in ("model.h5", "calibration.h5"):
        (tmp_path / name).write_bytes((folder / "run" / name).read_bytes())
    damage(tmp_path / "calibration.h5")
    message = command("predict", tmp_path, folder / "new.extxyz", "--coverage", 0.5, status=1)
    assert message.startswith("refattn: ") and "--calibrate`" in message and len(message.splitlines()) == 1
    command("predict", tmp_path, folder / "new.extxyz")


def test_a_calibration_that_is_missing_or_anothers_is_made_again(folder, tmp_path, monkeypatch):
    calibration, good = folder / "run" / "calibration.h5", (folder / "run" / "calibration.h5").read_bytes()
    write = ("predict", folder / "run", folder / "new.extxyz", "--coverage", 0.9, "--out", tmp_path / "out.csv")
    command(*write)
    wanted = (tmp_path / "out.csv").read_bytes()
    calibration.unlink()
    message = command(*write, status=1)
    assert "calibration.h5: there is no such file" in message
    assert f"make it with `refattn evaluate {folder / 'run'} --calibrate`" in message
    assert (tmp_path / "out.csv").read_bytes() == wanted
    command("evaluate", folder / "run", "--calibrate")
    command(*write)
    assert (tmp_path / "out.csv").read_bytes() == wanted
    for name, content in (("model.h5", (folder / "run" / "last.h5").read_bytes()), ("calibration.h5", good)):
        (tmp_path / name).write_bytes(content)
    with h5py.File(tmp_path / "calibration.h5", "r+") as file:
        file.attrs["model"] = "0" * 64
    monkeypatch.delattr("refattn.cli.evaluate.predict_split")  # nothing is computed in vain
    assert "belongs to another model" in command("evaluate", tmp_path, "--coverage", 0.5, status=1)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (("evaluate", "--coverage", 0.99), 1, "needs at least 99 validation structures, the run has 16"),
        (("evaluate", "--coverage", 90), 2, "90"),
        (("evaluate", "--calibrate", "--data", "data.h5"), 2, "leave --data out"),
        (("predict", "new.extxyz", "--coverage", 0), 2, "0"),
        (("predict", "new.extxyz", "--coverage", 0.999), 1, "needs at least 999 validation structures"),
        (("train", "--ensemble", 1), 2, "1"),
    ],
)
def test_impossible_options(folder, monkeypatch, options, status, text):
    monkeypatch.chdir(folder)
    run = [] if options[0] == "train" else ["run"]
    assert text in command(options[0], *run, *options[1:], status=status)
