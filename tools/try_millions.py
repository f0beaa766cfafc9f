"""Millions of structures from text to predictions, and what that takes: python tools/try_millions.py SOURCE N [options]

SOURCE is a file of molecules in extended XYZ that know xtb_homo, such as QM9's. They are repeated, with noise on
positions and labels, until there are N; then the commands of the documents follow, each in a process of its own:

    refattn prepare set/ K.h5 --part K/N     for every part, as many at a time as there are cores
    refattn join *.h5 all.h5
    refattn train all.h5                     one epoch of a small network, the data set mapped
    refattn train --resume                   which finds that all is done: reading a run of that size
    refattn predict run all.h5               to a table

Of each the seconds, processor seconds and the largest anonymous memory of one of its processes are printed as JSON:
what is no page of a file, which processes share and the system may drop. Files of a step are removed when the next is
done; 5 million molecules of up to 9 atoms need 12 GB of disk, and some 300 bytes an atom of others.
"""

import argparse
import concurrent.futures
import gzip
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from try_ranks import config_text

from refattn.common.environment import available_cores
from refattn.data.sources.extxyz import cut_frames, read_frame

PER_PART = 100_000  # structures
NOISE = 0.03  # Å, and eV
BASE = 5000  # molecules that are repeated


def molecules(source: Path, n_atoms: int) -> list[tuple[list[str], np.ndarray, float]]:
    """The first BASE molecules of at most n_atoms, as symbols, positions and label."""
    with (gzip.open if source.suffix == ".gz" else open)(source, "rt") as lines:
        frames = (
            read_frame(*frame[:3], str(source)) for frame in cut_frames(lines, source) if int(frame[0]) <= n_atoms
        )
        return [
            (frame.atoms.get_chemical_symbols(), frame.atoms.positions, frame.labels["xtb_homo"])
            for frame in itertools.islice(frames, BASE)
        ]


def write_set(folder: Path, base: list, n: int) -> None:
    """n of them, with noise, in files of PER_PART."""
    rng = np.random.default_rng(0)
    for first in range(0, n, PER_PART):
        with open(folder / f"{first // PER_PART:05d}.extxyz", "w", encoding="utf-8") as stream:
            for number in range(first, min(first + PER_PART, n)):
                symbols, positions, label = base[number % len(base)]
                noisy = (positions + NOISE * rng.normal(size=positions.shape)).tolist()
                stream.write(f"{len(symbols)}\nid=m{number} xtb_homo={label + NOISE * rng.normal():.5f}\n")
                stream.writelines(
                    f"{symbol} {x:.5f} {y:.5f} {z:.5f}\n" for symbol, (x, y, z) in zip(symbols, noisy, strict=True)
                )


def anonymous_mb(pid: int) -> float:
    """Anonymous memory now of the largest among a process and those that it started; 0 where it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "status").read_text().splitlines()
        started = [int(word) for file in folder.glob("task/*/children") for word in file.read_text().split()]
    except OSError:
        return 0.0
    own = next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")), 0.0)
    return max([own, *map(anonymous_mb, started)])


def command(*words: object) -> dict:
    """Run `refattn WORDS`; its seconds, processor seconds, and largest anonymous memory in MB and when it had that."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "from refattn.cli.main import cli; cli()", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "REFATTN_MAPPED": "1"},  # sets of any size, so that they can be compared
    )
    peak = [0.0, 0.0]
    said = []
    listener = threading.Thread(target=lambda: said.extend(process.stderr))
    listener.start()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, [anonymous_mb(process.pid), time.monotonic() - began])
        time.sleep(0.02)
    listener.join()
    if status:
        raise SystemExit(f"refattn {' '.join(map(str, words))} failed: {''.join(said)[-2000:]}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "anonymous_mb": round(peak[0]),
        "at_second": round(peak[1], 1),
    }


def prepare_parts(folder: Path, n_parts: int) -> dict:
    """Every part by a process of its own; sums of their times, and the largest memory."""
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(available_cores()) as pool:

        def one(number):
            part = folder / "parts" / f"{number:05d}.h5"
            return command("prepare", folder / "set", part, "--part", f"{number}/{n_parts}", "--threads", 1)

        found = list(pool.map(one, range(1, n_parts + 1)))
    return {
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(sum(part["processor_seconds"] for part in found), 1),
        "anonymous_mb": max(part["anonymous_mb"] for part in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("n", type=int)
    parser.add_argument(
        "--folder", type=Path, help="Where the files are written, and removed; default: a temporary one."
    )
    parser.add_argument("--atoms", type=int, default=9, help="Of a molecule, at most.")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--batch", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for part in ("set", "parts"):
            (folder / part).mkdir()
        began = time.monotonic()
        base = molecules(options.source, options.atoms)
        write_set(folder / "set", base, options.n)
        found = {
            "structures": options.n,
            "molecules": len(base),
            "steps": {"write": round(time.monotonic() - began, 1)},
        }
        steps = found["steps"]
        n_parts = -(-options.n // PER_PART)
        steps["prepare"] = prepare_parts(folder, n_parts)
        shutil.rmtree(folder / "set")
        data = folder / "all.h5"
        parts = [folder / "parts" / f"{number:05d}.h5" for number in range(1, n_parts + 1)]
        steps["join"] = command("join", *parts, data)
        shutil.rmtree(folder / "parts")
        config = folder / "small.toml"
        config.write_text(config_text(data.as_posix(), 1, "xtb_homo", f"batch_size = {options.batch}"))
        threads = "--threads", options.threads
        steps["train"] = command("train", config, "--out", folder / "run", *threads)
        steps["resume"] = command("train", "--out", folder / "run", "--resume", *threads)
        steps["predict"] = command("predict", folder / "run", data, "--out", folder / "predictions.csv")
        found["bytes"] = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        found["metrics"] = json.loads((folder / "run" / "metrics.json").read_text())["test"]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
