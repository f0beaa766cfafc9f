"""The directions of edges, which the angles of a network are made of, against ASE's neighbour list."""

import dataclasses

import h5py
import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from made_structures import benzene, ethanol, rattled_salt, rutile, slab
from small_data import write_molecules

from refattn.config import ModelConfig
from refattn.data.builtin import open_data
from refattn.data.store import read_dataset
from refattn.errors import DataError
from refattn.structures.batch import GraphBatch

ROUNDING = 1e-9
ANGLES = ModelConfig(n_angular=4)


@pytest.mark.parametrize("make", [ethanol, benzene, rattled_salt, rutile, slab])
def test_directions_are_those_of_the_neighbour_list_of_ase(make):
    atoms = make()
    graph = GraphBatch.from_atoms(atoms, r_max=4.0, with_directions=True)
    vector = {(i, j, *image): d for i, j, image, d in zip(*neighbor_list("ijSD", atoms, 4.1), strict=True)}
    site = np.repeat(np.arange(len(atoms)), np.diff(graph.edge_ptr))
    expected = [vector[i, j, *image] for i, j, image in zip(site, graph.nbr, graph.image.tolist(), strict=True)]
    np.testing.assert_allclose(graph.direction * graph.r[:, None], expected, atol=ROUNDING)
    np.testing.assert_allclose((1.5 * graph.species + 1) ** 2, atoms.numbers[graph.nbr], rtol=ROUNDING)


def test_a_cell_without_a_period_may_hold_anything():
    atoms = ethanol()
    expected = GraphBatch.from_atoms(atoms, with_directions=True).direction
    atoms.cell[:] = np.nan
    np.testing.assert_array_equal(GraphBatch.from_atoms(atoms, with_directions=True).direction, expected)


def test_a_data_set_gives_the_directions_of_its_structures(tmp_path):
    dataset = open_data(write_molecules(tmp_path / "data.h5", 7), None, with_directions=True)
    graphs = [GraphBatch.from_atoms(dataset.atoms(row), with_directions=True) for row in range(len(dataset))]
    np.testing.assert_allclose(dataset.graphs.direction, GraphBatch.concatenate(graphs).direction, atol=ROUNDING)
    chosen = dataset.graphs.take(np.array([5, 2]))
    expected = np.concatenate([graphs[5].direction, graphs[2].direction])
    np.testing.assert_allclose(chosen.direction, expected, atol=ROUNDING)
    assert read_dataset(tmp_path / "data.h5").graphs.direction is None
    with pytest.raises(DataError, match="read without positions"):
        read_dataset(tmp_path / "data.h5", with_positions=False).with_directions()


def test_positions_that_are_not_those_of_the_graphs_are_refused(tmp_path):
    path = write_molecules(tmp_path / "data.h5", 7)
    with h5py.File(path, "r+") as file:
        file["structures/position"][7] += 0.1  # of m1
    with pytest.raises(DataError, match="/graph/r in structure m1 is not the distance of the positions"):
        open_data(path, None, with_directions=True)


def test_a_data_set_of_another_rule_is_refused(tmp_path):
    path = write_molecules(tmp_path / "data.h5", 7, rule="upstream")
    with pytest.raises(DataError, match="data.h5: a network that reads angles .* prepared with upstream"):
        open_data(path, None, with_directions=True)


def test_graphs_without_directions_are_refused():
    """Under the upstream rule an image counts sides of a box that is not the cell."""
    graph = GraphBatch.from_atoms(benzene(), rule="upstream", with_directions=True)
    assert graph.direction is None
    with pytest.raises(DataError, match="reads angles .*refattn prepare --rule isolated"):
        graph.for_network(ANGLES, np.float32)
    assert graph.for_network(dataclasses.replace(ANGLES, n_angular=0), np.float32).direction is None
