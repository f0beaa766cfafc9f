"""refattn neighbours: Voronoi neighbours of any structures, as a table or as arrays."""

from itertools import islice
from pathlib import Path

import click

from refattn.cli.options import (
    ID_FROM,
    RECURSIVE,
    LeftOut,
    StatusLine,
    as_json,
    claim_outputs,
    echo,
    note_of_sources,
    overwrite,
    threads,
)

BLOCK = 256  # structures that are in memory together


@click.command(context_settings={"show_default": True})
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="File of facets: .csv or .h5.")
@click.option("--r-max", type=float, default=float("inf"), help="Farthest neighbour, Å.")
@click.option("--omega-min", type=float, default=0.0, help="Smallest solid angle, sr.")
@click.option("--weight-min", type=float, default=0.0, help="Smallest solid angle over the site's largest.")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read or has no Voronoi cells.")
@RECURSIVE
@ID_FROM
@overwrite
@threads
@as_json
def neighbours(files, out, r_max, omega_min, weight_min, skip_bad, recursive, id_from, overwrite, threads, as_json):
    """Write the facets of the Voronoi cells of every structure in FILES: both sites, distance, solid angle, area.

    FILES are read as by predict. Without thresholds all facets are written, down to 1e-10 sr.
    """
    from refattn.common.strict_json import to_json
    from refattn.common.text import counted
    from refattn.data.sources.files import open_files, read_structures
    from refattn.errors import StructureError
    from refattn.neighbours.cells import voronoi, voronoi_many
    from refattn.neighbours.files import facets_writer, mark_of

    sources = open_files(files, recursive=recursive, id_from=id_from)
    claim_outputs({Path(out): mark_of(out)}, None, sources, (), overwrite)
    status = StatusLine()
    left_out = LeftOut(status)
    thresholds = {"r_max": r_max, "omega_min": omega_min, "weight_min": weight_min}
    counts = {"structures": 0, "sites": 0, "facets": 0}

    def facets_of(block):
        """Of a block of structures; where one has none and that may be, of the others."""
        try:
            return block, voronoi_many(block, **thresholds, n_threads=threads)
        except StructureError:
            if not skip_bad:
                raise
        kept, found = [], []
        for atoms in block:
            try:
                found.append(voronoi(atoms, **thresholds))
                kept.append(atoms)
            except StructureError as error:
                left_out(atoms.info["id"], error)
        return kept, found

    structures = read_structures(sources, skip=left_out if skip_bad else None)
    with facets_writer(out) as add:
        while block := list(islice(structures, BLOCK)):
            kept, found = facets_of(block)
            add([atoms.info["id"] for atoms in kept], found)
            counts["structures"] += len(kept)
            counts["sites"] += sum(map(len, kept))
            counts["facets"] += sum(map(len, found))
            status.update(counted(counts["structures"], "structure"))
    note_of_sources(sources)
    if as_json:
        echo(to_json({"out": str(out), **counts, "left_out": left_out.ids}))
    words = ", ".join(counted(count, name.removesuffix("s")) for name, count in counts.items())
    status.line(f"{words}{left_out.in_words()}, written to {out}")
