"""Training: epochs of optimiser steps, a checkpoint after each, the best model kept, and a way to go on."""

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refattn.common.files import holds_text, make_directory, only_process, write_text
from refattn.common.metrics import known_columns, metrics
from refattn.common.mpi import ALONE, Ranks, take_gpu
from refattn.common.threads import workers
from refattn.config import Config, to_toml
from refattn.data.builtin import open_data_for, with_absolute_paths
from refattn.data.fingerprint import Extent, Fingerprint
from refattn.data.notes import notes_on
from refattn.data.splits import Split, check_parts, choose_split, labels_of_targets, resolve_split, write_split
from refattn.data.store import Dataset
from refattn.errors import ConfigError, RunError, TrainingError
from refattn.network.checkpoint import Checkpoint, check_data, load_checkpoint, of_each, save_checkpoint
from refattn.network.evaluate import predict_labels
from refattn.network.params import Parameters, initialise
from refattn.ops import load_backend
from refattn.prediction.run_directory import (
    EPOCH_START,
    checked_state,
    continued_config,
    free_directory,
    load_initial,
    notes_on_edits,
    notes_on_epochs,
    origin,
    refuse_existing,
    remove_run,
)
from refattn.training.adam import Adam
from refattn.training.average import Average
from refattn.training.results import write_results
from refattn.training.schedule import Schedule, epoch_batches
from refattn.training.stepper import check_ranks, make_stepper
from refattn.training.targets import Targets, label_scale

SAVE_SECONDS = 600  # between two saves within an epoch: what a kill costs at most


class Interrupted(Exception):
    """The training was asked to stop; everything to go on with is in `last.h5`."""


