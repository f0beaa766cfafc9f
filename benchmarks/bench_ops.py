"""Every operation forward and backward, one thread, float32, on a shard like those of QM9; beside PyTorch's, if there.

    python benchmarks/bench_ops.py --json OUT

The shard has 162 sites and 702 edges, width 128, 8 heads. The operations of the `cpu` backend are held to `reference`
first. Bytes are those of inputs and outputs, each counted once; a shard's arrays stay in cache, so that the rate can
exceed that of a copy in memory. Operations are additions, multiplications, divisions and exponentials, each counted as
one; numbers of a random generator are not counted. PyTorch's versions are eager, by its autograd.
"""

import argparse
import importlib.util
import os
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from refattn.benchmarks.measures import rates, write_record
from refattn.ops import load_backend, operations
from refattn.ops.cases import (
    argument_names,
    call,
    copied,
    differentiable_outputs,
    make_grads,
    make_inputs,
    run_backward,
    run_forward,
)
from refattn.ops.types import DenseWeights

SITES = (18,) * 9
DEGREES = (6, 5, 4, 4, 3, 4) * 27  # 4.33 on average; QM9 has 4.27
HEADS, CHANNELS = 8, 16
SAME = 1e-4  # relative to the largest; float32 against float32 in another order
# Operations for each element of the array that `per` names: (forward, backward, letters of the array)
COUNTS = {
    "embedding": (0, 1, "ND"),
    "gaussian_expand": (4, 0, "EG"),
    "geometry_embed": (11, 22, "ED"),
    "swish": (5, 10, "ND"),
    "residual_layernorm": (8, 11, "ND"),
    "dropout": (1, 1, "ND"),
    "global_attention": (6, 12, "ND"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=200, help="calls of every operation")
    parser.add_argument("--quick", action="store_true", help="ten calls")
    arguments = parser.parse_args()
    rounds = 10 if arguments.quick else arguments.rounds
    torch_peer = None
    if importlib.util.find_spec("torch"):
        torch_peer = importlib.import_module("refattn.benchmarks.peers.torch_operations")
    speed = rates(1)
    print(f"sgemm {speed['sgemm_gflops']:.0f} GFLOP/s, copy {speed['copy_gb_per_second']:.1f} GB/s, one thread")
    if torch_peer is None:
        print("PyTorch is not installed (pip install 'refattn[bench]'): its columns are left out")
    print(f"{'operation':28} {'us':>8} {'quartiles':>16} {'GB/s':>7} {'of copy':>8} {'GFLOP/s':>8} {'PyTorch us':>11}")
    rows = []
    for measured in all_operations(rounds, torch_peer):
        rows.append(with_rates(measured, speed))
        print(line_of(rows[-1]), flush=True)
    if arguments.json:
        write_record(arguments.json, {"rates": {1: speed}, "sites": sum(SITES), "edges": sum(DEGREES), "rows": rows})


def all_operations(rounds, torch_peer):
    """Rows of every operation in both directions, and of the dense layer, without rates."""
    for operation in operations("cpu"):
        inputs = make_inputs(operation, (SITES, DEGREES), np.float32, heads=HEADS, channels=CHANNELS)
        check(operation, inputs)
        other = getattr(torch_peer, operation.name, None) if torch_peer else None
        times = time_operation(operation, inputs, rounds)
        theirs = torch_peer.time_operation(operation, inputs, other, rounds) if other else {}
        for direction, (seconds, n_bytes) in times.items():
            row = {"operation": operation.name, "direction": direction, "bytes": n_bytes}
            yield row | {"flops": flops(operation, direction), **quartiles(seconds), "torch": theirs.get(direction)}
    yield from dense_rows(rounds)


def check(operation, inputs):
    """The cpu backend must agree with the reference. Raises SystemExit where it does not."""
    reference, cpu = load_backend("reference"), load_backend("cpu")
    expected, found = run_forward(operation, inputs, reference), run_forward(operation, inputs, cpu)
    pairs = [(found[name], expected[name]) for name in differentiable_outputs(operation)]
    if operation.wrt:
        grads = make_grads(operation, expected)
        theirs = run_backward(operation, inputs, expected, grads, reference)
        ours = run_backward(operation, inputs, found, grads, cpu)
        pairs += [(ours[name], theirs[name]) for name in operation.wrt]
    for a, b in pairs:
        if not np.abs(a - b).max() <= SAME * np.abs(b).max():
            worst = np.abs(a - b).max()
            raise SystemExit(f"{operation.name}: cpu and reference differ by {worst:.1e}; nothing is timed")


def time_operation(operation, inputs, rounds):
    """{direction: (times in s, bytes of inputs and outputs)}; inputs are copies, because kernels write over some."""
    ops = load_backend("cpu")
    forward = getattr(ops, f"{operation.name}_forward")
    backward = getattr(ops, f"{operation.name}_backward", None)
    times, sizes = {"forward": []}, {}
    if backward:
        times["backward"] = []
        wanted = argument_names(backward)
        grads = make_grads(operation, run_forward(operation, inputs, ops))
    for _ in range(rounds + 5):
        with ops.work_arrays():
            own = copied(inputs)
            seconds, outputs = clocked(forward, own)
            times["forward"].append(seconds)
            sizes["forward"] = size_of(inputs) + size_of(outputs)
            if backward:
                named = dict(zip(operation.outputs, outputs, strict=True))
                known = {**copied(inputs), **named, **{f"grad_{name}": grad.copy() for name, grad in grads.items()}}
                chosen = {name: known[name] for name in wanted if name in known}
                seconds, results = clocked(backward, chosen)
                times["backward"].append(seconds)
                sizes["backward"] = size_of(chosen) + size_of(results)
    return {direction: (seconds[5:], sizes[direction]) for direction, seconds in times.items()}


def clocked(function, arguments):
    """Seconds of one call, and what it returned."""
    began = time.perf_counter()
    result = call(function, arguments)
    return time.perf_counter() - began, result


def size_of(value):
    """Bytes of an array, or of the arrays in a tuple or dict."""
    if isinstance(value, dict):
        return sum(size_of(item) for item in value.values())
    if isinstance(value, (tuple, list)):
        return sum(size_of(item) for item in value)
    return value.nbytes if isinstance(value, np.ndarray) else 0


def flops(operation, direction):
    """Arithmetic of an operation on the shard, from COUNTS; None for an operation that is not in the table."""
    if operation.name not in COUNTS:
        return None
    forward, backward, letters = COUNTS[operation.name]
    sizes = {"N": sum(SITES), "E": sum(DEGREES), "D": HEADS * CHANNELS, "G": 5}
    return (forward if direction == "forward" else backward) * sizes[letters[0]] * sizes[letters[1]]


def dense_rows(rounds):
    """Rows of the dense layer of every edge, (E, D) by (D, D), which has most of the arithmetic."""
    ops, rng, width = load_backend("cpu"), np.random.default_rng(0), HEADS * CHANNELS
    x, grad_y = (rng.normal(size=(sum(DEGREES), width)).astype(np.float32) for _ in range(2))
    w, grad_w = (rng.normal(size=(width, width)).astype(np.float32) for _ in range(2))
    calls = {
        "forward": (ops.dense_forward, {"x": x, "w": w}, 2),
        "backward": (ops.dense_backward, {"grad_y": grad_y, "x": x, "w": w, "out": DenseWeights(grad_w)}, 4),
    }
    for direction, (function, arguments, count) in calls.items():
        seconds = []
        for _ in range(rounds + 5):
            with ops.work_arrays():
                seconds.append(clocked(function, arguments)[0])
        row = {"operation": "dense, edges", "direction": direction, "flops": count * x.size * width, "torch": None}
        yield row | {"bytes": size_of(arguments) + x.nbytes, **quartiles(seconds[5:])}


def quartiles(seconds):
    low, median, high = (float(value) for value in np.percentile(seconds, [25, 50, 75]))
    return {"median": median, "quartiles": [low, high], "n": len(seconds)}


def with_rates(row, speed):
    """The row with what it reaches of the machine's rates."""
    row["fraction_of_copy"] = row["bytes"] / row["median"] / 1e9 / speed["copy_gb_per_second"]
    row["fraction_of_sgemm"] = None
    if row["flops"] is not None:
        row["fraction_of_sgemm"] = row["flops"] / row["median"] / 1e9 / speed["sgemm_gflops"]
    return row


def line_of(row):
    low, high = (1e6 * value for value in row["quartiles"])
    gflops = "-" if row["flops"] is None else f"{row['flops'] / row['median'] / 1e9:.1f}"
    torch_time = "-" if row["torch"] is None else f"{1e6 * row['torch']:.1f}"
    name, bandwidth = f"{row['operation']} {row['direction']}", row["bytes"] / row["median"] / 1e9
    return (
        f"{name:28} {1e6 * row['median']:8.1f} {f'({low:.1f}, {high:.1f})':>16} {bandwidth:7.1f} "
        f"{100 * row['fraction_of_copy']:6.0f} % {gflops:>8} {torch_time:>11}"
    )


if __name__ == "__main__":
    main()
