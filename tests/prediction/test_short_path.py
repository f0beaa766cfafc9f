"""How many of refattn's files a prediction passes through: what one has to read to follow it."""

import gc
import sys
import threading
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule
from click.testing import CliRunner
from explanation_cases import network

import refattn
from refattn.cli import main

FOLDERS = tuple(str(Path(module.__file__).parent) for module in (refattn, main))


def files_entered(function):
    """Files of refattn whose Python functions are called by `function`, in any thread; kernels are not Python."""
    found = set()

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_name != "<module>" and frame.f_code.co_filename.startswith(FOLDERS):
            found.add(frame.f_code.co_filename)

    gc.collect()  # generators that others left suspended: the collector enters them to close them
    gc.disable()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()
    return sorted(found)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    refattn.save_checkpoint(folder / "model.h5", network({"variant": "scann+"}, dtype="float32").checkpoint)
    return folder


def test_one_molecule_passes_through_twelve_files(run):
    model, atoms = refattn.load(run), molecule("CH3OH")
    model.predict(atoms)
    files = files_entered(lambda: model.predict(atoms))
    assert 6 <= len(files) <= 12, "\n".join(files)


def test_the_command_passes_through_twenty(run):
    ase.io.write(run / "one.extxyz", molecule("CH3OH"))

    def predict():
        result = CliRunner().invoke(main.cli, ["predict", str(run), str(run / "one.extxyz")])
        assert result.exit_code == 0, result.output

    predict()
    files = files_entered(predict)
    assert 12 <= len(files) <= 20, "\n".join(files)
