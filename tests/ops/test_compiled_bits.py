"""The run that compiles gives the bits of those that load what it compiled."""

import os
import subprocess
import sys
from pathlib import Path

from refattn.ops.cpu import global_attention

HASH_ALL_OPERATIONS = """
import hashlib, sys, test_ops as t
from numba.core.registry import CPUDispatcher
digest = hashlib.sha256()
for operation in t.ON_CPU:
    inputs = t.make_inputs(operation, t.big_graph(), **t.PUBLISHED)
    t.check_float32(operation, inputs, operation.name)
    for array in t.run_all(operation, t.as_float32(inputs), t.CPU).values():
        digest.update(b"" if array is None else array.tobytes())
modules = [module for name, module in sys.modules.items() if name.startswith("refattn.ops.cpu.")]
kernels = {each for module in modules for each in vars(module).values() if isinstance(each, CPUDispatcher)}
compiled = sum(kernel.stats.cache_misses.total() for kernel in kernels)
loaded = sum(kernel.stats.cache_hits.total() for kernel in kernels)
print(digest.hexdigest(), compiled, loaded)
"""


def test_the_run_that_compiles_gives_the_bits_of_those_that_load_the_cache(tmp_path):
    """A helper that is called, and not copied into its kernel, may be compiled in another way there (see jit.py).

    With heads of the published size, which are held to the reference here. What is compiled is kept for the other
    tests, unless they have compiled before.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    kept = Path(global_attention._global_attention_forward_kernel._cache.cache_path)
    if any(kept.glob("*.nbi")):
        environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", HASH_ALL_OPERATIONS]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    (first, compiled, loaded), (again, missing, found) = (run.stdout.split() for run in runs)
    assert first == again and len(first) == 64
    assert int(compiled) > 2 * int(loaded)  # some come before others, or are compiled beside this test
    assert missing == "0" != found
