"""refattn data: the built-in data sets and the dynamics that made them."""

import click

from refattn.cli.generate import generate
from refattn.cli.options import as_json
from refattn.data.builtin import SETS
from refattn.strict_json import to_json


@click.group()
def data():
    """The built-in data sets, and the dynamics that made them."""


data.add_command(generate)


@data.command(name="list")
@as_json
def list_sets(as_json):
    """The data sets that ship inside the package."""
    facts = {name: {"file": str(item.path), "description": item.description} for name, item in SETS.items()}
    if as_json:
        click.echo(to_json(facts))
        return
    for name, item in SETS.items():
        click.echo(f"{name}: {item.description}\n  {item.path}")
