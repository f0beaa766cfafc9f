"""refattn data orbitals: HOMO and LUMO of molecules from first principles, as labels and per-site arrays."""

import itertools
from pathlib import Path

import click

from refattn.cli.options import (
    LeftOut,
    Progress,
    StatusLine,
    claim_outputs,
    count_structures,
    note_of_sources,
    overwrite,
)

MARK = rb"\d+\nProperties=[^\n]*homo_mulliken[^\n]*\n"  # how the file begins


@click.command()
@click.argument("source", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--method", default="b3lyp/6-31g*", show_default=True, help="FUNCTIONAL/BASIS, as PySCF names them, or gfn2-xtb."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many molecules.")
@click.option("--skip-bad", is_flag=True, help="Leave out what cannot be read or computed.")
@overwrite
def orbitals(source, out, method, limit, skip_bad, overwrite):
    """Compute HOMO and LUMO of every molecule in SOURCE, and write them as extended XYZ to OUT.

    With PySCF OUT has the labels homo and lumo (eV) and the per-site arrays homo_population and lumo_population
    (Löwdin), homo_mulliken and lumo_mulliken. What was computed once is kept on disk (REFATTN_CACHE), so that the
    command goes on where it was stopped. With gfn2-xtb, by tblite, the labels are xtb_homo and xtb_lumo and all
    populations Mulliken's. `refattn prepare` reads OUT.
    """
    import re

    import ase
    import ase.io

    from refattn.common.files import replacing
    from refattn.common.text import counted
    from refattn.data.sources.files import open_files, read_structures
    from refattn.errors import DataError
    from refattn.generate.first_principles import orbital_labels

    sources = open_files([source])
    claim_outputs({Path(out): re.compile(MARK)}, None, sources, (), overwrite)
    status = StatusLine()
    left_out = LeftOut(status)
    done = 0
    total = count_structures([source], skip_bad)
    progress = Progress(status, min(limit or total, total), "molecule")
    progress.update(0, f" by {method}")
    with replacing(out) as part, open(part, "w", encoding="utf-8") as stream:
        for atoms in itertools.islice(read_structures(sources, skip=left_out if skip_bad else None), limit):
            try:
                labels, arrays = orbital_labels(atoms, method, progress.detail)
            except DataError as error:
                if not skip_bad:
                    raise
                left_out(str(atoms.info["id"]), error)
                continue
            written = ase.Atoms(atoms.numbers, atoms.positions, info={"id": atoms.info["id"], **labels})
            for name, values in arrays.items():
                written.set_array(name, values)
            ase.io.write(stream, written, format="extxyz")
            done += 1
            progress.update(done + len(left_out.ids), f" by {method}")
        if not done:
            raise DataError(f"{source}: no molecule was computed{left_out.in_words()}; {out} is not written")
    note_of_sources(sources)
    status.line(f"{counted(done, 'molecule')} by {method}{left_out.in_words()}, written to {out}")
