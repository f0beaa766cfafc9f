"""Local attention composed through the layers: how much of each site's final representation comes from each site.

What a layer does to the representations, in the formulas of docs/design.md section 3, steps 3 and 4:

    context[i] = sum over the edges e of i of alpha[e] k[e] + q[i],  site <- LN(context), then the residual block

k[e] is made of the neighbour at the other end of e, q[i] of the site itself: the `+ q` is the residual path. The
residual block mixes nothing between sites, so that it adds nothing. As in attention rollout a layer is the matrix

    A[i,j] = (1 - share[i]) mean_h sum over the edges e from i to j of alpha[e,h] + share[i] delta[i,j]

and the flow is the product of the layers' matrices, the last layer on the left. Its rows sum to 1. A site without
edges has share 1. Images of a periodic structure are one site.

share, the weight of the residual path. In context both paths stand with weight 1, as x + attention(x) in a
transformer; so the default is rollout's 0.5. But the two vectors need not be equally long: in SCANN k carries the
factor `weight` <= 1, and training scales w_q and w_k as it likes. The alternative "norm" takes

    share[i] = |q[i]| / (|q[i]| + |sum_e alpha[e] k[e]|), layer by layer,

the part of the residual path in the two vectors that are added, 1 minus the mixing ratio of Kobayashi et al., here
taken before the layer norm. What neither sees: that site i takes part in its own keys through the geometry features
of SCANN+ (step 3a), and that the values are filtered, not copied. The flow says where attention points, not what the
output depends on; compare it with the scores of attribution.py.

Source   Abnar & Zuidema, ACL 2020, arXiv 2005.00928, "attention rollout" (their "attention flow" is a maximum flow,
         which this is not); Kobayashi et al., EMNLP 2021, arXiv 2109.07152, for the mixing ratio
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.sparse

from refattn.network.model import Tape
from refattn.ops.types import Ops

BLOCK = 256  # rows of the flow at a time


@dataclasses.dataclass(frozen=True)
class Flow:
    """The flow as the product of sparse matrices, never a dense N x N matrix unless one asks for it.

    flow[i,j], sites i and j: the part of site i's final representation that came from site j. Rows sum to 1.

    Attributes
    ----------
    layers : tuple of (N, N) scipy.sparse.csr_array, float64     A of the first layer to the last; rows sum to 1
    """

    layers: tuple

    def __len__(self) -> int:
        return self.layers[0].shape[0]

    def rows(self, sites: np.ndarray) -> np.ndarray:
        """(n, N) float64: rows `sites` (n,) int of the flow, where these sites get their representation from."""
        unit = np.zeros((len(sites), len(self)))
        unit[np.arange(len(sites)), sites] = 1
        return self._from_left(unit)

    def columns(self, sites: np.ndarray) -> np.ndarray:
        """(N, n) float64: columns `sites` (n,) int of the flow, where these sites' input goes to."""
        block = np.zeros((len(self), len(sites)))
        block[sites, np.arange(len(sites))] = 1
        for matrix in self.layers:
            block = matrix @ block
        return block

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
        """The whole flow in bounded memory: yields (slice of sites, their rows)."""
        for start in range(0, len(self), size):
            part = slice(start, min(start + size, len(self)))
            yield part, self.rows(np.arange(part.start, part.stop))

    def dense(self) -> np.ndarray:
        """(N, N) float64: 8 N^2 bytes, 8 MB for 1,000 sites and 3 GB for 20,000."""
        flow = np.empty((len(self), len(self)))
        for part, rows in self.blocks():
            flow[part] = rows
        return flow

    def impact(self, beta: np.ndarray) -> np.ndarray:
        """Impact of every site on the prediction, through local and global attention.

        impact[j] = sum_i beta[i] flow[i,j]; sums to 1 as beta does. Linear in the number of edges.

        Parameters
        ----------
        beta : (N,) float     global attention

        Returns
        -------
        (N,) float64
        """
        return self._from_left(np.asarray(beta, dtype=float)[None])[0]

    def _from_left(self, block):
        for matrix in reversed(self.layers):
            block = block @ matrix
        return block


def attention_flow(alpha: np.ndarray, edge_ptr: np.ndarray, nbr: np.ndarray, share: float | np.ndarray = 0.5) -> Flow:
    """The Flow of one structure.

    Parameters
    ----------
    alpha : (L, E, H) float                       local attention
    edge_ptr : (N + 1,) int; nbr : (E,) int
    share : float, or (L, N) float, in 0 to 1     weight of the residual path; see the head of this file
    """
    n_sites = len(edge_ptr) - 1
    share = np.broadcast_to(np.asarray(share, dtype=float), (len(alpha), n_sites))
    return Flow(tuple(_layer(a, edge_ptr, nbr, own) for a, own in zip(alpha, share, strict=True)))


def _layer(alpha, edge_ptr, nbr, share):
    n_sites = len(share)
    mean = scipy.sparse.csr_array((alpha.mean(axis=1, dtype=float), nbr, edge_ptr), shape=(n_sites, n_sites))
    total = mean.sum(axis=1)  # 1 but for the rounding of alpha; 0 without edges
    passed_on = np.where(total > 0, (1 - share) / np.where(total > 0, total, 1), 0)
    own = np.where(total > 0, share, 1)
    return (scipy.sparse.diags_array(passed_on) @ mean + scipy.sparse.diags_array(own)).tocsr()


def residual_share(tape: Tape, ops: Ops) -> np.ndarray:
    """Weight of the residual path in every layer, by the norms of the two vectors that are added.

    share[l,i] = |q[i]| / (|q[i]| + |sum over the edges of i of alpha[e] k[e]|), norms over all heads and channels

    Parameters
    ----------
    tape : Tape     of a forward pass of `ops` without dropout, of one structure

    Returns
    -------
    (L, N) float64; so 1 for a site without edges; 0.5 where both vectors are zero

    Source   see the head of this file
    """
    shares = []
    for layer in tape.layers:
        both = layer.q.reshape(layer.context.shape), layer.context
        own, mixed = (np.sqrt((ops.to_host(x).astype(float) ** 2).sum(axis=1)) for x in both)
        total = own + mixed
        shares.append(np.where(total > 0, own / np.where(total > 0, total, 1), 0.5))
    return np.array(shares)
