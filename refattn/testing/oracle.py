"""Everything that a network makes of one batch: the outputs of its layers, its gradients, and three steps of Adam."""

import dataclasses
import tomllib
import typing
from pathlib import Path

import numpy as np

from refattn.common.files import replacing
from refattn.common.hdf5 import UNREADABLE, NewFile, reading_hdf5, write_strings
from refattn.config import Config, config_from_dict, to_toml
from refattn.errors import DataError, in_one_line
from refattn.network.cache import Tape
from refattn.network.model import backward, forward
from refattn.network.params import Parameters, from_arrays, initialise
from refattn.ops import load_backend
from refattn.structures.batch import GraphBatch
from refattn.training.adam import Adam

FORMAT = "refattn-oracle"
N_STEPS = 3
DTYPES = ("float64", "float32")
GRAPH = ("site_ptr", "edge_ptr", "nbr", "z", "r", "omega", "weight", "structure")
GRAPH += ("features", "ring", "direction", "species")  # where the network reads them


class Step(typing.NamedTuple):
    """What is known in one precision.

    parameters : dict     name -> array; the weights (in, out)
    outputs : dict        name -> array, in the order of the network; see outputs_of
    loss : float          the mean of (prediction - label)^2 over structures and targets
    grads : dict          name -> its gradient by that parameter
    adam : list of dict   the parameters after each of N_STEPS steps on the same batch
    """

    parameters: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    loss: float
    grads: dict[str, np.ndarray]
    adam: list[dict[str, np.ndarray]]


@dataclasses.dataclass(eq=False)
class Oracle:
    """A network, a batch, and what comes out in float64 and float32; without dropout.

    config : Config
    graph : GraphBatch           in float64
    label : (S, K) float64       scaled, as the network predicts them
    steps : dict                 "float64" and "float32" -> Step
    """

    config: Config
    graph: GraphBatch
    label: np.ndarray
    steps: dict[str, Step]


def make_oracle(config: Config, graph: GraphBatch, label: np.ndarray, params: Parameters | None = None) -> Oracle:
    """Compute it by the NumPy reference.

    Parameters
    ----------
    graph : GraphBatch       as for_network returns it, in float64
    label : (S, K) float     scaled
    params : Parameters, optional     by default those that a training starts from, whose biases are drawn too
    """
    if params is None:
        params = initialise(config.model, config.training.seed, np.float64)
        rng = np.random.default_rng(config.training.seed)
        params.vector[:] += rng.uniform(-0.1, 0.1, params.vector.shape)  # a bias of zero hides that it was forgotten
    steps = {dtype: _step(config, graph, label, params, dtype) for dtype in DTYPES}
    return Oracle(config, graph, label, steps)


def _step(config, graph, label, params, dtype):
    ops = load_backend("reference")
    start = {name: params[name].astype(dtype) for name in params}
    own = from_arrays(config.model, start, dtype)
    grads = own.zeros_like()
    shard = graph.with_type(np.dtype(dtype))
    label = label.astype(dtype)
    adam = Adam(own.vector, own.decay_mask(), config.training)
    found = None
    after = []
    for _ in range(N_STEPS):
        tape = forward(own, shard, config.model, ops)
        error = tape.prediction - label
        backward(2 * error / error.size, tape, own, grads, config.model, ops)
        if found is None:
            outputs = {name: array.copy() for name, array in outputs_of(tape).items()}
            found = outputs, float((error**2).mean()), {name: grads[name].copy() for name in grads}
        adam.update(own.vector, grads.vector, config.training.learning_rate)
        after.append({name: own[name].copy() for name in own})
    return Step(start, *found, after)


def outputs_of(tape: Tape) -> dict[str, np.ndarray]:
    """The outputs of the layers, in their order.

    embedding (N, D)          step 1
    geometry                  step 2: (E, D), SCANN the expansion (E, G)
    layerL.geometry (E, D)    step 3, SCANN+ only
    layerL.alpha (E, H)       step 4, the local attention
    layerL.context (N, D)     step 4, sum alpha k
    layerL.site (N, D)        step 6, or 5 without residual block
    after (N, G)              step 7
    beta (N,)                 step 8, the global attention
    struct (S, G)             step 8
    hidden                    step 9: (S, O), of additive heads (N, O)
    prediction (S, K)

    Of several targets the four from `after` on have the name targetK before them.
    """
    found = {"embedding": tape.embedding.site, "geometry": tape.layers[0].geo if tape.layers else tape.geometry.rbf_r}
    sites = [layer.site for layer in tape.layers[1:]] + [tape.read_outs[0].site_before]
    for number, (layer, site) in enumerate(zip(tape.layers, sites, strict=True)):
        if hasattr(layer.attention, "new_geo"):
            found[f"layer{number}.geometry"] = layer.attention.new_geo
        found[f"layer{number}.alpha"] = layer.attention.alpha
        found[f"layer{number}.context"] = layer.context
        found[f"layer{number}.site"] = site
    for number, read_out in enumerate(tape.read_outs):
        prefix = f"target{number}." if len(tape.read_outs) > 1 else ""
        found[f"{prefix}after"] = read_out.site
        found[f"{prefix}beta"] = read_out.attention.beta
        found[f"{prefix}struct"] = read_out.struct
        found[f"{prefix}hidden"] = read_out.head.hidden
    return {**found, "prediction": tape.prediction}


def write_oracle(path: Path | str, oracle: Oracle) -> None:
    """Write an Oracle as HDF5, readable with any HDF5 tool; the file appears complete or not at all."""
    with replacing(path) as part, NewFile(part) as file:
        file.attrs.update(format=FORMAT, version=1)
        write_strings(file, "config", to_toml(oracle.config))
        file["label"] = oracle.label
        for name in GRAPH:
            if getattr(oracle.graph, name) is not None:
                file[f"graph/{name}"] = getattr(oracle.graph, name)
        for dtype, step in oracle.steps.items():
            write_strings(file, f"{dtype}/order", [*step.outputs])
            file[f"{dtype}/loss"] = step.loss
            for kind in ("parameters", "outputs", "grads"):
                for name, array in getattr(step, kind).items():
                    file[f"{dtype}/{kind}/{name}"] = array
            for number, arrays in enumerate(step.adam, 1):
                for name, array in arrays.items():
                    file[f"{dtype}/adam{number}/{name}"] = array


def read_oracle(path: Path | str) -> Oracle:
    """Read what write_oracle wrote. Raises DataError for another file, or a damaged one."""
    try:
        with reading_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path}: is no oracle; make one with `refattn oracle`")
            config = config_from_dict(tomllib.loads(file["config"].asstr()[()]), "/config")
            graph = GraphBatch(**{name: file[f"graph/{name}"][()] for name in GRAPH if name in file["graph"]})
            names = [*initialise(config.model, 0)]
            return Oracle(config, graph, file["label"][()], {dtype: _read(file[dtype], names) for dtype in DTYPES})
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; make one with `refattn oracle`") from None
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an oracle ({in_one_line(error)}); make it again") from None


def _read(group, names):
    def arrays(kind, names):
        return {name: group[f"{kind}/{name}"][()] for name in names}

    outputs = arrays("outputs", group["order"].asstr()[()].tolist())
    adam = [arrays(f"adam{number}", names) for number in range(1, N_STEPS + 1)]
    return Step(arrays("parameters", names), outputs, float(group["loss"][()]), arrays("grads", names), adam)
