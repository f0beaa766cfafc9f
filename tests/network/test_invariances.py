"""What must not change a prediction: motion, order, and with the intensive readout the size of the cell."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tolerances
from cases import authors_network, shard_of
from made_structures import benzene, c60, ethanol, moved, rattled_salt, rutile, slab

from refattn.config import ModelConfig
from refattn.network.model import forward
from refattn.network.params import initialise
from refattn.ops import load_backend

CRYSTAL_RULE = {"r_max": 6.0}


@pytest.mark.parametrize("n_angular", [0, 5])
@pytest.mark.parametrize("variant", ["scann", "scann+"])
@pytest.mark.parametrize("make", [ethanol, rattled_salt, rutile, slab])
def test_motion_and_order_do_not_matter(make, variant, n_angular):
    config = ModelConfig(variant=variant, n_layers=3, width=16, n_heads=4, n_angular=n_angular)
    params, atoms = initialise(config, 0, np.float64), make()
    order = np.random.default_rng(0).permutation(len(atoms))
    still, turned = (
        forward(params, shard_of(a, config, **CRYSTAL_RULE), config, load_backend("cpu"))
        for a in (atoms, moved(atoms, order))
    )
    np.testing.assert_allclose(turned.prediction, still.prediction, rtol=0, atol=tolerances.SYMMETRY)
    np.testing.assert_allclose(turned.beta[0], still.beta[0][order], rtol=0, atol=tolerances.SYMMETRY)


def test_another_image_of_a_site_does_not_matter():
    config, atoms = ModelConfig(n_layers=2, width=16, n_heads=4, n_angular=5), rattled_salt()
    params = initialise(config, 0, np.float64)
    shifted = atoms.copy()
    shifted.positions += np.random.default_rng(0).integers(-1, 2, (len(atoms), 3)) @ atoms.cell.array
    tapes = [forward(params, shard_of(a, config), config, load_backend("cpu")) for a in (atoms, shifted)]
    np.testing.assert_allclose(tapes[1].prediction, tapes[0].prediction, rtol=0, atol=tolerances.SYMMETRY)


@pytest.mark.parametrize("readout", ["published", "intensive"])
@pytest.mark.parametrize("make", [c60, benzene])
def test_equivalent_atoms_get_equal_attention(make, readout):
    shard, params, config, _ = authors_network("s_plus")
    config = dataclasses.replace(config, readout=readout)
    shard = shard_of(make(), config)
    tape = forward(params, shard, config, load_backend("cpu"))
    for z in np.unique(shard.z):
        of_element = np.flatnonzero(shard.z == z)
        assert np.ptp(tape.beta[0][of_element]) <= tolerances.SYMMETRY * tape.beta[0].max()
        assert len(set(np.diff(shard.edge_ptr)[of_element])) == 1
        for alpha in tape.alpha:
            shares = [np.sort(alpha[shard.edge_ptr[i] : shard.edge_ptr[i + 1]], axis=0) for i in of_element]
            assert np.ptp(shares, axis=0).max() <= tolerances.SYMMETRY


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("make", [rutile, rattled_salt])
def test_intensive_readout_is_size_consistent(make, normalise):
    """The same prediction and the same beta N on every image of a site, for a cell and its 2 x 2 x 2 supercell."""
    _, params, config, _ = authors_network("s_plus_crys")
    config = dataclasses.replace(config, readout="intensive", normalise_attention=normalise)
    one, eight = cell_and_supercell(make(), params, config)
    np.testing.assert_allclose(eight.prediction, one.prediction, rtol=0, atol=tolerances.SYMMETRY)
    np.testing.assert_allclose(8 * eight.beta[0], np.tile(one.beta[0], 8), rtol=0, atol=tolerances.SYMMETRY)


@pytest.mark.parametrize("readout", ["intensive", "sum"])
def test_contributions_of_a_supercell_are_those_of_the_cell(readout):
    """Additive heads: as many times the cell's prediction as there are cells for a sum, and the same for a mean."""
    _, params, config, _ = authors_network("s_plus_crys")
    config = dataclasses.replace(config, readout=readout, head="additive")
    one, eight = cell_and_supercell(rattled_salt(), params, config)
    times = 8 if readout == "sum" else 1
    np.testing.assert_allclose(eight.prediction, times * one.prediction, rtol=0, atol=times * tolerances.SYMMETRY)
    one, eight = (tape.read_outs[0].head.contribution for tape in (one, eight))
    np.testing.assert_allclose(8 / times * eight, np.tile(one, 8), rtol=0, atol=tolerances.SYMMETRY)


# Quoted in docs/notation.md: predictions of the cell and of the supercell, before any scaling.
PUBLISHED = {rutile: (1.237, 0.878), rattled_salt: (0.094, 0.226)}


@pytest.mark.parametrize("make", PUBLISHED)
def test_published_readout_is_not_size_consistent(make):
    _, params, config, _ = authors_network("s_plus_crys")
    one, eight = cell_and_supercell(make(), params, config)
    np.testing.assert_allclose((one.prediction[0, 0], eight.prediction[0, 0]), PUBLISHED[make], rtol=0, atol=1e-3)
    notation = (Path(__file__).parents[2] / "docs" / "notation.md").read_text(encoding="utf-8")
    assert "| {:.3f} | {:.3f} |".format(*PUBLISHED[make]) in notation
    # the largest beta over the smallest falls with the number of sites
    assert np.ptp(np.log(eight.beta[0])) < 0.5 * np.ptp(np.log(one.beta[0]))


def cell_and_supercell(atoms, params, config):
    shards = (shard_of(a, config, **CRYSTAL_RULE) for a in (atoms, atoms.repeat((2, 2, 2))))
    return [forward(params, shard, config, load_backend("cpu")) for shard in shards]
