"""Arguments that travel together: named tuples with their shapes, the same in the three backends.

A gradient has the type of what it is the gradient by: that by a DenseWeights is a DenseWeights.

Numba tells the types of named tuples apart by the name of their class: a second class of the same name would send
every call that gets one to the slow path of the dispatcher, 37 us instead of 1.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray | Any  # of NumPy or CuPy
Ops = SimpleNamespace  # the operations of a backend, see load_backend


class EdgeList(NamedTuple):
    """Edges of a batch, site by site: those of site i are edge_ptr[i]:edge_ptr[i + 1].

    edge_ptr : (N + 1,) int32
    nbr : (E,) int32          site at the other end of each edge; on a GPU Neighbours, see ops/cuda/graph.py
    mask : (E, H) float       dropout of the attention: 0 or 1 / (1 - rate); ones where nothing is dropped
    weight : (E,) float       solid angle over the largest of the site; SCANN
    """

    edge_ptr: Array
    nbr: Array
    mask: Array
    weight: Array | None = None


class DenseWeights(NamedTuple):
    """w : (in, out) float; b : (out,) float, or None for a layer without bias."""

    w: Array
    b: Array | None = None


class UpdatedAttentionWeights(NamedTuple):
    """w : (D, D), the part of the filter for geo; gain, offset : (D,) of the norm; w_k (D, D), b_k (D,) of the key."""

    w: Array
    gain: Array
    offset: Array
    w_k: Array
    b_k: Array


class FilteredAttentionWeights(NamedTuple):
    """w : (G, D), b : (D,) of the filter; w_k : (D, D), b_k : (D,) of the key."""

    w: Array
    b: Array
    w_k: Array
    b_k: Array


class SiteBlockWeights(NamedTuple):
    """gain, offset, gain_2, offset_2 : (D,) of the norms; w_1, w_2 : (D, D), b_1, b_2 : (D,) of the dense layers."""

    gain: Array
    offset: Array
    w_1: Array
    b_1: Array
    w_2: Array
    b_2: Array
    gain_2: Array
    offset_2: Array


class RowDropout(NamedTuple):
    """key : (N,) uint64, one a row, or None where nothing is dropped; rate : float in [0, 1). See dropout_forward."""

    key: Array | None
    rate: float


class UpdatedAttentionCache(NamedTuple):
    """What updated_attention_backward needs; without a backward to come only alpha is there.

    alpha : (E, H) attention; new_geo : (E, D); v : (E, D) argument of the swish; mean, rstd : (E,) of the norm
    k : (E, H, C) keys. k is None in a backend whose backward does without.
    """

    alpha: Array
    new_geo: Array | None = None
    v: Array | None = None
    mean: Array | None = None
    rstd: Array | None = None
    k: Array | None = None


class FilteredAttentionCache(NamedTuple):
    """alpha : (E, H) attention; k : (E, H, C) keys, or None as in UpdatedAttentionCache."""

    alpha: Array
    k: Array | None = None


class SiteBlockCache(NamedTuple):
    """context_hat : (N, D), context_rstd : (N,) of the first norm; v : (N, D); site_hat, site_rstd of the second."""

    context_hat: Array
    context_rstd: Array
    v: Array
    site_hat: Array
    site_rstd: Array


class GlobalAttentionCache(NamedTuple):
    """beta, score : (N,); norm : (S,), 1 where scores are not normalised; q_sum : (S, G) sum of the queries."""

    beta: Array
    score: Array
    norm: Array
    q_sum: Array
