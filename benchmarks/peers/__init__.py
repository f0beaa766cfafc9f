"""The same network in other frameworks, each as well as one can write it there: what refattn is measured against.

A peer is made from a Config and the Parameters of refattn and offers

    predict(batch)       (S,) float32, in scaled units
    gradient(batch)      the loss and {name: array}, without dropout, to be compared with refattn's
    step(batch)          one training step with dropout: forward, backward, Adam; returns the loss

batch.py        a batch of structures as every layout needs it
torch_ragged    PyTorch, ragged arrays, index_add; as the equations stand, or with refattn's identities
torch_padded    PyTorch, padded arrays, as the network was published
torch_training  what both have in common
jax_ragged      JAX, jit, ragged arrays padded to buckets of sizes
"""
