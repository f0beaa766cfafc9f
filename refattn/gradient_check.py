"""Central differences against every gradient: of every operation, and of the whole network with every option.

The derivative of the loss by one entry x is compared with (loss(x + h) - loss(x - h)) / 2 h in float64, h = 1e-5.
Its own error is about h^2 / 6 times the third derivative, 1e-11, and 1e-16 / h from rounding, 1e-11, times the loss.
"""

import dataclasses
import types
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from refattn.common.attention_metrics import attention_of
from refattn.common.loss import attention_loss
from refattn.config import Config, ModelConfig
from refattn.network.cache import Tape
from refattn.network.dropout import Dropout
from refattn.network.model import backward, forward
from refattn.network.params import Parameters, initialise, parameter_table
from refattn.ops import BACKENDS, Operation, load_backend, operations
from refattn.ops.cases import cases_of, make_grads, run_backward, run_forward
from refattn.ops.types import Array, Ops
from refattn.structures.batch import GraphBatch

STEP = 1e-5
TOLERANCE = 1e-7  # of the largest entry of an array's gradient
# An array whose gradient is zero or tiny (the query's bias where the softmax has one edge) is measured by this part
# of the largest gradient of its case: what lies below is the rounding of the difference quotient.
FLOOR = 1e-2
SAME_GRADIENT = {"residual_layernorm": {"residual": "x"}}  # inputs that share the gradient of another one

