"""refattn info: what is in a run or a data set, or what is installed."""

import json
from pathlib import Path

import click
import numpy as np
from ase.data import chemical_symbols

from refattn.cli.options import as_json, claim_outputs, echo, note, note_of_edits, overwrite
from refattn.common.environment import available_cores, devices, versions
from refattn.common.hdf5 import UNREADABLE, reading_hdf5
from refattn.common.strict_json import to_json
from refattn.config import to_toml
from refattn.data.store import Dataset, read_dataset
from refattn.errors import DataError, in_one_line
from refattn.models import shipped
from refattn.network.checkpoint import Checkpoint, load_checkpoint, model_file
from refattn.prediction.ensemble import is_ensemble, members_of
from refattn.report import png
from refattn.report.overview import describe, plot_overview


@click.command()
@click.argument("path", required=False, type=click.Path())
@click.option(
    "--plot", type=click.Path(), help="PNG to draw sizes, neighbours, elements and labels of a data set into."
)
@overwrite
@as_json
def info(path, plot, overwrite, as_json):
    """What is in the run directory, shipped model, model file or data set PATH; without PATH versions and threads."""
    dataset = None
    path = path and shipped(path)
    if path is None:
        facts = {"versions": versions(), "threads": available_cores(), "devices": devices()}
    elif path.is_dir():
        facts = describe_run(path)
    elif is_model(path):
        facts = describe_model(path)
    else:
        dataset = read_dataset(path, with_positions=False)
        facts = describe(dataset)
    if plot:
        draw(dataset, path, plot, overwrite)
    if as_json:
        echo(to_json(facts, ensure_ascii=False))
        return
    print_facts(facts)


def draw(dataset: Dataset | None, path: str | None, plot: str, overwrite: bool) -> None:
    """Write the picture `plot` of the data set `path`. Raises DataError where there is none."""
    if dataset is None:
        raise DataError(
            f"{path or '--plot'}: is no data set, which is what --plot draws; give a data set, or leave it out"
        )
    if Path(plot).suffix.lower() != ".png":
        raise DataError(f"{plot}: only PNG is drawn; choose a name that ends in .png")
    claim_outputs({Path(plot): png.MARK}, None, (), [path], overwrite)
    plot_overview(dataset, plot, Path(path).name)
    note(f"{plot}: drawn")


def is_model(path: Path | str) -> bool:
    """Whether the file is HDF5 with the mark of a model; raises DataError when it is no HDF5 file."""
    try:
        with reading_hdf5(path) as file:
            return file.attrs.get("format") == "refattn-model"
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give a run, a model file or a data set") from None
    except UNREADABLE as error:
        reason = in_one_line(error)
        raise DataError(f"{path}: cannot be read as HDF5 ({reason}); give a run, a model file or a data set") from None


def describe_model(path: Path | str) -> dict:
    """Facts of a model file, as a dict."""
    return facts_of(load_checkpoint(path))


def facts_of(checkpoint: Checkpoint) -> dict:
    """Facts of a model, as a dict."""
    sizes = {name: len(ids) for name, ids in checkpoint.split._asdict().items()}
    return {
        "target": checkpoint.config.data.target,
        "unit": checkpoint.unit,
        "mean": np.asarray(checkpoint.mean).tolist(),
        "std": np.asarray(checkpoint.std).tolist(),
        "n_parameters": len(checkpoint.params.vector),
        "elements": [chemical_symbols[z] for z in checkpoint.elements],
        **({"split": sizes} if any(sizes.values()) else {}),  # a model that ships keeps none
        "config": to_toml(checkpoint.config),
    }


def describe_run(path: Path) -> dict:
    """Facts of a run directory: its best model (of an ensemble the first) and, where it is finished, its metrics."""
    members = members_of(path)
    checkpoint = load_checkpoint(model_file(members[0]))
    facts = facts_of(checkpoint)
    note_of_edits(path, [checkpoint])
    if is_ensemble(path):
        facts = {"members": [member.name for member in members], **facts}
    metrics = path / "metrics.json"
    if metrics.exists():
        try:
            facts["metrics"] = json.loads(metrics.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{metrics}: cannot be read as JSON ({error}); run `refattn evaluate` instead") from None
    return facts


def print_facts(facts: dict, indent: str = "") -> None:
    """Facts as an indented list; text of several lines as it is."""
    for name, value in facts.items():
        if isinstance(value, dict):
            echo(f"{indent}{name}:")
            print_facts(value, indent + "  ")
        elif isinstance(value, str) and "\n" in value:
            echo(f"{indent}{name}:\n" + "\n".join(f"{indent}  {line}" for line in value.splitlines()))
        else:
            echo(f"{indent}{name}: {shown(value)}")


def shown(value: object) -> str:
    """A fact as text; a dash stands for one that is not defined."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
