"""refattn info: what is in a run or a data set, or what is installed."""

import json
from pathlib import Path

import click
import h5py
import numpy as np
from ase.data import chemical_symbols

from refattn.cli.options import as_json
from refattn.config import to_toml
from refattn.data.store import read_dataset
from refattn.environment import available_cores, versions
from refattn.errors import DataError, in_one_line
from refattn.strict_json import to_json
from refattn.training.checkpoint import UNREADABLE, load_checkpoint


@click.command()
@click.argument("path", required=False, type=click.Path())
@as_json
def info(path, as_json):
    """What is in the run directory, model file or data set PATH; without PATH versions and threads."""
    if path is None:
        facts = {"versions": versions(), "threads": available_cores(), "devices": ["cpu", "reference"]}
    elif Path(path).is_dir():
        facts = describe_run(Path(path))
    elif is_model(path):
        facts = describe_model(path)
    else:
        facts = describe_dataset(path)
    if as_json:
        click.echo(to_json(facts, ensure_ascii=False))
        return
    print_facts(facts)


def is_model(path):
    """Whether the file is HDF5 with the mark of a model; raises DataError when it is no HDF5 file."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("format") == "refattn-model"
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; give a run, a model file or a data set") from None
    except UNREADABLE as error:
        reason = in_one_line(error)
        raise DataError(f"{path}: cannot be read as HDF5 ({reason}); give a run, a model file or a data set") from None


def describe_model(path):
    """Facts of a model file, as a dict."""
    checkpoint = load_checkpoint(path)
    return {
        "target": checkpoint.config.data.target,
        "unit": checkpoint.unit,
        "mean": checkpoint.mean,
        "std": checkpoint.std,
        "n_parameters": len(checkpoint.params.vector),
        "elements": [chemical_symbols[z] for z in checkpoint.elements],
        "split": {name: len(ids) for name, ids in checkpoint.split._asdict().items()},
        "config": to_toml(checkpoint.config),
    }


def describe_run(path):
    """Facts of a run directory: its best model and, where it is finished, its metrics."""
    facts = describe_model(path / "model.h5")
    metrics = path / "metrics.json"
    if metrics.exists():
        try:
            facts["metrics"] = json.loads(metrics.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{metrics}: cannot be read as JSON ({error}); run `refattn evaluate` instead") from None
    return facts


def describe_dataset(path):
    """Facts of a data set, as a dict."""
    dataset = read_dataset(path, with_positions=False)
    sizes, degrees = np.diff(dataset.site_ptr), np.diff(dataset.edge_ptr)
    labels = {}
    for name, values in dataset.labels.items():
        known = values[np.isfinite(values)]
        labels[name] = {"unit": dataset.label_attrs[name].get("unit", ""), "known": len(known)}
        if len(known):
            labels[name] |= {"mean": float(known.mean()), "std": float(known.std())}
            labels[name] |= {"min": float(known.min()), "max": float(known.max())}
    elements, counts = np.unique(dataset.z, return_counts=True)
    return {
        **dataset.attrs,
        "structures": len(dataset),
        "sites": int(dataset.site_ptr[-1]),
        "sites_per_structure": spread(sizes),
        "edges_per_site": spread(degrees),
        "elements": {chemical_symbols[z]: int(n) for z, n in zip(elements, counts, strict=True)},
        "graph": {name: getattr(dataset.graph_config, name) for name in ("rule", "r_max", "omega_min", "weight_min")},
        "labels": labels,
        "arrays": {name: list(values.shape[1:]) for name, values in dataset.arrays.items()},
        "skipped": len(dataset.skipped),
    }


def spread(numbers):
    """Smallest, mean and largest of some counts."""
    if not len(numbers):
        return {}
    return {"min": int(numbers.min()), "mean": round(float(numbers.mean()), 2), "max": int(numbers.max())}


def print_facts(facts, indent=""):
    """Facts as an indented list; text of several lines as it is."""
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}:")
            print_facts(value, indent + "  ")
        elif isinstance(value, str) and "\n" in value:
            click.echo(f"{indent}{name}:\n" + "\n".join(f"{indent}  {line}" for line in value.splitlines()))
        else:
            click.echo(f"{indent}{name}: {shown(value)}")


def shown(value):
    """A fact as text; a dash stands for one that is not defined."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
