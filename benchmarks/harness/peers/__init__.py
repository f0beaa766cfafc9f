"""The same network in other frameworks, each as well as one can write it there: what refattn is measured against.

A peer is made from a Config and the Parameters of refattn and offers

    predict(batch)       (S,) float32, in scaled units
    gradient(batch)      the loss and {name: array}, without dropout, to be compared with refattn's
    step(batch)          one training step with dropout: forward, backward, Adam; returns the loss
    epoch(source, rows)  one epoch of training on the structures `rows`, batches made within the clock

A peer that has several ways of doing the same names them in FORMS; all are timed, and the fastest stands for the peer.

batch.py            a batch of structures as every layout needs it
own                 refattn itself
authors             the authors' TensorFlow model as it stands, from their package
torch_ragged        PyTorch, ragged arrays, index_add; as the equations stand, or with refattn's identities
torch_padded        PyTorch, padded arrays, as the network was published
torch_sharded       PyTorch, ragged, with identities, the batch cut into shards that threads take, as refattn does
torch_training      what these have in common
jax_ragged          JAX, jit, ragged arrays padded to buckets of sizes
"""

import dataclasses

FORMS = {"step": ("step",), "predict": ("predict",)}


@dataclasses.dataclass(frozen=True)
class Peer:
    """Where a peer is found, and what has to be installed for it."""

    module: str
    cls: str
    needs: str = ""  # the package that it imports
    install: str = ""  # and how one gets it
    options: tuple = ()  # (keyword, value) pairs for the class


FOLDER = "refattn.benchmarks.peers"
EXTRA = "pip install 'refattn[bench]'"
OWN_ENVIRONMENT = (
    "pip install 'refattn[bench-tf]' in an environment of its own, whose interpreter --python tensorflow=PATH names"
)


def _torch(module, cls, **options):
    return Peer(f"{FOLDER}.{module}", cls, "torch", EXTRA, tuple(options.items()))


PEERS = {
    "refattn": Peer(f"{FOLDER}.own", "Own"),
    "tensorflow": Peer(f"{FOLDER}.authors", "Authors", "scann", OWN_ENVIRONMENT),
    "torch-padded": _torch("torch_padded", "TorchPadded"),
    "torch-padded-compiled": _torch("torch_padded", "TorchPadded", compiled=True),
    "torch-ragged": _torch("torch_ragged", "TorchRagged"),
    "torch-ragged-compiled": _torch("torch_ragged", "TorchRagged", compiled=True),
    "torch-identities": _torch("torch_ragged", "TorchRagged", identities=True),
    "torch-identities-compiled": _torch("torch_ragged", "TorchRagged", identities=True, compiled=True),
    "torch-sharded": _torch("torch_sharded", "TorchSharded"),
    "torch-sharded-compiled": _torch("torch_sharded", "TorchSharded", compiled=True),
    "jax-ragged": Peer(f"{FOLDER}.jax_ragged", "JaxRagged", "jax", EXTRA, (("identities", False),)),
    "jax-identities": Peer(f"{FOLDER}.jax_ragged", "JaxRagged", "jax", EXTRA, (("identities", True),)),
}
PLUS_ONLY = ("torch-identities", "torch-identities-compiled", "jax-identities")  # SCANN has no product to take apart


def peers_for(variant, names=None):
    """Names of the peers to measure for a variant, refattn among them, in the order of the table."""
    wanted = set(PEERS if names is None else names) | {"refattn"}
    return [name for name in PEERS if name in wanted and (variant == "scann+" or name not in PLUS_ONLY)]
