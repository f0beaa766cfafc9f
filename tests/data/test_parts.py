"""Parts of a source, and the data set that join makes of them: the one of a single prepare."""

import h5py
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write as write_atoms
from click.testing import CliRunner

from refattn.cli.main import cli
from refattn.data import join as module
from refattn.data.join import join
from refattn.data.parts import Part, PartOfSource
from refattn.data.prepare import prepare
from refattn.data.sources.files import open_files
from refattn.data.sources.registry import open_source
from refattn.data.store import read_dataset, verify
from refattn.errors import ConfigError, DataError

NAMES = ["CH4", "NH3", "H2O", "C6H6", "C2H6", "CH3OH", "HCN"]


def structures(n):
    """Molecules and crystals; some have a label, an array, no graph, or an id that cannot be stored."""
    for number in range(n):
        atoms = bulk("Cu", cubic=True) if number == 3 else molecule(NAMES[number % len(NAMES)])
        atoms.rattle(0.05, seed=number)
        atoms.info = {"id": f"m{number}", "homo": -0.5 * number} | ({"gap": 1.0} if number % 4 == 1 else {})
        if number in (4, 9):
            atoms.positions[1] = atoms.positions[0]
        if number == 6:
            atoms.set_array("charge", np.arange(len(atoms)) / 10)
        yield atoms


@pytest.fixture
def one_file(tmp_path):
    write_atoms(tmp_path / "set.extxyz", list(structures(14)), format="extxyz")
    return tmp_path / "set.extxyz"