def train(
    config: Config | None,
    out: str | os.PathLike | None = None,
    n_threads: int | None = None,
    resume: bool = False,
    init: str | os.PathLike | None = None,
    progress: Callable[[dict], None] | None = None,
    stop: Callable[[], bool] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    ranks: Ranks = ALONE,
) -> dict:
    """Train a network and leave a complete run directory (docs/design.md section 7).

    Parameters
    ----------
    config : Config         with `resume` it may be None: the run's own
    out : path, optional    the run directory; by default runs/TARGET, numbered if that exists
    n_threads : int, optional
        Threads that compute shards; by default one for each core. They do not change a bit of the result.
    resume : bool
        Go on with the run in `out`. With a `config` it is begun where there is none, and a run that is there must have
        these settings, but for more training.epochs (see continued_config): the same call begins and goes on.
    init : path, optional   a run or model file to start from (fine-tuning), see load_initial
    progress : callable (dict), optional
        Called at the start and after every batch with epoch, n_epochs, batch, n_batches and units, at the start with
        notes and `ended` too (by "epochs", by "patience" or ""), after every epoch with its record.
    stop : callable () -> bool, optional
        Asked after every batch; when true, the place is saved and Interrupted raised.
    device : "cpu", "reference", "cuda", or "cuda-tf32" with products in TF32
    overwrite : bool        replace another run, or other files, in `out`
    ranks : Ranks, optional
        The processes that train together (refattn.common.mpi.open_ranks); all of them call this function with the same
        arguments. Their number does not change a bit of the result.

    Returns
    -------
    dict, as written to metrics.json; empty but on the first rank

    Raises ConfigError, DataError, OutputError, RunError, TrainingError, Interrupted.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(ranks.ending_together(Interrupted))
        out = ranks.from_first(Path(out) if out else free_directory("-".join(config.data.targets)))
        n_threads = n_threads or ranks.n_threads()
        if ranks.size > 1 and device.startswith("cuda"):
            take_gpu(ranks)
        begun = ranks.from_first(resume and (config is None or (out / "last.h5").exists()))
        if not begun:
            if ranks.first:
                refuse_existing(out, overwrite)
            trainer = Trainer.start(config, out, init, device)
            check_ranks(trainer.config, trainer.ops, ranks)
            ranks.wait()  # now nobody reads what the first one replaces
        if ranks.first:
            if not begun:
                make_directory(out)
            if out.is_dir():
                stack.enter_context(only_process(out))
        ranks.wait()
        if begun:
            trainer = Trainer.resume(out, device, config, ranks)
            check_ranks(trainer.config, trainer.ops, ranks)
            if init and trainer.digests.get("0") not in {None, digest_of(load_initial(init, trainer.config))}:
                raise RunError(f"{out}: its run did not begin with {init}; leave --init out, or choose another --out")
            ranks.wait()
        elif ranks.first:
            refuse_existing(out, overwrite)  # another process may have begun
        trainer.ranks = ranks
        trainer.write_settings(begun)
        map_fn = stack.enter_context(workers(n_threads))
        trainer.fit(map_fn, progress or (lambda record: None), stop or (lambda: False))
        best = ranks.from_first(load_checkpoint(out / "model.h5") if ranks.first else None)
        best.split = trainer.checkpoint.split  # the same, with its rows
        known = trainer.dataset, trainer.history, trainer.init
        del trainer  # its memory is needed
        return write_results(out, best, *known, n_threads, ranks.map(map_fn), device, ranks)


class Trainer:
    """A training in progress: the data, the network, the optimiser, the schedule, and how far it is.

    Parameters
    ----------
    out : Path               the run directory
    checkpoint : Checkpoint  whose parameters are trained
    dataset : Dataset
    rows : tuple of three (S,) int    structures to train on, to validate on, to test on
    device : str             as of `train`
    """

    def __init__(self, out: Path, checkpoint: Checkpoint, dataset: Dataset, rows: tuple, device: str):
        config = checkpoint.config
        self.out = out
        self.checkpoint = checkpoint
        self.config = config
        self.dataset = dataset
        self.rows = rows
        self.label = labels_of_targets(dataset, config.data.targets)
        self.ops = load_backend(device)
        dataset.graphs.check(config.model, dataset.id)
        self.params = checkpoint.params
        self.adam = Adam(self.params.vector, self.params.decay_mask(), config.training)
        self.n_batches = -(-len(rows[0]) // config.training.batch_size)
        self.schedule = Schedule(config.training, self.n_batches)
        self.progress = self._epoch_start(1)
        self.history = []
        self.average = Average(self.params, config.training.ema) if config.training.ema else None
        self.digests = {"0": digest_of(self.params)}  # of the parameters after 0, 1, 2, 4, 8, ... steps
        self.lengthened = []  # (steps taken, epochs asked for until then) of each time that more were asked for
        self.init = {}  # of a fine-tuning: what it began with, see origin
        self.notes = []
        self.ranks = ALONE
        self.saved = time.monotonic()

    @classmethod
    def start(cls, config: Config, out: Path, init: str | os.PathLike | None, device: str) -> "Trainer":
        """A new run, of which nothing is written yet."""
        config, dataset, split, rows = open_split(config)
        label = labels_of_targets(dataset, config.data.targets)[rows[0]]
        with workers(1):  # of BLAS's own threads one: the same bits on any number of cores
            mean, std, reference = label_scale(label, dataset.graphs, rows[0], config)
        elements = tuple(dataset.graphs.elements(rows[0]).tolist())
        params = initialise(config.model, config.training.seed, config.training.dtype)
        if init:
            params.vector[:] = load_initial(init, config).vector
        unit = of_each([dataset.label_attrs[target].get("unit", "") for target in config.data.targets])
        checkpoint = Checkpoint(config, params, unit, of_each(mean), of_each(std), elements, split, reference=reference)
        checkpoint.fingerprint = Fingerprint.of(dataset, config.data.labels, rows)
        checkpoint.extent = Extent.of(dataset, rows[0])
        trainer = cls(out, checkpoint, dataset, rows, device)
        if init:
            trainer.init, trainer.notes = origin(init, checkpoint)
        return trainer

    @classmethod
    def resume(cls, out: Path, device: str, config: Config | None = None, ranks: Ranks = ALONE) -> "Trainer":
        """Go on with the run in `out` from its `last.h5`.

        Raises RunError when there is none, when it is damaged, or when it has other settings than `config`.
        """
        checkpoint = load_checkpoint(out / "last.h5")
        before = checkpoint.config
        checkpoint.config = continued_config(before, config, out)
        known = checkpoint.config
        dataset = open_data_for(known)
        resolve(checkpoint.config, dataset)
        rows = resolve_split(checkpoint.split, dataset)
        checkpoint.split = Split.of_rows(dataset, rows)  # the same, with its rows
        check_parts(dataset, checkpoint.config, rows)
        check_data(checkpoint, dataset)
        trainer = cls(out, checkpoint, dataset, rows, device)
        trainer.ranks = ranks
        trainer.notes = notes_on_edits(out, before) + notes_on_epochs(before, checkpoint.config)
        try:
            state = checked_state(checkpoint, trainer.schedule.state, trainer.n_batches)
            checkpoint.state = {}
            trainer.adam.m[:] = state["adam_m"]
            trainer.adam.v[:] = state["adam_v"]
            trainer.adam.step = int(state["adam_step"])
            trainer.schedule.state = state["schedule"]
            trainer.progress = state["place"]
            trainer.history = state["history"]
            trainer.digests = state.get("digests", {})
            trainer.init = state.get("init", {})
            trainer.lengthened = [*state.get("lengthened", [])]
            if trainer.average:
                trainer.average.vector[:] = state["ema"]
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{out / 'last.h5'}: lacks the state of the optimiser ({error}); train again") from None
        if trainer.history:
            best = load_checkpoint(out / "model.h5")  # better found damaged now than after the last epoch
            if best.config != checkpoint.config and ranks.first:
                save_checkpoint(out / "model.h5", dataclasses.replace(best, config=checkpoint.config))
        if checkpoint.config.training.epochs > before.training.epochs:
            trainer.lengthened.append([trainer.adam.step, before.training.epochs])
        if checkpoint.config != before:
            trainer._save()
        return trainer

    def write_settings(self, resumed: bool) -> None:
        """Write what the run is, and its beginning to go on from; of a run that is resumed what it lacks."""
        if not self.ranks.first:
            return
        if not resumed:
            remove_run(self.out)
            self._save()
        path = self.out / "config.toml"
        if not holds_text(path, to_toml(self.config)):
            if not path.exists() or notes_on_edits(self.out, self.config):  # metrics.json marks a finished run
                (self.out / "metrics.json").unlink(missing_ok=True)
            write_text(path, to_toml(self.config))
        if not (self.out / "split.json").exists():
            write_split(self.out / "split.json", self.checkpoint.split)

    def _epoch_start(self, epoch):
        return {**EPOCH_START, "epoch": epoch, "absolute": [0.0] * self.config.model.n_targets}

    def fit(self, map_fn: Callable, report: Callable[[dict], None], stop: Callable[[], bool]) -> None:
        """Epochs until the last one, or until the validation MAE has not improved for `patience` epochs.

        Parameters
        ----------
        map_fn : callable          like map; see refattn.common.threads.workers
        report, stop : callable    `progress` and `stop` of `train`
        """
        data = self.dataset.graphs, self.dataset.id, Targets.of(self.dataset, self.label, self.checkpoint)
        stepper = make_stepper(self.config, self.ops, *data, self.params, self.adam, self.average, self.ranks)
        notes = self.notes + notes_on(self.config, self.dataset, self.rows)
        report({**self._reached(), "notes": notes, "ended": self._ended_by()})
        while not self._ended_by():
            self._epoch(stepper, map_fn, report, stop)
            report(self.history[-1])

    def _reached(self):
        """How far the training is, for `report`."""
        reached = {"epoch": self.progress["epoch"], "batch": self.progress["batch"], "n_batches": self.n_batches}
        return {**reached, "n_epochs": self.config.training.epochs, "units": list(self.checkpoint.units)}

    def _ended_by(self):
        if self.history and self.progress["epoch"] - 1 - self._best()["epoch"] >= self.config.training.patience:
            return "patience"
        return "epochs" if self.progress["epoch"] > self.config.training.epochs else ""

    def _best(self):
        return min(self.history, key=lambda record: record["valid_mae"])

    def _epoch(self, stepper, map_fn, report, stop):
        progress = self.progress
        began = time.perf_counter() - progress["seconds"]
        try:
            for batch in self._begin(stepper):
                stepper.step(batch, map_fn)
                self._keep_digest(stepper, (progress["epoch"] - 1) * self.n_batches + batch + 1)
                progress["batch"] = batch + 1
                progress["seconds"] = time.perf_counter() - began
                report(self._reached())
                stopped = self.ranks.any(stop())
                if stopped or time.monotonic() - self.saved > SAVE_SECONDS:
                    self._settle(stepper)
                    self._save()
                if stopped:
                    raise Interrupted(f"epoch {progress['epoch']}, batch {batch + 1} of {self.n_batches}")
            self._settle(stepper)
        except TrainingError as error:
            raise TrainingError(self._explain(f"epoch {progress['epoch']}, {error}")) from None
        self._finish_epoch(map_fn, time.perf_counter() - began)

    def _keep_digest(self, stepper, step):
        if step & (step - 1) == 0:  # few, and early ones: `refattn verify` compares them
            stepper.settle()
            self.digests[str(step)] = digest_of(self.params)

    def _begin(self, stepper):
        """Hand the epoch to the stepper; the numbers of the batches that are left."""
        training = self.config.training
        progress = self.progress
        first = progress["batch"]
        batches = epoch_batches(self.rows[0], training.batch_size, training.seed, progress["epoch"])
        rates = [self.schedule.rate(self.adam.step + batch - first) for batch in range(len(batches))]
        stepper.begin(batches, rates, first, np.array([progress["loss"], *np.atleast_1d(progress["absolute"])]))
        return range(first, len(batches))

    def _settle(self, stepper):
        self.progress["loss"], *self.progress["absolute"] = stepper.settle().tolist()

    def _finish_epoch(self, map_fn, seconds):
        n_train = len(self.rows[0])
        epoch = self.progress["epoch"]
        self.ranks.check_equal(digest_of(self.params))
        errors = self.ranks.from_first(self._errors(self.ranks.map(map_fn)))  # GPUs may differ in the last bits
        if not np.isfinite(errors["valid_mae"]).all():
            raise TrainingError(self._explain(f"epoch {epoch}: a prediction of the validation set is not finite"))
        in_spreads = {name: values / self.checkpoint.scale.std for name, values in errors.items()}
        together = {
            name: float(np.average(values, weights=self.config.data.weights)) for name, values in in_spreads.items()
        }
        record = {
            "epoch": epoch,
            "loss": self.progress["loss"] / n_train,
            "penalty": self.adam.penalty(self.params.vector),
            **(together if self.config.model.n_targets > 1 else {name: float(x[0]) for name, x in errors.items()}),
            "learning_rate": self.schedule.rate(self.adam.step - 1),
            "structures_per_second": n_train / seconds,
            "seconds": seconds,
            "digest": digest_of(self.params),
        }  # fmt: skip
        if self.config.model.n_targets > 1:
            columns = zip(self.config.data.targets, *errors.values(), strict=True)
            record["targets"] = {target: dict(zip(errors, map(float, values))) for target, *values in columns}
        self.schedule.end_epoch(together["valid_mae"])
        self.history.append(record)
        self.progress = self._epoch_start(epoch + 1)
        if self._best()["epoch"] == epoch and self.ranks.first:
            save_checkpoint(self.out / "model.h5", dataclasses.replace(self.checkpoint, params=self._predicting()))
        self._save()

    def _predicting(self):
        """The parameters that predict: their average where there is one."""
        return self.average.params if self.average else self.params

    def _errors(self, map_fn):
        """Of the epoch, by name: (K,) errors of the targets in their units."""
        n_train = (~np.isnan(self.label[self.rows[0]])).sum(axis=0)
        prediction = self.predict(self.rows[1], map_fn)
        valid = [metrics(*known) for known in known_columns(self.label[self.rows[1]], prediction)]
        return {
            "train_mae": np.array(self.progress["absolute"]) / n_train * self.checkpoint.scale.std,
            "valid_mae": np.array([scores["mae"] for scores in valid]),
            "valid_rmse": np.array([scores["rmse"] for scores in valid]),
        }

    def predict(self, rows: np.ndarray, map_fn: Callable) -> np.ndarray:
        """Predictions (S, K) of the structures `rows`, in the labels' units."""
        predicting = dataclasses.replace(self.checkpoint, params=self._predicting())
        return predict_labels(predicting, self.ops, self.dataset.graphs, rows, map_fn)[0]

    def _save(self):
        self.saved = time.monotonic()
        if not self.ranks.first:
            return
        state = {
            "adam_m": self.adam.m,
            "adam_v": self.adam.v,
            "adam_step": self.adam.step,
            "schedule": self.schedule.state,
            "place": self.progress,
            "history": self.history,
            "digests": self.digests,
            "init": self.init,
            "lengthened": self.lengthened,
            **({"ema": self.average.vector} if self.average else {}),
        }
        save_checkpoint(self.out / "last.h5", dataclasses.replace(self.checkpoint, state=state))
        write_text(self.out / "log.jsonl", "".join(json.dumps(record) + "\n" for record in self.history))

    def _explain(self, error):
        kept = f"the best model so far stays in {self.out / 'model.h5'}" if self.history else "no model was saved yet"
        return f"{error}; {kept}; look at these labels or lower training.learning_rate"


