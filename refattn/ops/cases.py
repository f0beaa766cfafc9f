"""Random inputs and edge cases for every operation: one table for the tests, the gradient check and the benchmarks."""

import inspect

import numpy as np

from refattn.ops import OPS

SHAPES = {
    "three structures": ((4, 1, 3), (2, 0, 3, 1, 0, 4, 1, 2)),
    "one site, no edges": ((1,), (0,)),
    "one site, its own neighbour": ((1,), (3,)),
    "one edge": ((2,), (1, 0)),
}
HEADS, CHANNELS, RADIAL = 2, 3, 5
WIDTH = HEADS * CHANNELS
RATE = 0.3


def make_inputs(operation, shape="three structures", dtype=np.float64, seed=0, ties=False):
    """Inputs of an operation's forward, by the names of its arguments, in order.

    Parameters
    ----------
    operation : Operation
    shape : a key of SHAPES, or a pair (sites of each structure, edges of each site)
    ties : bool
        Make all rows equal, so that every softmax has ties.

    Returns
    -------
    dict of name -> array or scalar
    """
    sites, edges = SHAPES.get(shape, shape)
    rng = np.random.default_rng(seed)
    site_ptr, edge_ptr = np.cumsum((0, *sites), dtype=np.int32), np.cumsum((0, *edges), dtype=np.int32)
    structure = np.repeat(np.repeat(np.arange(len(sites)), sites), edges)
    nbr = (site_ptr[structure] + rng.integers(0, 1 << 30, len(structure)) % np.asarray(sites)[structure]).astype(np.int32)
    rows = {"N": int(site_ptr[-1]), "E": int(edge_ptr[-1])}

    def normal(*size):
        values = rng.normal(size=size)
        return np.repeat(values[:1], size[0], axis=0).astype(dtype) if ties and size[0] else values.astype(dtype)

    known = {
        "site_ptr": lambda: site_ptr,
        "edge_ptr": lambda: edge_ptr,
        "nbr": lambda: nbr,
        "key": lambda: rng.integers(0, 1 << 63, rows["N"], dtype=np.uint64),
        "rate": lambda: RATE,
        "width": lambda: 0.5,
        "centres": lambda: np.linspace(0, 4, RADIAL, dtype=dtype),
        "weight": lambda: rng.uniform(0.2, 1, rows["E"]).astype(dtype),
        "intensive": lambda: False,
        "normalise": lambda: True,
        "mask": lambda: (rng.integers(0, 2, (rows["E"], HEADS)) / (1 - RATE)).astype(dtype),
    }
    for name in ("b", "b_r", "b_omega", "gain", "offset"):
        known[name] = lambda: rng.normal(size=WIDTH).astype(dtype)
    for name in ("centre", "neighbour", "site"):
        known[name] = lambda: normal(rows["N"], WIDTH)
    for name in ("geo", "edge", "u_r", "u_omega"):
        known[name] = lambda: normal(rows["E"], WIDTH)
    special = {
        ("gaussian_expand", "x"): lambda: rng.uniform(0, 4, rows["E"]).astype(dtype),
        ("geometry_filter", "u"): lambda: normal(rows["E"], WIDTH),
        ("local_attention", "q"): lambda: normal(rows["N"], HEADS, CHANNELS),
        ("local_attention", "k"): lambda: normal(rows["E"], HEADS, CHANNELS),
    }
    inputs = {}
    for name in inspect.signature(forward_of(operation)).parameters:
        make = special.get((operation.name, name)) or known.get(name) or (lambda: normal(rows["N"], WIDTH))
        inputs[name] = make()
    return inputs


def forward_of(operation, backend=None):
    return getattr(backend or _reference(), f"{operation.name}_forward")


def run_forward(operation, inputs, backend=None):
    """Outputs of forward by name; the inputs are copied, because the CPU version writes over some."""
    copies = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in inputs.items()}
    result = forward_of(operation, backend)(**copies)
    return dict(zip(operation.outputs, result if isinstance(result, tuple) else (result,), strict=True))


def run_backward(operation, inputs, outputs, grads, backend=None):
    """Gradients by the names of `operation.wrt`; `grads` holds the gradients of the differentiable outputs."""
    function = getattr(backend or _reference(), f"{operation.name}_backward")
    known = {**inputs, **outputs, **{f"grad_{name}": grad for name, grad in grads.items()}}
    result = function(**{name: known[name] for name in inspect.signature(function).parameters})
    return dict(zip(operation.wrt, result if isinstance(result, tuple) else (result,), strict=True))


def differentiable_outputs(operation):
    """Names of the outputs whose gradient backward takes; all outputs of an operation without backward."""
    backward = getattr(_reference(), f"{operation.name}_backward", None)
    if backward is None:
        return operation.outputs
    return tuple(name for name in operation.outputs if f"grad_{name}" in inspect.signature(backward).parameters)


def _reference():
    from refattn.ops import load_backend

    return load_backend("reference")


OPTIONS = {"global_attention": [{"intensive": i, "normalise": n} for i in (False, True) for n in (False, True)]}


def all_cases(dtype=np.float64):
    """Every operation with every shape, with ties and with every option: (label, operation, inputs)."""
    for operation in OPS:
        for shape in SHAPES:
            for ties in (False, True):
                for option in OPTIONS.get(operation.name, [{}]):
                    words = [operation.name, shape] + ["ties"] * ties + [f"{k}={v}" for k, v in option.items()]
                    yield ", ".join(words), operation, {**make_inputs(operation, shape, dtype, ties=ties), **option}
