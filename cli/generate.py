"""refattn data generate: labelled sets by molecular dynamics."""

import functools
from collections.abc import Callable
from pathlib import Path

import click

from refattn.cli.options import Progress, StatusLine, overwrite
from refattn.common.environment import available_cores
from refattn.common.files import only_process
from refattn.common.outputs import claim
from refattn.generate import fullerene as cages
from refattn.generate import pt_graphene as platinum
from refattn.generate.dynamics import Dynamics
from refattn.generate.dynamics import generate as generate_files
from refattn.generate.methods import open_method
from refattn.generate.snapshots import MARK, merge_trajectories


@click.group()
def generate():
    """Make a labelled set by molecular dynamics.

    Snapshots come from Langevin dynamics on GFN2-xTB (the `xtb` extra) or on any calculator of ASE, which then gives
    energies and forces but no orbitals. Trajectories grow in the folder OUT.parts; the same command goes on where it
    was stopped, and the result has the same bytes.
    """


def shared_options(temperatures: tuple[float, ...], snapshots: int) -> Callable:
    """The options of every set, with its own defaults."""
    options = [
        click.argument("out", type=click.Path()),
        click.option("--snapshots", type=click.IntRange(min=1), default=snapshots, help="Of each trajectory."),
        click.option(
            "--temperature",
            "temperatures",
            type=click.FloatRange(min=0, min_open=True),
            multiple=True,
            default=temperatures,
            help="K; each gives every structure a trajectory.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the random forces."),
        click.option("--calculator", metavar="MODULE:CLASS", help="Any ASE calculator; without it GFN2-xTB."),
        overwrite,
        click.option("--jobs", type=click.IntRange(min=1), help="Processes; default: one per core."),
    ]
    return lambda function: functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), function)


@generate.command(context_settings={"show_default": True})
@shared_options(cages.TEMPERATURES, 134)
@click.option("--start", type=click.Path(exists=True), help="Extended XYZ of the cages beside C60.")
def fullerene(out, snapshots, calculator, jobs, start, **settings):
    """Snapshots of carbon cages, written to OUT (.extxyz or .extxyz.gz). C60 is always among them."""
    run(out, snapshots, calculator, jobs, cages.cage_trajectories, start=start, **settings)


@generate.command(context_settings={"show_default": True})
@shared_options(platinum.TEMPERATURES, 9)
@click.option(
    "--largest",
    type=click.IntRange(1, platinum.LARGEST),
    default=platinum.LARGEST,
    help="Atoms of the largest cluster.",
)
@click.option("--rings", type=click.IntRange(0, 8), default=1, help="1: the sheet is C24H12, 2: C54H18.")
def pt_graphene(out, snapshots, calculator, jobs, **settings):
    """Snapshots of platinum clusters on a sheet of graphene, written to OUT (.extxyz or .extxyz.gz).

    Clusters of 1, 2, ... atoms start above a hexagon's centre, a bond and an atom of a sheet with hydrogen at its rim.
    """
    run(out, snapshots, calculator, jobs, platinum.platinum_trajectories, **settings)


def run(
    out: str,
    snapshots: int,
    calculator: str | None,
    jobs: int | None,
    make: Callable,
    seed: int,
    overwrite: bool,
    **settings: object,
) -> None:
    """Make the trajectories, and the set from them. make(method, **settings) gives the list of Trajectory."""
    claim({Path(out): MARK}, filter(None, [settings.get("start")]), overwrite)
    method = open_method(calculator)
    status = StatusLine()
    jobs = jobs or available_cores()
    trajectories = make(method, **settings)
    shown = Progress(status, len(trajectories) * snapshots, "snapshot")
    folder = Path(f"{out}.parts")
    with only_process(out):
        files = generate_files(
            trajectories, snapshots, folder, Dynamics(seed=seed), method, jobs, lambda count, _: shown.update(count)
        )
        count = merge_trajectories(files, out, snapshots)
    status.line(f"{out}: {count} snapshots of {len(files)} trajectories")
