"""refattn bench: this machine, and refattn against the frameworks that are installed."""

import tempfile
from pathlib import Path

import click
import numpy as np

from refattn.benchmarks.driver import Stopped, compare, interpreters
from refattn.benchmarks.measures import machine
from refattn.benchmarks.peers import PEERS
from refattn.benchmarks.ratios import ratios
from refattn.cli.options import as_json, echo, note
from refattn.common.environment import available_cores
from refattn.common.strict_json import to_json
from refattn.config import Config, override
from refattn.data.builtin import SETS
from refattn.data.prepare import prepare
from refattn.data.sources.registry import open_source
from refattn.data.splits import labels_of_target
from refattn.data.store import read_dataset
from refattn.errors import BenchmarkError, DataError

# Those that start within seconds; the compiled ones take a minute each to be ready.
DEFAULT = ("refattn", "tensorflow", "torch-padded", "torch-identities", "torch-sharded", "jax-identities")


@click.command()
@click.option("--data", default="fullerene", show_default=True, help="A data set, or the name of a built-in one.")
@click.option("--target", default="homo", show_default=True, help="Its label to train on.")
@click.option("--variant", type=click.Choice(["scann+", "scann"]), default="scann+", show_default=True, help="Network.")
@click.option("--threads", type=click.IntRange(min=1), help="Most threads, beside 1; default: one per core.")
@click.option(
    "--peers", "names", multiple=True, type=click.Choice(list(PEERS)), help=f"May be repeated; {', '.join(DEFAULT)}."
)
@click.option("--python", "words", multiple=True, metavar="PEER=PATH", help="The interpreter that has a peer.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Structures of a step.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Turns of every peer.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A size of the network: width=64.")
@as_json
def bench(data, target, variant, threads, names, words, batch_size, rounds, assignments, as_json):
    """Compare training steps and inference with the frameworks that are installed, in a minute or two.

    Every peer is the same network with the same weights in a process of its own, and must give refattn's outputs and
    gradients before it is timed. The network has the published size for QM9. The complete benchmarks are the
    scripts in the project's folder `benchmarks`.
    """
    try:
        pythons = interpreters(words)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--python") from None
    override(Config(), [f"model.{assignment}" for assignment in assignments])  # refuses what is none
    max_threads = threads or available_cores()
    if max_threads > available_cores():
        reason = f"{max_threads} threads need as many cores, and there are {available_cores()}"
        raise click.BadParameter(reason, param_hint="--threads")
    order = {"target": target, "variant": variant, "seed": 0, "batch_size": batch_size, "n_batches": 2}
    order |= {"set": list(assignments)}
    with tempfile.TemporaryDirectory(prefix="refattn-bench-") as folder:
        order["data"] = prepared(data, target, Path(folder))
        try:
            rows, missing, speed = compare(order, names or DEFAULT, sorted({1, max_threads}), pythons, note, rounds, 1)
        except Stopped as error:
            raise BenchmarkError(f"a peer stopped while it was measured ({error}); leave it out with --peers") from None
    if not any(row["peer"] == "refattn" for row in rows):
        raise BenchmarkError("refattn itself could not be measured: " + "; ".join(missing.values()))
    facts = {"data": data, "target": target, "variant": variant, "batch_size": batch_size}
    record = {"machine": machine(), **facts, "rates": speed, "results": rows, "missing": missing}
    if as_json:
        echo(to_json(record | {"ratios": ratios(rows)}, indent=1))
    else:
        print_table(record)


def prepared(data: str, target: str, folder: Path) -> str:
    """A file that every worker reads: of a built-in set its graphs, made once. Raises DataError."""
    path = data
    if data in SETS:
        path = folder / f"{data}.h5"
        note(f"{data}: making graphs")
        prepare(open_source(SETS[data].path), path, n_threads=available_cores())
    label = labels_of_target(read_dataset(path, with_positions=False), target)
    if not np.isfinite(label).any():
        raise DataError(f"{data}: no structure has the label {target}; choose another --target")
    return str(path)


def print_table(record: dict) -> None:
    """Rates of the machine, a row for each peer and number of threads, and what is missing."""
    facts = record["machine"]
    echo(f"{facts['processor']}, {facts['cores']} cores; {record['variant']}, batches of {record['batch_size']}")
    for n_threads, speed in record["rates"].items():
        echo(
            f"{n_threads} thread{'s' * (n_threads > 1)}: matrix products {speed['sgemm_gflops']:.0f} GFLOP/s, "
            f"copy {speed['copy_gb_per_second']:.1f} GB/s"
        )
    head = f"{'ms':>9} {'1/s':>7} {'sgemm':>6} {'time':>6}"
    echo(f"\n{'':26} {'':>7}  {'training step':^31}  {'inference':^31}")
    echo(f"{'peer':26} {'threads':>7}  {head}  {head}")
    own = {row["threads"]: row for row in record["results"] if row["peer"] == "refattn"}
    for row in record["results"]:
        cells = [f"{row['peer']:26} {row['threads']:>7}"]
        for kind in ("step", "predict"):
            values = row[kind]
            base = own.get(row["threads"])
            times = f"{values['median'] / base[kind]['median']:5.2f}x" if base else "-"
            cells.append(
                f"{1e3 * values['median']:9.1f} {values['structures_per_second']:7.0f} "
                f"{100 * values['fraction_of_sgemm']:4.0f} % {times:>6}"
            )
        echo("  ".join(cells))
    echo("\nsgemm: fewest operations of the network over the products' rate; time: over refattn's, same threads")
    print_missing(record["missing"])


def print_missing(missing: dict[str, str]) -> None:
    """One line for each way of installing what is not there, and one for each peer that failed."""
    by_reason = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        echo(f"{', '.join(names)}: {reason}")
