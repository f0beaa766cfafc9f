"""The operations as numba.cuda kernels, for arrays that live on the GPU.

Equations, shapes and units stand in the reference under the same names; here is what differs, and the Traffic: the
floats that a kernel reads and writes per row of width D, which bound its time on a GPU (the products of model.py are
cuBLAS's). Column sums (gradients of biases and gains) are sums of each block, then over the blocks; sums over the
edges that point at a site run over the transposed graph (graph.py). There are no atomics, so results repeat bit for
bit.
"""
