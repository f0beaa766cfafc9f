"""What a training step would take on an H200, from the bytes and operations of its real sequence of launches.

Nothing here was measured: `python benchmarks/gpu.py --predict` counts, on any machine, what benchmarks/gpu.py measures
where there is a GPU.
"""

import collections
import dataclasses

import numpy as np
from gpu_report import table
from gpu_stages import random_graphs
from ledger import Ledger

from refattn.config import Config, DataConfig, GraphConfig, TrainingConfig
from refattn.experiments import load_experiment
from refattn.network.params import initialise
from refattn.ops import load_backend
from refattn.ops.cuda import launch
from refattn.training.adam import Adam
from refattn.training.cuda_stepper import CudaStepper, filled_up
from refattn.training.targets import Targets

# H200 SXM, NVIDIA's data sheet: 4.8 TB/s and 67 TFLOP/s of float32 without tensor cores.
BANDWIDTH, FLOAT32 = 4.8e12, 67e12
# What is assumed, not known: a kernel that streams reaches 0.85 of the bandwidth, a product of width 128 reaches 0.7 of
# the arithmetic, and a launch inside a graph takes at least 2.5 µs from the end of the one before it to its own.
STREAMS, MULTIPLIES, LAUNCH = 0.85, 0.7, 2.5e-6
BLOCKS = 2112  # of the launches on a GPU; the simulator has two
GROUPS = {"product": "products (cuBLAS)", "library": "elementwise kernels of CuPy"}
TEXT = """# A training step on one H200, predicted

No number on this page was measured. No GPU was at hand when the CUDA backend was written, so this page predicts from
the code what `python benchmarks/gpu.py DATA.h5 --out FOLDER` will measure. `python benchmarks/gpu.py --predict` made
it.

## What was run, and where

- In Numba's CUDA simulator, on every run of the tests: every kernel against the reference in float64 and float32; the
  gathering of batches, loss, Adam, dropout keys (to the bit); training, resumption between devices, prediction,
  explanation, embedding; the gradient check of operations and networks; the arguments that cuBLAS is given, by reading
  the matrices as it would.
- With the toolchain of CUDA 13 (numba-cuda 0.30.4, NumPy 2.5, ptxas 13.0), without a GPU, by
  `python benchmarks/gpu_compile.py`: every kernel of a step compiles for sm_90 in float32 and float64, no register is
  spilled and, in float32, there is no arithmetic in float64 but for the sum of the loss. Most kernels of float32 take
  22 to 61 registers, the gathering 88, local attention 80 forward and 118 backward.
- On hardware: nothing. cuBLAS, captured graphs, the memory that they keep, TF32, and every time are untested, and so is
  the goal of twice PyTorch's speed.

## What is assumed

QM9's molecules: 18 sites, {edges} edges a site. Bytes are those of each array that a kernel is given, once; rows of
sites that are read once for each edge, and second readings, are taken to come from the cache (50 MB on an H200, which
at batch 128 holds whole arrays: there bytes count less than is assumed). An H200 has 4.8 TB/s and 67 TFLOP/s of float32
without tensor cores (NVIDIA's data sheet). A kernel takes the longest of

- its bytes at {streams:.0%} of the bandwidth,
- its operations at {multiplies:.0%} of the arithmetic (products only),
- {launch} µs, one launch inside a graph.

"At best" is the same with all of the bandwidth and arithmetic, and 1 µs a launch. Products dominate. Those for the
gradients of weights, (128, E) (E, 128), leave few blocks to a GPU unless cuBLAS splits the sum over E; where it does
not, batch 128 takes longer than is predicted.
"""


def counted(variant, batch_size):
    """The Ledger of a training step of the published network for QM9, and the Size of its batch."""
    model = dataclasses.replace(load_experiment("qm9").model, variant=variant)
    config = Config(model, GraphConfig(), DataConfig(), TrainingConfig(batch_size=batch_size))
    graphs, params = random_graphs(batch_size), initialise(model, 0)
    adam, rows = Adam(params.vector, params.decay_mask(), config.training), np.arange(batch_size)
    label, blocks, launch.MAX_BLOCKS = np.zeros(batch_size, np.float32), launch.MAX_BLOCKS, BLOCKS
    try:
        with Ledger():
            stepper = CudaStepper(config, load_backend("cuda"), graphs, rows, Targets(label[:, None]), params, adam)
            stepper.begin([rows], [1e-3])
        with Ledger() as ledger:
            stepper.step(0)
    finally:
        launch.MAX_BLOCKS = blocks
    return ledger, filled_up(stepper.data.size(rows))


def predicted(entry, streams=STREAMS, multiplies=MULTIPLIES, launch_time=LAUNCH):
    """Seconds of one launch."""
    return max(entry.bytes / (streams * BANDWIDTH), entry.operations / (multiplies * FLOAT32), launch_time)


def prediction():
    """The text of benchmarks/results/gpu.md."""
    lines, rows, details = [TEXT.format(edges=4.3, streams=STREAMS, multiplies=MULTIPLIES, launch=LAUNCH * 1e6)], [], []
    for variant in ("scann+", "scann"):
        for batch_size in (128, 1024):
            ledger, size = counted(variant, batch_size)
            taken, best = (sum(predicted(entry, *how) for entry in ledger.entries) for how in ((), (1, 1, 1e-6)))
            moved, operations = (sum(getattr(e, what) for e in ledger.entries) for what in ("bytes", "operations"))
            rows.append((
                variant.upper(), batch_size, f"{size.n_sites:,}", f"{size.n_edges:,}", len(ledger.entries),
                f"{moved / 1e9:.2f}", f"{operations / 1e9:.0f}", f"{ledger.peak_bytes / 1e9:.2f}", f"{taken * 1e3:.2f}",
                f"{best * 1e3:.2f}", f"{taken * 110_000 / batch_size:.1f}",
            ))  # fmt: skip
            details += ["", f"## {variant.upper()}, batch {batch_size:,}: by kernel", "", *by_kernel(ledger)]
    head = ("network", "batch", "sites", "edges", "launches", "GB", "GFLOP", "work arrays, GB", "ms a step")
    lines += ["## The prediction", "", *table((*head, "at best, ms", "110,000 molecules, s"), rows)]
    return "\n".join(lines + details) + "\n"


def by_kernel(ledger):
    """A table of the launches of each kernel, those that take longest first."""
    groups = collections.defaultdict(list)
    for entry in ledger.entries:
        groups[GROUPS.get(entry.kind, entry.name)].append(entry)
    rows = []
    for name, entries in groups.items():
        moved, operations = (sum(getattr(entry, what) for entry in entries) for what in ("bytes", "operations"))
        rows.append((name, len(entries), moved, operations, sum(map(predicted, entries))))
    rows.sort(key=lambda row: -row[-1])
    shown = [(name, n, f"{b / 1e6:.1f}", f"{o / 1e9:.1f}", f"{t * 1e6:.0f}") for name, n, b, o, t in rows]
    return table(("kernel", "launches", "MB", "GFLOP", "predicted, µs"), shown)
