"""Options and outputs that several commands share."""

import json
import sys

import click

threads = click.option("--threads", type=click.IntRange(min=1), help="Threads for the shards; default: one per core.")
device = click.option(
    "--device", type=click.Choice(["cpu", "reference"]), default="cpu", show_default=True, help="Which kernels compute."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def note(text):
    """A line for people, on stderr."""
    click.echo(text, err=True)


class StatusLine:
    """A line on stderr that overwrites itself on a terminal; elsewhere only whole lines are written."""

    def __init__(self):
        self.terminal, self.width = sys.stderr.isatty(), 0

    def update(self, text):
        """Show a passing state, on a terminal only."""
        if self.terminal:
            click.echo("\r" + text.ljust(self.width), err=True, nl=False)
            self.width = len(text)

    def line(self, text):
        """Write a line that stays."""
        click.echo(("\r" if self.terminal else "") + text.ljust(self.width), err=True)
        self.width = 0


def print_metrics(summary, as_json):
    """Mean absolute error, root mean square error and R2 of every part, as a table or as JSON."""
    if as_json:
        click.echo(json.dumps(summary))
        return
    unit = f" ({summary['unit']})" if summary["unit"] else ""
    click.echo(f"{summary['target']}{unit}      n        MAE       RMSE        R2")
    for name in ("train", "valid", "test"):
        if name in summary:
            part = summary[name]
            click.echo(f"  {name:<14}{part['n']:>7} {part['mae']:>10.4g} {part['rmse']:>10.4g} {part['r2']:>9.4f}")
    if "baseline_mae" in summary:
        click.echo(f"  always the training mean: MAE {summary['baseline_mae']:.4g} on the test set")
