"""The folder of a training: which files are its own, when it may be written, and what it takes to go on.

`last.h5` is the first file that a training writes and the mark of its run: whenever a training is killed, either there
is none, and the same command starts over, or --resume goes on from it.
"""

import dataclasses
import numbers
import os
from pathlib import Path

import numpy as np

from refattn.config import SECTIONS, Config, load_config
from refattn.data.builtin import SETS, data_of_run, with_absolute_paths
from refattn.data.store import RULE
from refattn.errors import ConfigError, OutputError, RunError
from refattn.network.checkpoint import Checkpoint, load_checkpoint, model_file
from refattn.network.params import Parameters, initialise, parameter_table
from refattn.prediction.ensemble import is_ensemble, is_of_folds

FILES = (
    *("last.h5", "model.h5", "config.toml", "split.json", "log.jsonl", "calibration.h5", "metrics.json"),
    *("predictions.csv", "curve.png", "parity.png", "roc.png"),
)
EPOCH_START = {"epoch": 1, "batch": 0, "loss": 0.0, "absolute": 0.0, "seconds": 0.0}
# Of [model], in a run and the one that it starts from: what the parameters before the heads do not depend on.
NOT_IN_LAYERS = ("n_targets", "head", "readout", "normalise_attention", "non_negative", "dropout", "attention_dropout")
MAY_DIFFER = {"data.path", "graph.min_distance"}  # the fingerprint of the run decides whether the data are the same
RECORD = ("epoch", "train_mae", "valid_mae", "seconds")  # numbers of an epoch that are read again
ORIGIN = ("name", "test_structures_seen")  # of what a run began with, see origin


def refuse_existing(out: Path, overwrite: bool = False) -> None:
    """Raise RunError or OutputError where the folder `out` holds a run, an ensemble, or files that a training replaces.

    With `overwrite` only an ensemble or folds are in the way.
    """
    advice = "choose another --out, or go on with --resume"
    if is_ensemble(out):
        raise RunError(f"{out}: already holds an ensemble; {advice}")
    if is_of_folds(out):
        raise RunError(f"{out}: already holds the folds of a split; {advice}")
    present = [name for name in FILES if (out / name).exists()]
    if overwrite or not present:
        return
    if {"last.h5", "model.h5"} & {*present}:
        raise RunError(f"{out}: already holds a run; {advice}")
    raise OutputError(f"{out}: holds {present[0]} and no run; choose another --out, or give --overwrite to replace it")


def remove_run(out: Path) -> None:
    """Remove the files of an earlier run, but for `last.h5`, which the new one replaces."""
    for name in FILES[1:]:
        (out / name).unlink(missing_ok=True)


