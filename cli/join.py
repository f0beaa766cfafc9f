"""refattn join: the parts that the jobs of an array prepared, as one data set."""

import dataclasses
from pathlib import Path

import click

from refattn.cli.options import StatusLine, as_json, claim_outputs, echo, overwrite
from refattn.common.strict_json import to_json
from refattn.common.text import counted
from refattn.data import store
from refattn.data.join import join as join_parts


@click.command()
@click.argument("parts", nargs=-1, required=True, type=click.Path())
@click.argument("out", type=click.Path())
@overwrite
@as_json
def join(parts, out, overwrite, as_json):
    """Make the data set OUT of the PARTS that `refattn prepare --part K/N` made of one source, in any order.

    It is the one that `refattn prepare` makes of the source at once. Parts that are missing, repeated, or of another
    source, rule or version are named.
    """
    claim_outputs({Path(out): store.FORMAT}, None, (), parts, overwrite)
    status = StatusLine()
    report = join_parts(parts, out, overwrite, lambda done, total: status.update(f"{done} of {total} structures"))
    if as_json:
        echo(to_json(dataclasses.asdict(report)))
        return
    repeated = f", of them {report.n_repeated} with the id of one in an earlier part" if report.n_repeated else ""
    structures = counted(report.n_structures, "structure")
    echo(f"{out}: {structures} of {counted(report.n_parts, 'part')}, {report.n_skipped} left out{repeated}")
