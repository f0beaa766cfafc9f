"""The Materials Project as MEGNet's authors distribute it, on crystals written down here as pymatgen does it."""

import gzip
import io
import itertools
import json
import random
import re
import zipfile

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io.cif import read_cif
from click.testing import CliRunner

from refattn.cli.main import cli
from refattn.common import jsoncutter
from refattn.common.jsoncutter import JsonCutter
from refattn.data.sources import materials_project
from refattn.data.sources.materials_project import MaterialsProjectSource, read_crystal
from refattn.data.sources.registry import open_source
from refattn.data.store import read_dataset
from refattn.errors import DataError


def cif_of(atoms, symbols=None):
    """The text that pymatgen writes, as an example in the documentation of RSDFT shows it."""
    a, b, c, alpha, beta, gamma = atoms.cell.cellpar()
    lines = ["# generated using pymatgen", "data_X", "_symmetry_space_group_name_H-M   'P 1'"]
    lines += [f"_cell_length_{name}   {value:.8f}" for name, value in (("a", a), ("b", b), ("c", c))]
    lines += [f"_cell_angle_{n}   {v:.8f}" for n, v in (("alpha", alpha), ("beta", beta), ("gamma", gamma))]
    lines += ["_symmetry_Int_Tables_number   1", f"_chemical_formula_structural   {atoms.symbols}"]
    lines += [
        f"_chemical_formula_sum   '{atoms.symbols}'",
        f"_cell_volume   {atoms.get_volume():.8f}",
        "_cell_formula_units_Z   1",
        "loop_",
    ]
    lines += [" _symmetry_equiv_pos_site_id", " _symmetry_equiv_pos_as_xyz", "  1  'x, y, z'", "loop_"]
    columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += [f" _atom_site_{name}" for name in columns]
    for i, (symbol, (x, y, z)) in enumerate(zip(symbols or atoms.symbols, atoms.get_scaled_positions(), strict=True)):
        lines.append(f"  {symbol}  {symbol}{i}  1  {x:.8f}  {y:.8f}  {z:.8f}  1")
    return "\n".join(lines) + "\n"


def crystals():
    skewed = Atoms("SiOCa", [[0.1, 0.2, 0.3], [2.0, 1.5, 1.0], [1.0, 3.0, 2.5]], cell=[4, 5, 6, 70, 80, 100], pbc=True)
    return {"mp-1": bulk("NaCl", "rocksalt", 5.64), "mp-2": bulk("Cu"), "mp-3": bulk("Ti"), "mp-4": skewed}


def element_of(id, atoms, **values):
    labels = {"formation_energy_per_atom": -1.5, "band_gap": 0.25}
    graph = {"bond": [1.5] * 20, "nested": {"]": '}"\\', "é": None}}
    return {"graph": graph, "structure": cif_of(atoms), "material_id": id, **labels, **values}


@pytest.fixture
def mp(tmp_path):
    text = json.dumps([element_of(id, atoms) for id, atoms in crystals().items()])
    with zipfile.ZipFile(tmp_path / "mp.2018.6.1.json.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mp.2018.6.1.json", text)
        archive.writestr("__MACOSX/._mp.2018.6.1.json", "no list")
    (tmp_path / "mp.2018.6.1.json").write_text(text)
    (tmp_path / "mp.2018.6.1.json.gz").write_bytes(gzip.compress(text.encode()))
    return tmp_path / "mp.2018.6.1.json.zip"


def test_crystals(mp):
    """Distances are compared: the axes of a cell may point elsewhere."""
    for path in (mp, mp.with_suffix(""), mp.with_suffix(".gz")):
        source = open_source(path)
        assert isinstance(source, MaterialsProjectSource)
        records = {record.id: record for record in source}
        assert list(records) == ["mp-1", "mp-3", "mp-4"]
        assert source.skipped == [("mp-2", materials_project.ONE_ATOM)]
        assert source.fraction == 1
        assert records["mp-3"].labels == {"e_form": -1.5, "band_gap": 0.25}
        for id, record in records.items():
            wanted = crystals()[id]
            assert record.atoms.pbc.all()
            np.testing.assert_array_equal(record.atoms.numbers, wanted.numbers)
            np.testing.assert_allclose(
                record.atoms.get_all_distances(mic=True), wanted.get_all_distances(mic=True), atol=1e-6
            )
            assert record.atoms.cell.cellpar() == pytest.approx(wanted.cell.cellpar(), abs=1e-7)


def test_agrees_with_ase():
    for crystal in crystals().values():
        cif = cif_of(crystal.repeat((2, 1, 1)))
        (by_ase,) = read_cif(io.StringIO(cif), index=slice(None))
        atoms = read_crystal(cif, "here")
        np.testing.assert_array_equal(atoms.numbers, by_ase.numbers)
        np.testing.assert_allclose(atoms.positions, by_ase.positions, atol=1e-12)
        np.testing.assert_allclose(atoms.cell, by_ase.cell, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("'x, y, z'", "'-x, -y, -z'", "no group"),
        ("  1\n", "  0.5\n", "Na0 is occupied by 0.5"),
        ("_cell_length_b", "_cell_width", "has no cell"),
        ("0.50000000", "nan", "coordinates of Cl1"),
        ("Na  Na0", "Nx  Na0", "element of the site Na0 is 'Nx'"),
    ],
)
def test_what_is_no_ordered_crystal(old, new, words):
    cif = cif_of(crystals()["mp-1"])
    assert old in cif
    with pytest.raises(DataError, match=f"here: its structure cannot be read.*{words}"):
        read_crystal(cif.replace(old, new), "here")


