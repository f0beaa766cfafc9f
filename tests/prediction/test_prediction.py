"""The Python interface to a trained model, and the ASE calculator."""

import copy
import csv
import dataclasses
import functools
import itertools
import json

import ase
import numpy as np
import pytest
import tolerances
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from explanation_cases import network
from small_data import molecules, sent, small_config, write_molecules

import refattn
from refattn.errors import DataError, RunError, StructureError
from refattn.network.checkpoint import load_checkpoint, save_checkpoint
from refattn.prediction.predictor import Model, check_elements
from refattn.training.train import train

# float32 numbers of order 1 after about 20 roundings each
FLOAT32 = 5e-6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prediction")
    write_molecules(folder / "data.h5", n=40)
    train(small_config(folder / "data.h5", epochs=2), folder / "run", n_threads=1)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run):
    return refattn.load(run)


def renamed(run, target, unit, readout="sum"):
    """The model of a run as if it predicted another label."""
    checkpoint = load_checkpoint(run / "model.h5")
    changed = dataclasses.replace(checkpoint.config, data=dataclasses.replace(checkpoint.config.data, target=target))
    config = dataclasses.replace(changed, model=dataclasses.replace(changed.model, readout=readout))
    return dataclasses.replace(checkpoint, config=config, unit=unit)


def test_values_are_those_of_predictions_csv(run, model):
    """In the label's unit, and attention that sums to 1 on every structure."""
    structures = molecules(40)
    result = model.predict(structures)
    with open(run / "predictions.csv", newline="") as stream:
        wanted = {row["id"]: float(row["prediction"]) for row in csv.DictReader(stream)}
    assert len(wanted) == 40
    np.testing.assert_allclose(result.value, [wanted[id] for id in result.id], atol=FLOAT32)
    assert result.value.dtype == np.float64
    assert (result.target, result.unit) == ("spread", "")
    assert result.id == [atoms.info["id"] for atoms in structures]
    for atoms, attention in zip(structures, result.attention, strict=True):
        assert attention.shape == (len(atoms),)
        assert (attention > 0).all()
        assert attention.sum() == pytest.approx(1, abs=1e-6)


def test_a_network_that_reads_angles_reads_them_in_files_and_structures(tmp_path):
    """Training takes the directions from the data set, a prediction from the structure."""
    config = small_config(write_molecules(tmp_path / "data.h5", n=20), epochs=1)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_angular=4))
    train(config, tmp_path / "run", n_threads=1)
    result = refattn.load(tmp_path / "run").predict(molecules(20))
    with open(tmp_path / "run" / "predictions.csv", newline="") as stream:
        wanted = {row["id"]: float(row["prediction"]) for row in csv.DictReader(stream)}
    np.testing.assert_allclose(result.value, [wanted[id] for id in result.id], atol=FLOAT32)


def test_evaluate_equals_metrics_json(run, model):
    """The errors, computed here from the predictions of the Python interface."""
    metrics = json.loads((run / "metrics.json").read_text())
    labels = {}
    with open(run / "predictions.csv", newline="") as stream:
        for row in csv.DictReader(stream):
            labels[row["id"]] = row["split"], float(row["spread"])
    result = model.predict(molecules(40))
    for part in ("train", "valid", "test"):
        error = [y_hat - labels[id][1] for id, y_hat in zip(result.id, result.value) if labels[id][0] == part]
        assert len(error) == metrics[part]["n"]
        assert np.mean(np.abs(error)) == pytest.approx(metrics[part]["mae"], abs=FLOAT32)
        assert np.sqrt(np.mean(np.square(error))) == pytest.approx(metrics[part]["rmse"], abs=FLOAT32)


def test_one_structure_a_list_and_a_generator(model):
    structures = molecules(5)
    together = model.predict(structures)
    generated = model.predict(atoms for atoms in structures)
    assert np.array_equal(together.value, generated.value)
    alone = [model.predict(atoms) for atoms in structures]
    assert all(result.value.shape == (1,) for result in alone)
    np.testing.assert_allclose([result.value[0] for result in alone], together.value, atol=FLOAT32)
    unnamed = molecule("H2O")
    assert model.predict([unnamed, unnamed]).id == ["0", "1"]


