"""Random inputs and edge cases for every operation: one table for the tests, the gradient check and the benchmarks."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from refattn.ops import OPS, Operation, load_backend
from refattn.ops.types import EdgeList, Ops

# Sites of each structure, edges of each site.
GRAPHS = {
    "three structures": ((4, 1, 3), (2, 0, 3, 1, 0, 4, 1, 2)),
    "one site, no edges": ((1,), (0,)),
    "one site, its own neighbour": ((1,), (3,)),
    "one edge": ((2,), (1, 0)),
}
# Shape of the arguments drawn from a normal distribution, in the letters of docs/design.md section 2; an entry with the
# operation's name goes before one without.
SHAPES = {
    **dict.fromkeys(("b", "b_r", "b_omega", "gain", "offset"), "D"),
    **dict.fromkeys((f"weights.{name}" for name in ("gain", "offset", "b", "b_k", "b_1", "b_2")), "D"),
    **dict.fromkeys(("weights.gain_2", "weights.offset_2"), "D"),
    **dict.fromkeys(("site", "centre", "neighbour", "x", "residual", "u", "q", "k", "context"), "ND"),
    **dict.fromkeys(("geo", "edge", "u_r", "u_omega", "geometry_filter u"), "ED"),
    **dict.fromkeys(("w", *(f"weights.{name}" for name in ("w", "w_k", "w_1", "w_2"))), "DD"),
    **dict.fromkeys(("f", "site_sum weight"), "N"),
    "table": "AD",
    "filtered_attention weights.w": "GD",
    "rbf": "EG",
    "direction": "EV",
    "angular_expand weight": "EM",
    "updated_attention q": "NHC",
    "filtered_attention q": "NHC",
    "local_attention q": "NHC",
    "local_attention k": "EHC",
}
OPTIONS = {"global_attention": [{"intensive": i, "normalise": n} for i in (False, True) for n in (False, True)]}
RADIAL = 5  # Gaussians
ELEMENTS = 4  # of the table; the last one occurs in no structure
RATE = 0.3  # of the dropout


def make_graph(graph: str | tuple, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """site_ptr, edge_ptr and nbr of a key of GRAPHS or a pair such as its values; neighbours drawn from `rng`."""
    sites, edges = GRAPHS[graph] if isinstance(graph, str) else graph
    site_ptr, edge_ptr = np.cumsum((0, *sites), dtype=np.int32), np.cumsum((0, *edges), dtype=np.int32)
    structure = np.repeat(np.repeat(np.arange(len(sites)), sites), edges)
    nbr = rng.integers(site_ptr[structure], site_ptr[structure + 1], dtype=np.int32)
    return {"site_ptr": site_ptr, "edge_ptr": edge_ptr, "nbr": nbr}


def make_inputs(
    operation: Operation,
    graph: str | tuple = "three structures",
    dtype: np.dtype = np.float64,
    seed: int = 0,
    ties: bool = False,
    heads: int = 2,
    channels: int = 3,
) -> dict:
    """Inputs of an operation's forward, by the names of its arguments, in order; see Operation for names with a dot.

    Parameters
    ----------
    operation : Operation
    graph : a key of GRAPHS, or a pair (sites of each structure, edges of each site)
    ties : bool
        Make all rows equal, so that every softmax has ties.
    heads, channels : int
        H and C; the width D is their product.

    Returns
    -------
    dict of name -> array or scalar
    """
    rng = np.random.default_rng(seed)
    known = make_graph(graph, rng)
    sizes = {"N": len(known["edge_ptr"]) - 1, "E": len(known["nbr"]), "H": heads, "C": channels}
    sizes |= {"D": heads * channels, "A": ELEMENTS, "G": RADIAL, "V": 3, "M": 2}
    weight = rng.uniform(0.2, 1, sizes["E"]).astype(dtype)
    mask = (rng.integers(0, 2, (sizes["E"], heads)) / (1 - RATE)).astype(dtype)
    key = rng.integers(0, 1 << 63, sizes["N"], dtype=np.uint64)
    known |= {"mask": mask, "weight": weight, "key": key, "rate": RATE, "dropout.key": key, "dropout.rate": RATE}
    known |= {f"edges.{name}": known[name] for name in EdgeList._fields}
    known |= {
        "z": np.arange(sizes["N"], dtype=np.int32) % (ELEMENTS - 1),
        "centres": np.linspace(0, 4, RADIAL).astype(dtype),
        "width": 0.5,
        "intensive": False,
        "normalise": True,
        "save_for_backward": True,
    }
    if operation.name == "updated_attention":
        known["edges.weight"] = None  # SCANN's alone
    if operation.name in ("site_sum", "angular_expand"):
        del known["weight"]  # of a site, or several of an edge
    if operation.name == "gaussian_expand":
        known["x"] = rng.uniform(0, 4, sizes["E"]).astype(dtype)
    inputs = {}
    for name in argument_names(_function(operation, "forward")):
        letters = SHAPES.get(f"{operation.name} {name}", SHAPES.get(name))
        if name not in known:
            values = rng.normal(size=[sizes[letter] for letter in letters]).astype(dtype)
            if ties and letters[0] in "NE":
                values[:] = values[:1]
            known[name] = values
        inputs[name] = known[name]
    return inputs


def cases_of(
    operation: Operation, dtype: np.dtype = np.float64, heads: int = 2, channels: int = 3
) -> Iterator[tuple[str, dict]]:
    """An operation with every graph, with ties and with every option: (label, inputs)."""
    for graph in GRAPHS:
        for ties in (False, True):
            for option in OPTIONS.get(operation.name, [{}]):
                words = [graph] + ["ties"] * ties + [f"{name}={value}" for name, value in option.items()]
                yield (
                    ", ".join(words),
                    {**make_inputs(operation, graph, dtype, ties=ties, heads=heads, channels=channels), **option},
                )


def all_cases(dtype: np.dtype = np.float64, heads: int = 2, channels: int = 3) -> Iterator[tuple[str, Operation, dict]]:
    """Every case of every operation: (label, operation, inputs)."""
    for operation in OPS:
        for label, inputs in cases_of(operation, dtype, heads, channels):
            yield f"{operation.name}, {label}", operation, inputs


def copied(values: dict) -> dict:
    """A dict with copies of the arrays; other values as they are."""
    return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def argument_names(function: Callable) -> list[str]:
    """Names of a function's arguments; in the place of a named tuple those of its fields, such as weights.w."""
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        fields = getattr(parameter.annotation, "_fields", None)
        names += [name] if fields is None else [f"{name}.{field}" for field in fields]
    return names


