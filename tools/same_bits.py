"""One training under several versions of Python, NumPy and SciPy: the same bits?

    python tools/same_bits.py --python python3.11 --with numpy==2.4.* --with scipy==1.17.* \\
                              --python python3.13 --with numpy==2.5.* --with scipy==1.18.*

Every --python begins an environment, and each --with that follows is a requirement of it. The first trains both
networks on the built-in platinum clusters, in float32 and with dropout; each of the others trains them again and
compares, with `refattn verify`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN = ("train", "--data", "pt-graphene", "--target", "deformation_energy", "--epochs", "1")
TRAIN += ("--set", "model.n_layers=2", "--set", "model.width=64", "--set", "model.dropout=0.1")


def environments(words):
    """Pairs of an interpreter and its requirements, of the command line."""
    found = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option == "--python":
            found.append((value, []))
        elif option == "--with" and found:
            found[-1][1].append(value)
        else:
            sys.exit(__doc__)
    return found or sys.exit(__doc__)


def installed(python, requirements, folder):
    """refattn of this repository in an environment of its own. Returns a function that runs it."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, ROOT, *requirements], check=True)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "numba")}

    def run(*arguments):
        command = [folder / "bin" / "refattn", *arguments]
        result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        return result.returncode, (result.stdout or result.stderr).strip()

    return run


def main():
    wanted = environments(sys.argv[1:])
    failed = 0
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        for number, (python, requirements) in enumerate(wanted):
            run = installed(python, requirements, Path(folder) / f"environment_{number}")
            versions = re.findall(r"(?:python|numpy|scipy|numba): \S+", run("info")[1])
            print(*versions, sep=", ", flush=True)
            for variant in ("scann", "scann+"):
                place = Path(folder) / variant
                command = ("verify", place) if number else (*TRAIN, "--set", f"model.variant={variant}", "--out", place)
                status, output = run(*command)
                failed += status
                if not number and not status:
                    output = f"digest {json.loads((place / 'log.jsonl').read_text().splitlines()[-1])['digest']}"
                said = output.splitlines()[-1].removeprefix(f"{place}: ") if output else status
                print(f"  {variant}: {said}", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
