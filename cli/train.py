"""refattn train: from a data set to a run directory."""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refattn.cli.options import StatusLine, as_json, cell, device, note, overwrite, print_metrics, threads, time_left

if TYPE_CHECKING:
    from refattn.config import Config

HOW_TO_GO_ON = {
    "": "",  # several runs, each with a reason of its own
    "epochs": "; for more give a larger --epochs",
    "patience": "; its validation error did not improve for training.patience epochs; begin another with --init",
}


@click.command()
@click.argument("config", required=False)
@click.option("--data", type=click.Path(), help="Data set made by `refattn prepare`, or the name of a built-in one.")
@click.option("--target", multiple=True, help="Label to learn; may be given several times.")
@click.option("--out", type=click.Path(), help="Run directory; default: runs/TARGET, numbered if it exists.")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.")
@click.option("--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of CONFIG.")
@click.option("--ensemble", type=click.IntRange(min=2), metavar="K", help="Train K members, with seeds of their own.")
@click.option("--folds", type=click.IntRange(min=2), metavar="N", help="Train N times, each with another test part.")
@click.option("--fold", type=click.IntRange(min=0), metavar="K", help="Of --folds only this one, counted from 0.")
@click.option(
    "--init", type=click.Path(), help="Run or model to start from: its layers, and its heads of the same targets."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out; begin it where there is none.")
@click.option("--tensorboard", is_flag=True, help="Write OUT/tensorboard too: errors over the epochs, for TensorBoard.")
@threads
@device
@overwrite
@as_json
def train(config, data, target, out, epochs, assignments, ensemble, folds, fold, init, resume, threads, device, **how):
    """Train a network, and write the run directory: model, metrics, predictions, pictures.

    CONFIG is a TOML file or the name of an experiment that ships with refattn. Without it --data is trained on with
    the default settings for --target, or with the network and the targets of --init. Without --data too, or with the
    name of a built-in set as --data, its own experiment runs, in minutes on two cores: by default HOMO and LUMO of
    molecules, with attention that is taught where these orbitals are.
    With --ensemble the run directory has a complete run in each of member_0, member_1, ..., one after the other with
    the seeds training.seed, training.seed + 1, ... and the same split, and the errors of their mean prediction.
    --resume of its folder skips the members that are finished.
    With --folds it has a run in each of fold_0, fold_1, ..., each of which is the test part once (data.split_by says
    what is kept together), and the mean and spread of their errors. With --fold only that one is
    trained, so that several processes or an array job can share the work; the last to finish writes the mean.
    With --resume the same command begins a run and goes on with it, as a job that is queued again needs it. Settings
    may be left out or must be those of the run; --epochs may be more than before. Ctrl-C and SIGTERM, which SLURM sends
    at the end of a job's time, stop after the current batch; a kill costs ten minutes at most.
    Several processes train together where an MPI launcher starts them: mpiexec -n 8 refattn train ... --threads 8. The
    result has the same bits for any number of processes and threads.
    """
    overwrite, as_json = how["overwrite"], how["as_json"]
    from refattn.common.mpi import open_ranks
    from refattn.common.outputs import NOTHING, claim
    from refattn.network.checkpoint import model_file
    from refattn.prediction.ensemble import FOLD, is_ensemble, is_of_folds
    from refattn.prediction.run_directory import FILES, free_directory
    from refattn.training.train import Interrupted
    from refattn.training.train import train as train_network
    from refattn.training.train_ensemble import train_ensemble
    from refattn.training.train_folds import train_folds

    ranks = open_ranks()
    if not ranks.first:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  the first one speaks
    with ranks.ending_together():
        if ranks.size > 1 and (ensemble or folds or (out and (is_ensemble(out) or is_of_folds(out)))):
            raise click.UsageError(
                "several processes train one network together; train members and folds side by side instead, in an "
                "array job: --out FIVE/member_K --set training.seed=K, or --folds N --fold K"
            )
        check_options(out, ensemble, folds, fold, resume, overwrite)
        given = config or data or target or epochs or assignments or init
        own = settings_of_run(Path(out)) if resume else None
        words = config, data, target, epochs, assignments, init, own
        settings = read_settings(*words) if given or not resume else None
        if settings and not own:
            check_data(settings.data.path, None if data else config)
            out = out or ranks.from_first(free_directory("-".join(settings.data.targets)))
            inputs = [config, settings.data.path, settings.data.split, init and model_file(init)]
            claim({Path(out) / name: NOTHING for name in FILES}, filter(None, inputs), overwrite=True)
            note_of_start(init, settings)
        stop = StopFlag()
        status = StatusLine()
        title = f"{'resuming' if own else 'training'} in {out}; Ctrl-C stops after the current batch"
        shown = Progress(status, title, "fold" if folds or (resume and is_of_folds(out)) else "member")
        own_folder = Path(out) if fold is None else Path(out) / FOLD.format(fold)
        progress = with_tensorboard(shown, own_folder, bool(own)) if how["tensorboard"] and ranks.first else shown
        try:
            if ensemble or (resume and is_ensemble(out)):
                summary = train_ensemble(settings, ensemble, out, threads, resume, init, progress, stop, device)
            elif folds or (resume and is_of_folds(out)):
                summary = train_folds(settings, folds, out, threads, resume, init, progress, stop, device, fold)
            else:
                how = {"device": device, "overwrite": overwrite, "ranks": ranks}
                summary = train_network(settings, out, threads, resume, init, progress, stop, **how)
        except Interrupted as reached:
            only = "" if fold is None else f" --folds {folds} --fold {fold}"
            status.line(f"stopped in {reached}; go on with: refattn train --out {out}{only} --resume")
            sys.exit(130)
        if not ranks.first:
            return
        print_metrics(summary, as_json)
        if "n_members" in summary:
            for found in summary.get("targets", {"": summary}).values():
                alone = ", ".join(cell(mae, ".4g") for mae in found["member_test_mae"])
                note(f"test MAE of the members alone: {alone}")
        if own and not shown.trained:
            note(f"{out}: had reached its end, and nothing was trained{HOW_TO_GO_ON[shown.ended]}")
        else:
            note(where_results_are(out, summary, fold))


def where_results_are(out: Path | str, summary: dict, fold: int | None) -> str:
    """A line that says where the model, the predictions and the pictures of a training are."""
    from refattn.prediction.ensemble import FOLD

    if "n_folds" in summary:
        first, last = FOLD.format(0), FOLD.format(summary["n_folds"] - 1)
        return f"the runs {first} to {last} in {out} have models, predictions and pictures"
    return f"model, predictions and pictures are in {out if fold is None else Path(out) / FOLD.format(fold)}"


def check_options(
    out: str | None, ensemble: int | None, folds: int | None, fold: int | None, resume: bool, overwrite: bool
) -> None:
    """Raise UsageError for options that do not go together."""
    from refattn.prediction.ensemble import is_ensemble, is_of_folds, read_plan

    if resume and (not out or overwrite):
        raise click.UsageError("--resume needs the run's directory as --out, and does not replace it with --overwrite")
    if (ensemble or folds) and out and (Path(out) / "last.h5").exists():
        read_plan(Path(out), bool(folds))  # which raises that there is a single run
    if resume and ((ensemble and is_of_folds(out)) or (folds and is_ensemble(out))):
        there, asked = ("folds", "an ensemble") if ensemble else ("an ensemble", "folds")
        raise click.UsageError(f"{out}: holds {there}; choose another --out for {asked}")
    if (ensemble or folds) and overwrite:
        raise click.UsageError("an ensemble or folds take a folder of their own; choose another --out")
    if (ensemble and folds) or (fold is not None and not folds):
        raise click.UsageError("--fold K is one of --folds N, and --folds takes no --ensemble")
    if fold is not None and fold >= folds:
        raise click.UsageError(f"there is no fold {fold} of {folds}; they are counted from 0")


def note_of_start(init: str | None, settings: "Config") -> None:
    """Say which heads do not start from `init`."""
    from refattn.prediction.run_directory import notes_on_start

    for text in notes_on_start(init, settings) if init else ():
        note(f"note: {text}")


def with_tensorboard(progress: Callable[[dict], None], out: Path, resumed: bool) -> Callable[[dict], None]:
    """A callable like `progress` that writes what TensorBoard reads as well, into a folder of a run's."""
    from refattn.report.tensorboard import TensorBoard

    board = TensorBoard(out / "tensorboard", resumed)

    def both(record):
        progress(record)
        board(record)

    return both


def read_settings(
    config: str | None,
    data: str | None,
    target: tuple[str, ...],
    epochs: int | None,
    assignments: tuple[str, ...],
    init: str | None,
    own: "Config | None" = None,
) -> "Config":
    """The Config of a training from a file or name, or from that of a run, and the options that change it."""
    from refattn.config import Config, DataConfig, override
    from refattn.data.builtin import SETS
    from refattn.data.store import open_dataset
    from refattn.experiments import experiment_or_file, load_experiment
    from refattn.network.checkpoint import load_checkpoint, model_file

    if config is None and own:
        settings = own
    elif config is None and init:
        start = load_checkpoint(model_file(init)).config
        settings = Config(model=start.model, data=DataConfig(target=start.data.target))
    elif config is None and data in {None, *SETS}:
        settings = load_experiment(SETS[data or "molecules"].experiment)
    elif config is None:
        settings = Config()
        if not (target or any(text.startswith("data.target=") for text in assignments)):
            check_data(data)
            with open_dataset(data) as file:
                labels = ", ".join(file["labels"])
            raise click.UsageError(f"name what to learn by --target; the labels of {data} are: {labels}")
    else:
        settings = experiment_or_file(config)
    if target:
        settings = with_targets(settings, target)
    if data is not None:
        settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, path=data))
    if epochs:
        settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, epochs=epochs))
    return override(settings, assignments)


