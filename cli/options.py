"""Options and outputs that several commands share."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from refattn.common.strict_json import to_json
from refattn.errors import OutputError

DEVICES = ("cpu", "reference", "cuda", "cuda-tf32")  # the last: products in TF32, on a GPU
threads = click.option("--threads", type=click.IntRange(min=1), help="Threads for the shards; default: one per core.")
device = click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="What computes.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def note(text: str) -> None:
    """A line for people, on stderr."""
    click.echo(text, err=True)


class StatusLine:
    """A line on stderr that overwrites itself on a terminal; elsewhere only whole lines are written."""

    def __init__(self):
        self.terminal = sys.stderr.isatty()
        self.width = 0

    def update(self, text: str) -> None:
        """Show a passing state, on a terminal only."""
        if self.terminal:
            click.echo("\r" + text.ljust(self.width), err=True, nl=False)
            self.width = len(text)

    def line(self, text: str) -> None:
        """Write a line that stays."""
        click.echo(("\r" if self.terminal else "") + text.ljust(self.width), err=True)
        self.width = 0


class LeftOut:
    """Called with the id of a structure that is left out and the reason; says so, and counts."""

    def __init__(self, status: StatusLine):
        self.status = status
        self.ids = []

    def __call__(self, id: str, error: Exception) -> None:
        self.ids.append(id)
        self.status.line(f"left out {id}: {str(error).removeprefix(f'{id}: ')}")

    def in_words(self) -> str:
        return f", {len(self.ids)} left out" if self.ids else ""


def refuse_input_as_output(inputs: Iterable[Path | str], out: Path | str) -> None:
    """Raise OutputError where the file `out` is one of the files `inputs`, under whatever name.

    Files appear by replacement, so the input would be lost.
    """
    for path in inputs:
        if os.path.exists(out) and os.path.exists(path) and os.path.samefile(path, out):
            raise OutputError(f"{out}: is the input {path} itself; choose another file for the output")


def cell(number: float | None, spec: str) -> str:
    """A number of a table; a dash stands for one that is not defined."""
    return "-" if number is None else format(number, spec)


def print_metrics(summary: dict, as_json: bool) -> None:
    """Mean absolute error, root mean square error and R2 of every part, as a table or as JSON."""
    if as_json:
        click.echo(to_json(summary))
        return
    title = summary["target"] + (f" ({summary['unit']})" if summary["unit"] else "")
    click.echo(f"{title:<16}{'n':>7} {'MAE':>10} {'RMSE':>10} {'R2':>9}")
    for name in ("train", "valid", "test"):
        if name in summary:
            part = summary[name]
            mae, rmse, r2 = (cell(part[key], spec) for key, spec in (("mae", ".4g"), ("rmse", ".4g"), ("r2", ".4f")))
            click.echo(f"  {name:<14}{part['n']:>7} {mae:>10} {rmse:>10} {r2:>9}")
    if "baseline_mae" in summary:
        click.echo(f"  always the training mean: MAE {summary['baseline_mae']:.4g} on the test set")
