"""The package as a module; tools/try_install.py builds a copy, so that nothing appears among the sources of tests."""

import subprocess
import sys

import pytest
import try_install


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with files that git tracks, does not know yet, ignores, and misses."""
    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    for name in ("tracked.py", "docs/index.md", "removed.py", "ignored.tmp", ".gitignore"):
        (root / name).write_text("*.tmp\n")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "removed.py").unlink()
    (root / "new name.py").write_text("")
    monkeypatch.setattr(try_install, "ROOT", root)
    return root


def files_of(folder):
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and ".git/" not in str(path)
    }


def test_what_is_copied(checkout, tmp_path):
    copy = try_install.copied(tmp_path / "copy")
    assert files_of(copy) == {"tracked.py", "docs/index.md", ".gitignore", "new name.py"}


def test_what_is_built_is_the_copy(checkout, tmp_path, monkeypatch):
    class Began(Exception):
        pass

    def run(*command, **options):
        raise Began(command)

    monkeypatch.setattr(try_install, "run", run)
    with pytest.raises(Began) as began:
        try_install.built(tmp_path / "folder")
    (command,) = began.value.args
    assert [part for part in command if checkout in (part, *getattr(part, "parents", ()))] == []
    assert tmp_path / "folder" / "checkout" in command


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "refattn", "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("Usage: refattn ")
