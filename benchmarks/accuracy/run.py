"""Runs the methods of the comparison, each run in a process of its own, and keeps a JSON of each.

    python benchmarks/accuracy/run.py WORK --peers PEERS/bin/python [--list] [--only METHOD [SET [N [MINUTES]]]]

WORK is what sets.py made. A run whose JSON is in the results is not repeated, so the queue may be stopped and started
at any time. --list prints what remains, with the processor seconds that a run is expected to take and their sum.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import typing
from pathlib import Path

from sets import SETS

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "accuracy"
# glibc gives large arrays back to the system and asks for them again: half of the time of a step of PaiNN otherwise.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}

# By validation: for one minute of QM9 a network that is narrow and shallow, for ten the experiment `recommended`, for
# an hour `qm9_gap`, which is wider, with dropout, heads, Gaussians and batches as published; other sets as they ship.
# What was tried for QM9, here and by recipe.py, are changes of what `molecules_b3lyp` was before it learned from them.
MOLECULES_BEFORE = (
    "model.n_angular=0",
    "model.n_radial=40",
    "model.radial_width=0.15",
    "model.dropout=0",
    "model.attention_dropout=0",
    "training.batch_size=16",
)
PUBLISHED_DROPOUT = ("model.dropout=0.1", "model.attention_dropout=0.05")
PUBLISHED_HEADS = ("model.normalise_attention=true", 'model.readout="published"', 'model.head="published"')
PUBLISHED_GAUSSIANS = ("model.n_radial=20", "model.radial_width=0.5")
PUBLISHED = (*PUBLISHED_DROPOUT, *PUBLISHED_HEADS, *PUBLISHED_GAUSSIANS, "training.batch_size=32")
ANGLES = ("model.n_angular=8",)
HOUR = (*PUBLISHED, *ANGLES)
NARROW = ("model.width=64", "model.global_width=64", "model.head_width=64")
SHALLOW = (*NARROW, "model.n_layers=4", *ANGLES)
RECOMMENDED = (*NARROW, *ANGLES, *PUBLISHED_DROPOUT)
# (method, set, minutes) -> what is changed
CHANGES = {
    ("refattn", "qm9_gap", 1): (*MOLECULES_BEFORE, *SHALLOW),
    ("refattn", "qm9_gap", 10): (*MOLECULES_BEFORE, *RECOMMENDED),
    ("refattn", "qm9_gap", 60): (*MOLECULES_BEFORE, *HOUR),
}


class Method(typing.NamedTuple):
    """A method of the comparison.

    script : in peers/
    sets : that it is for
    own : whether it runs in refattn's own environment
    seconds : of one structure, where a method has no budget and ends by itself; 0 where it has one
    largest : training set that it can take
    shortest : minutes in which it takes more than a few steps
    """

    script: str
    sets: tuple[str, ...] = tuple(SETS)
    own: bool = False
    seconds: float = 0.0
    largest: int = 10**9
    shortest: int = 0


METHODS = {
    "forest": Method("forest.py", seconds=0.01),
    "soap-krr": Method("soap_krr.py", seconds=0.05, largest=10_000),
    "refattn": Method("refattn_nets.py", own=True),
    "painn": Method("schnetpack_nets.py"),
    "schnet": Method("schnetpack_nets.py"),
    "painn-16": Method("schnetpack_nets.py", sets=("qm9_gap",)),
    "schnet-16": Method("schnetpack_nets.py", sets=("qm9_gap",)),
    "scann+": Method("refattn_nets.py", own=True),
    "alignn": Method("alignn_net.py", sets=("mp_e_form",), shortest=10),
}


class Run(typing.NamedTuple):
    """One run; `minutes` are those of two processors that are used fully, 0: as long as it takes."""

    method: str
    set: str
    n_train: str
    minutes: int
    seed: int

    @property
    def file(self) -> str:
        minutes = f"_{self.minutes}min" if self.minutes else ""
        return f"{self.method}_{self.set}_{self.n_train}{minutes}_{self.seed}.json"

    @property
    def seconds(self) -> float:
        """Processor seconds that the run is expected to take, without reading and testing."""
        return 120 * self.minutes or METHODS[self.method].seconds * structures_of(self)


def structures_of(run: Run) -> int:
    """The number of structures that a run trains on."""
    return SETS[run.set].n_all if run.n_train == "all" else int(run.n_train)


def queue(seeds: int = 1) -> list[Run]:
    """All runs: set by set, those of few minutes first."""
    runs = []
    for seed in range(seeds):
        for name, chosen in SETS.items():
            for method, facts in METHODS.items():
                for size, minutes in chosen.sizes.items():
                    runs += [Run(method, name, size, m, seed) for m in ((0,) if facts.seconds else minutes)]
    runs = [run for run in runs if run.set in METHODS[run.method].sets]
    runs = [run for run in runs if structures_of(run) <= METHODS[run.method].largest]
    runs = [run for run in runs if not run.minutes or run.minutes >= METHODS[run.method].shortest]
    return sorted(runs, key=lambda run: (run.seed, [*SETS].index(run.set), run.minutes))


def commit() -> str:
    """That of the working tree, with a + behind it where files were changed; empty outside of a repository."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--exclude", "*", "--abbrev=12", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def execute(
    run: Run, work: Path, peers: str, results: Path, threads: int = 1, budget_s: float | None = None, **more
) -> Path:
    """Do one run and leave its JSON; `budget_s` replaces its minutes, for trials. Raises CalledProcessError.

    `more` is for the script of the method: "changes" (TABLE.KEY=VALUE) of refattn's recipe, "graphs", the data set with
    them, and "unchanged_graphs", that without.
    Budgets are "slowdown" times as long.
    """
    folder, target = work.resolve() / run.set, results.resolve() / run.file
    method = METHODS[run.method]
    budget = 120 * run.minutes if budget_s is None else budget_s
    order = (
        run._asdict()
        | {
            "budget_s": budget * more.get("slowdown", 1),
            "threads": threads,
            "commit": commit(),
            "date": datetime.date.today().isoformat(),
            "structures": str(folder / "structures.npz"),
            "split": str(folder / f"split_{run.n_train}.json"),
            "set_facts": str(folder / "set.json"),
            "result": str(target),
        }
        | more
    )
    results.mkdir(parents=True, exist_ok=True)
    settings = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL")} | KEEP_MEMORY
    with tempfile.TemporaryDirectory(prefix="accuracy-") as scratch:
        path = Path(scratch) / "order.json"
        path.write_text(json.dumps(order), encoding="utf-8")
        command = [sys.executable if method.own else peers, str(HERE / "peers" / method.script), str(path)]
        subprocess.run(command, check=True, env=os.environ | settings, cwd=scratch)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--peers", help="the interpreter of the peers' environment")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="print what remains and do nothing")
    parser.add_argument("--only", nargs="+", metavar=("METHOD", "SET N MINUTES"), default=[])
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds from 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, help="processor seconds in the place of the minutes, for trials")
    parser.add_argument("--keep", type=Path, help="where runs of refattn and SCANN+ go on after an interruption")
    parser.add_argument("--slowdown", type=float, default=1.0, help="by which budgets are longer; see README.md")
    asked = parser.parse_args()
    wanted = dict(zip(("method", "set", "n_train", "minutes"), asked.only))
    left = [run for run in queue(asked.seeds) if not (asked.results / run.file).exists()]
    left = [run for run in left if all(str(getattr(run, key)) == value for key, value in wanted.items())]
    if asked.list:
        for run in left:
            print(f"{run.seconds:8.0f} s  {run.file.removesuffix('.json')}")
        print(f"{len(left)} runs, {sum(run.seconds for run in left) / 3600:.1f} hours of one processor")
        return
    failed = []
    for run in left:
        print(run.file, flush=True)
        where = asked.work, asked.peers, asked.results, asked.threads, asked.budget
        try:
            more = {"changes": CHANGES.get((run.method, run.set, run.minutes), ()), "slowdown": asked.slowdown}
            if asked.keep:
                more["keep"] = str(asked.keep.resolve() / run.file.removesuffix(".json"))
            print(execute(run, *where, **more).read_text(), flush=True)
        except subprocess.CalledProcessError as error:
            failed.append(run.file)
            print(f"failed: {error}", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
