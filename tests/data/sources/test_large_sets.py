"""The formats of large published sets: ASE's LMDB, and pymatgen's JSON as MPtrj and Alexandria have it."""

import bz2
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from refattn.common import jsoncutter
from refattn.data.sources.files import FilesSource
from refattn.data.sources.registry import open_source
from refattn.errors import DataError

ROWS = Path(__file__).parent.parent / "rows.aselmdb.gz"


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.aselmdb"
    path.write_bytes(gzip.decompress(ROWS.read_bytes()))
    return path


def test_rows_of_lmdb(rows):
    """In the order of their numbers, with one that was deleted, and one on pages of its own."""
    source = open_source(rows)
    records = list(source)
    numbers = [number for number in range(1, 41) if number != 3]
    assert [record.id for record in records] == [f"row{number}" for number in numbers] and not source.skipped
    assert [record.labels for record in records] == [{"energy": -1.5 * n, "gap": 0.25 * n} for n in numbers]
    assert len(records[5].atoms) == 256 and records[5].atoms.pbc.all()
    for number, record in zip(numbers, records):
        assert record.arrays.keys() == {"forces"} and record.arrays["forces"].shape == (len(record.atoms), 3)
        if number == 1:
            np.testing.assert_allclose(record.atoms.positions, molecule("CH4").positions, atol=0.2)


def test_a_damaged_database_is_a_sentence(rows):
    content = rows.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 40):
            damaged[place] = random.integers(256)
        rows.write_bytes(damaged)
        source = open_source(rows)
        try:
            assert len(list(source)) + len(source.skipped) == 39
        except DataError as error:
            assert "rows.aselmdb" in str(error)
    for cut in (content[:9000], b"x" * 20000, b"", b"\0" * 5000):
        rows.write_bytes(cut)
        with pytest.raises(DataError, match=r"rows\.aselmdb"):
            list(open_source(rows))


def as_pymatgen(atoms, **site):
    """An ase.Atoms as Structure.as_dict of pymatgen has it, or Molecule.as_dict without periods."""
    sites = []
    for number, symbol in enumerate(atoms.symbols):
        place = {"abc": atoms.cell.scaled_positions(atoms.positions)[number].tolist()} if atoms.pbc.any() else {}
        own = {name: values[number] for name, values in site.items()}
        kind = {"element": symbol, "occu": 1}
        sites.append({"species": [kind], **place, "xyz": atoms.positions[number].tolist(), "properties": own})
    found = {"@module": "pymatgen.core.structure", "@class": "Structure", "charge": 0}
    if atoms.pbc.any():
        found["lattice"] = {"matrix": atoms.cell.tolist(), "pbc": atoms.pbc.tolist()}
    return {**found, "sites": sites}


SALT, COPPER, WATER = bulk("NaCl", "rocksalt", a=5.6), bulk("Cu", cubic=True), molecule("H2O")
MPTRJ = {
    "mp-1": {
        "mp-1-0-0": {
            "structure": as_pymatgen(SALT),
            "energy_per_atom": -3.5,
            "force": [[0, 0, 1], [0, 0, -1]],
            "magmom": [0.5, None],
            "stress": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            "bandgap": None,
        },
        "mp-1-0-1": {"energy_per_atom": -3, "structure": as_pymatgen(SALT), "magmom": None},
    },
    "mp-2": {"mp-2-1-0": {"structure": as_pymatgen(COPPER), "bandgap": 0.0}},
}
ENTRIES = {
    "entries": [
        {"@module": "m", "structure": as_pymatgen(COPPER), "energy": -14, "data": {"mat_id": "agm1", "e_form": 0.25}},
        {"@module": "m", "energy": -8.5, "entry_id": None, "data": {"mat_id": "agm2"}, "structure": as_pymatgen(SALT)},
    ],
    "version": 1,
}


@pytest.mark.parametrize("chunk", [7, 1 << 20])
@pytest.mark.parametrize("pack", [None, gzip, bz2])
def test_labels_of_pymatgens_json(tmp_path, monkeypatch, pack, chunk):
    monkeypatch.setattr(jsoncutter, "CHUNK", chunk)
    path = tmp_path / ("set.json" + {None: "", gzip: ".gz", bz2: ".bz2"}[pack])
    path.write_bytes((pack.compress if pack else bytes)(json.dumps(MPTRJ).encode()))
    source = open_source(path)
    first, second, third = source
    assert [record.id for record in (first, second, third)] == ["mp-1-0-0", "mp-1-0-1", "mp-2-1-0"]
    assert (first.labels, second.labels, third.labels) == (
        {"energy_per_atom": -3.5},
        {"energy_per_atom": -3.0},
        {"bandgap": 0.0},
    )
    assert source.units == {"energy_per_atom": "eV/atom", "bandgap": "eV"} and source.fraction == 1
    assert first.arrays.keys() == {"force", "magmom"} and first.arrays["force"].tolist() == [[0, 0, 1], [0, 0, -1]]
    assert first.arrays["magmom"][0] == 0.5 and np.isnan(first.arrays["magmom"][1])
    np.testing.assert_allclose(first.atoms.positions, SALT.positions, atol=1e-12)
    assert first.atoms.cell.tolist() == SALT.cell.tolist() and first.atoms.pbc.all()
    assert third.atoms.get_chemical_symbols() == COPPER.get_chemical_symbols()


