"""What the benchmarks share: rates of the machine, counts of operations, statistics, the machine's name."""

import json
import os
import platform
import subprocess
import sys

import numpy as np

from refattn.common.environment import available_cores, processor, versions
from refattn.ops.cpu.simd.vector import BYTES

# Each thread multiplies arrays of its own, so that the rate of several is what several threads of refattn could reach.
RATES = """
import concurrent.futures, json, sys, time
import numpy as np
n = int(sys.argv[1])
work = []
for _ in range(n):
    a, b = np.ones((4096, 128), "f"), np.ones((128, 128), "f")
    work.append((a, b, np.empty((4096, 128), "f"), np.ones(2**23, "f"), np.ones(2**23, "f")))
product = lambda w: [np.matmul(w[0], w[1], out=w[2]) for _ in range(10)]
copy = lambda w: np.copyto(w[4], w[3])
with concurrent.futures.ThreadPoolExecutor(n) as pool:
    def best(f):
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            list(pool.map(f, work))
            seconds.append(time.perf_counter() - began)
        return min(seconds)
    s, d = best(product), best(copy)
print(json.dumps([n * 20 * 4096 * 128 * 128 / s / 1e9, n * 2 * work[0][3].nbytes / d / 1e9]))
"""


def rates(n_threads):
    """Best GFLOP/s of products (4096, 128) (128, 128), and best GB/s of a copy, reading and writing counted.

    In a process of its own, with NumPy's BLAS on one thread for each of `n_threads` threads.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RATES, str(n_threads)]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    sgemm, copy = json.loads(answer)
    return {"sgemm_gflops": sgemm, "copy_gb_per_second": copy}


def faster(a, b):
    """The better of two measurements of `rates`: what a fraction is taken of must not be a slow moment's rate."""
    return {name: max(a[name], b[name]) for name in a}


def operations(config, n_structures, n_sites, n_edges):
    """Floating-point operations (2 for a multiply-add) with the fewest products that the mathematics needs.

    Only products of matrices are counted; D width, G radial functions, H heads, W global width.

    Once          site: embedding D; edge, SCANN+: distance and angle, 2 G D
    Every layer   edge: filter, D D (SCANN: G D); site: two products of the filter (SCANN+ only), query, two of the
                  residual block, D D each; key: the smaller of D D an edge, and two head products, 2 D D a site, with
                  2 H D an edge to use them (docs/design.md section 3, first identity)
    At the end    site: D W + 2 W W; structure: W times head width, and head width
    Backward      twice the same, once by the inputs and once by the weights; but only once for those whose inputs
                  are the Gaussians of r and omega, which need no gradient
    Inference     the embedding and the first layer's query and parts of the filter are the same for all sites of an
                  element, and not counted

    Returns
    -------
    dict with `forward` and `step`, numbers of operations for such a batch
    """
    d, g, wide = config.width, config.n_radial, config.global_width
    plus = config.variant == "scann+"
    key = min(n_edges * d * d, 2 * n_sites * d * d + 2 * n_edges * config.n_heads * d)
    of_site = (2 if plus else 0) + 1 + (2 if config.residual else 0)
    layer = n_sites * of_site * d * d + key + (n_edges * d * d if plus else 0)
    read_out = n_sites * (d * wide + 2 * wide * wide) + n_structures * config.head_width * (wide + 1)
    deep = n_sites * config.embedding_width * d + config.n_layers * layer + read_out
    gaussians = 2 * g + config.angular_width if plus else config.n_layers * (g + config.angular_width)
    first = n_edges * d * gaussians
    alike = n_sites * d * (config.embedding_width + d * (3 if plus else 1)) if alike_by_element(config) else 0
    return {"forward": 2 * (deep + first - alike), "step": 2 * (3 * deep + 2 * first)}


def alike_by_element(config):
    """Whether sites of an element begin alike: with a row of the element table, and nothing else."""
    return config.features == "atomic" and not config.ring


def summary(seconds, n_structures):
    """Median and quartiles of times in s, how many there are, and structures per second at the median."""
    low, median, high = (float(value) for value in np.percentile(seconds, [25, 50, 75]))
    rate = n_structures / median
    return {"median": median, "quartiles": [low, high], "n": len(seconds), "structures_per_second": rate}


def machine():
    """Processor, bits of its registers, cores and versions, for the record that a benchmark writes."""
    facts = {"processor": processor(), "register_bits": 8 * BYTES, "cores": available_cores()}
    return {**facts, "system": platform.system(), "versions": versions()}


def write_record(path, record):
    """Write a benchmark's record, with the machine, as JSON; the file appears complete or not at all."""
    part = f"{path}.part"
    with open(part, "w", encoding="utf-8") as stream:
        json.dump({"machine": machine(), **record}, stream, indent=1)
        stream.write("\n")
    os.replace(part, path)
