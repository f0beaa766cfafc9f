"""Reads the trained models of the authors (sinhvt3421/scann--material, version 1.0): Keras .h5 files of every variant.

A file describes itself: the JSON in `model_config` gives the network, `layer_names` and `weight_names` give the
order of the weights. Most names carry a counter of the Keras session that saved the model (`dense_3`), so weights are
read by position; only the layers that the authors named themselves are also checked by name. What a file
cannot tell is the label: its name, mean and standard deviation are in the `config.yaml` that their training writes.
"""

import json
import math
from pathlib import Path

import numpy as np

from refattn.common.hdf5 import reading_hdf5
from refattn.config import GraphConfig, ModelConfig, config_from_dict
from refattn.errors import ConfigError, RunError
from refattn.network.params import parameter_table

ATTENTION_DROPOUT = 0.05  # code, LocalAttention: the fixed rate that use_drop switches on
ANGLE_MAX = 2 * math.pi  # sr, last centre of the authors' expansion of the solid angle
KERAS_LAYERS = ("InputLayer", "Embedding", "Dense", "Dropout", "Lambda", "TFOpLambda", "Multiply")
SCANN_LAYERS = ("GaussianExpansion", "LocalAttention", "ResidualNorm", "GlobalAttention")
ACTIVATIONS = {"embed_atom": "linear", "extra_embed": "linear"}  # of the named Dense layers; the others have swish
LABELS = ("target", "target_mean", "target_std")


