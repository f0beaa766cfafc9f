"""Training steps and inference of refattn and its peers in turns.

    python benchmarks/bench_step.py DATA.h5 --python tensorflow=PATH --json OUT

DATA.h5 is made by `refattn prepare`. Every peer runs in a process of its own (worker.py) and is checked against
refattn's outputs and gradients before a clock starts. The rates of matrix products (sgemm) and of copying are measured
before and after, and the better ones count. PATH is the interpreter of an environment with another framework.
"""

import argparse
import sys
from pathlib import Path

from refattn.benchmarks.driver import Stopped, compare, interpreters
from refattn.benchmarks.measures import write_record
from refattn.benchmarks.peers import PEERS
from refattn.benchmarks.ratios import ratios


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="QM9's graphs, made by refattn prepare")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--target", default="xtb_homo")
    parser.add_argument("--variants", nargs="+", default=["scann+", "scann"], choices=["scann+", "scann"])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=8, help="different batches that take turns")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--turn", type=int, default=3, help="batches in a turn")
    parser.add_argument("--minutes", type=float, default=5.0, help="after which no new round of a variant begins")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="interpreters of peers")
    parser.add_argument("--quick", action="store_true", help="two rounds of one batch each")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.turn, arguments.batches = 2, 1, 2
    try:
        pythons = interpreters(arguments.python)
    except ValueError as error:
        parser.error(str(error))
    record = {"data": Path(arguments.data).name, "batch_size": arguments.batch_size, "rates": {}, "results": []}
    record |= {"missing": {}, "ratios": {}}
    for variant in arguments.variants:
        measure(arguments, variant, pythons, record)
        if arguments.json:
            write_record(arguments.json, record)


def note(text):
    print(text, file=sys.stderr, flush=True)


def measure(arguments, variant, pythons, record):
    """Measure one variant into the record, and print its rows and ratios."""
    order = {"data": arguments.data, "target": arguments.target, "variant": variant, "seed": 0}
    order |= {"batch_size": arguments.batch_size, "n_batches": arguments.batches}
    turns = arguments.rounds, arguments.turn, 60 * arguments.minutes, record["rates"]
    try:
        rows, missing, record["rates"] = compare(order, arguments.peers, arguments.threads, pythons, note, *turns)
    except Stopped as error:
        sys.exit(f"a worker stopped in the middle of the measurement, which is void: {error}")
    if not rows:
        sys.exit("no peer could be measured: " + "; ".join(f"{name}: {why}" for name, why in missing.items()))
    for row in rows:
        print(line_of(row), flush=True)
    record["results"] += rows
    record["missing"] |= missing
    record["ratios"][variant] = ratios(rows)
    for name, value in record["ratios"][variant].items():
        print(f"{variant:7} {name}: {value['ratio']:.2f}" + (f" ({value['peer']})" if value["peer"] else ""))


def line_of(row):
    """A row of the table as text."""
    parts = [f"{row['variant']:7} {row['peer']:26} {row['threads']} threads"]
    for kind in ("step", "predict"):
        values = row[kind]
        low, high = values["quartiles"]
        parts.append(
            f"{kind} {1e3 * values['median']:7.1f} ms ({1e3 * low:.1f}, {1e3 * high:.1f}) "
            f"{values['structures_per_second']:6.0f}/s {100 * values['fraction_of_sgemm']:3.0f} % of sgemm"
            + (f" [{values['form']}]" if values["form"] != kind else "")
        )
    return "  ".join(parts)


if __name__ == "__main__":
    main()
