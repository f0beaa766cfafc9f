"""refattn gradcheck: every gradient against central differences, on this machine."""

import dataclasses
import json
import math
import time

import click

from refattn.cli.options import DEVICES, echo, note
from refattn.config import load_config
from refattn.gradient_check import FLOOR, STEP, TOLERANCE, GradcheckResult, Row
from refattn.gradient_check import gradcheck as check_gradients
from refattn.ops import BACKENDS


@click.command()
@click.argument("config", required=False, type=click.Path())
@click.option("--device", type=click.Choice(DEVICES[:3]), help="Check this one alone; default: cpu and reference.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def gradcheck(config, device, as_json):
    """Check every entry of every gradient against central differences in float64.

    Without CONFIG: every operation, and the network in both variants with every option. With CONFIG, a TOML file: every
    operation, and the network with the options of that file. Networks are checked at small widths. The exit status
    is 1 if a difference is above 1e-7 of the largest entry of its array's gradient (of a hundredth of the case's
    largest, where the array's own is smaller than that).
    """
    start = time.perf_counter()
    backends = (device,) if device else BACKENDS
    result = check_gradients(load_config(config) if config else None, report_progress, backends)
    seconds = time.perf_counter() - start
    if as_json:
        rows = [dataclasses.asdict(row) | {"worst": worst_as_json(row), "ok": row.ok} for row in result.rows]
        summary = {"ok": result.ok, "step": STEP, "tolerance": TOLERANCE, "seconds": seconds, "rows": rows}
        echo(json.dumps(summary, indent=1))
    else:
        print_tables(result)
        echo(f"\n{'Every gradient is right' if result.ok else 'A gradient is WRONG'}: {seconds:.0f} s.")
    if not result.ok:
        raise SystemExit(1)


def worst_as_json(row: Row) -> float | None:
    return row.worst if math.isfinite(row.worst) else None  # JSON has no NaN


def report_progress(row: Row) -> None:
    note(f"{row.name}, {row.kind}, {row.backend}: {'ok' if row.ok else 'WRONG'}")


def print_tables(result: GradcheckResult) -> None:
    """A table of the operations and one of the networks, each row with its worst entry."""
    echo(
        f"Worst difference from central differences (step {STEP:g}), relative to the largest entry of the array's "
        f"gradient,\nor to {FLOOR:g} of the largest of the case where that is more; allowed is {TOLERANCE:g}."
    )
    for title, kinds in (("operation", ("operation",)), ("network", ("parameters", "inputs"))):
        echo(f"\n{title:52} {'backend':9} {'entries':>8} {'worst':>8}  at")
        for row in result.rows:
            if row.kind in kinds:
                name = row.name if row.kind == "operation" else f"{row.name}: {row.kind}"
                mark = "" if row.ok else "  WRONG"
                echo(f"{name:52} {row.backend:9} {row.entries:8} {row.worst:8.1e}  {row.where}{mark}")