def test_company_and_order_do_not_matter(model):
    structures = molecules(30)
    wanted = model.predict(structures)
    order = np.random.default_rng(0).permutation(30)
    shuffled = model.predict([structures[i] for i in order])
    np.testing.assert_allclose(shuffled.value, wanted.value[order], atol=FLOAT32)
    for i, attention in zip(order, shuffled.attention, strict=True):
        np.testing.assert_allclose(attention, wanted.attention[i], atol=FLOAT32)


def test_threads_do_not_change_a_bit(model):
    one, two = (model.predict(molecules(30), n_threads=n) for n in (1, 2))
    assert np.array_equal(one.value, two.value)
    assert all(map(np.array_equal, one.attention, two.attention))


def test_a_stream_gives_the_same(model):
    structures = molecules(10)
    wanted, blocks = model.predict(structures), list(model.predict_stream(iter(structures), block=4))
    assert [len(chunk) for chunk, _ in blocks] == [4, 4, 2]
    assert [atoms for chunk, _ in blocks for atoms in chunk] == structures
    np.testing.assert_allclose(np.concatenate([r.value for _, r in blocks]), wanted.value, atol=FLOAT32)
    assert [id for _, r in blocks for id in r.id] == wanted.id
    assert list(model.predict_stream([])) == []


def test_no_structures(model):
    result = model.predict([])
    assert result.value.shape == (0,)
    assert result.attention == result.id == []


def test_what_is_no_structure(model):
    """One sentence from everything that takes structures."""
    one = molecules(1)[0]
    calls = [model.predict, functools.partial(refattn.explain, model), functools.partial(refattn.embed, model)]
    cases = (("x", "the structures are 'x'"), (5, "the structures are 5"), ([one, "x"], "structure 1 is of type str"))
    for call, (structures, message) in itertools.product(calls, cases):
        with pytest.raises(TypeError, match=f"{message}; give ase.Atoms or a list of them"):
            call(structures)
    with pytest.raises(TypeError, match="structure 1 is of type int"):
        list(model.predict_stream([one, 5]))


def test_isolated_atoms_have_all_the_attention(model):
    result = model.predict([ase.Atoms("C"), ase.Atoms("CO", [[0, 0, 0], [0, 0, 50]])])
    assert np.isfinite(result.value).all()
    assert result.attention[0].tolist() == [1]


@pytest.mark.parametrize("symbol", ["Fe", "F"])
def test_elements_never_seen_are_refused(model, symbol):
    """F is within the table of elements, but the model has not learned it."""
    atoms = ase.Atoms(f"C{symbol}", [[0, 0, 0], [0, 0, 1.5]], info={"id": "strange"})
    with pytest.raises(DataError, match=f"strange.* {symbol},"):
        model.predict([molecule("H2O"), atoms])


def test_structures_without_a_graph_are_refused(model):
    atoms = molecule("H2O")
    atoms.positions[1] = np.nan
    with pytest.raises(StructureError, match="1: the position of atom 1 is not finite"):
        model.predict([molecule("H2O"), atoms])


def test_bad_structures_of_a_stream_may_be_skipped(model):
    """The third is left out, with its number in the stream and the reason."""
    structures = [molecule("H2O") for _ in range(5)]
    structures[2].positions[1] = np.nan
    skipped = []
    blocks = list(model.predict_stream(structures, block=2, skip=lambda id, error: skipped.append((id, error))))
    assert [id for _, result in blocks for id in result.id] == ["0", "1", "3", "4"]
    assert [len(chunk) for chunk, _ in blocks] == [2, 1, 1]
    assert [(id, type(error)) for id, error in skipped] == [("2", StructureError)]


def test_element_features_know_elements_that_were_never_seen(model):
    config = model.config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, features="cgcnn"))
    checkpoint = dataclasses.replace(model.checkpoint, config=config)
    check_elements(checkpoint, "salt", np.array([11, 17]))
    with pytest.raises(DataError, match="salt holds Na, Cl,"):
        check_elements(model.checkpoint, "salt", np.array([11, 17]))


def test_reference_backend_gives_the_same(run, model):
    structures = molecules(6)
    wanted, found = model.predict(structures), refattn.load(run, device="reference").predict(structures)
    np.testing.assert_allclose(found.value, wanted.value, atol=FLOAT32)
    for a, b in zip(found.attention, wanted.attention, strict=True):
        np.testing.assert_allclose(a, b, atol=FLOAT32)