def check_data(path: str, config: str | None = None) -> None:
    """Raise DataError where the data set `path`, that of the configuration `config`, is none that ships and no file."""
    from refattn.data.builtin import SETS
    from refattn.errors import DataError

    if path in SETS or Path(path).exists():
        return
    if config:
        raise DataError(f"{path}, which {config} trains on: there is no such file; give your data set by --data")
    raise DataError(f"{path}: there is no such file, and no such built-in data set; there are {', '.join(SETS)}")


def with_targets(settings: "Config", targets: tuple[str, ...]) -> "Config":
    """The Config for these targets, each with the weights that it has there, and what its attention is taught."""

    def chosen(weights):
        if not (isinstance(weights, tuple) and weights):
            return weights  # one for all
        known = dict(zip(settings.data.targets, weights, strict=True))
        return [known.get(name, 1.0) for name in targets]

    training = settings.training
    taught = tuple(pair for pair in training.attention if pair[0] in targets)
    weight = chosen(training.attention_weight)
    return dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, target=targets, target_weight=chosen(settings.data.target_weight)),
        training=dataclasses.replace(training, attention=taught, attention_weight=weight),
    )


def settings_of_run(out: Path) -> "Config | None":
    """The Config of the run, ensemble or folds in the folder `out`; None where there is none."""
    from refattn.network.checkpoint import load_checkpoint
    from refattn.prediction.ensemble import is_ensemble, is_of_folds, read_plan

    if is_ensemble(out) or is_of_folds(out):
        return read_plan(out, is_of_folds(out)).config
    return load_checkpoint(out / "last.h5").config if (out / "last.h5").exists() else None


