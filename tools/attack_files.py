"""Damage every kind of file that refattn reads, at random but repeatably, and see what the commands make of it.

    python tools/attack_files.py --number 5000 --seed 0 --json OUT

Each mutation damages one file of a folder of intact ones and runs a command that reads it, in a process of its own with
4 GB of memory and 20 s. A command must end with status 0, 1 or 2, in one sentence where it fails, and leave every file
as it was; outputs are whole or absent. Bytes are changed, cut, doubled, zeroed; numbers in text become long; HDF5 files
are changed through h5py too, models with the right checksum.
"""

import argparse
import collections
import contextlib
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import ase.io
import h5py
import numpy as np
from ase.build import bulk, molecule
from click.testing import CliRunner

import refattn
from refattn.cli.main import FAULT, cli
from refattn.config import config_from_dict, to_toml
from refattn.data.splits import write_split
from refattn.network.checkpoint import load_checkpoint, save_checkpoint

SECONDS = 20
BYTES = 4 << 30
NAMES = ("H2O", "CH4", "NH3", "C2H6", "CH3OH", "C2H4", "C6H6", "HCN", "C2H2", "CO2")
QM9 = "1\ngdb 1 " + "0.5 " * 15 + "\nH 0.0 0.0 0.0 0.1\n1.0\nH H\nInChI InChI\n"
# File and command that reads it; what it writes is called out*.
TARGETS = (
    *(("data.h5", command) for command in ("info data.h5", "evaluate run --data data.h5 --out out.csv")),
    ("data.h5", "prepare set.extxyz data.h5 --append"),
    *(("run/model.h5", command) for command in ("info run", "predict run set.extxyz --out out.csv")),
    ("run/last.h5", "train --out run --resume"),
    ("run/calibration.h5", "predict run set.extxyz --coverage 0.5"),
    ("run/metrics.json", "info run"),
    ("both/ensemble.json", "predict both set.extxyz"),
    ("both/member_1/model.h5", "predict both set.extxyz"),
    ("config.toml", "train config.toml --out out --threads 1 --epochs 1"),
    ("split.json", "train config.toml --out out --threads 1 --epochs 1 --set data.split=split.json"),
    *(("set.extxyz", command) for command in ("prepare set.extxyz out.h5", "predict run set.extxyz --out out.json")),
    ("set.extxyz.gz", "prepare set.extxyz.gz out.h5"),
    ("folder/salt.cif", "prepare folder out.h5"),
    ("labels.csv", "prepare folder out.h5 --labels labels.csv"),
    ("dsgdb9nsd.xyz.tar.bz2", "prepare dsgdb9nsd.xyz.tar.bz2 out.h5 --keep-uncharacterized"),
    ("fullerene.zip", "prepare fullerene.zip out.h5"),
    ("mp.2018.6.1.json.zip", "prepare mp.2018.6.1.json.zip out.h5"),
    ("mp.2018.6.1.json", "prepare mp.2018.6.1.json out.h5"),
    ("gdb9.sdf", "prepare gdb9.sdf out.h5 --format qm9_sdf --keep-uncharacterized"),
    ("rows.aselmdb", "prepare rows.aselmdb out.h5"),
    ("pymatgen.json.gz", "prepare pymatgen.json.gz out.h5"),
    ("pymatgen.json", "prepare pymatgen.json out.h5"),
    ("optimade.json", "prepare optimade.json out.h5"),
    ("part_2.h5", "join part_1.h5 part_2.h5 out.h5"),
    ("keras.h5", "import-keras keras.h5 out --target homo"),
    ("keras.yaml", "import-keras keras.h5 out --unit eV"),
)


