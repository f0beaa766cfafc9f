"""The documents point to what is there: links, anchors, files, sections and names."""

import configparser
import functools
import re
import subprocess
from pathlib import Path

import pytest

import refattn

ROOT = Path(__file__).parents[2]
TEXT = {".py", ".md", ".toml", ".cfg", ".cff", ".txt", ".js", ".css", ".html", ".sh", ""}
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
# Files of the repository that are named in a sentence or comment.
FILE = re.compile(r"\b(?:refattn|cli|tests|tools|benchmarks|docs)/[\w./-]*\w\.(?:py|md|toml|h5|json|png|csv|yml)\b")
SECTION = re.compile(r"(?:docs/)?(\w+\.md)(?:\)|\]\([^)]*\))?,? section (\d+)")
# Documents that people outside of the repository cannot read, by the words that pointed to them.
ELSEWHERE = re.compile(
    r"\bDESIGN(?:\.md| section)|\bSEMANTICS\b|\bVORONOI\.md|\bhouse\.md|\bNOTATION\.md|\bshared/|\bissue \d"
)
# Where a name may have another meaning than a file of today: what was, and what a recipe asks to write.
HISTORY = {"CHANGELOG.md"}


@functools.cache
def tracked():
    """Text files of the repository, or of an unpacked sdist, by their path from its root."""
    if (ROOT / "PKG-INFO").exists():
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*") if "refattn.egg-info" not in path.parts]
    else:
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().splitlines()
        paths = [Path(name) for name in names]
    return {path: text_of(path) for path in paths if path.suffix in TEXT and (ROOT / path).is_file()}


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def pages():
    return [path for path in tracked() if path.suffix == ".md"]


@functools.cache
def anchors(path):
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
    words = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings)
    return {word.strip().lower().replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_relative_links_and_their_anchors(page):
    for target in LINK.findall(FENCE.sub("", tracked()[page])):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = (ROOT / page).parent / file if file else ROOT / page
        assert place.exists(), f"{page}: there is no {file}"
        assert place.resolve().is_relative_to(ROOT), f"{page}: {file} is outside of the repository"
        assert not anchor or anchor in anchors(place), f"{page}: {file} has no heading #{anchor}"


def test_nothing_points_out_of_the_repository():
    found = {
        f"{path}: {match[0]}"
        for path, text in tracked().items()
        for match in ELSEWHERE.finditer(text)
        if path != Path(__file__).relative_to(ROOT)
    }
    assert not found


def test_files_that_are_named_exist():
    missing = {
        f"{path}: {name}"
        for path, text in tracked().items()
        if str(path) not in HISTORY
        for name in FILE.findall(text)
        if "NAME" not in name and not (ROOT / name).exists()
    }
    assert not missing


def test_sections_that_are_named_exist():
    for path, text in tracked().items():
        for page, number in SECTION.findall(text):
            assert f"\n## {number}. " in text_of(f"docs/{page}"), f"{path}: {page} has no section {number}"


@pytest.mark.parametrize("page", ["gradients.md", "notation.md", "numba.md"])
def test_names_in_the_derivations_are_names_in_the_code(page):
    code = "\n".join(text for path, text in tracked().items() if path.suffix == ".py")
    known = set(re.findall(r"\w+", code)) | set(re.findall(r"\w+", text_of("docs/authors_code.md")))
    quoted = " ".join(re.findall(r"`([^`]+)`", FENCE.sub("", text_of(f"docs/{page}"))))
    names = {name for name in re.findall(r"\b[a-z]\w*_\w+\b", quoted) if not name.startswith("test_")}
    assert names
    assert names <= known


def test_the_reference_has_every_public_name():
    page = text_of("docs/api/index.md")
    assert {name for name in refattn.__all__ if not re.search(rf"\brefattn[\w.]*\.{name}\b|\b{name}\b", page)} == set()


def test_the_readme_is_short():
    text = text_of("README.md")
    assert text.count("\n") < 200
    assert len(re.findall(r"^\| --- ", text, re.MULTILINE)) <= 3
    assert "](docs/gradients.md)" in text


def test_the_recipe_of_conda_asks_for_what_setup_cfg_does():
    settings = configparser.ConfigParser()
    settings.read_string(text_of("setup.cfg"))
    options = settings["options"]
    recipe = text_of("packaging/conda/meta.yaml")
    asked = re.findall(r"^    - (\S+) (>=\S+)$", recipe.split("  run:\n")[1], re.MULTILINE)
    wanted = [line.partition(">=") for line in options["install_requires"].split()]
    wanted = {name.replace("matplotlib", "matplotlib-base"): f">={version}" for name, _, version in wanted}
    assert dict(asked) == {"python": options["python_requires"], **wanted}
    assert f'version = "{refattn.__version__}"' in recipe
    assert f"version: {refattn.__version__}\n" in text_of("CITATION.cff")
    for script in settings["options.entry_points"]["console_scripts"].strip().splitlines():
        assert f"    - {script}\n" in recipe


def test_every_data_set_in_the_package_has_its_licence_in_the_notices():
    notices = text_of("THIRD_PARTY.md")
    sets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "refattn/data/sets").iterdir()}
    assert sets
    assert {name for name in sets if f"`{name}`" not in notices} == set()
