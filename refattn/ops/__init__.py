"""The mathematics. Each formula stands three times: in reference/, cpu/ and cuda/.

OPS names every operation, what its forward returns, and by which inputs its backward differentiates. The tests,
the gradient check and the benchmarks all walk through this table.
"""

import dataclasses
import functools
import importlib
import types

from refattn.ops import dense

BACKENDS = ("reference", "cpu")  # those that run on every machine; "cuda" asks for a GPU or Numba's simulator


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation: its file, the names of what forward returns, and the inputs that get a gradient.

    An output is differentiable when backward takes a `grad_` of it; the others are saved for backward, and are None in
    a backend that does without them.
    """

    name: str
    file: str
    outputs: tuple
    wrt: tuple


OPS = (
    Operation("embedding", "embedding", ("c",), ("table",)),
    Operation("gaussian_expand", "geometry", ("rbf",), ()),
    Operation("geometry_embed", "geometry", ("geo", "v_r", "v_omega"), ("u_r", "u_omega", "b_r", "b_omega")),
    Operation("geometry_filter", "geometry", ("geo", "v"), ("u", "b", "weight")),
    Operation(
        "geometry_update",
        "geometry",
        ("new_geo", "v", "x_hat", "rstd"),
        ("edge", "centre", "neighbour", "geo", "gain", "offset"),
    ),
    Operation("swish", "norm", ("y", "v"), ("u", "b")),
    Operation("residual_layernorm", "norm", ("y", "x_hat", "rstd"), ("x", "gain", "offset")),
    Operation("dropout", "norm", ("y",), ("x",)),
    Operation("edge_product", "local_attention", ("x",), ("site", "geo")),
    Operation("local_attention", "local_attention", ("context", "alpha"), ("q", "k")),
    Operation(
        "updated_attention",
        "edges",
        ("context", "new_geo", "alpha", "v", "mean", "rstd", "k"),
        ("site", "geo", "centre", "neighbour", "q", "w", "gain", "offset", "w_k", "b_k"),
    ),
    Operation(
        "filtered_attention",
        "edges",
        ("context", "alpha", "k"),
        ("site", "rbf", "weight", "q", "w", "b", "w_k", "b_k"),
    ),
    Operation(
        "site_block",
        "sites",
        ("site", "context_hat", "context_rstd", "v", "site_hat", "site_rstd"),
        ("context", "gain", "offset", "w_1", "b_1", "w_2", "b_2", "gain_2", "offset_2"),
    ),
    Operation("global_attention", "global_attention", ("struct", "beta", "score", "norm", "q_sum"), ("q", "k")),
)


@functools.cache
def load_backend(name):
    """All operations of one backend as attributes, with `empty` for work arrays and `work_arrays` to reuse them.

    `xp` is the library of its arrays, NumPy or CuPy, and `to_device` and `to_host` bring them there and back; where
    `on_device`, they live on a GPU. `side_by_side(map_fn)` is the map for what threads can compute side by side:
    map_fn, or map on a GPU, which one thread keeps busy.

    Parameters
    ----------
    name : "reference", "cpu", "cuda" or "cuda-tf32"
        The last two are one backend, whose products of float32 are made in TF32 in the second.

    Raises MissingExtra without the `cuda` extra, ConfigError without a GPU, for "cuda" and "cuda-tf32".
    """
    folder, on_device = name.removesuffix("-tf32"), name.startswith("cuda")
    memory = importlib.import_module(f"refattn.ops.{folder}.memory")
    memory_names = "empty", "work_arrays", "xp", "to_device", "to_host", "side_by_side"
    functions = {key: getattr(memory, key) for key in memory_names}
    for direction in ("dense_forward", "dense_backward"):
        functions[direction] = functools.partial(getattr(dense, direction), empty=memory.empty, xp=memory.xp)
    if name != "reference":  # the same layers, in a kernel each
        products = importlib.import_module(f"refattn.ops.{folder}.products")
        functions |= {"dense_forward": products.dense, "dense_backward": products.dense_gradients}
    for operation in OPS:
        module = importlib.import_module(f"refattn.ops.{folder}.{operation.file}")
        for direction in ("forward", "backward"):
            function = getattr(module, f"{operation.name}_{direction}", None)
            if function:
                functions[f"{operation.name}_{direction}"] = function
    if on_device:
        functions = products.with_products(functions, name.endswith("-tf32"))
    return types.SimpleNamespace(name=name, on_device=on_device, array_type=memory.xp.ndarray, **functions)
