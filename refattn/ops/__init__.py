"""The mathematics. Each formula stands three times: in reference/, cpu/ and cuda/.

OPS names every operation, what its forward returns, and by which inputs its backward differentiates. The tests,
the gradient check and the benchmarks all walk through this table.
"""

import dataclasses
import functools
import importlib

from refattn.common.notices import watch_compilation
from refattn.ops.types import (
    FilteredAttentionCache,
    FilteredAttentionWeights,
    GlobalAttentionCache,
    Ops,
    SiteBlockCache,
    SiteBlockWeights,
    UpdatedAttentionCache,
    UpdatedAttentionWeights,
)

BACKENDS = ("reference", "cpu")  # those that run on every machine; "cuda" asks for a GPU or Numba's simulator


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation: its file, the names of what forward returns, and the inputs that get a gradient.

    A name with a dot is a field of a named tuple of refattn.ops.types, such as weights.w. An output is differentiable
    when backward takes a `grad_` of it; the others are saved for backward, and are None in a backend that does without
    them. An unfused operation is a step of a fused one; a backend has those that its network calls.
    """

    name: str
    file: str
    outputs: tuple[str, ...]
    wrt: tuple[str, ...]
    backends: tuple[str, ...] = ("reference", "cpu", "cuda")


def fields(name: str, kind: type) -> tuple[str, ...]:
    """Names of the fields of a named tuple that is called `name`."""
    return tuple(f"{name}.{field}" for field in kind._fields)


OPS = (
    Operation("dense", "layers", ("y",), ("x", "w", "b")),
    Operation("swish", "layers", ("y", "v"), ("u", "b")),
    Operation("residual_layernorm", "layers", ("y", "x_hat", "rstd"), ("x", "gain", "offset")),
    Operation("dropout", "layers", ("y",), ("x",)),
    Operation("embedding", "inputs", ("c",), ("table",)),
    Operation("gaussian_expand", "inputs", ("rbf",), ()),
    Operation("angular_expand", "inputs", ("rbf",), ()),
    Operation("geometry_embed", "inputs", ("geo", "v_r", "v_omega"), ("u_r", "u_omega", "b_r", "b_omega")),
    Operation("geometry_filter", "unfused.geometry", ("geo", "v"), ("u", "b", "weight"), ("reference", "cuda")),
    Operation(
        "geometry_update",
        "unfused.geometry",
        ("new_geo", "v", "x_hat", "rstd"),
        ("edge", "centre", "neighbour", "geo", "gain", "offset"),
        ("reference",),
    ),
    Operation("edge_product", "unfused.local_attention", ("x",), ("site", "geo"), ("reference", "cuda")),
    Operation("local_attention", "unfused.local_attention", ("context", "alpha"), ("q", "k"), ("reference", "cuda")),
    Operation(
        "updated_attention",
        "edges",
        ("context", "new_geo", *fields("cache", UpdatedAttentionCache)),
        ("site", "geo", "centre", "neighbour", "q", *fields("weights", UpdatedAttentionWeights)),
    ),
    Operation(
        "filtered_attention",
        "edges",
        ("context", *fields("cache", FilteredAttentionCache)),
        ("site", "rbf", "edges.weight", "q", *fields("weights", FilteredAttentionWeights)),
    ),
    Operation(
        "site_block",
        "sites",
        ("site", *fields("cache", SiteBlockCache)),
        ("context", *fields("weights", SiteBlockWeights)),
    ),
    Operation("global_attention", "global_attention", ("struct", *fields("cache", GlobalAttentionCache)), ("q", "k")),
    Operation("site_sum", "global_attention", ("y",), ("f", "weight")),
)


def operations(backend: str) -> list[Operation]:
    """The operations of OPS that a backend, by its name, has."""
    return [operation for operation in OPS if backend.removesuffix("-tf32") in operation.backends]


@functools.cache
def load_backend(name: str) -> Ops:
    """All operations of one backend as attributes, with `empty` for work arrays, `work_arrays` to reuse them, and,
    on the CPU, `Pool` to keep some for longer.

    `xp` is the library of its arrays, NumPy or CuPy, and `to_device` and `to_host` bring them there and back; where
    `on_device`, they live on a GPU. `side_by_side(map_fn)` is the map for what threads can compute side by side:
    map_fn, or map on a GPU, which one thread keeps busy.

    Parameters
    ----------
    name : "reference", "cpu", "cuda" or "cuda-tf32"
        The last two are one backend, whose products of float32 are made in TF32 in the second.

    Raises MissingExtra without the `cuda` extra, ConfigError without a GPU, for "cuda" and "cuda-tf32".
    """
    folder = name.removesuffix("-tf32")
    on_device = folder == "cuda"
    if folder == "cpu":
        watch_compilation()
    memory = importlib.import_module(f"refattn.ops.{folder}.memory")
    memory_names = "empty", "work_arrays", "xp", "to_device", "to_host", "side_by_side"
    functions = {key: getattr(memory, key) for key in memory_names} | {"Pool": getattr(memory, "Pool", None)}
    for operation in operations(name):
        module = importlib.import_module(f"refattn.ops.{folder}.{operation.file}")
        for direction in ("forward", "backward") if operation.wrt else ("forward",):
            functions[f"{operation.name}_{direction}"] = getattr(module, f"{operation.name}_{direction}")
    if on_device:
        products = importlib.import_module("refattn.ops.cuda.products")
        functions = products.with_products(functions, name.endswith("-tf32"))
        functions["transposed"] = importlib.import_module("refattn.ops.cuda.graph").transposed
    return Ops(name=name, on_device=on_device, array_type=memory.xp.ndarray, **functions)
