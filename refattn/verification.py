"""Train a run once more and compare its parameters, bit for bit, with what the run kept of them on its way.

The bits of a training on the CPU depend on the processor's registers and on Numba, not on the number of threads nor on
the versions of NumPy, SciPy and Python.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from refattn.common.environment import available_cores, processor, versions
from refattn.common.hdf5 import attribute_text, reading_hdf5
from refattn.common.threads import workers
from refattn.data.builtin import data_of_run, open_data_for
from refattn.data.splits import resolve_split
from refattn.errors import RunError
from refattn.network.checkpoint import check_data, load_checkpoint
from refattn.network.params import initialise
from refattn.prediction.run_directory import load_initial
from refattn.training.schedule import Schedule
from refattn.training.train import Interrupted, Trainer, digest_of


@dataclasses.dataclass
class Verification:
    """What came out.

    steps : list of int               optimiser steps after which the parameters were compared
    first_difference : int or None    the first of them after which they differed; 0: at the beginning; None: nowhere
    changed : dict                    processor and versions that were others: name -> (then, now)
    """

    steps: list[int]
    first_difference: int | None
    changed: dict[str, tuple[str, str]]


def verify(
    run: str | os.PathLike,
    steps: int | None = None,
    init: str | os.PathLike | None = None,
    n_threads: int | None = None,
    progress: Callable[[dict], None] | None = None,
    device: str = "cpu",
) -> Verification:
    """Train the run again from its beginning, on the same data, and compare.

    Parameters
    ----------
    run : path                the directory of a run of `refattn train`, which stays as it is
    steps : int, optional     optimiser steps to repeat; by default all that the run made
    init : path, optional     what the run was started from, if it was a fine-tuning
    n_threads, progress, device     as of refattn.train

    Returns
    -------
    Verification

    Raises RunError where the run keeps nothing to compare with, and what refattn.train raises.
    """
    run = Path(run)
    checkpoint = load_checkpoint(run / "last.h5")
    config, state = checkpoint.config, checkpoint.state
    dataset = open_data_for(config, data_of_run(config.data.path, run))
    check_data(checkpoint, dataset)
    params = initialise(config.model, config.training.seed, config.training.dtype)
    if init:
        params.vector[:] = load_initial(init, config).vector
    fresh = dataclasses.replace(checkpoint, params=params, state={})
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder, workers(n_threads or available_cores()) as map_fn:
        trainer = Trainer(Path(folder), fresh, dataset, resolve_split(checkpoint.split, dataset), device)
        try:
            then = digests(state.get("digests", {}), state.get("history", []), trainer.n_batches)
            lengthened = [(int(step), int(epochs)) for step, epochs in state.get("lengthened", [])]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{run / 'last.h5'}: its digests cannot be read ({error}); train again") from None
        limit = max([step for step in then if steps is None or step <= steps], default=0)
        if not limit:
            asked = "" if steps is None else f" of its first {steps} steps"
            raise RunError(f"{run}: keeps no digests{asked}; train it again with this version, or ask for more steps")
        train_again(trainer, lengthened, limit, map_fn, progress or (lambda record: None))
        now = digests(trainer.digests, trainer.history, trainer.n_batches) | {limit: digest_of(trainer.params)}
    compared = sorted(then.keys() & now.keys())
    different = [step for step in compared if then[step] != now[step]]
    steps = [step for step in compared if step]
    return Verification(steps, different[0] if different else None, changes(run / "last.h5"))


def train_again(
    trainer: Trainer, lengthened: list, limit: int, map_fn: Callable, report: Callable[[dict], None]
) -> None:
    """Train for `limit` steps; where more epochs were asked for later, with the schedule of the fewer until then.

    Parameters
    ----------
    lengthened : list of (steps taken, epochs asked for until then)
    """
    config = trainer.config
    n_done = 0
    for end, epochs in [*lengthened, (limit, config.training.epochs)]:
        end = min(end, limit)
        if end <= n_done:
            continue
        taken = itertools.count(n_done + 1)
        training = dataclasses.replace(config.training, epochs=epochs)
        trainer.config = dataclasses.replace(config, training=training)
        schedule = trainer.schedule.state
        trainer.schedule = Schedule(training, trainer.n_batches)
        trainer.schedule.state = schedule
        with contextlib.suppress(Interrupted):
            trainer.fit(map_fn, report, lambda taken=taken, end=end: next(taken) == end)
        n_done = end


def digests(at_steps: dict[str, str], history: list[dict], n_batches: int) -> dict[int, str]:
    """Optimiser step -> digest of the parameters after it, of all that a training keeps."""
    found = {int(step): digest for step, digest in at_steps.items()}
    return found | {record["epoch"] * n_batches: record["digest"] for record in history if "digest" in record}


def changes(path: Path) -> dict[str, tuple[str, str]]:
    """Processor and versions that a model file names and that are others now."""
    with reading_hdf5(path) as file:
        then = json.loads(attribute_text(file, "versions"))
        then["processor"] = attribute_text(file, "processor") if "processor" in file.attrs else "unknown"
    now = {**versions(), "processor": processor()}
    return {name: (then.get(name, "-"), now.get(name, "-")) for name in then if then[name] != now.get(name)}
