"""The data sets inside the package: what the README says of them, and identities that their labels must obey."""

import gzip
import itertools
import re

import numpy as np
import pytest
from ase import units

from refattn.data.builtin import SETS, open_data
from refattn.data.sources.files import FilesSource

LEAST = {"fullerene": 2000, "pt-graphene": 1000}
MEGABYTES = 12
MOLECULES = 6000
LABELS = {"energy", "deformation_energy", "homo", "lumo", "temperature"}


@pytest.fixture(scope="module", params=LEAST)
def records(request):
    return list(FilesSource(SETS[request.param].path))


def by_trajectory(records):
    """Trajectory -> its records in order of time; an id is CAGE_TEMPERATURE-NUMBER."""
    found = {}
    for record in records:
        found.setdefault(record.id.rsplit("-", 1)[0], []).append(record)
    return found


def test_sizes_of_the_files():
    assert set(SETS) == {"molecules", *LEAST}
    assert SETS["molecules"].path.stat().st_size < 3e6
    assert sum(item.path.stat().st_size for item in SETS.values()) < MEGABYTES * 1e6


def test_molecules_have_labels_populations_and_their_origin():
    """Of the first 300; reading them all takes seconds."""
    lines = gzip.decompress(SETS["molecules"].path.read_bytes()).decode().splitlines()
    comments = [line for line in lines if line.startswith("Properties=")]
    assert len(comments) == MOLECULES == len({re.search(r" id=(gdb_\d+) ", comment)[1] for comment in comments})
    assert all(" xtb_homo=" in comment and " xtb_lumo=" in comment for comment in comments)
    assert sum(" homo=" in comment for comment in comments) > 800
    assert SETS["molecules"].licence in comments[0] and "Sci. Data 1, 140022 (2014)" in comments[0]
    for record in itertools.islice(FilesSource(SETS["molecules"].path), 300):
        for name in ("homo_population", "lumo_population"):
            assert abs(record.arrays[name].sum() - 1) < 0.5e-4 * len(record.atoms), record.id


def test_counts_and_labels(request, records):
    name = request.node.callspec.params["records"]
    assert len(records) >= LEAST[name]
    for record in records:
        assert set(record.labels) == LABELS
        assert np.isfinite(list(record.labels.values())).all()
        assert record.labels["lumo"] > record.labels["homo"]


def test_structures_are_those_of_the_description(request, records):
    formulas = {record.atoms.get_chemical_formula("hill") for record in records}
    if request.node.callspec.params["records"] == "fullerene":
        assert formulas == {"C36", "C50", "C60", "C70", "C72"}
    else:
        assert formulas == {"C24H12Pt"} | {f"C24H12Pt{n}" for n in range(2, 14)}
        assert {re.search("hollow|bridge|top", record.id)[0] for record in records} == {"hollow", "bridge", "top"}
    assert {record.labels["temperature"] for record in records} == {300.0, 600.0, 1000.0}


def test_populations_sum_to_one_and_forces_to_zero(records):
    """A Mulliken population counts one orbital; forces within a molecule cancel (both are rounded in the file)."""
    for record in records:
        rounding = 0.5e-5 * len(record.atoms)
        for name in ("homo_population", "lumo_population"):
            assert abs(record.arrays[name].sum() - 1) < rounding, record.id
        assert np.abs(record.arrays["forces"].sum(axis=0)).max() < 10 * rounding, record.id


def test_deformation_energies_of_a_trajectory_have_one_reference(records):
    for name, chain in by_trajectory(records).items():
        reference = [record.labels["energy"] - record.labels["deformation_energy"] for record in chain]
        assert np.ptp(reference) < 1e-6, name


def test_snapshots_are_chains(records):
    """Neighbours in time are closer to each other than the ends are, and no snapshot occurs twice."""
    for name, chain in by_trajectory(records).items():
        positions = np.array([record.atoms.positions for record in chain])
        step = np.sqrt((np.diff(positions, axis=0) ** 2).sum(axis=2).mean(axis=1))
        assert step.min() > 0.01 and step.max() < 0.5, name  # Å, root mean square over the atoms
        assert np.sqrt(((positions[-1] - positions[0]) ** 2).sum(axis=1).mean()) > step.mean(), name


def test_energies_follow_the_forces(records):
    """Along a step the energy changes by minus force times path (trapezoid rule), and not for other positions."""
    work, change = [], []
    for chain in by_trajectory(records).values():
        for a, b in itertools.pairwise(chain):
            mean_force = (a.arrays["forces"] + b.arrays["forces"]) / 2
            work.append((mean_force * (b.atoms.positions - a.atoms.positions)).sum())
            change.append(b.labels["energy"] - a.labels["energy"])
    assert np.corrcoef(work, change)[0, 1] < -0.9


def test_cages_have_the_energy_of_their_temperature():
    """Equipartition: N atoms in harmonic vibration have a potential energy of 3/2 N k T (6 motions are free)."""
    for name, chain in by_trajectory(FilesSource(SETS["fullerene"].path)).items():
        energies = [record.labels["deformation_energy"] for record in chain[30:]]
        classical = 1.5 * len(chain[0].atoms) * units.kB * chain[0].labels["temperature"]
        assert np.mean(energies) == pytest.approx(classical, rel=0.1), name


def test_a_set_opens_by_its_name_with_its_graph():
    dataset = open_data("fullerene", None)
    assert len(dataset) >= LEAST["fullerene"] and not dataset.skipped
    assert np.diff(dataset.graphs.edge_ptr).min() >= 3  # an atom of a cage has three bonds
    assert dataset.label_attrs["homo"]["unit"] == "eV"
