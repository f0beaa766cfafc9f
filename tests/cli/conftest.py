"""Fixtures that test files of the command line share."""

import shutil

import pytest


@pytest.fixture
def place(good, tmp_path, monkeypatch):
    """A copy of the folder that the fixture `good` of a test file made, as the working folder."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