@pytest.mark.parametrize("name", ["model.h5", "last.h5"])
def test_checkpoints_keep_every_bit(run, tmp_path, name):
    before = load_checkpoint(run / name)
    save_checkpoint(tmp_path / name, before)
    after = load_checkpoint(tmp_path / name)
    assert np.array_equal(before.params.vector, after.params.vector)
    for field in ("config", "unit", "mean", "std", "elements", "split"):
        assert getattr(before, field) == getattr(after, field), field
    assert before.state.keys() == after.state.keys()
    for key, value in before.state.items():
        assert np.array_equal(value, after.state[key]) if isinstance(value, np.ndarray) else value == after.state[key]
    wanted = Model(before).predict(molecules(3)).value
    assert np.array_equal(refattn.load(tmp_path / name).predict(molecules(3)).value, wanted)


def test_load_takes_a_run_or_a_model_file(run, model, tmp_path):
    assert np.array_equal(refattn.load(str(run / "model.h5")).checkpoint.params.vector, model.checkpoint.params.vector)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match="there is no such file"):
            refattn.load(path)


# ---- the ASE calculator --------------------------------------------------------------------------------------------


@pytest.fixture
def energy_model(run, tmp_path):
    save_checkpoint(tmp_path / "energy.h5", renamed(run, "energy", "eV"))
    return tmp_path / "energy.h5"


def test_calculator_of_an_energy(energy_model):
    atoms = molecules(1)[0]
    atoms.calc = refattn.Calculator(energy_model)
    assert atoms.calc.implemented_properties == ["attention", "energy"]
    wanted = refattn.load(energy_model).predict(atoms)
    assert atoms.get_potential_energy() == pytest.approx(wanted.value[0], abs=FLOAT32)
    np.testing.assert_allclose(atoms.calc.results["attention"], wanted.attention[0], atol=FLOAT32)
    np.testing.assert_allclose(atoms.calc.get_attention(atoms), wanted.attention[0], atol=FLOAT32)
    before = atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    assert atoms.get_potential_energy() != before


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, sent])
def test_a_calculator_can_be_copied(energy_model, copied):
    """As ASE, and a map over processes, do; the parameters of the copy stay views of one vector."""
    calculator, atoms = refattn.Calculator(energy_model), molecules(1)[0]
    other = copied(calculator)
    assert other.get_potential_energy(atoms) == calculator.get_potential_energy(atoms)
    params = other.model.checkpoint.params
    assert all(np.shares_memory(params[name], params.vector) for name in params)


@pytest.mark.parametrize("name", ["forces", "stress"])
def test_calculator_has_no_forces_and_says_why(energy_model, name):
    atoms = bulk("C")
    atoms.calc = refattn.Calculator(energy_model)
    with pytest.raises(PropertyNotImplementedError, match="graph changes in steps"):
        getattr(atoms, f"get_{name}")()


@pytest.mark.parametrize(
    "case",
    [("spread", "", "sum"), ("homo", "eV", "sum"), ("energy", "Hartree", "sum"), ("energy", "eV", "intensive")],
)
def test_what_is_no_energy_in_ev_is_not_called_one(run, tmp_path, case):
    target = case[0]
    save_checkpoint(tmp_path / "model.h5", renamed(run, *case))
    calculator, atoms = refattn.Calculator(tmp_path / "model.h5"), molecules(1)[0]
    assert "energy" not in calculator.implemented_properties
    assert target == "energy" or calculator.get_property(target, atoms) == calculator.results[target]
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError, match="not an energy in eV"):
        atoms.get_potential_energy()
    calculator.get_attention(atoms)
    assert calculator.results.keys() == {target, "attention"}
    assert isinstance(calculator.results[target], float)


def test_predictions_that_are_not_finite_are_refused():
    """The embedding of nitrogen is no number; structures without nitrogen keep their predictions."""
    model, structures, skipped = network(), [molecule("NH3"), molecule("H2O")], []
    wanted = model.predict(structures).value[1]
    model.checkpoint.params["embed"][7] = np.nan
    with pytest.raises(DataError, match="^the prediction of structure 0 is not finite; leave it out, or train again$"):
        model.predict(structures)
    [(kept, found)] = model.predict_stream(structures, skip=lambda id, error: skipped.append(id))
    assert (skipped, kept, found.id) == (["0"], structures[1:], ["1"])
    np.testing.assert_allclose(found.value, [wanted], rtol=0, atol=tolerances.COMPANY)
    assert list(model.predict_stream(structures[:1], skip=lambda id, error: None)) == []
