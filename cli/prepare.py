"""refattn prepare: structures and labels to a dataset with its graph."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import click

from refattn.cli.options import (
    ID_FROM,
    PART,
    RECURSIVE,
    StatusLine,
    as_json,
    claim_outputs,
    echo,
    note,
    overwrite,
    refuse_idle,
)
from refattn.common.environment import available_cores
from refattn.common.strict_json import to_json
from refattn.common.text import counted, duration, printable
from refattn.config import CHOICES, GraphConfig, config_from_dict
from refattn.data import store
from refattn.data.parts import PartOfSource
from refattn.data.prepare import prepare as prepare_dataset
from refattn.data.processes import n_pieces, prepare_in_processes
from refattn.data.sources.registry import FORMATS, open_source

LOG_SECONDS = 10  # between two lines where stderr is not a terminal


def parse_units(context: click.Context, parameter: click.Parameter, assignments: tuple[str, ...]) -> dict[str, str]:
    """NAME=UNIT strings as a dict."""
    pairs = [assignment.partition("=") for assignment in assignments]
    if not all(name and equals for name, equals, _ in pairs):
        raise click.BadParameter("write NAME=UNIT, such as homo=eV")
    return {name.strip(): unit.strip() for name, _, unit in pairs}


@click.command(context_settings={"show_default": True})
@click.argument("source", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--format", type=click.Choice(FORMATS), default="auto", help="How to read SOURCE.")
@click.option("--labels", type=click.Path(), help="CSV file of labels; its first column is an id or a file name.")
@click.option(
    "--label",
    "label_names",
    multiple=True,
    help="Column of that file to take, by default all numbers; again for another.",
)
@click.option("--unit", "units", multiple=True, callback=parse_units, help="NAME=UNIT, where the unit is not known.")
@click.option("--rule", type=click.Choice(CHOICES["graph.rule"]), default=GraphConfig.rule, help="Neighbour rule.")
@click.option("--r-max", type=float, default=GraphConfig.r_max, help="Longest edge, Å.")
@click.option("--omega-min", type=float, default=GraphConfig.omega_min, help="Smallest solid angle, sr.")
@click.option("--weight-min", type=float, default=GraphConfig.weight_min, help="Smallest, over the site's largest.")
@click.option(
    "--min-distance",
    type=float,
    default=GraphConfig.min_distance,
    help="Leave out structures with atoms nearer than this share of their covalent radii together; 0: none.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many structures.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: one per core.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="For a large folder or file of extended XYZ; default: one per core, without --threads.",
)
@PART
@RECURSIVE
@ID_FROM
@click.option("--append", is_flag=True, help="Add to OUT instead of replacing it; none of its ids may come again.")
@click.option("--uncharacterized", type=click.Path(), help="QM9: molecules to leave out.")
@click.option("--keep-uncharacterized", is_flag=True, help="QM9: leave none out.")
@overwrite
@as_json
def prepare(source, out, format, labels, units, limit, threads, processes, part, append, overwrite, as_json, **others):
    """Make the dataset OUT (HDF5) from SOURCE: structures, labels, and the graph of every structure.

    SOURCE is a file that ASE or gemmi reads (extended XYZ may be gzipped), a folder or an archive (zip, tar) of them, a
    database of ASE, or QM9's archive or folder. Structures that cannot be read, have the id of another in SOURCE, or
    have no graph are left out, and recorded in OUT with the reason.

    With --part K/N the jobs of an array share the work, and `refattn join` makes one data set of theirs.

    After Ctrl-C or a kill the folder OUT.parts holds the finished graphs, and the same command goes on from there.
    """
    if part or limit or append:
        refuse_idle(["processes"], "beside --part, --limit or --append")
    lists = others.pop("uncharacterized"), others.pop("keep_uncharacterized")
    reading = {name: others.pop(name) for name in ("label_names", "recursive", "id_from")}
    config = config_from_dict({"graph": others}, "prepare").graph
    structures = open_source(source, format, labels, *lists, **reading)
    files = [source, labels, lists[0], *getattr(structures, "files", ())]
    claim_outputs({Path(out): store.FORMAT}, None, (), files, overwrite and not append)
    options = {"overwrite": overwrite, "progress": progress_printer(), "note": note}
    n_processes = processes or (1 if threads else available_cores())
    if n_processes > 1 and not (part or limit or append) and n_pieces(structures) > 1:
        report = prepare_in_processes(structures, out, config, units, n_processes, **options)
    else:
        structures = PartOfSource(structures, part) if part else structures
        report = prepare_dataset(structures, out, config, units, limit, threads or available_cores(), append, **options)
    if as_json:
        echo(to_json(dataclasses.asdict(report)))
        return
    resumed = f" ({report.n_resumed} of them by an earlier run)" if report.n_resumed else ""
    structures = counted(report.n_structures, "structure")
    counts = f"{structures}{resumed}, {counted(report.n_sites, 'site')}, {counted(report.n_edges, 'edge')}"
    parts = ", ".join(f"{name} {getattr(report, f'seconds_{name}'):.1f}" for name in ("reading", "graphs", "writing"))
    echo(f"{out}: {counts} in {report.seconds:.1f} s (processor seconds: {parts})")
    if report.n_skipped:
        verb = "was" if report.n_skipped == 1 else "were"
        skipped = counted(report.n_skipped, "structure")
        echo(f"{skipped} {verb} left out (all of them, with reasons, are in /skipped):")
        for id, reason in report.reasons:
            echo(f"  {printable(id)}: {printable(reason)}")
    if report.usual_units:
        usual = ", ".join(f"{name} ({report.labels[name]})" for name in report.usual_units)
        echo(f"note: a unit that is not given is the usual one of the name: {usual}; for another give --unit NAME=UNIT")
    if report.n_structures and not report.n_edges:
        echo(
            f"note: no site has a neighbour up to {config.r_max:g} Å: a network would know elements alone; see --r-max"
        )
    for text in report.notes:
        echo(f"note: {printable(text)}")
    units = {name: unit or "no unit" for name, unit in report.labels.items()}
    named = [f"{name} ({unit}) of {report.n_labelled[name]}" for name, unit in units.items()]
    echo(f"{structures}, {report.n_skipped} left out; labels: {', '.join(named) or 'none'}")


def progress_printer() -> Callable[[int, int | None, int], None]:
    """A function (done, total, resumed) that reports rate and time left, in a status line, or now and then in a log.

    Structures that an earlier run has done are not in the rate.
    """
    status = StatusLine()
    start = time.perf_counter()
    last = start

    def show(done, total, resumed):
        nonlocal start, last
        now = time.perf_counter()
        if done == resumed:
            start = now
        rate = (done - resumed) / (now - start) if done > resumed else 0
        left = f" of about {total}" if total and done < total else ""
        left += f", about {duration((total - done) / rate)} left" if left and rate else ""
        text = f"{counted(done, 'structure')}{left}" + (f", {rate:.0f}/s" if rate else "")
        text += f", {resumed} by an earlier run" if resumed else ""
        if done == total or (now - last > LOG_SECONDS and not status.terminal):
            last = now
            status.line(text)
        else:
            status.update(text)

    return show