SMALL = {
    "n_layers": 2,
    "width": 6,
    "n_heads": 2,
    "global_width": 5,
    "head_width": 4,
    "embedding_width": 3,
    "n_elements": 9,
    "n_radial": 4,
}
PUBLISHED, PLAIN = {"readout": "published"}, {"normalise_attention": False}
OPTIONS = {
    "default": {},
    "published readout": PUBLISHED,
    "published readout, plain scores": PUBLISHED | PLAIN,
    "intensive readout, plain scores": PLAIN,
    "no residual block": {"residual": False},
    "ring features": {"ring": True},
    "CGCNN features": {"features": "cgcnn"},
    "CGCNN and ring features": {"features": "cgcnn", "ring": True},
    "angles": {"n_angular": 3},
    "dropout": {"dropout": 0.3, "attention_dropout": 0.3},
    "non-negative": {"non_negative": True},
    "published readout, taught attention": PUBLISHED,
    "three targets": {"n_targets": 3},
    "additive head": {"head": "additive"},
    "additive head, two targets": {"head": "additive", "n_targets": 2, "readout": "published"},
    "additive head, three targets": {"head": "additive", "n_targets": 3},
    "sum over sites": {"readout": "sum"},
    "sum over sites, two targets": {"readout": "sum", "n_targets": 2},
    "sum over sites, three targets": {"readout": "sum", "n_targets": 3},
}
# Targets whose attention is taught, that is whose scores are read by the loss; none in the others.
TAUGHT = {
    "taught attention": (0,),  # of a configuration that is given
    "published readout, taught attention": (0,),
    "three targets": (1, 2),
    "additive head": (0,),
    "additive head, two targets": (1,),
    "additive head, three targets": (0, 2),
    "sum over sites": (0,),
    "sum over sites, two targets": (0,),
    "sum over sites, three targets": (1,),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """What was checked together, and its worst entry.

    kind : str              "operation", or "parameters" or "inputs" of a network
    name, backend : str
    entries : int           number of derivatives
    worst : float           largest difference, relative to the largest entry of its array's gradient
    where : str             the array and entry it was found at
    """

    kind: str
    name: str
    backend: str
    entries: int
    worst: float
    where: str

    @property
    def ok(self) -> bool:
        return self.worst <= TOLERANCE  # False for NaN


@dataclasses.dataclass(frozen=True)
class GradcheckResult:
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


def gradcheck(
    config: Config | ModelConfig | None = None,
    report: Callable[[Row], None] = lambda row: None,
    backends: Iterable[str] = BACKENDS,
) -> GradcheckResult:
    """Check every entry of every gradient on this machine.

    Parameters
    ----------
    config : Config or ModelConfig, optional
        Check the network with this configuration's options; without it, both variants with all options. The widths,
        layers and tables are always small: the formulas do not depend on them, the number of entries does.
    report : callable
        Called with every Row as it is found.
    backends : iterable of str
        By default those of the CPU; see load_backend.

    Returns
    -------
    GradcheckResult

    Raises what load_backend does.
    """
    rows, networks = [], configurations(config)
    for found in (check_operations(backends), *(check_network(*network, backends) for network in networks)):
        for row in found:
            rows.append(row)
            report(row)
    return GradcheckResult(tuple(rows))


def configurations(config: Config | ModelConfig | None = None) -> list[tuple[str, ModelConfig]]:
    """(name, ModelConfig) of the networks to check: those of OPTIONS in both variants, or the one given, made small."""
    if config is not None:
        taught = isinstance(config, Config) and config.training.attention
        name = "this configuration" + (", taught attention" if taught else "")
        return [(name, dataclasses.replace(getattr(config, "model", config), **SMALL))]
    return [
        (f"{variant}, {name}", ModelConfig(**(SMALL | {"variant": variant, "dropout": 0.0} | options)))
        for variant in ("scann", "scann+")
        for name, options in OPTIONS.items()
    ]


def central_difference(loss: Callable[[], float], array: np.ndarray, step: float = STEP) -> np.ndarray:
    """Derivative of `loss()` by every entry of `array`, which is changed in place and put back. Shape of array."""
    flat, gradient = array.reshape(-1), np.empty(array.size)
    assert np.shares_memory(flat, array) or not array.size
    for n, x in enumerate(flat):
        flat[n] = x + step
        above = loss()
        flat[n] = x - step
        gradient[n] = (above - loss()) / (2 * step)
        flat[n] = x
    return gradient.reshape(array.shape)


def worst_difference(
    analytic: dict[str, np.ndarray], numerical: dict[str, np.ndarray], names: Iterable[str] | None = None
) -> tuple[int, float, str]:
    """Largest relative difference between gradients, and where.

    Parameters
    ----------
    analytic, numerical : dict of name -> array
    names : iterable of str, optional
        Arrays to look at; the largest entry of all of them sets the floor of the scale.

    Returns
    -------
    entries : int; worst : float; where : str
    """
    largest = max((np.abs(gradient).max(initial=0) for gradient in numerical.values()), default=0)
    entries, found = 0, [(0.0, "-")]
    for name in numerical if names is None else names:
        scale = max(np.abs(numerical[name]).max(initial=0), FLOOR * largest) or 1
        difference = np.abs(analytic[name] - numerical[name]) / scale
        entries += difference.size
        if difference.size:
            index = np.unravel_index(difference.argmax(), difference.shape)
            found.append((float(difference[index]), f"{name}[{', '.join(map(str, index))}]"))
    return entries, *_worst(found)


def _worst(found):
    """The one with the largest difference, its first entry; argmax takes NaN for the largest of all."""
    return found[int(np.argmax([difference for difference, *_ in found]))]


# ---- operations --------------------------------------------------------------------------------------------------


def check_operations(backends: Iterable[str] = BACKENDS) -> Iterator[Row]:
    """A Row for every operation and backend."""
    for backend in backends:
        for operation in operations(backend):
            if operation.wrt:
                yield check_operation(operation, backend)


def check_operation(operation: Operation, backend: str) -> Row:
    """One Row for all cases of an operation: its worst entry."""
    ops = load_backend(backend)
    found = [_check_case(operation, label, inputs, ops) for label, inputs in cases_of(operation)]
    worst, where, _ = _worst(found)
    return Row("operation", operation.name, backend, sum(entries for _, _, entries in found), worst, where)


def _check_case(operation, label, inputs, ops):
    outputs = run_forward(operation, inputs, ops)
    grads = make_grads(operation, outputs)
    analytic = run_backward(operation, inputs, outputs, grads, ops)
    for name, same in SAME_GRADIENT.get(operation.name, {}).items():
        analytic[name] = analytic[same]

    def loss():
        outputs = run_forward(operation, inputs, ops)
        return sum((grads[name] * outputs[name]).sum() for name in grads)

    numerical = {name: central_difference(loss, inputs[name]) for name in analytic}
    entries, worst, where = worst_difference(analytic, numerical)
    return worst, f"{where} ({label})", entries


# ---- the network -------------------------------------------------------------------------------------------------


def small_shard(config: ModelConfig, dtype: np.dtype = np.float64, seed: int = 0) -> GraphBatch:
    """Four structures: five sites, one of them without edges and two neighbours exactly alike; a single site without
    edges; a single site which is its own neighbour; two sites. Random distances and angles; features where asked for.
    """
    rng = np.random.default_rng(seed)
    site_ptr, edge_ptr = np.array([0, 5, 6, 7, 9]), np.array([0, 2, 5, 6, 6, 8, 8, 11, 12, 14])
    nbr = np.array([1, 4, 0, 2, 2, 1, 0, 3, 6, 6, 6, 8, 7, 7])
    r, omega = rng.uniform(0.8, 3.5, len(nbr)), rng.uniform(0.5, 3, len(nbr))
    r[4], omega[4] = r[3], omega[3]
    largest = np.repeat(np.maximum.reduceat(omega, [0, 2, 5, 6, 8, 11, 12]), [2, 3, 1, 2, 3, 1, 2])
    cgcnn = rng.integers(0, 2, (9, 92)).astype(dtype) if config.features == "cgcnn" else None
    return GraphBatch(
        site_ptr=site_ptr.astype(np.int32),
        edge_ptr=edge_ptr.astype(np.int32),
        nbr=nbr.astype(np.int32),
        z=np.array([1, 6, 6, 8, 1, 2, 3, 6, 8], dtype=np.int32),
        r=r.astype(dtype),
        omega=omega.astype(dtype),
        weight=(omega / largest).astype(dtype),
        structure=np.arange(4),
        features=cgcnn,
        ring=rng.integers(0, 2, (9, 2)).astype(dtype) if config.ring else None,
        direction=unit_vectors(len(nbr), rng).astype(dtype) if config.reads_angles else None,
        species=rng.uniform(0, 2, len(nbr)).astype(dtype) if config.reads_angles else None,
    )


def unit_vectors(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) directions drawn at random."""
    vectors = rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def small_network(config: ModelConfig, seed: int = 0) -> Parameters:
    """Parameters with no zeros and ones left, in the region where a non-negative head does not clip."""
    rng = np.random.default_rng(seed)
    params = initialise(config, seed, np.float64)
    params.vector += 0.3 * rng.normal(size=params.vector.size)
    return params


def check_network(name: str, config: ModelConfig, backends: Iterable[str] = BACKENDS) -> Iterator[Row]:
    """Two rows a backend, for the parameters and for the inputs: the worst entry.

    The difference quotients are those of the `cpu` forward, for all backends: one loss, and a backward pass for each.
    """
    shard, params = small_shard(config), small_network(config)
    dropout, loss_of_output = Dropout(0, 0, shard, config.n_layers), SmallLoss.of(name, shard, config)
    if config.non_negative:  # the gradient of a clipped prediction is the identity by definition: stay above zero
        free = forward(params, shard, dataclasses.replace(config, non_negative=False), load_backend("cpu"), dropout)
        params["output_b"][...] += 1 - free.prediction.min()
    inputs, ops = _network_inputs(params, shard, config, load_backend("cpu"))

    def loss():
        return loss_of_output.value(forward(params, shard, config, ops, dropout))

    numerical = {name: central_difference(loss, params[name]) for name in params}
    numerical_inputs = {name: central_difference(loss, array) for name, array in inputs.items()}
    if config.features == "atomic":
        numerical_inputs["embedded"] = _embedded_difference(params, shard, config, dropout, loss_of_output)
    everything = numerical | numerical_inputs
    for backend in backends:
        _, analytic = predict_with_gradients(loss_of_output, params, shard, config, load_backend(backend), dropout)
        yield Row("parameters", name, backend, *worst_difference(analytic, everything, numerical))
        yield Row("inputs", name, backend, *worst_difference(analytic, everything, numerical_inputs))


@dataclasses.dataclass(frozen=True)
class SmallLoss:
    """A loss of all that a network gives: weights times predictions, and the attention's loss of some targets.

    weights : (S, K) float; of several targets 0 where the last one's label is missing, in the second structure
    share : (N,) float, the attention that is taught, but in the first structure
    """

    weights: np.ndarray
    share: np.ndarray
    taught: tuple[int, ...]

    @classmethod
    def of(cls, name: str, shard: GraphBatch, config: ModelConfig) -> "SmallLoss":
        """The one of a network by its name."""
        rng = np.random.default_rng(2)
        weights = rng.normal(size=(len(shard), config.n_targets))
        weights[1, 1:][-1:] = 0
        share = attention_of(rng.uniform(size=len(shard.z)), shard.site_ptr)
        share[: shard.site_ptr[1]] = 0
        return cls(weights, share, TAUGHT.get(name.partition(", ")[2], ()))

    def value(self, tape: Tape) -> float:
        """The loss of a Tape of NumPy arrays."""
        attention = sum(self._attention(tape, k)[0].sum() for k in self.taught)
        return (self.weights * tape.prediction).sum() + 0.4 * attention

    def slopes(self, tape: Tape, ops: Ops) -> tuple[Array, list[Array | None]]:
        """Its derivatives by the predictions and by each target's scores, where the operations compute."""
        grad_scores = [None] * tape.prediction.shape[1]
        for k in self.taught:
            grad_scores[k] = ops.to_device(0.4 * self._attention(tape, k, ops)[1])
        return ops.to_device(self.weights), grad_scores

    def _attention(self, tape, k, ops=None):
        cache = tape.read_outs[k].attention
        score, beta, site_ptr = map(ops.to_host if ops else np.asarray, (cache.score, cache.beta, tape.shard.site_ptr))
        return attention_loss(score, beta, self.share, site_ptr)


def predict_with_gradients(
    loss: SmallLoss,
    params: Parameters,
    shard: GraphBatch,
    config: ModelConfig,
    ops: Ops,
    dropout: Dropout | None = None,
) -> tuple[Tape, dict[str, np.ndarray]]:
    """Tape, and gradients by parameters and inputs by name: NumPy arrays, like the arguments, of any backend."""
    params = params.to(ops)
    dropout = dropout and dropout.to(ops)
    tape = forward(params, shard.to(ops), config, ops, dropout)
    grads, grad_inputs = params.zeros_like(), {}
    grad_prediction, grad_scores = loss.slopes(tape, ops)
    backward(grad_prediction, tape, params, grads, config, ops, dropout, grad_inputs, grad_scores)
    gradients = {name: grads[name] for name in grads} | grad_inputs
    return tape, {name: ops.to_host(array) for name, array in gradients.items()}


def _network_inputs(params, shard, config, ops):
    """The arrays that the network starts from, by their names in `grad_inputs`, and operations that start there too."""
    geometry = forward(params, shard, config, ops).geometry
    inputs = {name: getattr(geometry, name) for name in ("rbf_r", "rbf_omega")}
    inputs = {name: array for name, array in inputs.items() if array is not None}
    inputs |= {name: getattr(shard, name) for name in ("features", "ring") if getattr(shard, name) is not None}
    if config.variant == "scann":
        inputs["weight"] = shard.weight

    def expand(x, centres, width):
        return inputs["rbf_r" if x is shard.r else "rbf_omega"][:, : len(centres)]

    def expand_angles(direction, weight, edge_ptr, centres, width):
        return inputs["rbf_r" if config.variant == "scann" else "rbf_omega"][:, -config.angular_width :]

    expansions = {"gaussian_expand_forward": expand, "angular_expand_forward": expand_angles}
    return inputs, types.SimpleNamespace(**vars(ops) | expansions)


def _embedded_difference(params, shard, config, dropout, loss):
    """Difference quotients by the embedded element of every site: from a table with a row of its own for each."""
    rows = dataclasses.replace(config, n_elements=len(shard.z))
    table = params["embed"][shard.z]
    own = Parameters(parameter_table(rows), np.append(table, params.vector[params["embed"].size :]))
    shard, ops = dataclasses.replace(shard, z=np.arange(len(table))), load_backend("cpu")
    return central_difference(lambda: loss.value(forward(own, shard, rows, ops, dropout)), own["embed"])
