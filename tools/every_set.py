"""Prepare every extended XYZ set of a folder, and train on it for two epochs, with every warning an error.

    python tools/every_set.py FOLDER --work WORK --json benchmarks/results/every_set.json

A set without labels is only prepared. All structures are prepared; at most 10,000 are trained on, with a small network
(2 layers, width 32): this shows that the way from a file to a run holds for every kind of structure, not what the
network can learn.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SMALL = ("n_layers=2", "width=32", "n_heads=2", "global_width=32", "head_width=32", "n_elements=119")
SIZES = {"n_train": 10_000, "n_valid": 1_000, "n_test": 1_000}  # where the set has more
PREFERRED = ("homo", "e_form")  # the label to learn; otherwise the first that is known for most structures
PERIODIC = ("materials_project", "rt12")  # with 6 Å, as in the paper


def refattn(*arguments):
    """Run a command; its JSON and seconds. A warning or an error ends the script with what it said."""
    start = time.perf_counter()
    command = [sys.executable, "-W", "error", "-m", "refattn.cli.main", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or "Warning" in done.stderr:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - start


def go_through(file, work, threads):
    """Facts of one set: counts and seconds of prepare and of a training of two epochs."""
    name = file.name.split(".")[0]
    r_max = 6 if name in PERIODIC else 4
    data, run = work / f"{name}.h5", work / f"run_{name}_{time.time():.0f}"
    report, seconds = refattn("prepare", file, data, "--r-max", r_max, "--threads", threads)
    facts = {key: report[key] for key in ("n_structures", "n_skipped", "n_sites", "n_edges")}
    facts |= {key: round(report[key], 1) for key in ("seconds_reading", "seconds_graphs", "seconds_writing")}
    facts["prepare_seconds"] = round(seconds, 1)
    known = {label: item["known"] for label, item in refattn("info", data)[0]["labels"].items()}
    if not known:
        return facts
    target = next((label for label in PREFERRED if label in known), max(known, key=known.get))
    network = [part for setting in (*SMALL, f"radial_max={r_max}") for part in ("--set", f"model.{setting}")]
    if known[target] > sum(SIZES.values()):
        network += [part for name, size in SIZES.items() for part in ("--set", f"data.{name}={size}")]
    options = ["--data", data, "--target", target, "--out", run, "--epochs", 2, "--threads", threads, *network]
    metrics, seconds = refattn("train", *options)
    facts |= {"target": target, "unit": metrics["unit"], "n_train": metrics["train"]["n"]}
    facts |= {"test_mae": metrics["test"]["mae"], "baseline_mae": metrics["baseline_mae"]}
    return facts | {"train_seconds": round(seconds, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the data sets and runs")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    facts = {}
    for file in sorted(arguments.folder.glob("*.extxyz.gz"), key=lambda file: file.stat().st_size):
        facts[file.name] = go_through(file, arguments.work, arguments.threads)
        print(file.name, facts[file.name], flush=True)
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
