"""The importer of the authors' models: every variant bit for bit, every damage one sentence."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
from upstream_fixtures import VARIANTS, open_network, unpack_model, variant

from refattn.config import GraphConfig, ModelConfig
from refattn.errors import RunError
from refattn.keras_import import read_keras, read_label, read_yaml, suggest_graph

# the small networks of the fixtures, and how each variant differs from s_plus
SMALL = ModelConfig(
    n_layers=2,
    width=16,
    n_heads=4,
    global_width=12,
    head_width=10,
    embedding_width=8,
    n_elements=10,
    readout="published",
)
DIFFERENCES = {
    "s_plus": {},
    "s_plus_scale": {},
    "s_plus_trained1step": {},
    "s_plus_drop": {"attention_dropout": 0.05},
    "s_plus_noattnnorm": {"residual": False},
    "s_plus_ring": {"ring": True},
    "s_plus_crys": {"n_elements": 95, "radial_max": 6.0},
    "s_plus_eb": {"n_elements": 95, "radial_max": 6.0, "non_negative": True},
    "s_base": {"variant": "scann"},
    "s_base_ring": {"variant": "scann", "ring": True},
    "s_base_noganorm": {"variant": "scann", "normalise_attention": False},
    "s_base_cgcnn": {"variant": "scann", "features": "cgcnn", "n_elements": 119},
    "s_base_eb_cgcnn": {
        "variant": "scann",
        "features": "cgcnn",
        "n_elements": 119,
        "radial_max": 6.0,
        "non_negative": True,
    },
}


@pytest.fixture(scope="module")
def network():
    with open_network() as file:
        yield file


@pytest.fixture
def model(tmp_path):
    return unpack_model("s_plus", tmp_path)


def refused(path):
    """The message of the refusal, which must be one sentence that names the file."""
    with pytest.raises(RunError) as caught:
        read_keras(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message.replace(str(path), "")) < 250
    return message


def edit_layers(path, change):
    """Apply `change` to the list of layers in a model's JSON description."""
    with h5py.File(path, "r+") as file:
        description = json.loads(file.attrs["model_config"])
        change({layer["config"]["name"]: layer for layer in description["config"]["layers"]})
        file.attrs["model_config"] = json.dumps(description)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_config_is_read_from_the_model(name, tmp_path):
    config, _ = read_keras(unpack_model(name, tmp_path))
    assert config == dataclasses.replace(SMALL, **DIFFERENCES[name])
    expected = GraphConfig(rule="upstream", r_max=config.radial_max, omega_min=0.4)
    assert suggest_graph(config) == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_are_bit_for_bit_those_of_the_authors(name, tmp_path, network):
    config, arrays = read_keras(unpack_model(name, tmp_path))
    reference = variant(network, name)
    assert reference.config.model == config
    expected = reference.arrays()
    assert list(arrays) == list(expected)
    for key, array in arrays.items():
        assert array.dtype == np.float32
        assert np.array_equal(array, expected[key]), key


def test_optimizer_state_is_left_alone(tmp_path):
    path = unpack_model("s_plus_trained1step", tmp_path)
    with h5py.File(path) as file:
        assert "optimizer_weights" in file
    trained, fresh = read_keras(path)[1], read_keras(unpack_model("s_plus", tmp_path))[1]
    assert trained.keys() == fresh.keys()
    assert any(not np.array_equal(trained[key], fresh[key]) for key in trained)


def test_names_of_the_session_do_not_matter(model):
    """Keras numbers unnamed layers by session: shift the numbers, and swap two names, as another session may."""
    _, before = read_keras(model)
    renamed = {"local_attention": "local_attention_1", "local_attention_1": "local_attention_9"}
    with h5py.File(model, "r+") as file:
        weights = file["model_weights"]
        names = [str(name) for name in weights.attrs["layer_names"]]
        for old in reversed(renamed):
            weights.move(old, renamed[old])
        weights.attrs["layer_names"] = [renamed.get(name, name) for name in names]
        description = json.loads(file.attrs["model_config"])
        for layer in description["config"]["layers"]:
            layer["config"]["name"] = renamed.get(layer["config"]["name"], layer["config"]["name"])
        file.attrs["model_config"] = json.dumps(description)
    _, after = read_keras(model)
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_files_that_are_no_models(tmp_path):
    assert "cannot be read" in refused(tmp_path / "missing.h5")
    assert "cannot be read" in refused(tmp_path)
    for content in (b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path = tmp_path / "other.h5"
        path.write_bytes(content)
        assert "cannot be read" in refused(path)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["x"] = 1
    assert "save the whole model" in refused(tmp_path / "empty.h5")


def test_a_truncated_model_is_refused_wherever_it_is_cut(model):
    content = model.read_bytes()
    for part in (0.2, 0.6, 0.99):  # seven more by the command, in test_fuzz.py
        model.write_bytes(content[: int(part * len(content))])
        refused(model)


def test_damaged_bytes_never_end_in_a_traceback(model):
    rng = np.random.default_rng(0)
    content = np.frombuffer(model.read_bytes(), np.uint8)
    for _ in range(8):
        damaged = content.copy()
        start = rng.integers(len(damaged) - 64)
        damaged[start : start + 64] = rng.integers(0, 256, 64)
        model.write_bytes(damaged.tobytes())
        try:
            read_keras(model)  # damage to an unused byte or to a weight is not seen
        except RunError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {"layers": 3}}', '{"config": {"layers": [{}]}}'])
