"""Configurations: read, checked, overridden, written; every mistake one sentence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from refattn.config import (
    CHOICES,
    SECTIONS,
    Config,
    DataConfig,
    GraphConfig,
    ModelConfig,
    TrainingConfig,
    config_from_dict,
    load_config,
    override,
    to_toml,
)
from refattn.errors import ConfigError, RefattnError
from refattn.training.train import train


def message_of(function, *args):
    with pytest.raises(ConfigError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def test_defaults_are_valid_and_survive_toml(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(Config()), encoding="utf-8")
    assert load_config(path) == Config() == config_from_dict({})


def test_every_field_survives_toml(tmp_path):
    """Values that are not the default, among them an integer, a boolean, a path with quotes and a small number."""
    config = Config(
        model=ModelConfig(variant="scann", n_layers=3, residual=False, radial_max=6.5, dropout=0.0),
        graph=GraphConfig(rule="upstream", omega_min=0.2),
        training=TrainingConfig(epsilon=1e-9, loss="huber", scale_target=False),
    )
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path='a "quoted" päth\\x', target="gap"))
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert load_config(path) == config


def test_missing_keys_keep_their_defaults_and_integers_become_floats():
    config = config_from_dict({"model": {"radial_max": 6, "width": 64}})
    assert config.model == ModelConfig(radial_max=6.0, width=64)
    assert type(config.model.radial_max) is float


def test_configurations_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.width = 3


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"modle": {}}, ("[modle]", "model, graph, data, training")),
        ({"model": 3}, ("[model]",)),
        ({"model": {"widht": 3}}, ("[model]", "'widht'", "width")),
        ({"model": {"width": "128"}}, ("model.width", "'128'", "int")),
        ({"model": {"width": 128.0}}, ("model.width", "int")),
        ({"model": {"width": True}}, ("model.width", "int")),
        ({"model": {"ring": 1}}, ("model.ring", "bool")),
        ({"model": {"dropout": False}}, ("model.dropout", "float")),
        ({"model": {"dropout": 1.0}}, ("model.dropout", "below 1")),
        ({"model": {"dropout": -0.1}}, ("model.dropout", "not negative")),
        ({"model": {"n_layers": 0}}, ("model.n_layers", "greater than 0")),
        ({"model": {"n_heads": 3}}, ("model.width 128", "model.n_heads 3")),
        ({"model": {"radial_max": float("nan")}}, ("model.radial_max", "finite")),
        ({"graph": {"r_max": float("inf")}}, ("graph.r_max", "finite")),
        ({"training": {"learning_rate": 0.0}}, ("training.learning_rate", "greater than 0")),
        ({"training": {"beta_2": 1.0}}, ("training.beta_2", "below 1")),
        *(
            ({name.split(".")[0]: {name.split(".")[1]: "nonsense"}}, (name, "'nonsense'", *choices))
            for name, choices in CHOICES.items()
        ),
    ],
)
def test_mistakes_are_named(sections, words):
    message = message_of(config_from_dict, sections, "file.toml")
    for word in ("file.toml", *words):
        assert word in message


WRONG = {
    int: (-1, 2**40, 3.0, "3", True, None),
    float: (-0.5, float("nan"), float("inf"), 2**40, "0.5", False, None),
    bool: (1, 0.0, "true", None),
    str: (3, True, None),
    tuple: (3, "", None, [0], [["a"]], {"a": 1}),
}
EVERY_KEY = [
    pytest.param(section, field, id=f"{name}.{field.name}")
    for name, section in SECTIONS.items()
    for field in dataclasses.fields(section)
    if not field.metadata  # what is derived from other keys
]


@pytest.mark.parametrize(("section", "field"), EVERY_KEY)
def test_every_key_is_checked_from_toml_and_from_python(section, field):
    name = f"{section.name}.{field.name}"
    for value in WRONG[type(field.default)] + (("nonsense",) if name in CHOICES else ()):
        from_python = message_of(lambda value=value: section(**{field.name: value}))
        from_toml = message_of(config_from_dict, {section.name: {field.name: value}}, "file.toml")
        assert from_python.startswith(name)
        assert from_toml == f"file.toml: {from_python}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ModelConfig(width=4), ("model.width 4", "model.n_heads 8")),
        (lambda: ModelConfig(variant="scan"), ("model.variant", "'scan'", "scann, scann+")),
        (lambda: ModelConfig(dropout=1.0), ("model.dropout", "below 1")),
        (lambda: TrainingConfig(learning_rate=1e-5), ("training.learning_rate_min", "at most", "1e-05")),
        (lambda: dataclasses.replace(ModelConfig(), n_heads=3), ("model.n_heads 3",)),
        (lambda: Config(model={"width": 4}), ("model", "ModelConfig")),
        (lambda: Config(training=None), ("training", "TrainingConfig")),
        (lambda: Config(graph=ModelConfig()), ("graph", "GraphConfig")),
    ],
)
def test_mistakes_in_python_are_one_sentence_and_leave_no_folder(make, words, tmp_path):
    message = message_of(lambda: train(Config(model=make()), tmp_path / "run"))
    for word in words:
        assert word in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["data.target_weight", "training.attention_weight"])
def test_every_target_may_have_a_weight(name, tmp_path):
    section, key = name.split(".")
    two = override(
        Config(), ['data.target=["homo", "lumo"]', 'training.attention={ homo = "where" }', f"{name}=[2, 0.5]"]
    )
    assert getattr(getattr(two, section), key) == (2.0, 0.5)
    (tmp_path / "config.toml").write_text(to_toml(two), encoding="utf-8")
    assert load_config(tmp_path / "config.toml") == two
    assert f"{name} has 3 weights for 2 targets" in message_of(override, two, [f"{name}=[1, 2, 3]"])
    for wrong in ("[1, 0]", "[1, -1]", "[1, inf]", '[1, "1"]', "[1, true]", f"[1, 1{400 * '0'}]"):
        assert f"{name} is " in message_of(override, two, [f"{name}={wrong}"])


def test_one_weight_of_attention_is_that_of_every_target():
    assert override(Config(), ['data.target=["homo", "lumo"]', "training.attention_weight=3"]).attention_weights == (
        3,
        3,
    )


def test_numbers_of_numpy_and_paths_are_taken():
    config = Config(
        model=ModelConfig(width=np.int64(64), radial_max=np.float32(6)), data=DataConfig(path=Path("set.h5"))
    )
    assert config == Config(model=ModelConfig(width=64, radial_max=6.0), data=DataConfig(path="set.h5"))
    assert "width = 64\n" in to_toml(config)


def test_files_that_are_no_configuration(tmp_path):
    contents = {"cut.toml": b"[model", "binary.toml": bytes(range(256)), "twice.toml": b"a = 1\na = 2\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert name in message_of(load_config, tmp_path / name)
    assert "missing.toml" in message_of(load_config, tmp_path / "missing.toml")
    assert str(tmp_path) in message_of(load_config, tmp_path)


def test_overrides():
    changed = override(Config(), ["model.n_heads=4", "data.target=gap", 'data.path="x y"', " model.ring = true "])
    assert (changed.model.n_heads, changed.model.ring) == (4, True)
    assert (changed.data.target, changed.data.path) == ("gap", "x y")
    assert override(Config(), ["training.learning_rate=1e-3"]).training.learning_rate == 1e-3
    assert override(changed, []) == changed


@pytest.mark.parametrize(
    "assignment", ["n_heads=4", "model.n_heads", "model.head=4", "net.width=4", "model.width=wide", "=", "model.=3", ""]
)
def test_overrides_fail_on_unknown_keys_and_nonsense(assignment):
    assert "--set" in message_of(override, Config(), [assignment])


def test_the_errors_are_refattns():
    assert issubclass(ConfigError, RefattnError)


@pytest.mark.parametrize(
    "training", [{"learning_rate": 1e-6}, {"sgdr_factor": 0.5}, {"schedule": "sgdr", "learning_rate_min": 1.0}]
)
def test_schedules_that_make_no_sense(training):
    with pytest.raises(ConfigError, match=r"at most training\.learning_rate|at least 1"):
        config_from_dict({"training": training})


def test_a_graph_that_is_not_given_is_that_of_the_data_set():
    assert config_from_dict({}).graph is None
    assert "[graph]" not in to_toml(config_from_dict({}))
    assert override(config_from_dict({}), ["graph.r_max=5"]).graph.r_max == 5.0
