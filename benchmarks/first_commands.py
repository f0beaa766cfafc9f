"""What the first graph, prediction, explanation and training on a machine cost, for which kernels are compiled.

    python benchmarks/first_commands.py [--json OUT]

Each command runs twice with a folder of kernels that was empty before the first one, and then with another one after
`refattn warmup`. `prepare` makes a graph, so that `predict` after it compiles the network alone. Processor seconds are
those of the command with imports; kernels are files that it added to the folder.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import ase.io
from ase.build import molecule

from refattn.common.environment import processor
from refattn.common.files import write_text
from refattn.common.strict_json import to_json

MODEL = "molecules-orbitals"
THREAD = ("--threads", "1")
SIZES = ("--epochs", "1", "--set", "data.n_train=64", "--set", "data.n_valid=20", "--set", "data.n_test=20")


def commands(folder: Path) -> dict[str, list[str]]:
    """{name: words of the command}, with outputs in a folder that has benzene.xyz."""
    benzene = str(folder / "benzene.xyz")
    return {
        "prepare": ["prepare", benzene, str(folder / "set.h5"), "--overwrite"],
        "predict": ["predict", MODEL, benzene, *THREAD],
        "explain": ["explain", MODEL, benzene, "--out", str(folder / "why"), "--overwrite", *THREAD],
        "train": ["train", *SIZES, "--out", str(folder / "run"), "--overwrite", *THREAD],
    }


def measured(words: list[str], kernels: Path) -> dict:
    """Processor seconds of `refattn` with these words, and the number of kernels that it compiled."""
    before = len([*kernels.rglob("*.nbc")])
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(kernels), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", "from refattn.cli.main import cli; cli()", *words]
    subprocess.run(line, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    return {"processor_s": round(seconds, 1), "kernels": len([*kernels.rglob("*.nbc")]) - before}


def series() -> dict:
    """{command: first, again, after_warmup} and warmup itself; see measured."""
    found = {"warmup": {}}
    with tempfile.TemporaryDirectory(prefix="refattn-") as name:
        folder = Path(name)
        ase.io.write(folder / "benzene.xyz", molecule("C6H6"))
        cold, warm = folder / "cold", folder / "warm"
        for folder_of_kernels in (cold, warm):
            folder_of_kernels.mkdir()
        for command, words in commands(folder).items():
            found[command] = {"first": measured(words, cold), "again": measured(words, cold)}
        found["warmup"] = {"first": measured(["warmup", *THREAD], warm)}
        for command, words in commands(folder).items():
            found[command]["after_warmup"] = measured(words, warm)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = series()
    for command, runs in found.items():
        for when, run in runs.items():
            print(f"{command}, {when}: {run['processor_s']:.1f} processor s, {run['kernels']} kernels compiled")
    if asked.json:
        write_text(asked.json, to_json({"processor": processor(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
