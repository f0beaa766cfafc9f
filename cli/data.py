"""refattn data: the built-in and the published data sets, and the dynamics that make others."""

import click

from refattn.cli.fetch import fetch, prepare_command
from refattn.cli.generate import generate
from refattn.cli.options import as_json, echo
from refattn.cli.orbitals import orbitals
from refattn.common.strict_json import to_json
from refattn.data.builtin import SETS
from refattn.data.sources.published import PUBLISHED, RemoteFile


@click.group()
def data():
    """The built-in and the published data sets, and the dynamics that make others."""


data.add_command(fetch)
data.add_command(generate)
data.add_command(orbitals)


@data.command(name="list")
@as_json
def list_sets(as_json):
    """The data sets that ship inside the package, and the published ones with licence, size and how to get them."""
    if as_json:
        echo(to_json(facts(), ensure_ascii=False))
        return
    echo("Inside the package:")
    for name, item in SETS.items():
        echo(f"  {name}: {item.description}\n    {item.path}")
    echo("\nPublished:")
    for name, item in PUBLISHED.items():
        sizes = ", ".join(f"{file.name} ({size_of(file)})" for file in item.files)
        echo(f"  {name}: {item.description}\n    {sizes}; licence: {item.licence}\n    {item.homepage}")
        echo(f"    refattn data fetch {name}\n    {prepare_command(name, item)}")


def size_of(file: RemoteFile) -> str:
    return f"{file.size / 1e6:.1f} MB" if file.size else "size not known"


def facts() -> dict:
    """name -> what is known of the set, for machines."""
    sets = {
        name: {"kind": "built-in", "file": str(item.path), "description": item.description}
        for name, item in SETS.items()
    }
    for name, item in PUBLISHED.items():
        sets[name] = {
            "kind": "published",
            "description": item.description,
            "files": [file._asdict() for file in item.files],
            "homepage": item.homepage,
            "licence": item.licence,
            "citation": item.citation,
            "fetch": f"refattn data fetch {name}",
            "prepare": prepare_command(name, item),
        }
    return sets
