"""What the kernels of edges.py get: named tuples of inputs, static sizes and work arrays, and the shapes of these."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refattn.ops.cpu.memory import empties, scratch
from refattn.ops.cpu.simd.gemm import padded, panels_of
from refattn.ops.cpu.simd.vector import lanes_for
from refattn.ops.types import Array

SITES = 49  # of a tile, at most; an odd number, because rows 4096 bytes apart share a place in the first-level cache


class AttentionInputs(NamedTuple):
    """What the attention is computed from, or the gradients by these; None for what a variant does not have.

    site : (N, D); q : (N, H C)
    geo : (E, D); SCANN: the expansion (E, G)
    centre, neighbour : (N, D)     SCANN+
    """

    site: Array
    q: Array
    geo: Array | None = None
    centre: Array | None = None
    neighbour: Array | None = None


class Static(NamedTuple):
    """Sizes that the compiler knows, and unrolls by: tuples as long as a vector, as there are heads, and channels."""

    lanes: tuple
    heads: tuple
    channels: tuple


class ForwardWork(NamedTuple):
    """Work arrays of a tile's forward; K is the capacity of edges of a site.

    absorbed : (H, SITES, D)       see heads.py
    x : (K, D), coefficient : (K, H)
    panels_w, panels_k, panels_kt  of the filter's kernel, and of each head's key
    v : (rows, D)                  of a tile; SCANN
    """

    absorbed: Array
    x: Array
    coefficient: Array
    panels_w: Array
    panels_k: Array
    panels_kt: Array
    v: Array | None = None


class BackwardWork(NamedTuple):
    """Work arrays of a tile's backward.

    grad_v : (rows, D); grad_w_kt : (H C, D); absorbed : (2 H, SITES, D)
    x, grad_x : (K, D); coefficient : (K, 2 H)
    panels_wt, panels_k, panels_kt   of the filter's transposed kernel, and of each head's key
    pair : (2, D)                    rows of the norm; SCANN+
    v : (rows, D), panels_w          of the forward's product, which is made again; SCANN
    """

    grad_v: Array
    grad_w_kt: Array
    absorbed: Array
    x: Array
    grad_x: Array
    coefficient: Array
    panels_wt: Array
    panels_k: Array
    panels_kt: Array
    pair: Array | None = None
    v: Array | None = None
    panels_w: Array | None = None


class RowGradients(NamedTuple):
    """Rows (D,) that the backward of an edge writes (geo, v) or adds to (the others)."""

    site: Array
    geo: Array
    centre: Array
    neighbour: Array
    gain: Array
    offset: Array
    v: Array


def empty_like(weights: tuple) -> tuple:
    """Arrays for the gradients by a named tuple of weights."""
    return type(weights)(*empties(weights[0].dtype, *(array.shape for array in weights)))


@functools.cache
def static_sizes(n_heads: int, n_channels: int, dtype: np.dtype) -> Static:
    """The Static of H heads of C channels."""
    return Static(lanes_for(n_heads * n_channels, dtype), (0,) * n_heads, (0,) * n_channels)


@scratch
def forward_work(cut: Callable, w: tuple, n_heads: int, capacity: tuple, dtype: np.dtype, plus: bool) -> tuple:
    """ForwardWork as a tuple.

    w : shape of the filter's kernel;  capacity : of tile_capacity;  plus : of SCANN+, not SCANN
    """
    depth, width = w
    rows, max_degree = capacity
    sites = (n_heads, SITES, width), (max_degree, width), (max_degree, n_heads)
    panels = (panels_of(depth, width, dtype),), *panels_of_heads(width, n_heads, dtype)
    own = [] if plus else [(rows, width)]
    return tuple(ForwardWork(*cut(dtype, *sites, *panels, *own)))


@scratch
def backward_work(cut: Callable, w: tuple, n_heads: int, capacity: tuple, dtype: np.dtype, plus: bool) -> tuple:
    """BackwardWork as a tuple; see forward_work."""
    depth, width = w
    rows, max_degree = capacity
    tiles = (rows, padded(width, dtype)), (width, width), (2 * n_heads, SITES, width)
    sites = (max_degree, width), (max_degree, width), (max_degree, 2 * n_heads)
    panels = (panels_of(width, depth, dtype),), *panels_of_heads(width, n_heads, dtype)
    if plus:
        return tuple(BackwardWork(*cut(dtype, *tiles, *sites, *panels, (2, width))))
    own = (rows, width), (panels_of(depth, width, dtype),)
    *arrays, v, panels_w = cut(dtype, *tiles, *sites, *panels, *own)
    return tuple(BackwardWork(*arrays, v=v, panels_w=panels_w))


def panels_of_heads(width: int, n_heads: int, dtype: np.dtype) -> tuple:
    """Shapes of the work arrays for pack_heads of heads.py."""
    channels = width // n_heads
    return (n_heads, panels_of(width, channels, dtype)), (n_heads, panels_of(channels, width, dtype))
