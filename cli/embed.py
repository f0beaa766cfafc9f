"""refattn embed: structures and sites as vectors, and maps of them."""

import contextlib
import dataclasses
import re
import sys
import tempfile
from pathlib import Path

import click

from refattn.cli.options import (
    PART,
    LeftOut,
    StatusLine,
    as_json,
    claim_outputs,
    device,
    echo,
    note,
    note_of_sources,
    overwrite,
    reading_options,
    refuse_idle,
    threads,
)
from refattn.common.outputs import remove_earlier
from refattn.common.strict_json import to_json
from refattn.common.text import counted, told_apart
from refattn.data.sources.files import open_files, read_structures
from refattn.prediction.embedding import embed_stream
from refattn.prediction.predictor import Model, Outside, load
from refattn.prediction.targets import target_number
from refattn.report.chemiscope import MARK, is_chemiscope, write_embedding
from refattn.report.maps import COLOURS, MARKS, SITE_COLOURS, MapOptions, earlier_files, files_of, write_maps
from refattn.report.projection import LAYOUTS

OF_PICTURES = ("colour", "site_colour", "max_points")


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder for everything, or a .chemiscope.json.gz alone.")
@click.option(
    "--map", type=click.Choice([*LAYOUTS]), default=MapOptions.map, help="How to lay out; umap needs its extra."
)
@click.option("--target", help="Of several targets only the one whose read-out makes the vectors.")
@click.option("--colour", type=click.Choice(COLOURS), default=MapOptions.colour, help="Of structures.")
@click.option("--site-colour", type=click.Choice(SITE_COLOURS), default=MapOptions.site_colour, help="Of sites.")
@click.option("--sites/--no-sites", default=MapOptions.sites, help="Map the sites too; embedding.h5 has them anyway.")
@click.option(
    "--max-points", type=click.IntRange(min=1), default=MapOptions.max_points, help="Map at most so many sites."
)
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read, has no graph or unknown elements.")
@PART
@reading_options
@overwrite
@threads
@device
@as_json
def embed(
    run, files, out, skip_bad, part, min_distance, recursive, id_from, overwrite, threads, device, as_json, **shown
):
    """Write what the network makes of FILES: a vector for every structure and for every site, and maps of both.

    OUT gets embedding.h5 (vectors), map.csv and structures.png (a point for every structure), site_map.csv and
    sites.png (a point for every site, or for a random sample of them). Of several targets each has vectors of its own,
    in OUT/TARGET; --target chooses one, whose vectors are in OUT. FILES are read as by predict,
    and shared out by --part.
    """
    alone = is_chemiscope(out)
    if alone:
        refuse_idle(OF_PICTURES, "on a chemiscope file")
    if not shown["sites"]:
        refuse_idle(("site_colour", "max_points"), "with --no-sites")
    model = load(run, device, min_distance)
    outside = model.outside = Outside(model.checkpoints[0])
    target = shown.pop("target")
    if alone and target is None and len(model.targets) > 1:
        raise click.UsageError(
            f"chemiscope's file is of one target; choose one by --target: {', '.join(model.targets)}"
        )
    temporary = tempfile.TemporaryDirectory() if alone else contextlib.nullcontext(out)
    folders = folders_of(temporary.name if alone else out, model, target)
    sources = open_files(files, recursive=recursive, id_from=id_from)
    in_turn = part and not part.take_files(sources)
    status = StatusLine()
    options = MapOptions(**shown | ({"max_points": sys.maxsize} if alone else {}))
    paths = {path: MARKS[name] for folder in folders.values() for name, path in files_of(folder, options).items()}
    claim_outputs({Path(out): MARK} if alone else paths, run, sources, (), overwrite)
    earlier = [] if alone else earlier_files(out)
    left_out = LeftOut(status)
    kept = []

    def reported(blocks):
        done = 0
        for block in blocks:
            yield block
            kept.extend(block[0] if alone else ())
            done += len(block[0])
            status.update(counted(done, "structure"))

    summaries = {}
    skip = left_out if skip_bad else None
    for target, folder in folders.items():
        structures = read_structures(sources, target, skip)
        structures = part.take_turns(structures) if in_turn else structures
        blocks = embed_stream(model, structures, n_threads=threads, skip=skip, target=target)
        own = dataclasses.replace(options, target=target, of_several=len(folders) > 1)
        summaries[target] = write_maps(folder, model, run, reported(blocks), own)
        model.outside = None  # the structures of the next target are the same
        skip = skip and (lambda id, error: None)  # it was said of the first target
    remove_earlier(earlier, paths)
    note_of_sources(sources)
    for text in outside.notes():
        note(text)
    if alone:
        with temporary as folder:
            write_embedding(out, Path(folder), kept, f"{run}, embedded")
    if as_json:
        units = {target: {"unit": model.units[target_number(model, target)]} for target in folders}
        each = {target: {"target": target, **units[target], **summary} for target, summary in summaries.items()}
        found = each[target] if len(each) == 1 else {"targets": each}
        echo(to_json({"run": str(run), "out": str(out), **found, "left_out": left_out.ids}))
    else:
        for target, summary in summaries.items():
            print_axes(summary, f"{target}: " if len(summaries) > 1 else "")
    summary = summaries[target]
    structures = counted(summary["structures"], "structure")
    status.line(f"{structures}{left_out.in_words()}, {counted(summary['sites'], 'site')}, written to {out}")


def folders_of(out: str, model: Model, target: str | None) -> dict[str, Path]:
    """{target: pathlib.Path}: `out`, or a folder in it for each of several targets."""
    if target is not None or len(model.targets) == 1:
        return {model.targets[target_number(model, target)]: Path(out)}
    names = told_apart((re.sub(r"[^\w.-]", "_", name) for name in model.targets), str.lower)  # systems may ignore case
    return {target: Path(out) / name for target, name in zip(model.targets, names, strict=True)}


def print_axes(summary: dict, about: str = "") -> None:
    """A line for each map: how much of the variance its two axes hold; `about` names the target."""
    for name, parts in summary.get("variance_fraction", {}).items():
        if not any(parts):  # of a single point
            continue
        echo(f"{about}{name}\t{' and '.join(f'{100 * part:.1f} %' for part in parts)} of the variance")
