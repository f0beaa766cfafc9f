"""Disks that are full, folders that may not be written, no cache for kernels, two processes with one output.

    python tools/attack_disk.py --json benchmarks/results/attack_disk.json

Every command that writes runs at 33 limits of the size of a file, from nothing to just too little, each in a process of
its own: a write beyond fails as on a full disk. It must end with one sentence and status 1, with every file as it was,
an earlier output among them.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from attack_files import attack, call, digests, make_good

from refattn.cli.main import FAULT

POINTS = 33
# Commands, the output that they make, and whether an earlier one is there.
COMMANDS = {
    "prepare all.extxyz out.h5": "out.h5",
    "prepare folder data.h5 --append": "data.h5",
    "train config.toml --out out --threads 1": "out",
    "evaluate run --calibrate": "run/calibration.h5",
    "evaluate run --data data.h5 --out out.csv": "out.csv",
    "info data.h5 --plot out.png": "out.png",
    **{f"predict run all.extxyz --out out.{suffix}": f"out.{suffix}" for suffix in ("csv", "json", "xyz", "h5")},
    "explain run set.extxyz --out out --scores none --no-pages": "out",
    "embed run all.extxyz --out out": "out",
    "import-keras keras.h5 out --unit eV": "out",
}


def apart(place, command, prepare=lambda: None):
    """(status, stderr) of a command in a forked process; a negative status is that of a signal."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with contextlib.suppress(BaseException):
            os.chdir(place)
            prepare()
            result = call(command)
            text = repr(result.exception) if result.exc_info[0] not in (None, SystemExit) else ""
            os.write(write, (result.stderr + text).encode()[:60000])
            os._exit(result.exit_code)
        os._exit(99)
    os.close(write)
    with open(read, "rb") as stream:
        said = stream.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def limit_files(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def become_nobody():
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def sizes_of(place, output):
    """The largest file of an output."""
    path = place / output
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return max((file.stat().st_size for file in files), default=0)


def judge(status, said, before, place, command):
    """What is wrong with the end of a refused command; "" where nothing is."""
    lines = said.strip().splitlines()
    if status != 1 or FAULT in said or not lines or not lines[-1].startswith("refattn: "):
        return f"{command}: status {status}, {said[-300:]}"
    after = digests(place)
    changed = [file for file in before if after.get(file) != before[file]]
    own = {file for file in after if ".refattn-" in file}
    return f"{command}: changed {changed} left {sorted(own)}" if changed or own else ""


def full_disks(good, work):
    """What is wrong at the limits of every command, and how many were tried."""
    wrong = []
    tried = 0
    for number, (command, output) in enumerate(COMMANDS.items()):
        place = work / f"full{number}"
        subprocess.run(["cp", "-r", good, place], check=True)
        status, said = apart(place, command)
        if status:
            wrong.append(f"{command}: {said}")
            continue
        size = sizes_of(place, output)
        for point in range(POINTS):
            if output == "out":  # a folder is made anew each time; files stay as earlier outputs
                subprocess.run(["rm", "-rf", place / "out"], check=True)
            before = digests(place)
            limit = size * point // POINTS
            status, said = apart(place, command, lambda: limit_files(limit))  # noqa: B023  it is called now
            problem = judge(status, said, before, place, command)
            tried += 1
            if problem:
                wrong.append(f"{limit} of {size} bytes, {problem}")
    return wrong, tried


def read_only(good, work):
    """Outputs into a folder that may not be written."""
    place = work / "read_only"
    subprocess.run(["cp", "-r", good, place], check=True)
    for folder in (work, place):
        folder.chmod(0o755)
    before = digests(place)
    wrong = []
    for command in COMMANDS:
        status, said = apart(place, command, become_nobody)
        wrong.append(judge(status, said, before, place, command))
    return [problem for problem in wrong if problem], len(COMMANDS)


def no_cache(good, work):
    """Kernels are compiled and not kept where their folder is none."""
    place = work / "no_cache"
    subprocess.run(["cp", "-r", good, place], check=True)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(place / "set.extxyz" / "x")}
    environment["NUMBA_CACHE_LOCATOR_CLASSES"] = "UserProvidedCacheLocator"
    command = [sys.executable, "-m", "refattn.cli.main", "prepare", "set.extxyz", "out.h5"]
    result = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    return [f"no cache: {result.stderr[-300:]}"] if result.returncode else [], 1


def two_at_once(good, work):
    """Of two processes with one output one is refused; or both are done, one after the other."""
    wrong = []
    for number, command in enumerate(list(COMMANDS)[:3]):
        place = work / f"two{number}"
        subprocess.run(["cp", "-r", good, place], check=True)
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                os.chdir(place)
                os._exit(call(command).exit_code)
            children.append(child)
        statuses = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        left = [file for file in digests(place) if ".refattn-" in file]
        if statuses not in ([0, 0], [0, 1]) or left:
            wrong.append(f"two at once: {command}: {statuses}, left {left}")
    return wrong, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    record = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "good").mkdir()
        make_good(work / "good")
        attack(work / "good", work / "warm", 0, 4)
        call(f"explain {work}/good/run {work}/good/set.extxyz --out {work}/warm2 --scores none --no-pages")
        for case in (full_disks, read_only, no_cache, two_at_once):
            wrong, tried = case(work / "good", work)
            record[case.__name__] = {"tried": tried, "wrong": wrong}
            print(case.__name__, tried, *wrong, sep="\n", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(any(found["wrong"] for found in record.values()))


if __name__ == "__main__":
    main()
