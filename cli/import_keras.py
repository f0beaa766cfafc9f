"""refattn import-keras: the authors' trained models."""

import math
from pathlib import Path

import click

from refattn.cli.options import as_json, echo, note, overwrite
from refattn.common.files import make_directory, write_text
from refattn.common.outputs import NOTHING, claim
from refattn.common.strict_json import to_json
from refattn.config import Config, DataConfig, to_toml
from refattn.data.sources.labels import LABELS
from refattn.errors import RunError
from refattn.keras_import import labels_of, read_keras, read_label, suggest_graph
from refattn.network.checkpoint import FORMAT, Checkpoint, save_checkpoint
from refattn.network.params import from_arrays


@click.command(name="import-keras")
@click.argument("model", type=click.Path())
@click.argument("run", type=click.Path())
@click.option("--target", help="Name of the label; default: from the .yaml beside MODEL.")
@click.option("--unit", help="Unit of the label, such as eV; default: that of prepare, where it knows the label.")
@click.option("--mean", type=float, help="Mean that was taken off the label; default: from the .yaml, else 0.")
@click.option("--std", type=float, help="Standard deviation that the label was divided by; default: likewise, else 1.")
@click.option(
    "--omega-min", type=float, default=0.4, show_default=True, help="Solid angle threshold of its graphs, sr."
)
@overwrite
@as_json
def import_keras(model, run, target, unit, mean, std, omega_min, overwrite, as_json):
    """Turn the authors' Keras file MODEL (.h5) into the run directory RUN, for predict and train --init."""
    path = Path(run)
    if (path / "model.h5").exists() and not overwrite:
        raise RunError(f"{run}: already holds a model; choose another directory")
    claim({path / "model.h5": FORMAT, path / "config.toml": NOTHING}, [model, *labels_of(model)], overwrite)
    if not Path(model).exists():
        raise RunError(f"{model}: there is no such file; check the path")
    network, arrays = read_keras(model)
    name, yaml_mean, yaml_std = read_label(model)
    target = target or name
    if not target:
        raise click.UsageError("the file does not say which label it predicts; give its name with --target")
    unit = LABELS.get(target, {}).get("unit", "") if unit is None else unit
    mean, std = yaml_mean if mean is None else mean, yaml_std if std is None else std
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise click.UsageError("--mean and --std must be finite numbers, --std above 0")
    config = Config(network, suggest_graph(network, omega_min), DataConfig(target=target))
    checkpoint = Checkpoint(config, from_arrays(network, arrays, "float32"), unit, mean, std)
    make_directory(path)
    save_checkpoint(path / "model.h5", checkpoint)
    write_text(path / "config.toml", to_toml(config))
    size = len(checkpoint.params.vector)
    variant = network.variant
    if as_json:
        facts = {"run": run, "target": target, "unit": unit, "mean": mean, "std": std, "variant": variant}
        echo(to_json({**facts, "n_parameters": size}))
    note(f"{run}: {size} parameters of {variant.upper()}, {target} {unit}".rstrip())