class StopFlag:
    """Set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once."""

    def __init__(self):
        self.set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, frame):
        self.set = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __call__(self) -> bool:
        return self.set


class Progress:
    """Prints batches as they pass and a line for each epoch."""

    def __init__(self, status: StatusLine, title: str, name: str = "member"):
        self.status = status
        self.title = title
        self.name = name
        self.n_epochs = 0
        self.trained = False  # whether anything was
        self.ended = ""  # the setting that the last run had ended by before
        self.units = []
        self.times = []
        self.member = None

    def __call__(self, record: dict) -> None:
        self.trained = self.trained or "notes" not in record
        self.ended = record.get("ended", "")
        if self.title and not self.ended:
            self.status.line(self.title)
            self.title = ""
            self.times = []
        for text in record.get("notes", ()):
            self.status.line(text)
        if self.ended:
            return  # nothing is left to do
        if record.get("member", self.member) != self.member:
            self.member = record["member"]
            self.times = []
            self.status.line(f"{self.name} {self.member + 1} of {record['n_members']}")
        if "batch" in record:
            self.n_epochs = record["n_epochs"]
            self.units = record["units"]
            self.status.update(f"epoch {record['epoch']}: batch {record['batch']}/{record['n_batches']}")
            return
        self.times = [*self.times[-5:], time.perf_counter()]
        left = ""
        if len(self.times) > 1:  # the first epoch compiles
            left = f"  {time_left(self.times, self.n_epochs - record['epoch'])}"
        epochs = f"/{self.n_epochs}" if self.n_epochs else ""
        self.status.line(
            f"epoch {record['epoch']:>3}{epochs}  loss {record['loss']:.4f}  MAE {self._errors(record)}  "
            f"{record['structures_per_second']:.0f} structures/s{left}"
        )

    def _errors(self, record):
        if "targets" not in record:
            return f"train {record['train_mae']:.4g} valid {record['valid_mae']:.4g} {''.join(self.units)}".rstrip()
        errors = [f"{name} {found['valid_mae']:.4g}" for name, found in record["targets"].items()]
        each = zip(errors, self.units or len(errors) * [""], strict=True)
        return f"valid {', '.join(f'{error} {unit}'.rstrip() for error, unit in each)}"
