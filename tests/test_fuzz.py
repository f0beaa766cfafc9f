"""Damaged inputs through the command line: one sentence, exit status 1 or 2, no traceback, nothing half-written.

BASE builds a folder of good files; every case copies it, damages one of them, and runs the commands that read it.
"""

import shutil
import signal
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from click.testing import CliRunner
from damage import cut, drop, edit, fill, flip, folder, put, remove, replace, swap
from small_data import molecules, small_config, write_molecules
from test_qm9 import METHANE
from upstream_fixtures import unpack_model

from refattn.cli.main import cli
from refattn.config import to_toml
from refattn.training.train import train

NAN, INF = float("nan"), float("inf")
WATER = """3
Properties=species:S:1:pos:R:3 id=w1 gap=7
O 0 0 0.1
H 0 0.75 -0.5
H 0 -0.75 -0.5
"""
SALT = """2
Lattice="0 2.8 2.8 2.8 0 2.8 2.8 2.8 0" Properties=species:S:1:pos:R:3 id=salt gap=1.25 pbc="T T T"
Na 0 0 0
Cl 2.8 2.8 2.8
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Good files of every kind that refattn reads."""
    base = tmp_path_factory.mktemp("good")
    (base / "water.extxyz").write_text(WATER)
    (base / "salt.extxyz").write_text(SALT)
    (base / "set.extxyz").write_text(WATER + SALT)
    (base / "folder").mkdir()
    ase.io.write(base / "folder" / "salt.cif", bulk("NaCl", "rocksalt", a=5.6))
    ase.io.write(base / "folder" / "POSCAR", bulk("Cu"))
    (base / "labels.csv").write_text("id,gap\nsalt,8.5\nPOSCAR,0\n")
    (base / "dsgdb9nsd_000001.xyz").write_text(METHANE)
    with tarfile.open(base / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        archive.add(base / "dsgdb9nsd_000001.xyz", "dsgdb9nsd_000001.xyz")
    ase.io.write(base / "molecules.extxyz", molecules(3), format="extxyz")
    write_molecules(base / "data.h5", n=24)
    config = small_config(base / "data.h5", epochs=2)
    (base / "config.toml").write_text(to_toml(config))
    train(config, base / "run", n_threads=1)
    unpack_model("s_plus", base)
    return base


# File -> the commands that read it. {} stands for the file.
READERS = {
    "set.extxyz": ["prepare {} out.h5"],
    "molecules.extxyz": ["predict run {} --out out.csv"],
    "water.extxyz": ["prepare {} out.h5", "predict run {} --out out.json"],
    "salt.extxyz": ["prepare {} out.h5", "prepare {} out.h5 --rule upstream"],
    "labels.csv": ["prepare folder out.h5 --labels {}"],
    "folder/salt.cif": ["prepare {} out.h5", "prepare folder out.h5"],
    "folder/POSCAR": ["prepare {} out.h5", "prepare folder out.h5"],
    "dsgdb9nsd.xyz.tar.bz2": ["prepare {} out.h5 --keep-uncharacterized"],
    "dsgdb9nsd_000001.xyz": ["prepare {} out.h5 --format qm9 --keep-uncharacterized"],
    "data.h5": [
        "info {}",
        "evaluate run --data {} --out out.csv",
        "train config.toml --data {} --out new --epochs 1",
        "prepare molecules.extxyz {} --append",
    ],
    "config.toml": ["train {} --out new --epochs 1", "gradcheck {}"],
    "run/model.h5": [
        "info run",
        "evaluate run --out out.csv",
        "predict run molecules.extxyz --out out.h5",
        "train config.toml --out new --epochs 1 --init run",
        "train --out run --resume",
    ],
    "run/last.h5": ["train --out run --resume"],
    "run/metrics.json": ["info run"],
    "s_plus.h5": ["import-keras {} new --target homo"],
}

CUTS = [cut(part) for part in (0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)]
JUNK = [put(b""), put(b"\x00\x01\x02\xff\xfe" * 40), put("nothing"), put(b"\x89HDF\r\n\x1a\n" + bytes(200)), remove, folder]
TEXT_JUNK = [JUNK[0], JUNK[1], remove]
WATER_DAMAGE = [
    *(swap("O 0 0 0.1", row) for row in ("O 0 nan 0.1", "O inf 0 0.1", "O 0 -inf 0", "O 1e300 0 0", "Xx 0 0 0", "X 0 0 0")),
    *(swap("O 0 0 0.1", row) for row in ("O 0 0", "O 0 0 0.1 7", "O 0 0 zero", "O 0 0.75 -0.5", "\0", "119 0 0 0")),
    *(swap("3\n", count) for count in ("2\n", "4\n", "0\n", "-3\n", "3.5\n", "three\n", "99999999999999999999\n")),
    *(swap("species:S:1:pos:R:3", columns) for columns in ("pos:R:3", "species:S:1", "species:S:1:pos:R:2", "a:b", ":")),
]
SALT_DAMAGE = [
    *(swap("0 2.8 2.8 2.8 0 2.8 2.8 2.8 0", cell) for cell in ("0 0 0 0 0 0 0 0 0", "1 2 3", "nan 0 0 0 1 0 0 0 1")),
    *(swap("0 2.8 2.8 2.8 0 2.8 2.8 2.8 0", cell) for cell in ("1 0 0 2 0 0 0 0 1", "1e300 0 0 0 1 0 0 0 1")),
    *(swap("0 2.8 2.8 2.8 0 2.8 2.8 2.8 0", cell) for cell in ("0 1e-4 1e-4 1e-4 0 1e-4 1e-4 1e-4 0", "a b c d e f g h i")),
    *(swap("0 2.8 2.8 2.8 0 2.8 2.8 2.8 0", cell) for cell in ("1e-3 0 0 0 1e3 0 0 0 1e3", "1e-9 0 0 0 1e-9 0 0 0 1e-9")),
    *(swap("2.8 2.8 2.8\n", row) for row in ("2.8 2.8 nan\n", "0 0 0\n", "1e30 2.8 2.8\n", "1e18 0 0\n", "5.6 5.6 0\n")),
]
SET_DAMAGE = [
    *(swap("gap=7", label) for label in ("gap=inf", "gap=1e999", "gap=-inf", "id=salt", "gap=1e301")),
    swap("id=salt", "id=w1"),
    swap("w1", "w\\n1"),
]
