"""refattn matbench: a task of Matbench v0.1 from its file to the results as the leaderboard takes them."""

import sys
from pathlib import Path

import click

from refattn.cli.options import StatusLine, as_json, cell, device, echo, note, overwrite, print_metrics, threads
from refattn.cli.train import Progress, StopFlag, read_settings


@click.command()
@click.argument("task", type=click.Path())
@click.argument("config", required=False)
@click.option("--out", type=click.Path(), required=True, help="Folder of the data set, the five runs and the results.")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.")
@click.option("--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value of CONFIG.")
@click.option("--fold", "folds", type=click.IntRange(0, 4), multiple=True, help="Only this one; again for another.")
@threads
@device
@overwrite
@as_json
def matbench(task, config, out, epochs, assignments, folds, threads, device, overwrite, as_json):
    """Train and test on the five folds of a Matbench task, and write OUT/results.json.gz for its leaderboard.

    TASK is the file of a task with structures, such as matbench_jdft2d.json.gz, as matminer has it. CONFIG is a TOML
    file or the name of an experiment; default: matbench. Its [graph] is the neighbour rule. Where the target is a class
    its loss is the cross entropy.
    A fold is trained on nine tenths of what it does not test, and the other tenth chooses the best epoch. The folds are
    those of Matbench, and results.json.gz has a prediction of every structure: where one has no graph, the mean.
    The same command goes on with what is not finished. With --fold several processes share the folds, after one of
    them has prepared OUT/data.h5; the last to finish writes the results.
    """
    from refattn.cli.prepare import progress_printer
    from refattn.common.environment import available_cores
    from refattn.common.outputs import claim
    from refattn.common.text import counted, printable
    from refattn.data import store
    from refattn.data.sources.matbench import MatbenchSource
    from refattn.interop.matbench import DATA, MARK, N_FOLDS, RESULTS, prepare_folds, train_matbench
    from refattn.training.train import Interrupted

    folder = Path(out)
    claim({folder / RESULTS: MARK, folder / DATA: store.FORMAT}, filter(None, [task, config]), overwrite)
    source = MatbenchSource(task)
    assignments = ("training.loss=cross_entropy",) * source.task.of_class + assignments
    settings = read_settings(config or "matbench", str(folder / DATA), (source.task.target,), epochs, assignments, None)
    stop = StopFlag()
    status = StatusLine()
    left_out = prepare_folds(source, settings, folder, threads or available_cores(), progress_printer(), note)
    if left_out:
        id = min(left_out)
        note(
            f"note: {counted(len(left_out), 'structure')} of {len(source.task.ids)} without a graph; the mean label of "
            f"the others stands for its prediction, the first of them {id}: {printable(left_out[id])}"
        )
    progress = Progress(status, f"training in {out}; Ctrl-C stops after the current batch", "fold")
    try:
        summary = train_matbench(source.task, settings, folder, left_out, folds, threads, progress, stop, device)
    except Interrupted as reached:
        status.line(f"stopped in {reached}; go on with the same command")
        sys.exit(130)
    print_metrics(summary, as_json)
    if source.task.of_class and not as_json:
        for name, values in summary["scores"].items():
            each = ", ".join(cell(value, ".4g") for value in values)
            echo(f"  {name:<17}: {sum(values) / len(values):.4g} in the mean, {each}")
    missing = [str(fold) for fold in range(N_FOLDS) if fold not in summary["folds"]]
    note(f"not trained yet: --fold {', '.join(missing)}" if missing else f"results are in {folder / RESULTS}")
