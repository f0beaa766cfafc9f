"""refattn verify: does this machine train the same network, bit for bit?"""

import dataclasses

import click

from refattn.cli.options import StatusLine, as_json, device, echo, note, threads


@click.command()
@click.argument("run", type=click.Path())
@click.option("--steps", type=click.IntRange(min=1), help="Repeat these first optimiser steps; default: all.")
@click.option("--init", type=click.Path(), help="What RUN was started from, if it was a fine-tuning.")
@threads
@device
@as_json
def verify(run, steps, init, threads, device, as_json):
    """Train RUN again from its beginning, and compare the bits of its parameters with those that it had.

    A run keeps digests of its parameters after 1, 2, 4, 8, ... optimiser steps and after every epoch. Exit status 1
    where one differs. The number of threads changes no bit, nor do versions of NumPy, SciPy and Python; the processor's
    registers and versions of Numba do.
    """
    from refattn.common.strict_json import to_json
    from refattn.errors import RunError
    from refattn.verification import verify as repeat

    status = StatusLine()

    def show(record):
        if "batch" in record:
            status.update(f"epoch {record['epoch']}: batch {record['batch']}/{record['n_batches']}")

    found = repeat(run, steps, init, threads, show, device)
    changed = ", ".join(f"{name} {then} then and {now} now" for name, (then, now) in found.changed.items())
    if as_json:
        echo(to_json(dataclasses.asdict(found)))
    if found.first_difference is not None:
        if found.first_difference == 0:
            raise RunError(f"{run}: it begins with other parameters; give the --init that it was trained with, or none")
        reason = changed or "processor and versions are the same, another --device or other code trained it"
        raise RunError(f"{run}: the parameters differ after step {found.first_difference}: {reason}")
    if not as_json:
        echo(f"{run}: the same bits after {len(found.steps)} of its steps, the last of them {found.steps[-1]}")
        if changed:
            note(f"note: {changed}")