def files_in(folder):
    """The structures in files of a new folder; one is cut."""
    folder.mkdir()
    for number, atoms in enumerate(structures(14)):
        write_atoms(folder / f"{number:02d}.xyz", atoms, format="extxyz")
    (folder / "05.xyz").write_text("2\nid=cut\nH 0 0 0\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return files_in(tmp_path / "set")


def parts_of(source, n, out):
    paths = [out / f"{number}.h5" for number in range(1, n + 1)]
    for number, path in enumerate(paths, 1):
        prepare(PartOfSource(open_source(source), Part(number, n)), path)
    return paths


def contents(path):
    """Everything that is in the file, in bytes."""
    found = {}

    def look(name, item):
        attrs = {key: str(value) for key, value in item.attrs.items()}
        data = (item.dtype.str, item.shape, item.chunks, item[()].tobytes()) if isinstance(item, h5py.Dataset) else ()
        found[name] = attrs, data

    with h5py.File(path) as file:
        look("/", file)
        file.visititems(look)
    return found


@pytest.mark.parametrize(("kind", "n"), [("one_file", 3), ("folder", 3), ("folder", 15)])
def test_the_parts_together_are_what_one_prepare_makes(kind, n, request, tmp_path, monkeypatch):
    """Of files that are shared out, and of structures in turn where there are too few files; a part may be empty."""
    source = request.getfixturevalue(kind)
    monkeypatch.setattr(module, "BLOCK", 5)
    prepare(open_source(source), tmp_path / "serial.h5")
    parts = parts_of(source, n, tmp_path)
    report = join(parts[::-1], tmp_path / "all.h5")
    assert contents(tmp_path / "all.h5") == contents(tmp_path / "serial.h5")
    verify(tmp_path / "all.h5")
    assert report.n_parts == n and report.n_structures == len(read_dataset(tmp_path / "all.h5"))
    assert report.n_skipped == (2 if kind == "one_file" else 3) and report.n_repeated == 0


def test_an_id_of_two_files_is_that_of_the_first(folder, tmp_path):
    text = (folder / "01.xyz").read_text().replace("id=m1", "id=m4")  # of which one has no graph
    (folder / "12.xyz").write_text(text.replace("homo=-0.5", "homo=7.0"))
    (folder / "13.xyz").write_text(text.replace("id=m4", "id=m1"))
    prepare(open_source(folder), tmp_path / "serial.h5")
    report = join(parts_of(folder, 3, tmp_path), tmp_path / "all.h5")
    serial, joined = (read_dataset(tmp_path / name) for name in ("serial.h5", "all.h5"))
    assert joined.id.tolist() == serial.id.tolist() and report.n_repeated == 2
    assert [id for id, _ in joined.skipped] == [id for id, _ in serial.skipped]
    assert joined.skipped[-1] == ("m1", module.REPEATED)


def test_an_id_in_two_unicode_forms_is_one(folder, tmp_path):
    text = (folder / "01.xyz").read_text()
    (folder / "01.xyz").write_text(text.replace("id=m1", "id=\u00e9"), encoding="utf-8")
    (folder / "13.xyz").write_text(text.replace("id=m1", "id=e\u0301"), encoding="utf-8")
    prepare(open_source(folder), tmp_path / "serial.h5")
    report = join(parts_of(folder, 3, tmp_path), tmp_path / "all.h5")
    serial, joined = (read_dataset(tmp_path / name) for name in ("serial.h5", "all.h5"))
    assert joined.id.tolist() == serial.id.tolist() and report.n_repeated == 1


def test_what_is_no_set_of_parts_is_named(one_file, folder, tmp_path):
    parts = parts_of(one_file, 3, tmp_path)
    (tmp_path / "other").mkdir()
    others = parts_of(folder, 3, tmp_path / "other")
    prepare(open_source(one_file), tmp_path / "whole.h5")
    for chosen, words in [
        ([parts[0], parts[2]], ["missing part 2/3"]),
        (parts[1:2], ["missing part 1/3, 3/3"]),
        ([*parts, parts[1]], ["2.h5", "is part 2/3 again"]),
        ([*parts[:2], others[2]], ["3.h5", "another data set", "(what differs: files, source)"]),
        ([*parts[:2], tmp_path / "whole.h5"], ["whole.h5", "is no part"]),
        ([tmp_path / "absent.h5"], ["absent.h5", "no such file"]),
    ]:
        result = CliRunner().invoke(cli, ["join", *map(str, chosen), str(tmp_path / "all.h5")])
        assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1, result.output
        assert all(word in result.stderr for word in words), result.stderr
        assert not (tmp_path / "all.h5").exists()
    result = CliRunner().invoke(cli, ["join", *map(str, parts), str(parts[0])])
    assert result.exit_code == 1 and "is the input" in result.stderr
    result = CliRunner().invoke(cli, ["join", *map(str, parts), str(tmp_path / "all.h5")])
    assert result.exit_code == 0 and "12 structures of 3 parts, 2 left out" in result.stdout


def test_parts_with_other_units_or_rules_are_refused(one_file, tmp_path):
    first = tmp_path / "1.h5"
    prepare(PartOfSource(open_source(one_file), Part(1, 2)), first)
    second = tmp_path / "2.h5"
    prepare(PartOfSource(open_source(one_file), Part(2, 2)), second, units={"gap": "Hartree"})
    with pytest.raises(DataError, match=r"2\.h5: is a part of another .*differs: units"):
        join([first, second], tmp_path / "all.h5")
    with pytest.raises(ConfigError, match="leave out append, limit or part"):
        prepare(PartOfSource(open_source(one_file), Part(2, 2)), second, limit=3)


def test_a_damaged_part_is_named(one_file, tmp_path):
    path = parts_of(one_file, 1, tmp_path)[0]
    content = path.read_bytes()
    for name, value in [
        ("number", 2),
        ("count", -1),
        ("whole", "[]"),
        ("whole", "{"),
        ("n_skipped", [1, 0, 1]),
        ("", 0),
    ]:
        path.write_bytes(content if name else content[:-500])
        if name:
            with h5py.File(path, "r+") as file:
                file["part"].attrs[name] = value
        with pytest.raises(DataError, match=r"1\.h5: "):
            join([path], tmp_path / "all.h5")


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3", "-1/2", "1/0", "", "1/2 "])
def test_what_is_no_part_is_bad_usage(text, tmp_path):
    with pytest.raises(ConfigError, match="K/N"):
        Part.parse(text)
    if text:
        result = CliRunner().invoke(cli, ["prepare", "set.xyz", str(tmp_path / "set.h5"), "--part", text])
        assert result.exit_code == 2 and "K/N" in result.stderr


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_every_structure_is_in_one_part(n, one_file, folder):
    """As predict and embed take them."""
    for paths in ([one_file], [folder], [one_file, folder / "01.xyz"]):
        everything = [record.atoms.positions.tobytes() for source in quiet(paths) for record in source]
        found = []
        for number in range(1, n + 1):
            sources = quiet(paths)
            in_turn = not Part(number, n).take_files(sources)
            records = (record for source in sources for record in source)
            records = Part(number, n).take_turns(records) if in_turn else records
            found += [record.atoms.positions.tobytes() for record in records]
        assert sorted(found) == sorted(everything)


def quiet(paths):
    sources = open_files(paths)
    for source in sources:
        source.skip_quietly()
    return sources
