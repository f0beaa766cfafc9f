"""refattn oracle: what a network makes of one batch, for those who write it in another framework."""

from pathlib import Path

import click

from refattn.cli.options import as_json, claim_outputs, echo, note, overwrite


@click.command(context_settings={"show_default": True})
@click.argument("source", metavar="RUN|CONFIG")
@click.option("--out", type=click.Path(), default="oracle.h5", help="HDF5 file to write.")
@click.option("--structures", type=click.IntRange(min=1), default=8, help="Of a run's data set, to make the batch of.")
@overwrite
@as_json
def oracle(source, out, structures, overwrite, as_json):
    """Write weights, one batch, the output of every layer, every gradient, and three steps of Adam.

    All of it in float64 and float32, by the NumPy reference. Of a RUN the weights are the trained ones and the batch is
    the first structures of its training set; of a model that ships the weights are its own, of a CONFIG, a TOML file or
    the name of an experiment, they are random, and the batch has what errors hide in: a site without edges, one that
    is its own neighbour, neighbours exactly alike. `refattn.testing.compare` reads the file.
    """
    from refattn.common.strict_json import to_json
    from refattn.common.text import counted
    from refattn.experiments import experiment_or_file
    from refattn.models import FOLDER, shipped
    from refattn.testing.oracle import FORMAT, make_oracle, write_oracle

    run = shipped(source)
    claim_outputs({Path(out): FORMAT}, run if run.is_dir() else None, (), [source], overwrite)
    if run.parent == FOLDER:
        case = of_model(run)
    else:
        case = of_run(run, structures) if run.is_dir() else of_config(experiment_or_file(source))
    made = make_oracle(*case)
    write_oracle(out, made)
    names = [*made.steps["float64"].outputs]
    if as_json:
        echo(to_json({"out": out, "structures": len(made.graph), "outputs": names}))
    note(f"{counted(len(made.graph), 'structure')}, {len(names)} outputs of layers, written to {out}")


def of_run(run, n):
    """The arguments of make_oracle for a run."""
    import numpy as np

    from refattn.data.builtin import data_of_run, open_data_for
    from refattn.data.splits import labels_of_targets, resolve_split
    from refattn.network.checkpoint import check_data, load_checkpoint, model_file
    from refattn.training.targets import Targets

    checkpoint = load_checkpoint(model_file(run))
    config = checkpoint.config
    dataset = open_data_for(config, data_of_run(config.data.path, run))
    check_data(checkpoint, dataset)
    label = Targets.of(dataset, labels_of_targets(dataset, config.data.targets), checkpoint).label
    rows = resolve_split(checkpoint.split, dataset)[0]
    rows = rows[~np.isnan(label[rows]).any(axis=1)][:n]
    graph = dataset.graphs.take(rows).for_network(config.model, np.float64)
    return config, graph, label[rows].astype(np.float64), checkpoint.params


def of_model(folder):
    """The arguments of make_oracle for a model that ships."""
    from refattn.network.checkpoint import load_checkpoint, model_file

    checkpoint = load_checkpoint(model_file(folder))
    return *of_config(checkpoint.config)[:-1], checkpoint.params


def of_config(config):
    """The arguments of make_oracle for a configuration."""
    import numpy as np

    from refattn.gradient_check import small_shard

    graph = small_shard(config.model)
    label = np.random.default_rng(config.training.seed).normal(size=(len(graph), config.model.n_targets))
    return config, graph, label, None
