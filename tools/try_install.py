"""What a stranger gets: the sdist and the wheel, built, installed in fresh environments, and tried there.

    python tools/try_install.py                                       # with this Python
    python tools/try_install.py --python python3.12 --python python3.13
    python tools/try_install.py --lowest                              # the lowest versions that setup.cfg admits
    python tools/try_install.py --platforms                           # are there wheels for other systems?

In each environment is the wheel with what it declares and nothing more; then pytest joins, and tests of the unpacked
sdist run against what is installed. Needs the package `build`.
"""

import argparse
import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
# Tests that need pytest alone and little compilation; those of NUMERICAL run with the lowest versions too.
QUICK = ("tests/test_config.py", "tests/structures/test_elements.py", "tests/network/test_params.py")
QUICK += ("tests/data/test_splits.py", "tests/docs/test_documents.py", "tests/common")
NUMERICAL = ("tests/ops/test_ops.py", "tests/network/test_network.py", "tests/structures/test_voronoi.py")
NUMERICAL += ("tests/explanation/test_explain.py", "tests/cli/test_cli.py")
DEVELOPERS = {"pytest", "ruff", "sphinx", "tblite", "torch", "build"}  # no wheel brings them
# pip's names of platforms; a machine takes wheels of all that its line names
PLATFORMS = {
    "win_amd64": ["win_amd64"],
    "macosx_14_0_arm64": ["macosx_14_0_arm64"],
    "aarch64": ["manylinux2014_aarch64", "manylinux_2_28_aarch64"],
}


def say(text):
    print(text, flush=True)


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, **options)


def copied(folder):
    """Copy the files that git knows, or would add, to `folder`; returns it."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():  # neither the end of the list nor a file that was removed
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def built(folder):
    """Build sdist and wheel into `folder`, unpack the sdist. Returns the wheel and the unpacked folder.

    What is built is a copy: setuptools puts folders beside the sources, where tests that run meanwhile would find them.
    """
    sources = copied(folder / "checkout")
    run(
        sys.executable, "-m", "build", "--outdir", folder, sources, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    wheel, sources = next(folder.glob("*.whl")), next(path for path in folder.glob("refattn-*") if path.is_dir())
    places = {"refattn": "refattn", "cli": "refattn/cli", "benchmarks/harness": "refattn/benchmarks"}  # as in setup.cfg
    for package, place in places.items():
        files = (path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.py"))
        missing = {f"{place}/{file.as_posix()}" for file in files} - {*zipfile.ZipFile(wheel).namelist()}
        assert not missing, f"not in the wheel: {missing}"
    return wheel, sources


def asked():
    """What setup.cfg asks for: the lines of what refattn needs, and those of pytest and its plugin."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    tests = settings["options.extras_require"]["test"].split()
    return settings["options"]["install_requires"].split(), [line for line in tests if line.startswith("pytest")]


def lowest_versions():
    """Constraints, such as numpy==1.26, for everything that `asked` has."""
    needed, tests = asked()
    return [line.replace(">=", "==") for line in needed + tests]


def try_wheel(python, wheel, sources, folder, tests, constraints):
    """Install the wheel in an environment of `python`, look what came along, and run the tests there."""
    if python == sys.executable:
        venv.create(folder / "venv", with_pip=True)
    else:
        run(python, "-m", "venv", folder / "venv")
    binaries = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if constraints:
        (folder / "constraints.txt").write_text("\n".join(constraints))
        pip += ["--constraint", folder / "constraints.txt"]
    run(*pip, wheel)
    site = next((folder / "venv").rglob("site-packages"))
    found = {item.name.lower(): item.version for item in importlib.metadata.distributions(path=[str(site)])}
    assert not DEVELOPERS & found.keys(), f"the wheel brings {DEVELOPERS & found.keys()}"
    say(f"{python}: {len(found) - 2} packages: {', '.join(f'{name} {found[name]}' for name in sorted(found))}")
    elsewhere = {"cwd": folder, "stdout": subprocess.DEVNULL}
    run(binaries / "refattn", "--help", **elsewhere)
    run(binaries / "refattn", "info", **elsewhere)
    run(*pip, *asked()[1])
    # safe path: `python -c` in a test would find the sources too
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "numba"), "PYTHONSAFEPATH": "1"}
    # not `python -m pytest`, which would find the sources and not the wheel
    run(binaries / "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=sources, env=environment)


def resolve(wheel, folder):
    """Ask pip for the wheels of every requirement, with those of the tests, on systems that are not at hand."""
    for name, tags in PLATFORMS.items():
        platform = "linux" if name == "aarch64" else {"w": "win32", "m": "darwin"}[name[0]]
        machine = {"win_amd64": "AMD64", "macosx_14_0_arm64": "arm64", "aarch64": "aarch64"}[name]
        marks = {"sys_platform": platform, "platform_machine": machine}
        (metadata,) = importlib.metadata.distributions(name="refattn", path=[str(wheel)])
        wanted = [Requirement(line) for line in metadata.requires]
        extras = [{**marks, "extra": extra} for extra in ("test", "sklearn", "smiles")]
        wanted = [item for item in wanted if not item.marker or any(item.marker.evaluate(marks) for marks in extras)]
        names = [f"{item.name}{item.specifier}" for item in wanted if item.name != "refattn"]
        options = [part for tag in tags for part in ("--platform", tag)]
        options += ["--only-binary=:all:", "--python-version", "3.12"]
        run(sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", folder / name, *names)
        say(f"{name}: {len(list((folder / name).iterdir()))} wheels")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="interpreter of an environment; may be given several times")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions of what refattn needs")
    parser.add_argument("--platforms", action="store_true", help="only ask for wheels of other systems")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        folder = Path(folder)
        wheel, sources = built(folder)
        say(f"built {wheel.name}")
        if arguments.platforms:
            resolve(wheel, folder)
            return
        tests = (*QUICK, *NUMERICAL) if arguments.lowest else QUICK
        for n, python in enumerate(arguments.python or [sys.executable]):
            place = folder / str(n)
            place.mkdir()
            try_wheel(python, wheel, sources, place, tests, lowest_versions() if arguments.lowest else None)


if __name__ == "__main__":
    main()
