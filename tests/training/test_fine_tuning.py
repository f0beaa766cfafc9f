"""Trainings that start from another one: its layers, and its heads of the same targets."""

import dataclasses

import numpy as np
import pytest
from small_data import small_config, write_molecules, write_properties

from refattn.cli.options import print_metrics
from refattn.config import ModelConfig
from refattn.data.splits import Split
from refattn.errors import RunError
from refattn.network.checkpoint import load_checkpoint, model_file, save_checkpoint
from refattn.network.params import initialise
from refattn.prediction.run_directory import load_initial, notes_on_start
from refattn.report.errors_of_run import errors_of_run
from refattn.training.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "molecules.h5")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, train(small_config(data), out, n_threads=1)


def notes_into(said):
    """A `progress` of `train` that keeps the notes in a list."""
    return lambda record: said.extend(record.get("notes", ()))


def test_fine_tuning_starts_from_the_other_run(data, finished, tmp_path):
    config = small_config(data, epochs=1, learning_rate=1e-9, learning_rate_min=1e-9)
    summary = train(config, tmp_path / "tuned", init=finished[0])
    assert summary["test"]["mae"] == pytest.approx(finished[1]["test"]["mae"], rel=1e-3)
    with pytest.raises(RunError, match="its network is not that of"):
        train(dataclasses.replace(config, model=ModelConfig()), tmp_path / "other", init=finished[0])


@pytest.mark.parametrize("split", ["another", "its own", "none"])
def test_a_test_on_what_the_other_run_was_trained_on_is_said(data, finished, tmp_path, split):
    """The other run has 45 structures to train and validate on of 50."""
    config = small_config(data, epochs=1)
    settings = {"another": {"split_seed": 8}, "its own": {}, "none": {"test_part": False, "n_test": 0}}[split]
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **settings))
    said = []
    summary = train(config, tmp_path / "tuned", init=finished[0], progress=notes_into(said))
    theirs, ours = (load_checkpoint(run / "model.h5").split for run in (finished[0], tmp_path / "tuned"))
    seen = {*theirs.train, *theirs.valid} & {*ours.test}
    assert bool(seen) == (split == "another")
    wanted = f"{finished[0]} was trained or validated on {len(seen)} of the {len(ours.test)} structures to test on"
    assert [text.startswith(wanted) for text in said if "to test on" in text] == [True] * bool(seen)
    assert summary["init"] == {"name": str(finished[0]), "test_structures_seen": len(seen)}
    (tmp_path / "tuned" / "metrics.json").unlink()
    assert train(None, tmp_path / "tuned", resume=True)["init"] == summary["init"]
    page = errors_of_run(tmp_path / "tuned", [config.data.target])
    assert (f"trained or validated on {len(seen)} structures of the test set" in page) == bool(seen)


def test_a_start_that_keeps_no_digests_is_said(data, finished, tmp_path, capsys):
    start = load_checkpoint(finished[0] / "model.h5")
    save_checkpoint(tmp_path / "model.h5", dataclasses.replace(start, fingerprint=None, split=Split([], [], [])))
    said = []
    config = small_config(data, epochs=1)
    summary = train(config, tmp_path / "tuned", init=tmp_path / "model.h5", progress=notes_into(said))
    assert "keeps no digests of its data; structures to test on may be those" in said[0]
    assert summary["init"]["test_structures_seen"] is None
    print_metrics(summary, False)
    assert "which may have been trained on structures of the test set" in capsys.readouterr().out


def test_another_network_is_no_start(data, finished, tmp_path):
    """Networks whose parameters have the same shapes and another meaning."""
    config = small_config(data)
    model = config.model
    for change in (
        {"n_heads": 2},
        {"radial_max": 5.0},
        {"residual": not model.residual},
        {"n_radial": model.n_radial - 4, "n_angular": 2},  # as many columns
    ):
        other = dataclasses.replace(config, model=dataclasses.replace(model, **change))
        with pytest.raises(RunError, match="its network is not that of"):
            load_initial(finished[0], other)
    for change in ({"dropout": 0.5}, {"readout": "sum"}):
        load_initial(finished[0], dataclasses.replace(config, model=dataclasses.replace(model, **change)))


def test_other_neighbours_are_said(data, finished, tmp_path):
    wider = write_molecules(tmp_path / "wider.h5", r_max=3.0)
    said = []
    train(small_config(wider, epochs=1), tmp_path / "tuned", init=finished[0], progress=notes_into(said))
    assert "other neighbours (r_max 4.0 and not 3.0)" in said[0]


def test_heads_start_from_those_of_the_same_targets(data, finished, tmp_path):
    """Whatever their number and order; the others are those of a network that starts from nothing."""
    config = small_config(data, seed=7)
    heads = {"after", "global_query", "global_key", "hidden", "output"}

    def of(name):
        """Of the target of what number a parameter is, None for the layers."""
        prefix, _, own = name.rpartition(".")
        if own.rpartition("_")[0] not in heads or prefix.startswith("layer"):
            return None
        return int(prefix.removeprefix("target") or 0)

    def wants(*targets):
        return dataclasses.replace(config, data=dataclasses.replace(config.data, target=targets))

    start = finished[0]
    for targets in (("other", "spread"), ("other",), ("spread", "other", "more")):
        wanted = wants(*targets)
        found = load_initial(start, wanted)
        theirs = load_checkpoint(model_file(start)).params
        new = initialise(wanted.model, wanted.training.seed)
        for name in new:
            k = of(name)
            taken = k is None or targets[k] == "spread"
            source = theirs[name.removeprefix(f"target{k}.")] if taken else new[name]
            np.testing.assert_array_equal(found[name], source, err_msg=f"{targets} {name}")
        [note] = notes_on_start(start, wanted)
        assert note.endswith(f"of {', '.join(target for target in targets if target != 'spread')} is new")
    assert notes_on_start(start, config) == []
    path = tmp_path / "two"
    two = wants("spread", "heavy")
    own_data = dataclasses.replace(two.data, path=str(write_properties(tmp_path / "both.h5")))
    train(dataclasses.replace(two, data=own_data, training=small_config(data, epochs=1).training), path, 1)
    both = load_checkpoint(model_file(path)).params
    swapped = load_initial(path, wants("heavy", "spread"))
    np.testing.assert_array_equal(swapped["hidden_w"], both["target1.hidden_w"])
    np.testing.assert_array_equal(swapped["target1.hidden_w"], both["hidden_w"])
