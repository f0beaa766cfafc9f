"""refattn.interop.torch against the oracle: every output and gradient, for both variants and all options.

python tools/check_torch.py     # needs PyTorch; exit status 1 where one differs
"""

import sys

import numpy as np
import torch

from refattn.config import Config, ModelConfig
from refattn.gradient_check import OPTIONS, SMALL, small_shard
from refattn.interop.torch import Network
from refattn.network.params import from_arrays
from refattn.testing import compare, make_oracle


def function_of(config):
    """What refattn.testing.compare calls."""

    def function(weights, graph, label):
        network = Network(config, from_arrays(config, weights, label.dtype)).eval()
        outputs = {}
        loss = ((network(graph, outputs) - torch.from_numpy(label)) ** 2).mean()
        loss.backward()
        return outputs, network.gradients()

    return function


def main():
    failed = 0
    for variant in ("scann", "scann+"):
        for name, options in OPTIONS.items():
            config = Config(model=ModelConfig(**{**SMALL, "radial_max": 4.0, "variant": variant, **options}))
            graph = small_shard(config.model)
            label = np.random.default_rng(0).normal(size=(len(graph), config.model.n_targets))
            oracle = make_oracle(config, graph, label)
            for dtype in ("float64", "float32"):
                found = compare(function_of(config.model), oracle, dtype)
                worst, where = max((error, name) for name, error, _ in found.rows)
                failed += bool(found.first or found.missing)
                said = f"differs: {found.first}" if found.first else f"worst {worst:.1e} in {where}"
                print(f"{variant:<7} {name:<38} {dtype}  {said}", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