def call(function: Callable, known: dict) -> list:
    """Call a function with what is known by the names of argument_names, and flatten what it returns."""
    arguments = {}
    for name, parameter in inspect.signature(function).parameters.items():
        fields = getattr(parameter.annotation, "_fields", None)
        if fields is not None:
            arguments[name] = parameter.annotation(*(known[f"{name}.{field}"] for field in fields))
        elif name in known:
            arguments[name] = known[name]
    return flattened(function(**arguments))


def flattened(value: Any) -> list:
    """What stands in a tuple, in tuples in it, and so on, in order; a list of one for anything else."""
    return [part for item in value for part in flattened(item)] if isinstance(value, tuple) else [value]


def run_forward(operation: Operation, inputs: dict, backend: Ops | None = None) -> dict:
    """Outputs of forward by name, NumPy arrays. Inputs are copied, because the CPU version writes over some."""
    return dict(zip(operation.outputs, _run(operation, "forward", inputs, backend), strict=True))


def run_backward(operation: Operation, inputs: dict, outputs: dict, grads: dict, backend: Ops | None = None) -> dict:
    """Gradients by the names of `operation.wrt`; `grads` holds the gradients of the differentiable outputs.

    What backward gets is copied, because the CPU version writes over some; what it has a default for is left to that.
    """
    known = {**inputs, **outputs, **{f"grad_{name}": grad for name, grad in grads.items()}}
    return dict(zip(operation.wrt, _run(operation, "backward", known, backend), strict=True))


def _run(operation, direction, known, backend):
    """What a backend, by default the reference, returns for copies of what is known, where it computes."""
    ops = backend or load_backend("reference")
    placed = {name: ops.to_device(x) if isinstance(x, np.ndarray) else x for name, x in copied(known).items()}
    results = call(_function(operation, direction, ops), placed)
    return [ops.to_host(result) if isinstance(result, ops.array_type) else result for result in results]


def differentiable_outputs(operation: Operation) -> tuple[str, ...]:
    """Names of the outputs whose gradient backward takes; none for an operation without backward."""
    if not operation.wrt:
        return ()
    arguments = inspect.signature(_function(operation, "backward")).parameters
    return tuple(name for name in operation.outputs if f"grad_{name}" in arguments)


def make_grads(operation: Operation, outputs: dict, seed: int = 1) -> dict[str, np.ndarray]:
    """Random gradients of the differentiable outputs, by name: what backward gets from the layer above."""
    rng = np.random.default_rng(seed)
    arrays = {name: outputs[name] for name in differentiable_outputs(operation)}
    return {name: rng.normal(size=array.shape).astype(array.dtype) for name, array in arrays.items()}


def _function(operation, direction, backend=None):
    return getattr(backend or load_backend("reference"), f"{operation.name}_{direction}")