def make_good(folder):
    """Intact files of every kind, in `folder`."""
    rng = np.random.default_rng(0)
    structures = [molecule(NAMES[n % len(NAMES)]) for n in range(24)]
    for n, atoms in enumerate(structures):
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info = {"id": f"m{n}", "spread": float(np.ptp(atoms.positions))}
    ase.io.write(folder / "all.extxyz", structures, format="extxyz")
    ase.io.write(folder / "set.extxyz", structures[:3], format="extxyz")
    (folder / "set.extxyz.gz").write_bytes(gzip.compress((folder / "set.extxyz").read_bytes()))
    call(f"prepare {folder / 'all.extxyz'} {folder / 'data.h5'}")
    sizes = {"n_layers": 2, "width": 16, "n_heads": 4, "global_width": 16, "head_width": 16, "embedding_width": 8}
    data = {"path": str(folder / "data.h5"), "target": "spread"}
    training = {"epochs": 1, "batch_size": 8}
    config = config_from_dict({"model": {**sizes, "n_elements": 10}, "data": data, "training": training})
    refattn.train(config, folder / "run", n_threads=1)
    refattn.train_ensemble(config, 2, folder / "both", n_threads=1)
    (folder / "config.toml").write_text(to_toml(config))
    write_split(folder / "split.json", load_checkpoint(folder / "run" / "model.h5").split)
    (folder / "folder").mkdir()
    ase.io.write(folder / "folder" / "salt.cif", bulk("NaCl", "rocksalt", a=5.6))
    (folder / "labels.csv").write_text("id,gap\nsalt,8.5\n")
    make_archives(folder)
    fixtures = Path(__file__).parents[1] / "tests" / "data"
    (folder / "keras.h5").write_bytes(gzip.decompress((fixtures / "keras" / "s_plus.h5.gz").read_bytes()))
    (folder / "rows.aselmdb").write_bytes(gzip.decompress((fixtures / "rows.aselmdb.gz").read_bytes()))
    make_json(folder)
    for part in (1, 2):
        call(f"prepare {folder / 'set.extxyz'} {folder / f'part_{part}.h5'} --part {part}/2")
    (folder / "keras.yaml").write_text("hyper:\n  target: homo\n  target_mean: -6.5\n  target_std: 0.6\n")
    for picture in folder.rglob("*.png"):
        picture.unlink()