def read_keras(path: Path | str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """The network and the weights of one of the authors' models.

    Parameters
    ----------
    path : path
        A `.h5` file written by Keras 2 (`model.save`), with or without optimizer state, which is not read.

    Returns
    -------
    config : ModelConfig
        With `readout="published"`.
    arrays : dict of name -> float32 array
        Under the names and with the shapes (in, out) of `parameter_table(config)`.

    Raises RunError for anything else: not HDF5, damaged, weights only, another network, an older version.

    Source   the authors' scann/models/scann_model.py (create_model), version 1.0, MIT
    """
    try:
        with reading_hdf5(path) as file:
            layers = _described_layers(file, path)
            config = _model_config(layers, path)
            return config, _weights(file["model_weights"], layers, config, path)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(
            f"{path}: cannot be read as a Keras model ({reason}); give a complete .h5 file of the authors' code"
        ) from None


def suggest_graph(config: ModelConfig, omega_min: float = 0.4) -> GraphConfig:
    """The GraphConfig under which the authors made a model: their rule, with edges as long as the last Gaussian.

    The smallest solid angle (sr) is not in the file; 0.4 is theirs but for Pt/graphene (0.2).
    """
    return GraphConfig(rule="upstream", r_max=config.radial_max, omega_min=omega_min)


def read_label(path: Path | str) -> tuple[str, float, float]:
    """Name, mean and standard deviation of the label, from the yaml that the authors' training leaves with a model.

    Looked for as the model's name with `.yaml`, then as `config.yaml` in its folder and in the folder above. A label
    that was not scaled has mean 0 and deviation 1; without a yaml the name is empty.

    Raises RunError for a damaged yaml.
    """
    for candidate in labels_of(path):
        if candidate.is_file():
            hyper = read_yaml(candidate).get("hyper", {})
            target, mean, std = (hyper.get(key, default) for key, default in zip(LABELS, ("", 0.0, 1.0)))
            try:
                mean, std = float(mean), float(std)
            except (TypeError, ValueError, OverflowError):
                mean = std = math.nan
            if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
                raise RunError(
                    f"{candidate}: hyper.target_mean and target_std must be finite, target_std above 0; correct them"
                )
            return str(target), mean, std
    return "", 0.0, 1.0


def labels_of(path: Path | str) -> list[Path]:
    """Where read_label looks for the yaml of a model."""
    path = Path(path)
    return [path.with_suffix(".yaml"), path.parent / "config.yaml", path.parent.parent / "config.yaml"]


def read_yaml(path: Path | str) -> dict[str, dict]:
    """The authors' configurations: sections of `key: value` lines, the only part of YAML that they use.

    Returns {section: {key: str, bool, int or float}}. Raises RunError, naming the line, for anything else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read as text ({error}); check the path") from None
    sections = {}
    section = None
    for number, line in enumerate(lines, 1):
        text = line.split(" #")[0].rstrip()
        if not text or text.lstrip().startswith("#"):
            continue
        key, colon, value = text.partition(":")
        if colon and not text[0].isspace() and not value:
            section = sections.setdefault(key, {})
        elif colon and text[0].isspace() and section is not None:
            section[key.strip()] = _scalar(value.strip())
        else:
            raise RunError(f"{path}, line {number}: only sections of `key: value` lines are read; rewrite this line")
    return sections


def _scalar(text):
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _described_layers(file, path):
    """{name: (class name, settings)} of the JSON description, in its order."""
    if "model_config" not in file.attrs or "model_weights" not in file:
        raise RunError(f"{path}: has no Keras model_config and model_weights; save the whole model with model.save")
    layers = {}
    for layer in json.loads(file.attrs["model_config"])["config"]["layers"]:
        kind = layer["class_name"]
        settings = layer["config"]
        if kind not in KERAS_LAYERS + SCANN_LAYERS:
            raise RunError(
                f"{path}: has a layer of the kind {kind!r}, which SCANN has not; give a model of the authors"
            )
        layers[settings["name"]] = kind, settings
    return layers


def _of_kind(layers, kind):
    return [settings for found, settings in layers.values() if found == kind]


def _common(settings, key, path):
    """The value of a key that all these layers must share."""
    values = [layer.get(key) for layer in settings]
    if not values or values[0] is None or any(value != values[0] for value in values):
        raise RunError(
            f"{path}: its layers give no common {key!r}; only models of version 1.0 of the authors' code can be read"
        )
    return values[0]


def _check_options(layers, path):
    """RunError where the layers are not those of SCANN, or have options that refattn has not."""
    local = _of_kind(layers, "LocalAttention")
    residual = _of_kind(layers, "ResidualNorm")
    pooling = _of_kind(layers, "GlobalAttention")
    if not local or len(residual) not in (0, len(local)) or len(pooling) != 1:
        raise RunError(
            f"{path}: has {len(local)} LocalAttention, {len(residual)} ResidualNorm and {len(pooling)} GlobalAttention "
            "layers, which is not SCANN; give a model of the authors"
        )
    wanted = [(layer, "v_proj", False) for layer in local + pooling]  # values are the keys
    wanted += [(layer, "kq_proj", True) for layer in local + pooling]
    wanted += [(layer, "scale", 0.5) for layer in local]  # the exponent of the head's width
    wanted += [(layer, "use_bias", True) for layer in _of_kind(layers, "Dense")]
    for name, (kind, layer) in layers.items():
        if kind == "Dense" and name != "predict_property":
            wanted.append((layer, "activation", ACTIVATIONS.get(name, "swish")))
    for layer, key, value in wanted:
        if layer.get(key) != value:
            raise RunError(
                f"{path}: layer {layer['name']} has {key} = {layer.get(key)!r}, and refattn has only {value!r}; "
                "this model cannot be imported"
            )


def _model_config(layers, path):
    """ModelConfig of the described layers; RunError where they are not a network of refattn."""
    _check_options(layers, path)
    local = _of_kind(layers, "LocalAttention")
    residual = _of_kind(layers, "ResidualNorm")
    pooling = _of_kind(layers, "GlobalAttention")[0]
    plus = _common(local, "g_update", path)
    centres = _centres(layers, plus, path)
    rates = [layer["rate"] for layer in _of_kind(layers, "Dropout")] + [layer["dropout"] for layer in residual]
    kind, embedding = layers["embed_atom"]
    values = {
        "variant": "scann+" if plus else "scann",
        "n_layers": len(local),
        "width": _common(local, "dim", path),
        "n_heads": _common(local, "num_head", path),
        "global_width": pooling["dim"],
        "head_width": layers["bf_property"][1]["units"],
        "ring": "extra_embed" in layers,
        "n_radial": len(centres),
        "radial_max": float(centres[-1]),
        "residual": bool(residual),
        "normalise_attention": pooling["norm"],
        "readout": "published",
        "dropout": _common([{"rate": rate} for rate in rates], "rate", path),
        "attention_dropout": ATTENTION_DROPOUT if _common(local, "dropout", path) else 0.0,
        "non_negative": _non_negative(layers, path),
    }
    if kind == "Embedding":
        values |= {"n_elements": embedding["input_dim"], "embedding_width": embedding["output_dim"]}
    else:
        values |= {"features": "cgcnn", "embedding_width": embedding["units"]}
    try:
        return config_from_dict({"model": values}, f"{path} (model_config)").model
    except ConfigError as error:
        raise RunError(str(error)) from None


def _centres(layers, plus, path):
    """Centres of the distance expansion; the authors space them evenly, and those of the angle end at 2 pi."""
    expansions = [np.array(layer["centers"], dtype=float) for layer in _of_kind(layers, "GaussianExpansion")]
    ends = [expansions[0][-1], ANGLE_MAX] if plus else [expansions[0][-1]]
    even = [np.linspace(0, end, len(expansions[0])) for end in ends]
    # the file holds float32 centres
    if len(even) != len(expansions) or not all(np.allclose(a, b, atol=1e-6) for a, b in zip(expansions, even)):
        raise RunError(
            f"{path}: its Gaussian expansions are not SCANN's evenly spaced ones; give a model of the authors"
        )
    return expansions[0]


def _non_negative(layers, path):
    """Whether the head clips at zero: the authors' mrelu, which Keras may describe by name or by a dictionary."""
    activation = layers["predict_property"][1]["activation"]
    if activation == "linear":
        return False
    if "mrelu" in str(activation):
        return True
    raise RunError(f"{path}: predict_property has the activation {activation!r}; only linear and mrelu are SCANN's")


def _weighted_layers(config):
    """(class name, name where the authors fixed it) of every layer with weights, in Keras's order."""
    embedding = "Dense" if config.features == "cgcnn" else "Embedding"
    dense = (
        ["extra_embed"] * config.ring + ["dense_embed"] + ["neighbor_d", "neighbor_w"] * (config.variant == "scann+")
    )
    layer = [("LocalAttention", None)] + [("ResidualNorm", None)] * config.residual
    head = [("GlobalAttention", None), ("Dense", "bf_property"), ("Dense", "predict_property")]
    first = [(embedding, "embed_atom")] + [("Dense", name) for name in dense]
    return first + layer * config.n_layers + [("Dense", "after_Lc")] + head


def _weights(group, layers, config, path):
    """{name of parameter_table: array}, read by position."""
    names = [_text(name) for name in group.attrs["layer_names"]]
    weighted = [name for name in names if len(group[name].attrs["weight_names"])]
    expected = _weighted_layers(config)
    kinds = [layers[name][0] for name in weighted]
    fixed = [name if wanted else None for name, (_, wanted) in zip(weighted, expected)]
    if kinds != [kind for kind, _ in expected] or fixed != [name for _, name in expected]:
        raise RunError(
            f"{path}: its layers with weights are not those of its model_config, in SCANN's order; save it again"
        )
    datasets = [group[name][_text(weight)] for name in weighted for weight in group[name].attrs["weight_names"]]
    table = parameter_table(config)
    if len(datasets) != len(table):
        raise RunError(f"{path}: holds {len(datasets)} weights, its model_config asks for {len(table)}; save it again")
    arrays = {}
    for entry, dataset in zip(table, datasets):
        if dataset.shape != entry.shape or dataset.dtype.kind != "f":
            raise RunError(
                f"{path}: {dataset.name} is {dataset.dtype} of shape {dataset.shape}, its model_config asks for "
                f"floats of shape {entry.shape} ({entry.name}); save it again"
            )
        arrays[entry.name] = dataset[()].astype(np.float32)
        if not np.isfinite(arrays[entry.name]).all():
            raise RunError(f"{path}: {dataset.name} holds NaN or infinite weights; give a model that trained well")
    return arrays


def _text(name):
    return name.decode() if isinstance(name, bytes) else str(name)