def free_directory(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 and so on when that exists."""
    number = 1
    path = Path("runs") / name
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def continued_config(own: Config, asked: Config | None, out: Path) -> Config:
    """The configuration with which to go on: a run's own, but for more epochs and another place of its data set.

    Parameters
    ----------
    own, asked : Config     of the run in `out`; as asked for now, None: as it is

    Raises RunError, which names the settings, where others are asked for.
    """
    asked = own if asked is None else asked
    differences = []
    for name, value, wanted in _different(*map(with_absolute_paths, (own, asked))):
        longer = name == "training.epochs" and wanted > value
        if not longer and name not in MAY_DIFFER:
            differences.append(f"{name} = {value} (asked for: {wanted})")
    if differences:
        raise RunError(
            f"{out}: its run has {', '.join(differences)}; go on with its own settings, or choose another --out"
        )
    path = asked.data.path if asked.data.path in SETS else os.path.abspath(data_of_run(asked.data.path, out))
    data = dataclasses.replace(own.data, path=path)
    return dataclasses.replace(own, data=data, training=dataclasses.replace(own.training, epochs=asked.training.epochs))


def _different(own, other):
    """(name, value in own, value in other) of every setting in which two configurations differ."""
    for section in SECTIONS:
        ours, theirs = getattr(own, section), getattr(other, section)
        for field in dataclasses.fields(ours) if ours and theirs else ():
            values = getattr(ours, field.name), getattr(theirs, field.name)
            if values[0] != values[1]:
                yield f"{section}.{field.name}", *values


def notes_on_edits(folder: Path, own: Config) -> list[str]:
    """What the config.toml in the folder of a run says otherwise than the configuration that its model has."""
    path = folder / "config.toml"
    if not path.is_file():
        return []
    try:
        found = [f"{name} = {theirs} (the run's: {ours})" for name, ours, theirs in _different(own, load_config(path))]
    except ConfigError as error:
        return [f"note: {error}; the run has its own record"]
    if not found:
        return []
    return [f"note: {path} was edited, but the run has its own record: {', '.join(found)}"]


def notes_on_epochs(before: Config, now: Config) -> list[str]:
    """What to know of a run that goes on for more epochs than it was begun with."""
    if now.training.epochs == before.training.epochs or now.training.schedule != "cosine":
        return []
    return [
        f"note: the cosine of the learning rate was to end after {before.training.epochs} epochs and now ends after "
        f"{now.training.epochs}: the rate rises again, and the network is not the one that {now.training.epochs} "
        "epochs at once would give"
    ]


def load_initial(init: str | os.PathLike, config: Config) -> Parameters:
    """Parameters to start from: the layers of a run or model file, and its heads of those targets that it has too.

    Other heads are those of a network that starts from nothing. Raises RunError when its network is another.
    """
    start = _load_start(init, config)
    ours = config.model
    params = initialise(ours, config.training.seed, config.training.dtype)
    names = [entry.name for entry in parameter_table(dataclasses.replace(ours, n_targets=1))]
    n_of_layers = names.index("after_w")
    for name in names[:n_of_layers]:
        params[name][...] = start.params[name]
    known = start.config.data.targets
    for k, target in enumerate(config.data.targets):
        if target in known:
            head = start.params.target(known.index(target))
            for name in names[n_of_layers:]:
                params.target(k)[name][...] = head[name]
    return params


def notes_on_start(init: str | os.PathLike, config: Config) -> list[str]:
    """Which heads do not start from `init`. Raises RunError as load_initial does."""
    known = _load_start(init, config).config.data.targets
    new = [target for target in config.data.targets if target not in known]
    return [f"{init} has learned {', '.join(known)}: the head of {', '.join(new)} is new"] if new else []


def origin(init: str | os.PathLike, checkpoint: Checkpoint) -> tuple[dict, list[str]]:
    """What metrics.json says of `init`, from which the run of a Checkpoint starts, and what that run should know of it.

    The dict has its name, and how many of the structures to test on it was trained or validated on: None where it keeps
    no digests of its data. The notes say that too, and whether its neighbours were others.
    """
    start = load_checkpoint(model_file(init))
    n_tested = len(checkpoint.split.test)
    n_seen = 0 if not n_tested else None
    if n_tested and start.fingerprint is not None:
        tested = checkpoint.fingerprint.graphs[-n_tested:]
        n_seen = int(np.logical_or(*start.fingerprint.seen(start.split, tested)).sum())
    notes = [*_other_neighbours(init, start, checkpoint), *_seen(init, n_seen, n_tested)]
    return dict(zip(ORIGIN, (str(init), n_seen), strict=True)), notes


def _other_neighbours(init, start, checkpoint):
    theirs, ours = start.config.graph, checkpoint.config.graph
    other = [name for name in RULE if getattr(theirs, name) != getattr(ours, name)]
    found = ", ".join(f"{name} {getattr(theirs, name)} and not {getattr(ours, name)}" for name in other)
    return [f"{init} was trained on other neighbours ({found}); prepare the data set with its rule"] if other else []


def _seen(init, n_seen, n_tested):
    if n_seen is None:
        return [f"{init} keeps no digests of its data; structures to test on may be those it was trained on"]
    if not n_seen:
        return []
    return [
        f"{init} was trained or validated on {n_seen} of the {n_tested} structures to test on, so that their error is "
        "no test; take its split (its split.json as data.split), or test on others"
    ]


def _load_start(init, config):
    """The Checkpoint of `init`, whose network is that of `config` but for the targets."""
    start = load_checkpoint(model_file(init))
    ours = config.model
    theirs = dataclasses.replace(start.config.model, **{name: getattr(ours, name) for name in NOT_IN_LAYERS})
    if theirs != ours:
        raise RunError(f"{init}: its network is not that of [model]; start from the [model] of that run's config.toml")
    return start


def checked_state(checkpoint: Checkpoint, schedule: dict[str, float], n_batches: int) -> dict:
    """The state in the Checkpoint of a `last.h5`, of the kinds and in the ranges that a training goes on with.

    Parameters
    ----------
    schedule : dict     that of a training at its start
    n_batches : int     of an epoch

    Raises KeyError, TypeError or ValueError, which name what is missing or wrong.
    """
    state = checkpoint.state
    place = state["place"]
    absolute = np.atleast_1d(place["absolute"]).tolist()  # of each target
    if len(absolute) != checkpoint.config.model.n_targets or not _are_numbers(absolute):
        raise TypeError("place is of another kind")
    place_of_one = {**place, "absolute": absolute[0]}
    for name, found, wanted in (("schedule", state["schedule"], schedule), ("place", place_of_one, EPOCH_START)):
        if not isinstance(found, dict) or found.keys() != wanted.keys() or not _are_numbers(found.values()):
            raise TypeError(f"{name} is of another kind")
    history = state["history"]
    for name in ("digests", "init"):
        if not isinstance(state.get(name, {}), dict):
            raise TypeError(f"{name} is of another kind")
    if not isinstance(history, list) or not all(isinstance(record, dict) for record in history):
        raise TypeError("history is of another kind")
    if not all(_are_numbers(record.get(name) for name in RECORD) for record in history):
        raise TypeError("history lacks numbers")
    whole = [place["epoch"], place["batch"], state["adam_step"], *(record["epoch"] for record in history)]
    if not all(isinstance(number, numbers.Integral) and number >= 0 for number in whole) or place["epoch"] < 1:
        raise ValueError("it counts in numbers that are not 0, 1 and so on")
    epochs = [record["epoch"] for record in history]
    if len(epochs) != place["epoch"] - 1 or epochs != list(range(1, len(epochs) + 1)):
        raise ValueError(f"its history is not that of the epochs before epoch {place['epoch']}")
    if place["batch"] > n_batches:
        raise ValueError("it has more batches than an epoch")
    return state


def _are_numbers(values):
    return all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values)
