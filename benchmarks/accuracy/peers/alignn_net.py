"""ALIGNN (NIST licence), the variant without DGL, as in its alignn/examples/sample_data/config_example.json.

Four ALIGNN and four GCN layers of width 256, CGCNN's element features, the 12 nearest neighbours within 8 Å, AdamW with
the one-cycle schedule up to 1e-3 and weight decay 1e-5, MSE, batches of 64 as in the paper (the example's are of 2).
Graphs are made when they are needed, the last ones are kept: those of 100,000 crystals do not fit in memory.
"""

import functools

import common
import torch
from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure, ALIGNNAtomWisePureConfig
from alignn.torch_graph_builder import batch_torch_graph_pairs, build_pure_torch_graph
from jarvis.core.atoms import ase_to_atoms
from torch_fit import Recipe, fit

SETTINGS = {
    "alignn_layers": 4,
    "gcn_layers": 4,
    "atom_input_features": 92,
    "edge_input_features": 80,
    "triplet_input_features": 40,
    "embedding_features": 64,
    "hidden_features": 256,
    "output_features": 1,
    "calculate_gradient": False,
    "gradwise_weight": 0.0,
    "energy_mult_natoms": False,
    "use_penalty": False,  # of force fields, as the two above
}
KEPT = 3000  # graphs


class Network(ALIGNNAtomWisePure):
    def forward(self, graphs):
        return super().forward((*graphs, None))["out"]


def main():
    order = common.read_order()
    torch.set_num_threads(order["threads"])
    torch.manual_seed(order["seed"])
    structures = common.Structures(order)

    @functools.lru_cache(maxsize=KEPT)
    def graph(row):
        atoms = ase_to_atoms(structures.atoms(row))
        return build_pure_torch_graph(atoms, two_body_cutoff=8.0, max_neighbors=12)

    fit(
        order,
        structures,
        Network(ALIGNNAtomWisePureConfig(name="alignn_atomwise_pure", **SETTINGS)),
        lambda rows: batch_torch_graph_pairs([graph(row) for row in rows.tolist()]),
        Recipe(64, 1e-3, torch.nn.functional.mse_loss, "onecycle", weight_decay=1e-5),
        prepare_s=0.0,
        versions=common.versions("alignn", "jarvis-tools", "torch"),
    )


if __name__ == "__main__":
    main()
