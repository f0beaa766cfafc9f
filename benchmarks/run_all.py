"""All benchmarks of the CPU, section by section, each into a file of its own.

    python benchmarks/run_all.py --data QM9.h5 --out benchmarks/results/cpu --python tensorflow=PATH torch=PATH jax=PATH

A section whose file is there is not run again, so that the command goes on where it was stopped; --again runs all, or
the sections that it names. No section begins after --minutes, and each has a limit of its own. QM9.h5 is made by
`refattn prepare`. Afterwards `python benchmarks/report.py` writes the tables of docs/benchmarks.md. The machine should
be idle.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from refattn.benchmarks.driver import interpreters, python_of

FOLDER = Path(__file__).parent


def sections(arguments, pythons):
    """{name: (command without interpreter and --json, interpreter, limit in minutes)}, the important ones first."""
    words = ["--python", *arguments.python] if arguments.python else []
    quick = ["--quick"] * arguments.quick
    data = [str(arguments.data), "--target", arguments.target]
    peers = ["--peers", *arguments.peers] if arguments.peers else []
    one_step, minutes = ["bench_step.py", *data, *words, *peers, *quick, "--minutes"], "1.5" if arguments.quick else "4"
    found = {
        "step_plus": ([*one_step, minutes, "--variants", "scann+"], sys.executable, 60),
        "step": ([*one_step, minutes, "--variants", "scann"], sys.executable, 45),
        "epoch": (["bench_epoch.py", *data, *words, *quick], sys.executable, 8),
        "scaling": (["bench_scaling.py", "--data", *data, *words, *quick], sys.executable, 10),
        "cold_start": (["bench_cold_start.py", *words, *quick], sys.executable, 30),
        "ops": (["bench_ops.py", *quick], python_of("torch-ragged", pythons), 3),
    }
    if arguments.neighbours:
        paths = [word for pair in zip(("--qm9", "--crystals"), arguments.neighbours) for word in pair]
        python = pythons.get("tensorflow", sys.executable)  # the authors' package brings pymatgen
        found["neighbours"] = (["bench_neighbours.py", *paths, *["--no-scaling"] * arguments.quick], python, 8)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="QM9's graphs, made by refattn prepare")
    parser.add_argument("--target", default="xtb_homo")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="interpreters of peers")
    parser.add_argument("--peers", nargs="+", help="of the steps, where the memory does not hold all of them (24 GB)")
    parser.add_argument("--neighbours", nargs=2, metavar=("QM9", "CRYSTALS"), help="extended XYZ, for that section")
    parser.add_argument("--minutes", type=float, default=40.0, help="after which no section begins")
    parser.add_argument("--only", nargs="+", help="sections to run")
    parser.add_argument("--again", nargs="*", help="run sections whose file is there: these, or all")
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that everything works")
    arguments = parser.parse_args()
    try:
        todo = sections(arguments, interpreters(arguments.python))
    except ValueError as error:
        parser.error(str(error))
    unknown = [name for name in [*(arguments.only or []), *(arguments.again or [])] if name not in todo]
    if unknown:
        parser.error(f"there is no section {unknown[0]}; there are {', '.join(todo)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    began, failed = time.perf_counter(), []
    for name, section in todo.items():
        result = arguments.out / f"{name}.json"
        again = arguments.again is not None and (not arguments.again or name in arguments.again)
        if (arguments.only and name not in arguments.only) or (result.exists() and not again):
            print(f"{name}: left as it is", flush=True)
        elif time.perf_counter() - began > 60 * arguments.minutes:
            print(f"{name}: not begun, the time is over; give the command again", flush=True)
            failed.append(name)
        elif not run_section(name, section, result):
            failed.append(name)
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.1f} minutes; {'not done: ' + ', '.join(failed) if failed else 'done'}")
    sys.exit(bool(failed))


def run_section(name, section, result):
    """Run one script with its output beside the result; returns whether it ended well."""
    (script, *words), python, minutes = section
    command, began = [python, str(FOLDER / script), *words, "--json", str(result)], time.perf_counter()
    with open(result.with_suffix(".txt"), "w", encoding="utf-8") as stream:
        try:
            status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, timeout=60 * minutes).returncode
        except subprocess.TimeoutExpired:
            status = f"more than {minutes} minutes"
    took = time.perf_counter() - began
    print(f"{name}: {f'failed ({status})' if status else 'done'} in {took:.0f} s; see {result.stem}.txt", flush=True)
    return status == 0


if __name__ == "__main__":
    main()
