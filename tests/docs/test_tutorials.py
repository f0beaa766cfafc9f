"""The tutorials of docs/tutorials, run as they stand: their blocks are one program each, and what they assert holds.

Blocks of `python` are executed in one namespace, those of `sh` line by line as commands of refattn. Those of `python
torch` are executed where PyTorch is installed; what they show in it, the NumPy blocks before them check everywhere.
"""

import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from refattn.cli.main import cli

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)( torch)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TUTORIALS = sorted(path.stem for path in FOLDER.glob("*.md"))


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = FOLDER / f"{name}.md"
    text, namespace = path.read_text(encoding="utf-8"), {}
    for found in BLOCK.finditer(text):
        language, torch, code = found.groups()
        if language == "sh":
            for line in code.splitlines():
                run_command(line)
        elif not torch or importlib.util.find_spec("torch"):
            lines = text[: found.start(3)].count("\n")
            script = tmp_path / f"{name}.py"
            script.write_text("\n" * lines + code, encoding="utf-8")  # so that an error has the page's line
            namespace = runpy.run_path(str(script), init_globals=namespace)


def run_command(line):
    """A line of a shell, which must be a command of refattn and succeed."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "refattn"
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, f"{line}: {result.output}"


def test_there_are_three_tutorials():
    assert TUTORIALS == ["oracle", "own_data", "training_loop"]
