"""The edges seen from the sites they point at: the transposed graph, for sums without atomics.

grad_site[j] is a sum over the edges to j. The kernels read these from a CSR of its own, made by a stable sort of nbr,
so that the order of a sum is that of the edges. It is the same in every layer: GraphBatch.to makes it once for a
batch, whose `nbr` is then a Neighbours; an operation that is handed a plain array makes one for itself.
"""

import typing

import numpy as np

from refattn.ops.cuda.memory import to_device, to_host
from refattn.ops.types import Array


class Neighbours(typing.NamedTuple):
    """nbr : (E,) int32; the edges that point at site j are edge[ptr[j]:ptr[j + 1]], ptr (N + 1,), edge (E,) int32."""

    nbr: Array
    ptr: Array
    edge: Array


def transposed(nbr: Array, n_sites: int) -> Neighbours:
    """Neighbours of an (E,) array, or the one that is handed in. Sorted on the host: batches bring their own."""
    if isinstance(nbr, Neighbours):
        return nbr
    own = to_host(nbr)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=n_sites))])
    return Neighbours(nbr, *(to_device(a.astype(np.int32)) for a in (ptr, np.argsort(own, kind="stable"))))


def neighbour_of(nbr: Array) -> Array:
    """The (E,) array itself."""
    return nbr.nbr if isinstance(nbr, Neighbours) else nbr
