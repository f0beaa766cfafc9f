"""SMILES, and the answers of OPTIMADE."""

import json
import sys

import numpy as np
import pytest
from extras import needs_rdkit

from refattn.data.sources.registry import open_source
from refattn.errors import DataError, MissingExtra

SALT = {
    "id": "mp-22862",
    "type": "structures",
    "attributes": {
        "lattice_vectors": [[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]],
        "dimension_types": [1, 1, 1],
        "cartesian_site_positions": [[0, 0, 0], [2.8, 2.8, 2.8]],
        "species_at_sites": ["Na1", "Cl"],
        "species": [
            {"name": "Na1", "chemical_symbols": ["Na"], "concentration": [1.0]},
            {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0]},
        ],
        "nsites": 2,
        "_mp_band_gap": 5.0,
        "_mp_is_stable": True,
    },
}


def changed(**attributes):
    return SALT | {"id": "other", "attributes": SALT["attributes"] | attributes}


def test_entries_of_optimade(tmp_path):
    water = changed(
        lattice_vectors=None, dimension_types=[0, 0, 0], species_at_sites=["O", "H", "D"], species=[],
        cartesian_site_positions=[[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]],
    ) | {"id": "water"}  # fmt: skip
    half = [
        SALT["attributes"]["species"][0],
        {"name": "Cl", "chemical_symbols": ["Cl", "Br"], "concentration": [0.5, 0.5]},
    ]
    unknown = [SALT["attributes"]["species"][0], {"name": "Cl", "chemical_symbols": ["X"], "concentration": [1.0]}]
    entries = [SALT, water, changed(species=half) | {"id": "half"}, changed(species=unknown), {"id": "none"}]
    (tmp_path / "answer.json").write_text(json.dumps({"data": entries, "meta": {}}))
    source = open_source(tmp_path / "answer.json")
    salt, molecule = list(source)
    assert (salt.id, salt.atoms.get_chemical_formula()) == ("mp-22862", "ClNa")
    assert salt.labels == {"mp_band_gap": 5.0, "mp_is_stable": 1}
    assert salt.atoms.pbc.all() and salt.atoms.get_distance(0, 1, mic=True) == pytest.approx(2.8)
    assert (molecule.id, str(molecule.atoms.symbols), molecule.atoms.pbc.any()) == ("water", "OH2", False)
    reasons = [reason for _, reason in source.skipped]
    assert len(reasons) == 3 and "shared by several elements" in reasons[0] and "no single atom" in reasons[1]
    (tmp_path / "answer.json").write_text(json.dumps({"data": [changed(_x_gap="2.5", _x_note="by hand")]}))
    source = open_source(tmp_path / "answer.json")
    assert next(iter(source)).labels["x_gap"] == 2.5 and "x_note of 1 structure (first 'by hand')" in source.notes()[0]


@needs_rdkit
def test_smiles_are_the_same_structure_every_time(tmp_path):
    (tmp_path / "set.smi").write_text("CCO ethanol\n# none\nc1ccccc1\tbenzene\nC1CC\n[Na+].[Cl-]\n*C\n")
    source = open_source(tmp_path / "set.smi")
    records = list(source)
    assert [(record.id, record.atoms.get_chemical_formula()) for record in records] == [
        ("ethanol", "C2H6O"),
        ("benzene", "C6H6"),
    ]
    distances = records[1].atoms.get_all_distances()
    assert np.sort(distances[0])[1:4] == pytest.approx([1.08, 1.39, 1.39], abs=0.03)
    again = list(open_source(tmp_path / "set.smi"))
    assert all(np.array_equal(a.atoms.positions, b.atoms.positions) for a, b in zip(records, again, strict=True))
    reasons = [reason for _, reason in source.skipped]
    assert "'C1CC' is no SMILES" in reasons[0] and "more than one molecule" in reasons[1] and "no element" in reasons[2]


@needs_rdkit
def test_a_table_of_smiles(tmp_path):
    (tmp_path / "set.csv").write_text("name,SMILES,solubility,note\nmethane,C,-0.9,gas\nwater,O,,\n")
    records = list(open_source(tmp_path / "set.csv"))
    assert [(record.id, record.labels.get("solubility")) for record in records] == [("methane", -0.9), ("water", None)]
    (tmp_path / "labels.csv").write_text("id,gap\na,1\n")
    with pytest.raises(DataError, match="labels.csv.*has no column smiles"):
        list(open_source(tmp_path / "labels.csv"))


@needs_rdkit
def test_rows_of_smiles_that_do_not_fit_their_table(tmp_path):
    """What a table of labels refuses too: cells too many or too few, two columns of one name, no numbers."""
    rows = "C,a,1,5\nN,b,2.5\nO,c\nCC,d,3.5,\nCO,e,true\n"
    (tmp_path / "set.csv").write_text(f"smiles,id,gap\n{rows}")
    source = open_source(tmp_path / "set.csv")
    assert [(record.id, record.labels) for record in source] == [
        ("b", {"gap": 2.5}),
        ("d", {"gap": 3.5}),
        ("e", {"gap": 1.0}),
    ]
    reasons = [reason for _, reason in source.skipped]
    assert "line 2: has 4 columns instead of 3" in reasons[0] and "line 4: has 2 columns instead of 3" in reasons[1]
    (tmp_path / "set.csv").write_text("smiles,id,gap\nC,a,1_5\n")
    with pytest.raises(DataError, match="gap is '1_5'"):
        list(open_source(tmp_path / "set.csv"))
    for header in ("smiles,gap,gap", "smiles,SMILES,gap", "smiles, gap ,gap"):
        (tmp_path / "set.csv").write_text(f"{header}\nC,1,2\n")
        with pytest.raises(DataError, match="set.csv.*line 1: two columns are called"):
            list(open_source(tmp_path / "set.csv"))


def test_without_rdkit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    (tmp_path / "set.smi").write_text("C\n")
    with pytest.raises(MissingExtra, match=r"refattn\[smiles\]"):
        list(open_source(tmp_path / "set.smi"))
