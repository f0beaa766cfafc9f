"""The parameters of the network: ONE table of name, shape, initialiser and weight decay.

The order is that of the authors' Keras model, so that its weights are read by position. What further targets have for
themselves, their steps 7 to 9, follows under the prefixes target1., target2., ...
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from refattn.common.limits import PARAMETERS
from refattn.config import ModelConfig
from refattn.errors import ConfigError
from refattn.ops.types import (
    Array,
    DenseWeights,
    FilteredAttentionWeights,
    Ops,
    SiteBlockWeights,
    UpdatedAttentionWeights,
)

N_CGCNN = 92  # zero/one features of an element (Xie & Grossman, Phys. Rev. Lett. 120, 145301, 2018)
N_RING = 2  # in a ring, aromatic
RING_WIDTH = 10  # code: extra_embed


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array: its initialiser ("glorot", "uniform", "zeros", "ones") and whether weight decay applies to it."""

    name: str
    shape: tuple[int, ...]
    initialiser: str
    decay: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _dense(name, n_in, n_out, decay=False, prefix="", number=""):
    w = Parameter(f"{prefix}{name}_w{number}", (n_in, n_out), "glorot", decay)
    return [w, Parameter(f"{prefix}{name}_b{number}", (n_out,), "zeros")]


def _norm(name, width, prefix):
    gain = Parameter(f"{prefix}{name}_gain", (width,), "ones")
    return [gain, Parameter(f"{prefix}{name}_offset", (width,), "zeros")]


def _layer_table(config, prefix):
    width, plus = config.width, config.variant == "scann+"
    table = _dense("query", width, width, True, prefix) + _dense("key", width, width, True, prefix)
    table += _dense("filter", 3 * width if plus else config.n_radial + config.angular_width, width, True, prefix)
    table += _norm("context", width, prefix)
    if plus:
        table += _norm("geometry", width, prefix)
    if config.residual:
        table += _dense("residual", width, width, True, prefix, 1) + _dense("residual", width, width, True, prefix, 2)
        table += _norm("residual", width, prefix)
    return table


def parameter_table(config: ModelConfig) -> tuple[Parameter, ...]:
    """Every parameter of a ModelConfig, in the order of the authors' Keras model. Tuple of Parameter.

    Source   docs/authors_code.md: Dense glorot_uniform and zeros, Embedding uniform(-0.05, 0.05);
             weight decay on the kernels of attention, filter, residual block, after-layer and hidden layer only

    Raises ConfigError for a network of more than PARAMETERS of refattn.common.limits.
    """
    embedding, width, wide = config.embedding_width, config.width, config.global_width
    if config.features == "cgcnn":
        table = _dense("embed", N_CGCNN, embedding)
    else:
        table = [Parameter("embed", (config.n_elements, embedding), "uniform")]
    if config.ring:
        table += _dense("ring", N_RING, RING_WIDTH)
    table += _dense("site", embedding + (RING_WIDTH if config.ring else 0), width)
    if config.variant == "scann+":
        table += _dense("distance", config.n_radial, width)
        table += _dense("angle", config.n_radial + config.angular_width, width)
    for layer in range(config.n_layers):
        table += _layer_table(config, f"layer{layer}.")
    for target in range(config.n_targets):
        prefix = f"target{target}." if target else ""
        table += _dense("after", width, wide, True, prefix)
        table += _dense("global_query", wide, wide, True, prefix) + _dense("global_key", wide, wide, True, prefix)
        table += _dense("hidden", wide, config.head_width, True, prefix)
        table += _dense("output", config.head_width, 1, False, prefix)
    size = sum(entry.size for entry in table)
    if size > PARAMETERS:
        raise ConfigError(f"[model] has {size} parameters; at most {PARAMETERS} are allowed (REFATTN_PARAMETERS)")
    return tuple(table)


class Weights(dict):
    """The arrays of a layer or of a target by name, and what the operations of a layer take of them, made once."""

    @functools.cached_property
    def query(self) -> DenseWeights:
        return dense(self, "query")

    @functools.cached_property
    def centre(self) -> DenseWeights:
        """The part of the filter for site_i, with its bias; SCANN+."""
        return DenseWeights(self["filter_w"][: len(self["query_w"])], self["filter_b"])

    @functools.cached_property
    def neighbour(self) -> DenseWeights:
        """The part of the filter for site_j; SCANN+."""
        return DenseWeights(self["filter_w"][2 * len(self["query_w"]) :])

    @functools.cached_property
    def attention(self) -> FilteredAttentionWeights | UpdatedAttentionWeights:
        """Filter and key, FilteredAttentionWeights of SCANN, UpdatedAttentionWeights of SCANN+."""
        key = self["key_w"], self["key_b"]
        if "geometry_gain" not in self:
            return FilteredAttentionWeights(self["filter_w"], self["filter_b"], *key)
        width = len(self["query_w"])
        norm = self["geometry_gain"], self["geometry_offset"]
        return UpdatedAttentionWeights(self["filter_w"][width : 2 * width], *norm, *key)

    @functools.cached_property
    def block(self) -> SiteBlockWeights:
        """The residual block, with the norm before it."""
        norm = self["context_gain"], self["context_offset"]
        names = "residual_w1", "residual_b1", "residual_w2", "residual_b2", "residual_gain", "residual_offset"
        return SiteBlockWeights(*norm, *(self[name] for name in names))


