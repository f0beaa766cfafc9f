"""The attacks of tools/attack_*.py, a part of each: docs/security.md has the results of all."""

import collections
import os

import attack_disk
import attack_fetch
import attack_files
import pytest

FILES = 500
# What another process has to look at first, or several networks to be loaded for, is left to the script.
SLOW = ("keras", "run/calibration.h5", "both", "split.json", "config.toml", "run/last.h5")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    good = tmp_path_factory.mktemp("good")
    attack_files.make_good(good)
    return good


def test_damaged_files(good, tmp_path):
    """500 mutations; the slow commands have a few of them."""
    wrong = []
    counts = collections.Counter()
    number = done = 0
    while done < FILES:
        name, _ = attack_files.TARGETS[number % len(attack_files.TARGETS)]
        if counts[name] < (3 if name.startswith(SLOW) else FILES):
            *found, problem = attack_files.attack(good, tmp_path / str(number), 1, number)
            counts[name] += 1
            done += 1
            if problem:
                wrong.append([number, *found, problem])
        number += 1
    assert not wrong
    assert len(counts) == len({name for name, _ in attack_files.TARGETS})


def test_answers_of_a_server(tmp_path):
    counts, wrong = attack_fetch.run(60, 1, tmp_path)
    assert not wrong
    assert counts["good"] > 20
    assert counts["refused"] > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit of this process would be one of pytest")
def test_full_disks(good, tmp_path, monkeypatch):
    monkeypatch.setattr(attack_disk, "POINTS", 3)
    commands = [c for c in attack_disk.COMMANDS if c.endswith((".h5", ".csv", "--append", "--threads 1"))]
    monkeypatch.setattr(attack_disk, "COMMANDS", {c: attack_disk.COMMANDS[c] for c in commands})
    wrong, tried = attack_disk.full_disks(good, tmp_path)
    assert not wrong
    assert tried == 3 * len(commands)