def test_entries_and_lists_of_structures(tmp_path):
    path = tmp_path / "agm.json"
    path.write_text(json.dumps(ENTRIES))
    first, second = open_source(path)
    assert (first.id, first.labels) == ("agm1", {"energy": -14.0, "e_form": 0.25})
    assert (second.id, second.labels) == ("agm2", {"energy": -8.5})
    path.write_text(json.dumps([as_pymatgen(COPPER, magmom=[1, 2, 3, 4]), as_pymatgen(WATER)], indent=1))
    first, second = open_source(path)
    assert [first.id, second.id] == ["agm-0", "agm-1"] and first.arrays["magmom"].tolist() == [1, 2, 3, 4]
    assert not second.atoms.pbc.any()
    np.testing.assert_array_equal(second.atoms.positions, WATER.positions)


def test_labels_of_pymatgen_that_are_text(tmp_path):
    path = tmp_path / "set.json"
    for text, reason in (("1,5", "e_form is '1,5', not a number"), ("0.1 eV", "e_form is '0.1 eV', not a number")):
        path.write_text(json.dumps([{"structure": as_pymatgen(COPPER), "e_form": text}]))
        with pytest.raises(DataError, match=reason):
            list(FilesSource(path))
    path.write_text(json.dumps([{"structure": as_pymatgen(COPPER), "e_form": "0.137", "id": "7"}]))
    source = FilesSource(path)
    (record,) = source
    assert (record.id, record.labels, source.units) == ("7", {"e_form": 0.137}, {"e_form": "eV/atom"})


@pytest.mark.parametrize("pbc", ["T T F", [True, True], [1, 1, 0], True])
def test_periods_of_pymatgen_are_three_truth_values(tmp_path, pbc):
    path, copper = tmp_path / "set.json", as_pymatgen(COPPER)
    for own, periodic in (([True, False, True], [True, False, True]), (None, [True] * 3)):
        copper["lattice"]["pbc"] = own
        path.write_text(json.dumps([copper]))
        assert next(iter(FilesSource(path))).atoms.pbc.tolist() == periodic
    copper["lattice"]["pbc"] = pbc
    path.write_text(json.dumps([copper]))
    with pytest.raises(DataError, match="the pbc of its lattice is"):
        list(FilesSource(path))


def test_what_pymatgens_json_says_twice(tmp_path):
    path = tmp_path / "a.json"
    cell = {"a": 3.615, "b": 3.615, "c": 3.615, "alpha": 90, "beta": 90, "gamma": 90}
    copper = as_pymatgen(bulk("Cu", a=3.615, cubic=True))
    matrix = copper["lattice"]["matrix"]

    def read(lattice, *changes):
        """Atoms with another lattice, and with other items of the first site; None takes one away."""
        sites = [dict(site) for site in copper["sites"]]
        for name, value in changes:
            sites[0][name] = value
            if value is None:
                del sites[0][name]
        path.write_text(json.dumps({**copper, "lattice": lattice, "sites": sites}))
        (record,) = FilesSource(path)
        return record.atoms

    wanted = read({"matrix": matrix})
    for lattice, *changes in (
        (cell,),
        ({"matrix": matrix, **cell, "volume": 47.24},),
        (cell, ("abc", None)),
        (cell, ("xyz", [3.615, 0, 0])),
        (cell, ("species", 2 * [{"element": "Cu", "occu": 0.5}])),
    ):
        atoms = read(lattice, *changes)
        np.testing.assert_allclose(atoms.positions, wanted.positions, atol=1e-9)
        assert atoms.numbers.tolist() == 4 * [29]
    for words, lattice, *changes in (
        ("abc and xyz of the site 0", cell, ("xyz", [1, 1, 1])),
        ("volume of its lattice is 100, that of its matrix 47.2", {"matrix": matrix, "volume": 100}),
        ("neither a matrix nor all lengths", {"a": 3.615}),
        ("shared by several elements or not full", cell, ("species", 2 * [{"element": "Cu", "occu": 1}])),
    ):
        with pytest.raises(DataError, match=words):
            read(lattice, *changes)
    path.write_text(json.dumps({"x": {"structure": copper, "gap": 1, "gap_": 2}}).replace("gap_", "gap"))
    with pytest.raises(DataError, match="the key 'gap' twice"):
        list(FilesSource(path))


def test_what_is_no_structure_is_left_out_and_a_cut_file_refused(tmp_path):
    shared = as_pymatgen(COPPER)
    shared["sites"][0]["species"] = [{"element": "Cu", "occu": 0.5}, {"element": "Ni", "occu": 0.5}]
    sound = {"structure": as_pymatgen(COPPER)}
    bad = [{"structure": shared}, {"structure": {"sites": [{}]}}, {"structure": None}, sound]
    path = tmp_path / "set.json.gz"
    path.write_bytes(gzip.compress(json.dumps({f"m{k}": record for k, record in enumerate(bad)}).encode()))
    source = open_source(path)
    assert [record.id for record in source] == ["m3"]
    assert len(source.skipped) == 3 and "shared by several elements" in source.skipped[0][1]
    text = json.dumps(MPTRJ)
    for content in (
        gzip.compress(text[:-20].encode()),
        gzip.compress(text.encode())[:-20],
        b"{}",
        gzip.compress(b"[]"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"set\.json\.gz"):
            list(open_source(path))
