"""The tables of what predictions rest on keep every column under a name of its own."""

import csv
import dataclasses

import ase.io
import pytest
from ase.build import molecule
from explanation_cases import network

import refattn
from refattn.report.findings import ExplainedStructure
from refattn.report.tables import tables


@pytest.mark.parametrize("target", ["id", "formula", "sites", "pbc"])
def test_a_target_with_the_name_of_a_column(tmp_path, target):
    atoms = molecule("CH3OH")
    found = dataclasses.replace(refattn.explain(network(), atoms, ()), id="methanol", target=target, unit="")
    with tables(tmp_path, {}, edges=False) as add:
        add(ExplainedStructure(atoms, {target: found}, {target: 1.5}))
    with open(tmp_path / "structures.csv", newline="", encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert (row["id"], row["sites"]) == ("methanol", "6") and row["formula"].startswith("C")
    assert float(row[target if target == "pbc" else f"{target}-2"]) == 1.5
    frame = ase.io.read(tmp_path / "explained.extxyz")
    assert frame.info["id"] == "methanol" and not frame.pbc.any()
    assert frame.info[target if target in ("formula", "sites") else f"{target}-2"] == 1.5
