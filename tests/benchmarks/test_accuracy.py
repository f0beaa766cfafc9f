"""The comparison of test errors: the same splits for all methods, and a table from the JSONs that they leave."""

import dataclasses
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import plot
import pytest
import recipe
import run
import sets
from small_data import label, molecules, write_molecules

from refattn.config import override
from refattn.data.prepare import prepare
from refattn.data.sources.registry import open_source
from refattn.data.splits import Split, write_split
from refattn.data.store import Record, read_dataset
from refattn.experiments import load_experiment

SMALL = sets.Set("", "spread", "Å", 4.0, {"n_valid": 6, "n_test": 10}, {"10": (1,), "30": (1,), "all": (1,)}, 44)


def common():
    """What the methods share; the folder of the methods is no package."""
    specification = importlib.util.spec_from_file_location("peers_common", run.HERE / "peers" / "common.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return read_dataset(write_molecules(tmp_path_factory.mktemp("accuracy") / "data.h5"))


@pytest.mark.parametrize(("minutes", "experiment"), [(10, "recommended"), (60, "qm9_gap")])
def test_what_is_compared_on_the_gap_ships_as_an_experiment(minutes, experiment):
    """`recommended` has the published Gaussians, and reaches as far as any data set does."""
    reach = (*recipe.PUBLISHED_GAUSSIANS, *recipe.FAR) if minutes == 10 else ()
    changes = ('data.target="gap"', "data.target_weight=[]", *run.CHANGES["refattn", "qm9_gap", minutes], *reach)
    compared, shipped = override(load_experiment("molecules_b3lyp"), changes), load_experiment(experiment)
    assert shipped.model == compared.model
    assert shipped.graph in (None, compared.graph)
    assert shipped.training == dataclasses.replace(compared.training, epochs=shipped.training.epochs)
    assert shipped.data.target == sets.SETS["qm9_gap"].target


def test_the_experiment_of_the_gap_has_the_sizes_of_the_comparison():
    data = load_experiment("qm9_gap").data
    assert (data.n_valid, data.n_test) == (1000, 2000)


def test_sizes_share_their_test_set_and_hold_each_other(dataset):
    splits = sets.draw(dataset, SMALL)
    assert {name: len(split.train) for name, split in splits.items()} == {"10": 10, "30": 30, "all": 44}
    for small, large in (("10", "30"), ("30", "all")):
        assert splits[small][1:] == splits[large][1:]
        assert splits[small].train == splits[large].train[: len(splits[small].train)]


def test_methods_read_the_structures_and_labels_of_the_split(dataset, tmp_path):
    split = sets.draw(dataset, SMALL)["10"]
    write_split(tmp_path / "split.json", split)
    sets.write_structures(tmp_path / "structures.npz", dataset, "spread")
    order = {"structures": tmp_path / "structures.npz", "split": tmp_path / "split.json", "result": str(tmp_path / "r")}
    found = common().Structures(order)
    expected = {atoms.info["id"]: atoms for atoms in molecules(60)}
    for part in split._fields:
        for row, name in zip(found.rows[part], getattr(split, part), strict=True):
            assert found.atoms(row) == expected[name]
            assert found.label[row] == pytest.approx(label(expected[name]))
    order |= dict(run.Run("forest", "qm9_gap", "10", 0, 0)._asdict(), budget_s=0.0, threads=1, commit="c", date="d")
    predictions = {part: found.label[found.rows[part]] + shift for part, shift in (("valid", 0.5), ("test", -0.25))}
    common().write_result(order, found, predictions, train_s=1.0)
    result = json.loads((tmp_path / "r").read_text())
    assert (result["valid_mae"], result["test_mae"]) == pytest.approx((0.5, 0.25))
    assert result["sizes"] == {"n_train": 10, "n_valid": 6, "n_test": 10}


def test_structures_without_the_label_are_left_out():
    records = [Record(str(n), None, labels, {}) for n, labels in enumerate(({"y": 1.0}, {}, {"y": np.nan}, {"y": 0.0}))]
    assert [record.id for record in sets.Labelled(records, "y")] == ["0", "3"]


def test_all_methods_get_the_same_files(monkeypatch, tmp_path):
    orders = []

    def read(command, **options):
        orders.append(json.loads(Path(command[-1]).read_text()))

    monkeypatch.setattr(run, "commit", lambda: "c")
    monkeypatch.setattr(run.subprocess, "run", read)
    for each in run.queue():
        run.execute(each, tmp_path, "python", tmp_path)
    given = {}
    for order in orders:
        files = order["structures"], order["split"], order["set_facts"]
        given.setdefault((order["set"], order["n_train"]), set()).add(files)
    assert set(given) == {(name, size) for name, chosen in sets.SETS.items() for size in chosen.sizes}
    assert {len(files) for files in given.values()} == {1}
    assert len({order["result"] for order in orders}) == len(orders)


def test_what_is_there_is_not_run_again(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        sys, "argv", ["run.py", "work", "--results", str(tmp_path), "--list", "--only", "painn", "qm9_gap"]
    )
    run.main()
    before = capsys.readouterr().out
    (tmp_path / "painn_qm9_gap_all_10min_0.json").write_text("{}")
    run.main()
    after = capsys.readouterr().out
    assert set(before.splitlines()[:-1]) - set(after.splitlines()) == {"    1200 s  painn_qm9_gap_all_10min_0"}
    last = [text.splitlines()[-1] for text in (before, after)]
    assert last == ["5 runs, 3.0 hours of one processor", "4 runs, 2.7 hours of one processor"]


def result(method, n_train, minutes, valid, test, seed=0):
    sizes = {"n_train": 37_000 if n_train == "all" else int(n_train)}
    times = {"prepare_s": 12.0, "train_s": 120.0 * minutes}
    facts = {"method": method, "set": "qm9_gap", "n_train": n_train, "minutes": minutes, "seed": seed, "sizes": sizes}
    return facts | times | {"valid_mae": valid, "test_mae": test, "versions": {"x": "1"}}


def test_the_table_is_made_of_the_results(tmp_path):
    results = [
        result("refattn", "1000", 1, 0.5, 0.4),
        result("refattn", "1000", 10, 0.6, 0.41),  # the budget decides, not the error
        result("refattn", "all", 10, 0.1, 0.1),
        result("refattn", "all", 10, 0.1, 0.2, seed=1),
        result("refattn", "all", 60, 0.09, 0.09),
        result("painn", "all", 10, 0.2, 0.12),
        result("soap-krr", "1000", 0, 0.6, 0.6),
    ]
    for number, each in enumerate(results):
        (tmp_path / f"{number}.json").write_text(json.dumps(each))
    found = plot.read_results(tmp_path)
    assert plot.table(found, "qm9_gap").splitlines() == [
        "| test MAE, eV | 1000 | 10000 | all | all, 1 min | all, 60 min |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| refattn | **0.4100** | - | 0.1500 ± 0.0707 | - | **0.0900** |",
        "| PaiNN | - | - | **0.1200** | - | - |",
        "| SOAP + kernel ridge | 0.6000 | - | - | - | - |",
    ]
    assert plot.by_time(plot.points(found, "qm9_gap", "soap-krr"))[0].used == pytest.approx(0.1)
    assert "PaiNN: x 1" in plot.report(found)
    plot.draw(
        found,
        tmp_path / "time.png",
        "minutes",
        lambda points: [(p.used, p.test) for p in plot.by_time(points).values()],
    )
    assert (tmp_path / "time.png").stat().st_size > 10_000


@pytest.mark.parametrize("table", recipe.TABLES.values(), ids=recipe.TABLES)
def test_every_variant_of_the_recipe_has_settings_and_a_file_of_its_own(table):
    base = override(load_experiment(table.experiment), table.base)
    configs = [override(base, changes) for changes in table.variants.values()]
    assert configs[0] == base
    assert not table.base or table.minutes or load_experiment(table.experiment) in configs
    assert all(one != other for one, other in itertools.combinations(configs, 2))
    assert len({recipe.result_of("x", name, 0) for name in table.variants}) == len(table.variants)


def test_a_variant_with_other_edges_gets_graphs_with_them(dataset, tmp_path):
    table = recipe.TABLES["qm9_gap"]._replace(set=SMALL)
    write_molecules(tmp_path / "isolated.h5")
    assert dataset.graph_config == load_experiment(table.experiment).graph
    made = [
        read_dataset(recipe.graphs_of(table, table.variants[name], tmp_path))
        for name in (recipe.BEFORE, "dropout 0.05", "edges of 0.2 sr, to 5 Å")
    ]
    assert [each.id.tolist() for each in made] == [dataset.id.tolist()] * 3
    assert [each.labels["spread"].tolist() for each in made] == [dataset.labels["spread"].tolist()] * 3
    n_edges = [int(each.graphs.n_edges.sum()) for each in made]
    assert n_edges[0] == n_edges[1] < n_edges[2]
    assert made[2].graph_config.r_max == 5


def test_a_variant_gets_the_epochs_that_the_time_of_the_recipe_holds(monkeypatch, tmp_path):
    """Where an epoch takes half as long again, two epochs of three are done; the recipe itself is not timed."""
    orders = []

    def execute(asked, work, peers, results, **order):
        orders.append(order)
        if "rounds" in order:
            Path(order["result"]).write_text(json.dumps({"unchanged": [1, 2, 4], "changed": [1.5, 3, 9]}))

    monkeypatch.setattr(recipe, "execute", execute)
    monkeypatch.setattr(recipe, "graphs_of", lambda *_: "graphs")
    monkeypatch.setitem(recipe.TABLES, "qm9_gap", recipe.TABLES["qm9_gap"]._replace(epochs=12))
    for variant in (recipe.BEFORE, "9 layers"):
        for seed in range(2):
            recipe.train("qm9_gap", variant, seed, tmp_path, tmp_path)
    assert [order.get("epochs") for order in orders] == [12, 12, None, 8, 8]


@pytest.mark.parametrize("name", recipe.TABLES)
def test_a_variant_of_every_table_is_run(monkeypatch, tmp_path, name):
    """Of sets that are no part of the comparison too; a run has the minutes of its table, or none and its epochs."""
    orders = []

    def read(command, **options):
        orders.append(json.loads(Path(command[-1]).read_text()))

    monkeypatch.setattr(run, "commit", lambda: "c")
    monkeypatch.setattr(run.subprocess, "run", read)
    monkeypatch.setattr(recipe, "graphs_of", lambda table, changes, folder: f"with {len(changes)} changes")
    monkeypatch.setattr(recipe, "cost_of", lambda *_: 2.0)
    table = recipe.TABLES[name]
    variant, changes = list(table.variants.items())[1]
    recipe.train(name, variant, 0, tmp_path, tmp_path)
    for order in orders:
        assert (order["graphs"], order["unchanged_graphs"]) == (f"with {len(changes)} changes", "with 0 changes")
    assert [order.get("rounds") for order in orders[:-1]] == [recipe.ROUNDS] * (not table.minutes)
    assert (orders[-1]["set"], orders[-1]["budget_s"]) == (table.name, 120 * table.minutes)
    assert orders[-1].get("epochs") == (None if table.minutes else round(table.epochs / 2))


def test_a_table_of_minutes_is_not_timed(monkeypatch, tmp_path):
    runs = []
    monkeypatch.setattr(recipe, "execute", lambda run, *_, **order: runs.append((run.seconds, order["slowdown"])))
    monkeypatch.setattr(recipe, "graphs_of", lambda *_: "graphs")
    recipe.train("qm9_gap_10min", "8 Gaussians of angles", 0, tmp_path, tmp_path, 1.5)
    assert runs == [(1200, 1.5)]


def test_least_squares_on_the_temperature_finds_equipartition(tmp_path):
    """Energies that are linear in the atoms and in the atoms times the temperature leave no error."""
    found = molecules(40)
    for number, atoms in enumerate(found):
        kelvin = 300 * (1 + number % 3)
        energy = len(atoms) * (1 + 0.002 * kelvin)
        atoms.info = {"id": f"m_{number}", "deformation_energy": energy, "temperature": kelvin}
    ase.io.write(tmp_path / "some.xyz", found, format="extxyz")
    folder = tmp_path / "pt_graphene"
    folder.mkdir()
    prepare(open_source(tmp_path / "some.xyz"), folder / "isolated.h5")
    ids = [atoms.info["id"] for atoms in found]
    write_split(folder / "split_all.json", Split(ids[:25], ids[25:35], ids[35:]))
    recipe.fit_temperature("pt_graphene", tmp_path, tmp_path)
    path = recipe.result_of("pt_graphene", recipe.TEMPERATURE, 0, tmp_path)
    assert json.loads(path.read_text())["valid_mae"] < 1e-9


def test_the_table_of_the_recipe_has_means_and_spreads(tmp_path):
    for seed, error in enumerate((0.1, 0.2)):
        path = recipe.result_of("qm9_gap", recipe.BEFORE, seed, tmp_path)
        path.write_text(json.dumps({"valid_mae": error, "epochs": 4}))
    recipe.result_of("qm9_gap", "9 layers", 0, tmp_path).write_text(json.dumps({"valid_mae": 0.3, "epochs": 2}))
    recipe.result_of("qm9_gap", recipe.KERNEL, 0, tmp_path).write_text(json.dumps({"valid_mae": 0.4}))
    recipe.result_of("pt_graphene", "9 layers", 0, tmp_path).write_text("{}")
    assert recipe.text_of("qm9_gap", tmp_path).splitlines()[2:] == [
        f"| {recipe.BEFORE} | 0.1500 ± 0.0707 | 2 | 4 |",
        "| 9 layers | 0.3000 | 1 | 2 |",
        "| kernel ridge regression on SOAP | 0.4000 | 1 | - |",
    ]
