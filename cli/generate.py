"""refattn data generate: labelled sets by molecular dynamics."""

import time
from pathlib import Path

import click

from refattn.cli.options import StatusLine
from refattn.data.fullerene import TEMPERATURES, generate_fullerenes
from refattn.data.simulate import merge_trajectories


@click.group()
def generate():
    """Make a labelled set by molecular dynamics."""


@generate.command()
@click.argument("out", type=click.Path())
@click.option("--snapshots", type=click.IntRange(min=1), default=80, show_default=True, help="Of each trajectory.")
@click.option("--start", type=click.Path(exists=True), help="Extended XYZ of the cages beside C60.")
@click.option(
    "--temperature",
    "temperatures",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    default=TEMPERATURES,
    show_default=True,
    help="K; each gives every cage a trajectory.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random forces.")
def fullerene(out, snapshots, start, temperatures, seed):
    """Snapshots of carbon cages in Langevin dynamics on GFN2-xTB, written to OUT (.extxyz or .extxyz.gz).

    Needs the `xtb` extra. C60 is always among the cages. Trajectories grow in the folder OUT.parts; the same command
    goes on where it was stopped, and the result has the same bytes.
    """
    status, parts = StatusLine(), Path(f"{out}.parts")
    began, first = time.perf_counter(), None

    def progress(count, total):
        nonlocal first
        if first is None:
            first = count - 1
        seconds = (time.perf_counter() - began) / (count - first) * (total - count)
        status.update(f"{count}/{total} snapshots, {seconds / 60:.0f} min left")

    files = generate_fullerenes(parts, snapshots, start, seed, temperatures, progress)
    count = merge_trajectories(files, out, snapshots)
    status.line(f"{out}: {count} snapshots of {len(files)} trajectories")