def make_archives(folder):
    """Small archives as the published sets have them."""
    (folder / "dsgdb9nsd_000001.xyz").write_text(QM9)
    with tarfile.open(folder / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        archive.add(folder / "dsgdb9nsd_000001.xyz", "dsgdb9nsd_000001.xyz")
    with zipfile.ZipFile(folder / "fullerene.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fullerene/C2.xyz", "2\n-5.5 -4.5 -100.0\nC 0 0 0\nC 0 0 1.4\n")
    cif = (folder / "folder" / "salt.cif").read_text()
    element = {"material_id": "mp-1", "structure": cif, "formation_energy_per_atom": -1.5, "band_gap": 0.25}
    (folder / "mp.2018.6.1.json").write_text(json.dumps([element]))
    with zipfile.ZipFile(folder / "mp.2018.6.1.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "mp.2018.6.1.json", "mp.2018.6.1.json")
    row = "    0.0000    0.0000    {}.0000 H   0  0  0  0  0  0  0  0  0  0  0  0\n"
    block = f"gdb_1\n\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n{row.format(0)}{row.format(1)}M  END\n$$$$\n"
    (folder / "gdb9.sdf").write_text(block)
    names = [
        "mol_id",
        *"ABC",
        "mu",
        "alpha",
        "homo",
        "lumo",
        "gap",
        "r2",
        "zpve",
        *("u0", "u298", "h298", "g298", "cv"),
    ]
    (folder / "gdb9.sdf.csv").write_text(",".join(names) + "\ngdb_1" + ",0.5" * 15 + "\n")


def make_json(folder):
    """Rock salt as pymatgen and as an OPTIMADE server write it."""
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    pairs = list(zip(atoms.symbols, atoms.positions.tolist(), strict=True))
    sites = [{"species": [{"element": symbol, "occu": 1}], "xyz": xyz, "properties": {}} for symbol, xyz in pairs]
    structure = {"@class": "Structure", "lattice": {"matrix": atoms.cell.tolist()}, "sites": sites}
    text = json.dumps({"mp-1": {"mp-1-0-0": {"structure": structure, "energy_per_atom": -3.5, "magmom": [0.5, None]}}})
    (folder / "pymatgen.json").write_text(text)
    (folder / "pymatgen.json.gz").write_bytes(gzip.compress(text.encode()))
    attributes = {
        "lattice_vectors": atoms.cell.tolist(),
        "dimension_types": [1, 1, 1],
        "species_at_sites": [symbol for symbol, _ in pairs],
        "species": [{"name": symbol, "chemical_symbols": [symbol], "concentration": [1.0]} for symbol, _ in pairs],
        "cartesian_site_positions": [xyz for _, xyz in pairs],
        "_mp_band_gap": 5.0,
    }
    entry = {"type": "structures", "id": "mp-22862", "attributes": attributes}
    (folder / "optimade.json").write_text(json.dumps({"data": [entry], "meta": {}}))


def call(command):
    """A command in this process."""
    return CliRunner().invoke(cli, command.split())


# ---- mutations -------------------------------------------------------------------------------------------------------


def change_bytes(content, rng):
    for place in rng.integers(len(content), size=rng.integers(1, 30)):
        content[place] = rng.integers(256)
    return content


def flip_bit(content, rng):
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return content


def cut(content, rng):
    return content[: rng.integers(len(content))]


def double(content, rng):
    first, last = np.sort(rng.integers(len(content), size=2))
    return content[:last] + content[first:]


def remove(content, rng):
    first, last = np.sort(rng.integers(len(content), size=2))
    return content[:first] + content[last:]


def fill(content, rng):
    first, last = np.sort(rng.integers(len(content), size=2))
    last = min(last, first + 64)
    content[first:last] = bytes([rng.choice([0, 255, 127, 27])]) * (last - first)
    return content


def lengthen_number(content, rng):
    numbers = [*re.finditer(rb"\d+", content)]
    number = numbers[rng.integers(len(numbers))] if numbers else re.match(b"", content)
    new = rng.choice(["9" * 400, "9" * 5000, "-1", "1e999", "nan", "0", "99999999999999999999", "true", "1_0", "٣"])
    return content[: number.start()] + str(new).encode() + content[number.end() :]


def replace_word(content, rng):
    words = [*re.finditer(rb"[A-Za-z_]{2,}", content)]
    word = words[rng.integers(len(words))] if words else re.match(b"", content)
    new = rng.choice(["\x1b[2J", "=1+1", "$", "\x7f", "\u202e", "null", "[" * 3000, "../../x", "a" * 100000])
    return content[: word.start()] + str(new).encode() + content[word.end() :]


BYTEWISE = (change_bytes, flip_bit, cut, double, remove, fill, lengthen_number, replace_word)
VALUES = (np.nan, np.inf, -1, 0, 2**31, 2**62, -(2**62), 1e300, 255)


def edit_hdf5(path, rng):
    """Change one data set or attribute through h5py: numbers, shape, type, or take it away."""
    with h5py.File(path, "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        name = found[rng.integers(len(found))]
        data = file[name]
        kind = rng.integers(6)
        if kind == 0 and data.attrs:
            del data.attrs[rng.choice([*data.attrs])]
        elif kind == 1 and file.attrs:
            attribute = str(rng.choice([*file.attrs]))
            file.attrs[attribute] = rng.choice([np.nan, -1, 1e308]) if rng.integers(2) else np.bytes_(b"\xff\x1b")
        elif kind == 2 and data.size and data.dtype.kind in "iufb":
            with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):
                values = data[()]
                np.ravel(values)[rng.integers(data.size) :][: rng.integers(1, 4)] = rng.choice(VALUES)
                data[...] = values
        else:
            content = data[()] if kind < 5 else None
            del file[name]
            if kind == 3:
                file[name] = np.resize(content, rng.integers(5, size=rng.integers(0, 4)))
            elif kind == 4:
                file.create_dataset(name, tuple(2 ** rng.integers(1, 40, size=rng.integers(1, 3))), "f4", chunks=True)


def edit_model(path, rng):
    """Change what a model says and give it the right checksum."""
    checkpoint = load_checkpoint(path)
    vector = checkpoint.params.vector
    if rng.integers(2) and checkpoint.state:
        name = str(rng.choice([*checkpoint.state]))
        others = [None, [], {}, "x", -1, 10**30, [{}], [[1]], np.zeros(2), 1.5]
        checkpoint.state[name] = others[rng.integers(len(others))]
        if checkpoint.state[name] is None:
            del checkpoint.state[name]
    elif rng.integers(2):
        vector[rng.integers(len(vector))] = rng.choice([1e30, -1e30, 0, 1e-45])
    else:
        checkpoint.mean, checkpoint.std = rng.choice([0.0, 1e300, -1e300, np.nan, np.inf], 2)
    with contextlib.suppress(Exception):  # which does not write what it would not read
        save_checkpoint(path, checkpoint)


def mutate(path, rng):
    """Damage a file; the name of what was done."""
    ways = [*BYTEWISE]
    ways += [edit_hdf5] * 4 if path.suffix == ".h5" else []
    ways += [edit_model] * 2 if path.name in ("model.h5", "last.h5") else []
    way = ways[rng.integers(len(ways))]
    if way in BYTEWISE:
        path.write_bytes(way(bytearray(path.read_bytes()), rng))
    else:
        way(path, rng)
    return way.__name__


# ---- what comes of it ------------------------------------------------------------------------------------------------


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def attack(good, place, seed, number):
    """Mutation `number` in the folder `place`, which is made; (file, mutation, command, what is wrong or "")."""
    rng = np.random.default_rng([seed, number])
    name, command = TARGETS[number % len(TARGETS)]
    shutil.copytree(good, place)
    done = mutate(place / name, rng)
    before = digests(place)
    with contextlib.chdir(place), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = call(command)
    return name, done, command, judge(result, before, place)


def judge(result, before, place):
    """What is wrong with the end of a command; "" where nothing is."""
    said = result.stderr.strip().splitlines()
    if FAULT in result.output or not (result.exception is None or isinstance(result.exception, SystemExit)):
        return f"traceback: {said[-1] if said else repr(result.exception)}"
    if result.exit_code not in (0, 1, 2):
        return f"status {result.exit_code}"
    after = digests(place)
    if result.exit_code == 1 and not (said and said[-1].startswith("refattn: ") and "; " in said[-1]):
        return f"no sentence: {said[-1:]}"
    changed = [file for file, digest in before.items() if after.get(file) != digest]
    new = [file for file in after if file not in before]
    mine = (
        ("run/", "data.h5") if result.exit_code == 0 else ("run/log", "run/split", "run/config")
    )  # what is written anew
    if any(not file.startswith(mine) for file in changed):
        return f"changed {changed}"
    if result.exit_code and any(not file.startswith("out/") for file in new):
        return f"left {new}"
    return f"left {new}" if any(".refattn-" in file for file in new) else ""


def attack_apart(good, work, seed, number):
    """The same in a process of its own, which may crash or hang."""
    place = work / str(number)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        signal.alarm(0)
        try:
            answer = attack(good, place, seed, number)
        except BaseException as error:
            answer = (TARGETS[number % len(TARGETS)][0], "", "", f"the script itself: {error!r:.300}")
        os.write(write, json.dumps(answer).encode()[:60000])
        os._exit(0)
    os.close(write)
    end = time.monotonic() + SECONDS
    status = None
    while status is None and time.monotonic() < end:
        pid, found = os.waitpid(child, os.WNOHANG)
        status = found if pid else None
        time.sleep(0.002)
    if status is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with open(read, "rb") as stream:
        content = stream.read()
    shutil.rmtree(place, ignore_errors=True)
    name, command = TARGETS[number % len(TARGETS)]
    if status is None:
        return name, "", command, "hang"
    return tuple(json.loads(content)) if content else (name, "", command, f"signal {os.WTERMSIG(status)}")


def finish(record: dict, path: str | None, failed: bool) -> None:
    """Print the result of an attack, write it to a file where there is a path, and end the process."""
    print(json.dumps(record, indent=1))
    if path:
        Path(path).write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        make_good(good)
        attack(good, Path(folder) / "warm", 0, 4)  # compiles and loads what the others share
        counts = collections.Counter()
        wrong = []
        for number in range(options.first, options.first + options.number):
            answer = attack_apart(good, Path(folder), options.seed, number)
            counts[answer[0]] += 1
            if answer[3]:
                wrong.append([number, *answer])
                print(number, *answer, flush=True)
    kinds = collections.Counter(answer[4].partition(":")[0] for answer in wrong)
    record = {"seed": options.seed, "mutations": options.number, "by_file": counts, "wrong": wrong, "kinds": kinds}
    finish(record, options.json, bool(wrong))


if __name__ == "__main__":
    main()
