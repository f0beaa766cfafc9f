"""SchNet and PaiNN of SchNetPack (MIT), with the settings of its experiment qm9_atomwise.

128 features, 6 or 3 interactions, 20 Gaussians up to 5 Å, AdamW at 5e-4, batches of 100 (32 for the Materials
Project, data/materials_project), MSE, moving average 0.995. Its ReduceLROnPlateau waits for 75 epochs, which the
budgets hold for the smallest training sets only: the rate falls as a cosine over the budget instead. Properties here do
not grow with size: aggregation "avg", which is for these
(github.com/atomistic-machine-learning/schnetpack/issues/77).

The methods "schnet-16" and "painn-16" have batches of 16, as refattn's recipe: six times as many steps in a time.
"""

import common
import torch
from torch.utils.data import dataloader
from torch_fit import Recipe, fit

dataloader.T_co = dataloader._T_co  # SchNetPack 2.1.1 imports a name of types that PyTorch 2.13 no longer has

import schnetpack.properties as key  # noqa: E402
from schnetpack.atomistic import Atomwise, PairwiseDistances  # noqa: E402
from schnetpack.data.loader import _atoms_collate_fn  # noqa: E402
from schnetpack.model import NeuralNetworkPotential  # noqa: E402
from schnetpack.nn import CosineCutoff, GaussianRBF  # noqa: E402
from schnetpack.representation import PaiNN, SchNet  # noqa: E402
from schnetpack.transform import MatScipyNeighborList  # noqa: E402

CUTOFF = 5.0  # Å
NEIGHBOURS = MatScipyNeighborList(CUTOFF)
KINDS = {"schnet": (SchNet, 6), "painn": (PaiNN, 3)}  # representation, interactions
BATCH = {"qm9_gap": 100, "fullerene_homo": 100, "mp_e_form": 32}


class Network(torch.nn.Module):
    """A NeuralNetworkPotential of one property."""

    def __init__(self, kind, n_interactions):
        super().__init__()
        representation = kind(
            n_atom_basis=128,
            n_interactions=n_interactions,
            radial_basis=GaussianRBF(n_rbf=20, cutoff=CUTOFF),
            cutoff_fn=CosineCutoff(CUTOFF),
        )
        head = Atomwise(n_in=128, output_key="y", aggregation_mode="avg")
        self.model = NeuralNetworkPotential(representation, input_modules=[PairwiseDistances()], output_modules=[head])

    def forward(self, inputs):
        return self.model(inputs)["y"]


def with_neighbours(structures, row):
    """What SchNetPack's data sets hold of a structure, in float32."""
    atoms = structures.atoms(row)
    inputs = {
        key.n_atoms: torch.tensor([len(atoms)]),
        key.Z: torch.tensor(atoms.numbers).long(),
        key.R: torch.tensor(atoms.positions),
        key.cell: torch.tensor(atoms.cell.array)[None],
        key.pbc: torch.tensor(atoms.pbc),
    }
    return {name: x.float() if x.is_floating_point() else x for name, x in NEIGHBOURS(inputs).items()}


def main():
    order = common.read_order()
    kind, _, batch = order["method"].partition("-")
    torch.set_num_threads(order["threads"])
    torch.manual_seed(order["seed"])
    structures = common.Structures(order)
    clock = common.Clock()
    graphs = {row: with_neighbours(structures, row) for rows in structures.rows.values() for row in rows.tolist()}
    fit(
        order,
        structures,
        Network(*KINDS[kind]),
        lambda rows: _atoms_collate_fn([graphs[row] for row in rows.tolist()]),
        Recipe(int(batch or BATCH[order["set"]]), 5e-4, torch.nn.functional.mse_loss, ema=0.995),
        prepare_s=clock.seconds(),
        versions=common.versions("schnetpack", "torch"),
    )


if __name__ == "__main__":
    main()
