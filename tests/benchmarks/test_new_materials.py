"""The errors on new materials: the cases are settings that exist, and the linear model is exact for what is linear."""

import json
from pathlib import Path

import ase
import new_materials
import numpy as np
import pytest

import refattn
from refattn.config import override
from refattn.data.prepare import prepare
from refattn.data.store import Record, read_dataset
from refattn.experiments import load_experiment


class Alkanes:
    """Chains whose label is linear in the shares and the number of sites, but for the last."""

    name, licence, citation, fraction = "alkanes", "", "", None

    def __iter__(self):
        for n in range(1, 9):
            symbols, position = ["C"] * n + ["H"] * n, np.zeros((2 * n + n % 2, 3))
            position[:, 0] = np.arange(len(position)) * 1.3
            atoms = ase.Atoms(symbols + ["H"] * (n % 2), position)
            share = n / len(atoms)
            yield Record(str(n), atoms, {"y": 3 * share - 2 * (1 - share) + 0.1 * len(atoms) + (n == 8)}, {})


def test_the_linear_model_is_exact_for_what_is_linear(tmp_path):
    prepare(Alkanes(), tmp_path / "data.h5", refattn.GraphConfig())
    dataset = read_dataset(tmp_path / "data.h5")
    assert new_materials.linear_mae(dataset, "y", np.arange(7), np.array([6, 7])) == pytest.approx(0.5)


@pytest.mark.parametrize("case", new_materials.CASES.values(), ids=new_materials.CASES)
def test_the_cases_are_settings_that_exist(case):
    for split in case.splits.values():
        config = override(load_experiment(case.experiment), (*case.changes, *new_materials.PARTS, *split))
        assert config.data.split == ""
        assert config.data.n_train == 10000


def test_the_table_has_what_is_there(tmp_path):
    result = {"valid": {"mae": 0.1}, "test": {"mae": 0.2, "n": 2345}, "baseline_mae": 0.9, "linear_mae": 0.5}
    (tmp_path / "qm9_gap_size.json").write_text(json.dumps(result))
    assert new_materials.table(tmp_path).splitlines()[2:] == [
        "| `qm9_gap`, eV | size | 2,345 | 0.100 | 0.200 | 0.900 | 0.500 |"
    ]


def test_the_page_of_the_data_sets_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert new_materials.table() in page
