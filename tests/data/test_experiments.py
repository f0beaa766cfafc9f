"""The experiments: every file loads, every value has its source, and the sizes are the published ones."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

import refattn.config
from refattn.cli.train import read_settings
from refattn.config import config_from_dict, load_config, to_toml
from refattn.data.builtin import SETS
from refattn.data.splits import PREFIX, PUBLISHED_SPLITS
from refattn.network.params import parameter_table

FILES = sorted((Path(refattn.config.__file__).parent / "experiments").glob("*.toml"))
BUILTIN = {item.experiment: name for name, item in SETS.items()}
AUTHORS = ("fullerene", "materials_project", "pt_graphene", "qm9", "smfe12")


def path_of(name):
    return next(path for path in FILES if path.stem == name)


def n_parameters(model):
    return sum(entry.size for entry in parameter_table(model))


def test_all_experiments_are_here():
    shipped = {"molecules_orbitals", "molecules_b3lyp", "crystals", "fullerenes", "matbench"}
    others = {"recommended", "qm9_gap", "qm9_gap_10k", "qm9_orbitals", "fullerene_homo"}
    assert {path.stem for path in FILES} == {*AUTHORS, *BUILTIN, *shipped, *others}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loads_and_survives_to_toml(path):
    config = load_config(path)
    assert config_from_dict(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_has_a_source(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"\w+ =", line):
            assert re.search(r"  # \S", line), line


@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_experiments_are_the_published_network(name):
    config = load_config(path_of(name))
    assert config.model.readout == "published"
    assert config.graph.rule == "upstream"
    assert config.graph.r_max == config.model.radial_max
    assert config.training.epochs == 1000


def test_split_sizes_of_the_authors():
    sizes = {"qm9": 130831, "materials_project": 69106, "fullerene": 3000, "pt_graphene": 21666, "smfe12": 3304}
    for name, size in sizes.items():
        data = load_config(path_of(name)).data
        assert data.n_train + data.n_valid + data.n_test == size, name
        assert data.split.startswith(PREFIX), name
        assert PUBLISHED_SPLITS[data.split.removeprefix(PREFIX)][0] == (data.n_train, data.n_valid, data.n_test), name


def test_published_parameter_counts():
    """Counted by Keras in the authors' code: 890,977 (SCANN+) and 557,665 (SCANN) for QM9."""
    model = load_config(path_of("qm9")).model
    assert n_parameters(model) == 890_977
    assert n_parameters(dataclasses.replace(model, variant="scann")) == 557_665
    assert n_parameters(load_config(path_of("qm9_gap_10k")).model) == 890_977


@pytest.mark.parametrize("name", BUILTIN)
def test_the_experiments_of_the_builtin_sets(name):
    config = load_config(path_of(name))
    assert config.data.path == BUILTIN[name]
    assert n_parameters(config.model) < 250_000
    assert config.data.split_by == ("random" if name == "builtin" else "group")


def test_what_runs_without_arguments():
    config = read_settings(None, None, (), None, (), None)
    assert config == load_config(path_of("builtin"))
    assert dict(config.training.attention).keys() == {*config.data.targets}
    assert read_settings(None, "fullerene", ("lumo",), None, (), None).data.target == "lumo"
    one = read_settings(None, None, ("xtb_lumo",), None, (), None)
    assert one.training.attention == (("xtb_lumo", "lumo_population"),)


@pytest.mark.parametrize(
    "path", [path for path in FILES if len(load_config(path).data.targets) > 1], ids=lambda path: path.stem
)
def test_every_target_of_several_can_be_learned_alone(path):
    """It keeps its own weights."""
    config = load_config(path)
    for k, target in enumerate(config.data.targets):
        one = read_settings(path.stem, None, (target, "another"), None, (), None)
        assert one.data.targets == (target, "another")
        assert one.training.attention == tuple(pair for pair in config.training.attention if pair[0] == target)
        assert one.data.weights == (config.data.weights[k], 1.0)
        assert one.attention_weights[0] == config.attention_weights[k]
        assert read_settings(path.stem, None, (target,), None, (), None).data.target == target
