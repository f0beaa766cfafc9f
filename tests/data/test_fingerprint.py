"""A run knows its data: what another data set has in the place of labels, units and graphs is noticed and named."""

import dataclasses

import numpy as np
import pytest
from explanation_cases import network
from small_data import write_properties

from refattn.data.fingerprint import Extent, Fingerprint, check_fingerprint, graph_digests
from refattn.data.splits import Split
from refattn.data.store import read_dataset
from refattn.errors import DataError
from refattn.network.checkpoint import load_checkpoint, save_checkpoint

SPLIT = Split(["m4", "m1", "m2"], ["m5"], ["m7", "m9"])
ROWS = [np.array([4, 1, 2]), np.array([5]), np.array([7, 9])]
TARGETS = "spread", "heavy"
UNITS = {"spread": "", "heavy": "atoms"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_properties(tmp_path_factory.mktemp("data") / "molecules.h5", n=10)


def other_unit(dataset):
    dataset.label_attrs["heavy"]["unit"] = "mol"


def other_label(dataset):
    dataset.labels["heavy"][7] += 1


def known_label(dataset):
    dataset.labels["heavy"][np.isnan(dataset.labels["heavy"])] = 1


def other_element(dataset):
    dataset.graphs.z[dataset.graphs.site_ptr[5]] += 1


def other_distance(dataset):
    dataset.graphs.r[dataset.graphs.edge_ptr[dataset.graphs.site_ptr[5]]] += 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_unit, "heavy is in mol, the run's was in atoms; use"),
        (other_label, "the labels heavy are not those"),
        (known_label, "the labels heavy are not those"),
        (other_element, "the graph of m5 is not the one"),
        (other_distance, "the graph of m5 is not the one"),
    ],
)
def test_what_differs_is_named(path, change, message):
    dataset = read_dataset(path)
    wanted = Fingerprint.of(dataset, TARGETS, ROWS)
    change(dataset)
    with pytest.raises(DataError, match=message):
        check_fingerprint(wanted, dataset, TARGETS, UNITS, SPLIT)


def test_the_same_data_in_another_order_and_roundings_are_the_same(path):
    dataset = read_dataset(path)
    wanted = Fingerprint.of(dataset, TARGETS, ROWS)
    shuffled = dataset.select(np.random.default_rng(0).permutation(10))
    shuffled.graphs.r[...] += 1e-13
    check_fingerprint(wanted, shuffled, TARGETS, UNITS, SPLIT)
    check_fingerprint(None, dataclasses.replace(dataset, labels={}), TARGETS, UNITS, SPLIT)


def test_structures_are_told_apart_whatever_they_are_called(path):
    dataset = read_dataset(path)
    renamed = dataclasses.replace(dataset, id=dataset.id[::-1])
    digests = graph_digests(dataset.graphs, np.arange(10))
    assert len({*digests.tolist()}) == 10
    assert np.array_equal(graph_digests(renamed.graphs, np.arange(10)), digests)


def test_how_far_the_structures_reach_and_which_are_periodic(path, tmp_path):
    dataset = read_dataset(path)
    rows = np.array([4, 1, 2])
    chosen = [dataset.atoms(row) for row in rows]
    extent = Extent.of(dataset, rows)
    assert extent.sites.tolist() == [min(map(len, chosen)), max(map(len, chosen))]
    apart = [dataset.graphs.take([row]).r for row in rows]
    assert extent.edges.tolist() == [min(r.min() for r in apart), max(r.max() for r in apart)]
    assert extent.periodic.tolist() == [1, 0]
    dataset.pbc[1, 2] = True
    assert Extent.of(dataset, rows).periodic.tolist() == [1, 1]
    assert Extent.of(dataset, rows[1:2]).periodic.tolist() == [0, 1]
    for known in (extent, extent._replace(periodic=None), None):
        save_checkpoint(tmp_path / "model.h5", dataclasses.replace(network().checkpoint, extent=known))
        assert str(load_checkpoint(tmp_path / "model.h5").extent) == str(known)