class Parameters:
    """A mapping name -> array; all arrays are views of one flat `vector`, so that Adam is one loop."""

    def __init__(self, table: tuple[Parameter, ...], vector: Array):
        self.table, self.vector = table, vector
        self._views, self._layers, start = Weights(), {}, 0
        for entry in table:
            view = vector[start : start + entry.size].reshape(entry.shape)
            self._views[entry.name], start = view, start + entry.size
            layer, dot, name = entry.name.partition(".")
            if dot:
                self._layers.setdefault(layer, Weights())[name] = view

    def __reduce__(self):
        return Parameters, (self.table, self.vector)  # a copy has views of its own vector

    def __getitem__(self, name):
        return self._views[name]

    def __iter__(self):
        return iter(self._views)

    def layer(self, number: int) -> Weights:
        """The parameters of one local attention layer, under their names without the prefix."""
        return self._layers[f"layer{number}"]

    def target(self, number: int) -> Weights:
        """The parameters of a target's steps 7 to 9, under their names without the prefix; of target 0, all it has."""
        return self._layers[f"target{number}"] if number else self._views

    def zeros_like(self) -> "Parameters":
        """Parameters of the same shapes, zero everywhere: the accumulator of a gradient."""
        return Parameters(self.table, np.zeros_like(self.vector))

    def astype(self, dtype: np.dtype) -> "Parameters":
        return Parameters(self.table, self.vector.astype(dtype))

    def to(self, ops: Ops) -> "Parameters":
        """The parameters where the operations of a backend compute; themselves on the CPU."""
        return Parameters(self.table, ops.to_device(self.vector)) if ops.on_device else self

    def decay_mask(self) -> np.ndarray:
        """(n_parameters,) of the vector's type: 1 where weight decay applies, 0 elsewhere."""
        sizes = [entry.size for entry in self.table]
        return np.repeat(np.array([entry.decay for entry in self.table], dtype=self.vector.dtype), sizes)


def initialise(config: ModelConfig, seed: int, dtype: np.dtype = np.float32) -> Parameters:
    """Random Parameters for a ModelConfig; every array has a generator of its own, keyed by seed and position.

    glorot: uniform in +-sqrt(6 / (n_in + n_out)) (Glorot & Bengio 2010); uniform: in +-0.05 (Keras's Embedding).
    """
    table = parameter_table(config)
    parameters = Parameters(table, np.zeros(sum(entry.size for entry in table), dtype=dtype))
    for position, entry in enumerate(table):
        rng = np.random.default_rng([seed, position])
        if entry.initialiser == "ones":
            parameters[entry.name][...] = 1
        elif entry.initialiser != "zeros":
            limit = 0.05 if entry.initialiser == "uniform" else math.sqrt(6 / sum(entry.shape))
            parameters[entry.name][...] = rng.uniform(-limit, limit, entry.shape)
    return parameters


def from_arrays(config: ModelConfig, arrays: Mapping[str, np.ndarray], dtype: np.dtype | None = None) -> Parameters:
    """Parameters for a ModelConfig from a mapping name -> array. Raises KeyError or ValueError on a misfit."""
    table = parameter_table(config)
    parts = []
    for entry in table:
        array = np.asarray(arrays[entry.name])
        if array.shape != entry.shape:
            raise ValueError(f"{entry.name} has shape {array.shape}, the configuration asks for {entry.shape}")
        parts.append(array.ravel())
    return Parameters(table, np.concatenate(parts).astype(dtype or parts[0].dtype))


# ---- the weights of an operation, from parameters or from gradients ----------------------------------------------


def dense(arrays: Mapping[str, Array], name: str) -> DenseWeights:
    """The DenseWeights of a dense layer."""
    return DenseWeights(arrays[f"{name}_w"], arrays[f"{name}_b"])


def kernel_of(arrays: Mapping[str, Array], name: str) -> DenseWeights:
    """The DenseWeights of a dense layer whose bias is added by what follows it."""
    return DenseWeights(arrays[f"{name}_w"])
