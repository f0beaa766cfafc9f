"""Whole epochs of training with data loading: refattn, the authors' model.fit, and loops of the other frameworks.

    python benchmarks/bench_epoch.py DATA.h5 --python tensorflow=PATH --json OUT

Every peer shuffles, makes its batches within the clock and takes a step with each. refattn gathers shards as its
Trainer does; the authors' fit gets their DataIterator, alone and with the four processes that their code asks for; the
others gather ragged batches with refattn's GraphBatch. Validation and checkpoints are left out for all. Every peer is
checked against refattn first, and sees every shape once before the clock starts.
"""

import argparse
import sys
from pathlib import Path

from bench_step import note

from refattn.benchmarks.driver import Stopped, Worker, interpreters, python_of
from refattn.benchmarks.measures import rates, summary, write_record
from refattn.benchmarks.peers import PEERS
from refattn.common.environment import available_cores

MEASURED = ("refattn", "tensorflow", "torch-identities", "torch-sharded", "jax-identities")
LIMIT = 300.0  # s for an epoch


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="QM9's graphs, made by refattn prepare")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--target", default="xtb_homo")
    parser.add_argument("--variants", nargs="+", default=["scann+"], choices=["scann+", "scann"])
    parser.add_argument("--peers", nargs="+", default=list(MEASURED), choices=list(PEERS))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--structures", type=int, default=1280, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="epochs of every peer")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="interpreters of peers")
    parser.add_argument("--quick", action="store_true", help="one epoch of two batches")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.structures, arguments.rounds = 2 * arguments.batch_size, 1
    try:
        pythons = interpreters(arguments.python)
    except ValueError as error:
        parser.error(str(error))
    record = {"data": Path(arguments.data).name, "structures": arguments.structures, "threads": arguments.threads}
    record |= {"batch_size": arguments.batch_size, "missing": {}, "results": []}
    record["rates"] = {arguments.threads: rates(arguments.threads)}
    for variant in arguments.variants:
        record["results"] += compare(arguments, variant, pythons, record["missing"])
    if arguments.json:
        write_record(arguments.json, record)


def compare(arguments, variant, pythons, missing):
    """Rows of one variant: each peer with the fastest of its ways to train an epoch."""
    order = {"data": arguments.data, "target": arguments.target, "variant": variant, "n_batches": 1}
    order |= {"batch_size": arguments.batch_size, "threads": arguments.threads}
    workers = {}
    for name in [peer for peer in PEERS if peer in {*arguments.peers, "refattn"}]:
        try:
            worker = Worker({**order, "peer": name}, python_of(name, pythons))
            workers[name] = worker, warmed(worker, arguments.structures)
        except (Stopped, OSError) as error:
            note(f"{variant} {name}: {error}")
            missing[name] = str(error)
    seconds = {}
    for _ in range(arguments.rounds):
        for name, (worker, forms) in workers.items():
            for form in forms:
                wanted = {"what": "epoch", "form": form, "n": arguments.structures, "times": 1}
                seconds.setdefault((name, form), []).extend(worker.ask(wanted, LIMIT)["seconds"])
    rows = []
    for name, (worker, forms) in workers.items():
        worker.close()
        found = {form: summary(seconds[name, form], arguments.structures) for form in forms}
        form = min(found, key=lambda key: found[key]["median"])
        rows.append({"variant": variant, "peer": name, "form": form, "forms": found, **found[form]})
    for row in rows:
        row["ratio"] = row["median"] / rows[0]["median"]
        print(
            f"{variant:7} {row['peer']:18} {arguments.threads} threads  epoch {row['median']:6.2f} s  "
            f"{row['structures_per_second']:6.0f}/s  {row['ratio']:5.2f} times refattn's time  [{row['form']}]"
        )
    return rows


def warmed(worker, n):
    """Ways to train an epoch, each of which has seen what it will see; one that does not work is left out, aloud."""
    forms = []
    for form in worker.ready["epochs"]:
        try:
            worker.ask({"what": "epoch", "form": form, "n": n, "times": 1}, LIMIT)
            forms.append(form)
        except Stopped as error:
            if not forms:
                raise
            note(f"{worker.order['peer']}: {form} is left out: {error}")
            restarted = Worker(worker.order, worker.process.args[0])
            worker.__dict__.update(restarted.__dict__)
            worker.ask({"what": "epoch", "form": forms[0], "n": n, "times": 1}, LIMIT)
    return forms


if __name__ == "__main__":
    sys.exit(main())