def test_a_broken_description_is_refused(model, text):
    with h5py.File(model, "r+") as file:
        file.attrs["model_config"] = text
    refused(model)


@pytest.mark.parametrize(
    ("name", "key", "value", "word"),
    [
        ("local_attention", "v_proj", True, "v_proj"),
        ("local_attention_1", "num_head", 2, "num_head"),
        ("local_attention", "scale", 0.9, "scale"),
        ("global_attention", "kq_proj", False, "kq_proj"),
        ("dense_embed", "activation", "relu", "relu"),
        ("predict_property", "activation", "sigmoid", "sigmoid"),
        ("residual_norm", "dropout", 0.3, "rate"),
        ("gaussian_expansion", "centers", [0.0, 1.0, 3.0], "evenly"),
        ("gaussian_expansion", "centers", [], "cannot be read"),
        ("bf_property", "units", 11, "hidden_w"),
        ("bf_property", "units", "11", "head_width"),
        ("embed_atom", "input_dim", -3, "n_elements"),
    ],
)
def test_other_networks_are_refused(model, name, key, value, word):
    edit_layers(model, lambda layers: layers[name]["config"].update({key: value}))
    assert word in refused(model)


def test_other_layers_are_refused(model):
    edit_layers(model, lambda layers: layers["dense_embed"].update(class_name="Conv2D"))
    assert "Conv2D" in refused(model)


def test_models_older_than_version_1_are_refused(model):
    for name in ("local_attention", "local_attention_1"):
        edit_layers(model, lambda layers, name=name: layers[name]["config"].pop("g_update"))
    assert "version 1.0" in refused(model)


def test_weights_that_do_not_fit_are_refused(model):
    content = model.read_bytes()

    def damaged(change):
        model.write_bytes(content)
        with h5py.File(model, "r+") as file:
            change(file["model_weights"])
        return refused(model)

    def replace(weights, name, array):
        del weights[name]
        weights[name] = array

    bias, kernel = "after_Lc/after_Lc/bias:0", "after_Lc/after_Lc/kernel:0"
    assert "shape" in damaged(lambda weights: replace(weights, bias, np.zeros(5, np.float32)))
    assert "int64" in damaged(lambda weights: replace(weights, bias, np.zeros(12, np.int64)))
    assert "NaN" in damaged(lambda weights: replace(weights, kernel, np.full((16, 12), np.nan, np.float32)))
    damaged(lambda weights: weights.__delitem__(bias))
    damaged(lambda weights: weights.attrs.__delitem__("layer_names"))
    assert "order" in damaged(lambda weights: weights.attrs.modify("layer_names", weights.attrs["layer_names"][::-1]))
    assert "holds" in damaged(lambda weights: weights["after_Lc"].attrs.update(weight_names=["after_Lc/bias:0"]))


def test_label_from_the_yaml_beside_the_model(tmp_path):
    folder = tmp_path / "run_homo" / "models"
    folder.mkdir(parents=True)
    path = folder / "model_homo.h5"
    assert read_label(path) == ("", 0.0, 1.0)
    yaml = folder.parent / "config.yaml"
    yaml.write_text("hyper:\n  target: homo\n  target_mean: '-6.5'\n  target_std: '0.6'\nmodel:\n  scale: 0.5\n")
    assert read_label(path) == ("homo", -6.5, 0.6)
    path.with_suffix(".yaml").write_text("hyper:\n  target: lumo  # eV\n")
    assert read_label(path) == ("lumo", 0.0, 1.0)
    yaml.write_text("hyper:\n  target: homo\n  target_mean: x\n  target_std: '0.6'\n")
    with pytest.raises(RunError, match="target_mean"):
        read_label(folder / "other.h5")


def test_yaml_of_the_authors(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("# comment\nmodel:\n  n_atoms: 10\n  scale: 0.5\n  use_ring: False\n\nhyper:\n  pretrained: ''\n")
    expected = {"model": {"n_atoms": 10, "scale": 0.5, "use_ring": False}, "hyper": {"pretrained": ""}}
    assert read_yaml(path) == expected
    for text, line in [("  a: 1\n", 1), ("a:\n- 1\n", 2), ("a:\n  b: 1\nc: [1, 2]\n", 3)]:
        path.write_text(text)
        with pytest.raises(RunError, match=f"line {line}"):
            read_yaml(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="cannot be read"):
        read_yaml(path)