def test_symmetry_is_applied():
    """Half of NaCl's doubled cell and the translation that gives the other half."""
    cif = cif_of(crystals()["mp-1"].repeat((2, 1, 1))[:2])
    cif = cif.replace("units_Z   1", "units_Z   2")
    cif = re.sub(r"_cell_length_a .*", f"_cell_length_a   {2 * 5.64 / 2**0.5:.8f}", cif)
    atoms = read_crystal(cif.replace("  1  'x, y, z'", "  1  'x, y, z'\n  2  'x+1/2, y, z'"), "here")
    assert sorted(atoms.symbols) == ["Cl", "Cl", "Na", "Na"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"material_id": ""}, "element 2: has no material_id"),
        ({"structure": None}, "element 2: has no material_id or no structure"),
        ({"structure": "data_X"}, "element 2, mp-1: its structure cannot be read"),
        ({"structure": ""}, "element 2, mp-1: its structure cannot be read"),
        ({"band_gap": "big"}, "element 2, mp-1: band_gap is 'big'"),
        ({"band_gap": True}, "element 2, mp-1: band_gap is True"),
        ({"band_gap": float("inf")}, "element 2, mp-1: band_gap is inf"),
        ({"band_gap": 10**400}, "element 2, mp-1: band_gap is 10000"),
        ({"material_id": "mp-3"}, "element 2: mp-3 is there twice"),
    ],
)
def test_damaged_elements(mp, values, message):
    elements = [element_of("mp-3", crystals()["mp-3"]), element_of("mp-1", crystals()["mp-1"]) | values]
    (mp.with_suffix("")).write_text(json.dumps(elements))
    with pytest.raises(DataError, match=message):
        list(MaterialsProjectSource(mp.with_suffix("")))


def test_unknown_labels_are_absent(mp):
    (mp.with_suffix("")).write_text(json.dumps([element_of("mp-3", crystals()["mp-3"], band_gap=None)]))
    (record,) = MaterialsProjectSource(mp.with_suffix(""))
    assert record.labels == {"e_form": -1.5}


def test_damaged_files_of_the_materials_project(mp, tmp_path):
    good, path = mp.read_bytes(), mp.with_suffix("")
    for content in (good[:-30], good[: len(good) // 2], b"PK", b""):
        mp.write_bytes(content)
        with pytest.raises(DataError, match=str(mp)):
            list(MaterialsProjectSource(mp))
    text = path.read_text()
    for size in (*range(0, len(text) - 1, 997), len(text) - 1):
        path.write_text(text[:size])
        with pytest.raises(DataError, match="cannot be read further"):
            list(MaterialsProjectSource(path))
    path.write_bytes(b"[{\xff}]")
    with pytest.raises(DataError, match="cannot be read further"):
        list(MaterialsProjectSource(path))
    with zipfile.ZipFile(mp, "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(DataError, match="holds 2 files .json instead of one"):
        list(MaterialsProjectSource(mp))
    with pytest.raises(DataError, match="refattn data fetch materials_project"):
        MaterialsProjectSource(tmp_path / "absent.json")


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
def test_lists_are_cut_as_json_reads_them(monkeypatch, chunk):
    monkeypatch.setattr(jsoncutter, "CHUNK", chunk)
    draw = random.Random(chunk)
    for indent in (None, 1):
        made = [{"k" * draw.randrange(9): [draw.random(), '"]}\\', None, {}]} for _ in range(draw.randrange(30))]
        text = json.dumps(made, indent=indent)
        assert list(JsonCutter(io.StringIO(f" \n{text}\r\n")).elements()) == made
    for bad in ("", " ", "{}", "[", "[1]", "[{}", "[{},]", "[{} {}]", "[{}]]", "[{}],", '[{"a": }]', "null", "[" * 999):
        with pytest.raises(ValueError, match="list|element"):
            list(JsonCutter(io.StringIO(bad)).elements())


def test_memory_does_not_grow_with_the_list():
    class Endless(io.TextIOBase):
        """A list of 4,000 objects, written while it is read."""

        def __init__(self):
            parts = (f'{"," if i else "["}{{"a": "{"x" * 4990}"}}' for i in range(4_000))
            self.parts, self.rest = itertools.chain(parts, "]"), ""

        def read(self, size):
            while len(self.rest) < size and (part := next(self.parts, "")):
                self.rest += part
            text, self.rest = self.rest[:size], self.rest[size:]
            return text

    cutter = JsonCutter(Endless())
    sizes = [len(cutter.buffer) for _ in cutter.elements()]
    assert len(sizes) == 4_000
    assert max(sizes) <= 2 * jsoncutter.CHUNK


def test_prepare_notes_what_is_left_out(mp):
    out = mp.parent / "mp.h5"
    result = CliRunner().invoke(cli, ["prepare", str(mp), str(out), "--r-max", "6"])
    assert result.exit_code == 0, result.output
    dataset = read_dataset(out)
    assert dataset.id.tolist() == ["mp-1", "mp-3", "mp-4"]
    assert dataset.skipped == (("mp-2", materials_project.ONE_ATOM),)
    assert dataset.label_attrs["e_form"]["unit"] == "eV/atom"
    assert "Graph Networks" in dataset.attrs["citation"]


def test_random_damage(mp):
    """Whatever a byte becomes: records, or one sentence."""
    path, draw = mp.with_suffix(""), random.Random(0)
    for file in (path, mp):
        good = file.read_bytes()
        for _ in range(60):
            damaged = bytearray(good)
            damaged[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
            file.write_bytes(damaged)
            try:
                list(MaterialsProjectSource(file))
            except DataError as error:
                assert "\n" not in str(error)