def digest_of(params: Parameters) -> str:
    """64 bits of the SHA-256 of all parameters: trainings that agree in it agree in every bit."""
    return hashlib.sha256(params.vector.tobytes()).hexdigest()[:16]


def open_split(config: Config) -> tuple[Config, Dataset, Split, tuple]:
    """The resolved configuration, its Dataset, the Split and the rows of its parts.

    Raises what open_data, resolve, choose_split and check_parts do.
    """
    dataset = open_data_for(config)
    config = resolve(config, dataset)
    split = choose_split(dataset, config.data)
    rows = resolve_split(split, dataset)
    check_parts(dataset, config, rows)
    return config, dataset, Split.of_rows(dataset, rows), rows


def resolve(config: Config, dataset: Dataset) -> Config:
    """The configuration with the data set's neighbour rule and absolute paths. Raises ConfigError on a conflict."""
    graph = dataset.graph_config
    if config.graph and dataclasses.replace(config.graph, min_distance=graph.min_distance) != graph:
        differences = [
            f"{name} = {value} (configuration: {getattr(config.graph, name)})"
            for name, value in dataclasses.asdict(graph).items()
            if value != getattr(config.graph, name) and name != "min_distance"  # which makes no graph another one
        ]
        raise ConfigError(
            f"the data set was prepared with {', '.join(differences)}; prepare it again, or leave [graph] out"
        )
    if config.model.radial_max < graph.r_max:
        raise ConfigError(
            f"the data set has edges up to {graph.r_max} Å, but the network's Gaussians end at model.radial_max = "
            f"{config.model.radial_max} Å; set model.radial_max={graph.r_max}"
        )
    return dataclasses.replace(with_absolute_paths(config), graph=graph)
