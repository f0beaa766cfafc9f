"""prepare from end to end: order, threads, what is skipped, what is refused; the command with its outputs."""

import importlib
import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read
from ase.io import write as write_atoms
from click.testing import CliRunner

from refattn.cli.prepare import prepare as command
from refattn.config import GraphConfig
from refattn.data import prepare as module
from refattn.data.prepare import prepare
from refattn.data.sources.registry import open_source
from refattn.data.store import read_dataset, verify
from refattn.errors import DataError, RefattnError
from refattn.structures.batch import GraphBatch

cli_module = importlib.import_module("refattn.cli.prepare")
NAMES = ["CH4", "NH3", "H2O", "C6H6", "C2H6", "CH3OH", "HCN", "CO2"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """24 molecules and a crystal, with a label."""
    path = tmp_path_factory.mktemp("prepare") / "set.extxyz"
    images = [molecule(name) for _ in range(3) for name in NAMES] + [bulk("Cu", cubic=True)]
    for number, atoms in enumerate(images):
        atoms.rattle(0.05, seed=number)
        atoms.info = {"id": f"m{number}", "homo": -0.5 * number}
    write_atoms(path, images, format="extxyz")
    return path


def test_dataset_holds_the_graphs_of_the_structures(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_STRUCTURES", 4)
    seen = []
    report = prepare(open_source(frames), tmp_path / "set.h5", progress=lambda *counts: seen.append(counts))
    verify(tmp_path / "set.h5")
    dataset = read_dataset(tmp_path / "set.h5")
    assert (report.n_structures, report.n_skipped, report.reasons) == (25, 0, [])
    assert (report.n_sites, report.n_edges) == (len(dataset.graphs.z), len(dataset.graphs.nbr))
    assert report.seconds > 0
    parts = report.seconds_reading, report.seconds_graphs, report.seconds_writing
    assert all(part > 0 for part in parts)
    assert sum(parts) < 1.1 * report.seconds  # one thread computes, one reads and writes, and they take turns
    assert [done for done, _, _ in seen] == [4, 8, 12, 16, 20, 24, 25]
    assert seen[-1] == (25, 25, 0)
    assert dataset.graph_config == GraphConfig()
    assert dataset.attrs["source"] == "set.extxyz"
    assert dataset.label_attrs["homo"]["unit"] == "eV"
    for number, atoms in enumerate(read(frames, ":")):
        graph, one = GraphBatch.from_atoms(atoms), dataset.select([number])
        for name in ("z", "edge_ptr", "nbr", "image", "r", "omega", "omega_max", "weight"):
            np.testing.assert_array_equal(getattr(one.graphs, name), getattr(graph, name), err_msg=name)
        assert one.id[0] == f"m{number}"
        assert one.labels["homo"][0] == -0.5 * number
        assert dataset.atoms(number) == atoms


def test_threads_and_blocks_do_not_change_a_byte(frames, tmp_path, monkeypatch):
    contents = []
    for n_threads, sites in ((1, 16384), (2, 16384), (3, 1), (2, 20)):
        monkeypatch.setattr(module, "BLOCK_SITES", sites)
        prepare(open_source(frames), tmp_path / "set.h5", n_threads=n_threads)
        with h5py.File(tmp_path / "set.h5") as file:
            datasets = []
            file.visititems(lambda name, item, to=datasets: to.append(item) if isinstance(item, h5py.Dataset) else None)
            contents.append({item.name: item[()].tobytes() for item in datasets})
    assert all(content == contents[0] for content in contents[1:])


def test_append_and_limit(frames, tmp_path):
    prepare(open_source(frames), tmp_path / "set.h5", limit=7)
    assert read_dataset(tmp_path / "set.h5").id.tolist() == [f"m{i}" for i in range(7)]
    write_atoms(tmp_path / "more.xyz", molecule("C2H4"), format="extxyz")
    prepare(open_source(tmp_path / "more.xyz"), tmp_path / "set.h5", append=True)
    dataset = read_dataset(tmp_path / "set.h5")
    assert dataset.id[-1] == "more"
    assert dataset.attrs["source"] == "set.extxyz; more.xyz"
    assert np.isnan(dataset.labels["homo"][-1])
    with pytest.raises(DataError, match="m0 occurs twice"):
        prepare(open_source(frames), tmp_path / "set.h5", append=True)
    with pytest.raises(DataError, match="same rule"):
        prepare(open_source(frames), tmp_path / "set.h5", GraphConfig(r_max=5.0), append=True)
    assert len(read_dataset(tmp_path / "set.h5")) == 8
    assert len(list(tmp_path.iterdir())) == 2


def test_one_label_has_one_unit(tmp_path):
    """Within a source, and of what is appended; a unit that the user gives is that of all."""
    (tmp_path / "h5").mkdir()
    for name, unit in (("a", "eV"), ("b", "Hartree")):
        write_atoms(tmp_path / f"{name}.xyz", molecule("N2"), format="extxyz")
        (tmp_path / f"{name}.csv").write_text(f"id,energy ({unit})\n{name},-1.5\n")
        prepare(open_source(tmp_path / f"{name}.xyz", labels=tmp_path / f"{name}.csv"), tmp_path / "h5" / f"{name}.h5")
    with pytest.raises(DataError, match="energy is in Hartree here, in eV before"):
        prepare(open_source(tmp_path / "h5"), tmp_path / "all.h5")
    with pytest.raises(DataError, match="energy is in Hartree, but in eV in the data set"):
        prepare(open_source(tmp_path / "b.xyz", labels=tmp_path / "b.csv"), tmp_path / "h5" / "a.h5", append=True)
    assert len(read_dataset(tmp_path / "h5" / "a.h5")) == 1
    prepare(open_source(tmp_path / "h5"), tmp_path / "all.h5", units={"energy": "eV"})
    assert len(read_dataset(tmp_path / "all.h5")) == 2


def test_labels_are_appended_in_the_units_that_both_files_say(tmp_path):
    for name in ("a", "b", "c"):
        write_atoms(tmp_path / f"{name}.xyz", molecule("N2"), format="extxyz")
        foo = "foo (eV)" if name != "c" else "foo"
        (tmp_path / f"{name}.csv").write_text(f"id,{foo},gap (Ha)\n{name},-1.5,0.5\n")
    opened = {name: open_source(tmp_path / f"{name}.xyz", labels=tmp_path / f"{name}.csv") for name in "abc"}
    prepare(opened["a"], tmp_path / "set.h5")
    prepare(opened["b"], tmp_path / "set.h5", append=True)
    dataset = read_dataset(tmp_path / "set.h5")
    assert {name: dataset.label_attrs[name]["unit"] for name in dataset.labels} == {"foo": "eV", "gap": "Ha"}
    assert len(dataset) == 2
    with pytest.raises(DataError, match="the unit of /labels/foo is 'eV', not ''; append in that unit"):
        prepare(opened["c"], tmp_path / "set.h5", append=True)
    with pytest.raises(DataError, match="gap is 'Ha', not 'eV'; append in that unit"):
        prepare(opened["c"], tmp_path / "set.h5", append=True, units={"foo": "eV", "gap": "eV"})
    assert len(read_dataset(tmp_path / "set.h5")) == 2


def test_sources_are_counted_by_name(tmp_path):
    for name in ("data", "a"):
        write_atoms(tmp_path / f"{name}.xyz", molecule("N2"), format="extxyz")
        prepare(open_source(tmp_path / f"{name}.xyz"), tmp_path / "set.h5", append=name == "a")
    assert read_dataset(tmp_path / "set.h5").attrs["source"] == "data.xyz; a.xyz"


def test_structures_without_a_graph_are_recorded(frames, tmp_path):
    bad = molecule("H2O")
    bad.info["id"] = "coincident"
    bad.positions[1] = bad.positions[2]
    nan = frames.read_text().replace("id=m3 ", "id=nan_site ")
    at = nan.index("\nC ", nan.index("id=nan_site"))
    path = tmp_path / "set.extxyz"
    path.write_text(nan[:at] + "\nC nan 0 0" + nan[nan.index("\n", at + 1) :])
    write_atoms(path, bad, format="extxyz", append=True)
    report = prepare(open_source(path), tmp_path / "set.h5")
    dataset = read_dataset(tmp_path / "set.h5")
    assert (report.n_structures, report.n_skipped) == (24, 2)
    assert [id for id, _ in report.reasons] == [id for id, _ in dataset.skipped] == ["nan_site", "coincident"]
    assert "coincident" in dataset.skipped[1][1]
    assert "nan_site" not in dataset.id


def test_nothing_left_is_an_error(tmp_path):
    path = tmp_path / "set.xyz"
    path.write_text("2\nid=twins\nH 0 0 0\nH 0 0 0\n")
    with pytest.raises(DataError, match="twins"):
        prepare(open_source(path), tmp_path / "set.h5")
    path.write_text("1\nid=ok\nH 0 0 0\n1\nid=cut\n")
    with pytest.raises(DataError, match="frame 1"):
        prepare(open_source(path), tmp_path / "set.h5")
    path.write_text("")
    with pytest.raises(DataError, match="no structure"):
        prepare(open_source(path), tmp_path / "set.h5")
    assert [file.name for file in tmp_path.iterdir()] == ["set.xyz"]


def test_command(frames, tmp_path):
    out = str(tmp_path / "set.h5")
    result = CliRunner().invoke(
        command, [str(frames), out, "--json", "--unit", "homo=Hartree", "--r-max", "3", "--limit", "9"]
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["n_structures"] == 9
    assert "9 structures" in result.stderr
    dataset = read_dataset(out)
    assert dataset.graph_config == GraphConfig(r_max=3.0)
    assert dataset.label_attrs["homo"]["unit"] == "Hartree"
    result = CliRunner().invoke(command, [str(frames), out])
    assert result.exit_code == 0
    assert "25 structures" in result.stdout
    for wrong in (["--unit", "eV"], ["--rule", "other"], ["--limit", "0"], ["--r-max", "far"]):
        assert CliRunner().invoke(command, [str(frames), out, *wrong]).exit_code == 2
    for wrong in (["--r-max", "0"], ["--r-max", "nan"], ["--labels", "absent.csv"], ["--format", "qm9"]):
        assert isinstance(CliRunner().invoke(command, [str(frames), out, *wrong]).exception, RefattnError)
    assert len(read_dataset(out)) == 25


def test_progress_counts_only_new_work(monkeypatch, capsys):
    clock = iter([0, 100, 120, 140, 160])
    monkeypatch.setattr(cli_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    show = cli_module.progress_printer()
    for done, total, resumed in ((500, 1000, 500), (600, 1000, 500), (900, None, 500), (1000, 1000, 500)):
        show(done, total, resumed)
    assert capsys.readouterr().err.splitlines() == [
        "500 structures of about 1000, 500 by an earlier run",
        "600 structures of about 1000, about 1 min 20 s left, 5/s, 500 by an earlier run",  # 100 in 20 s
        "900 structures, 10/s, 500 by an earlier run",
        "1000 structures, 8/s, 500 by an earlier run",
    ]


def test_only_data_sets_are_replaced(frames, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not a refattn-dataset"):
        prepare(open_source(frames), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_command_recognises_qm9(tmp_path):
    from qm9_molecules import LIST, numbered

    for n in (1, 2, 3):
        (tmp_path / f"dsgdb9nsd_{n:06d}.xyz").write_text(numbered(n))
    out = str(tmp_path / "set.h5")
    missing = CliRunner().invoke(command, [str(tmp_path), out])
    assert isinstance(missing.exception, DataError)
    assert "uncharacterized.txt" in str(missing.exception)
    (tmp_path / "uncharacterized.txt").write_text(LIST)
    result = CliRunner().invoke(command, [str(tmp_path), out])
    assert result.exit_code == 0
    assert "gdb_2: uncharacterised" in result.stdout
    dataset = read_dataset(out)
    assert dataset.id.tolist() == ["gdb_1", "gdb_3"]
    assert dataset.skipped[0][0] == "gdb_2"
    assert dataset.attrs["licence"].startswith("CC0")
    assert dataset.arrays["mulliken_charge"].shape == (10,)
    assert isinstance(CliRunner().invoke(command, [str(tmp_path), out, "--labels", "x.csv"]).exception, DataError)
