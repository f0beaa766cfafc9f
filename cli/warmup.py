"""refattn warmup: the kernels compiled before they are needed."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refattn.cli.options import StatusLine, threads

if TYPE_CHECKING:
    import ase

    from refattn.config import Config
    from refattn.prediction.predictor import Predictor

N_MOLECULES = 24  # enough for shards of several structures


@click.command()
@click.argument("networks", nargs=-1)
@threads
def warmup(networks, threads):
    """Compile what training experiments, and predicting and explaining with runs, need, and keep it on disk.

    NETWORKS are experiments, TOML files, runs or names of `refattn models`; by default the built-in experiment and all
    models that ship. Without this command the first training, prediction and explanation compile, which takes half a
    minute to a minute each: once on a machine, for each kind of network (its heads and their width), and again for
    another version of refattn.
    """
    from refattn.models import model_names

    status = StatusLine()
    for name in networks or ("builtin", *model_names()):
        began = time.perf_counter()
        status.update(f"{name}: compiling")
        compile_for(name, threads)
        status.line(f"{name}: ready after {time.perf_counter() - began:.0f} s")


def compile_for(name: str, threads: int | None) -> None:
    """Train the network of an experiment on a few molecules for an epoch, predict and explain; with a run the last two.

    Raises what load and train do.
    """
    from refattn.config import DataConfig
    from refattn.experiments import experiment_names, experiment_or_file
    from refattn.prediction.predictor import load
    from refattn.training.train import train

    if name not in experiment_names() and Path(name).suffix != ".toml":
        predict_with(load(name, min_distance=0), threads)
        return
    settings = experiment_or_file(name)
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        write_set(Path(folder) / "set.h5", settings)
        learned = {name: getattr(settings.data, name) for name in ("target", "target_weight", "weight")}
        data = DataConfig(path=f"{folder}/set.h5", **learned)
        training = dataclasses.replace(settings.training, epochs=1)
        settings = dataclasses.replace(settings, data=data, training=training, graph=None)
        train(settings, f"{folder}/run", threads)
        predict_with(load(f"{folder}/run"), threads)


def few_molecules() -> "list[ase.Atoms]":
    """Molecules of hydrogen and carbon, all a little different."""
    from ase.build import molecule

    found = [molecule(name) for name in ("C2H6", "C6H6", "C2H4") * (N_MOLECULES // 3)]
    for number, atoms in enumerate(found):
        atoms.rattle(0.02, seed=number)
    return found


def write_set(path: Path, settings: "Config") -> None:
    """A data set of few_molecules with the labels and per-site arrays of a configuration, and its neighbour rule."""
    import numpy as np

    from refattn.config import OF_CLASS, GraphConfig
    from refattn.data.store import RULE, Record
    from refattn.data.writer import DatasetWriter
    from refattn.structures.batch import GraphBatch

    graph = settings.graph or GraphConfig()
    rule = {field: getattr(graph, field) for field in RULE}
    with DatasetWriter(path, graph) as writer:
        structures = few_molecules()
        records = []
        for number, atoms in enumerate(structures):
            arrays = {array: np.full(len(atoms), 1 / len(atoms)) for _, array in settings.training.attention}
            if settings.model.ring:
                arrays["ring"] = np.zeros((len(atoms), 2))
            value = float(number % 2 if settings.training.loss in OF_CLASS else number % 7 - 3)
            labels = {name: 1.0 if name == settings.data.weight else value for name in settings.data.labels}
            records.append(Record(str(number), atoms, labels, arrays))
        writer.add(records, [GraphBatch.from_atoms(atoms, **rule) for atoms in structures])


def predict_with(model: "Predictor", threads: int | None) -> None:
    """Predict one small structure, as one thread does, and several, as shards; explain one by each score.

    Explanations are computed in float64, for which every kernel is compiled anew.
    """
    import numpy as np

    from refattn.explanation.explain import COSTLY, explain
    from refattn.prediction.predictor import Model

    elements = [z for checkpoint in model.checkpoints for z in checkpoint.elements] or [6]
    structures = few_molecules()
    for atoms in structures:
        atoms.numbers = np.resize(elements, len(atoms))
        if model.config.model.ring:
            atoms.set_array("ring", np.zeros((len(atoms), 2)))
    model.predict(structures[0], threads)
    model.predict(structures, threads)
    if isinstance(model, Model):  # an ensemble is not explained
        explain(model, structures[0], COSTLY, n_threads=threads)
