"""Compile the kernels of a training step for a GPU that is not there: python benchmarks/gpu_compile.py

Needs numba-cuda with its compiler (pip install 'numba-cuda[cu13]') and neither a GPU nor CuPy, for which NumPy stands
in. The launches of steps in float32 and float64, of both variants, are written down (benchmarks/ledger.py), and
each kernel is compiled for the types that it was given: to PTX, in which arithmetic of float64 in a float32 kernel
shows, and, where ptxas of the CUDA toolkit is at hand, to machine code, in which registers and spilled ones show. The
exit status is 1 when a register is spilled, when the threads of the widest row have not enough of them, or when a
kernel of float32 other than the sum of the loss computes in float64.
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

REGISTERS = 65_536  # of a block
TEXT = {"capture_output": True, "text": True}
IN_FLOAT64 = ("_loss_kernel", "_shard_loss_kernel", "_attention_kernel")  # kernels that sum in float64 on purpose


def stand_in_for_cupy():
    """NumPy under CuPy's name, as far as a step under a Ledger asks for it."""
    cupy = types.ModuleType("cupy")
    vars(cupy).update({name: getattr(np, name) for name in dir(np) if not name.startswith("__")})
    memory = types.SimpleNamespace(OutOfMemoryError=MemoryError)
    cupy.asnumpy, cupy.cuda = np.asarray, types.SimpleNamespace(memory=memory, Stream=contextlib.nullcontext)
    cupy.cuda.using_allocator = lambda malloc: contextlib.nullcontext()
    cupy.cuda.MemoryPool = lambda malloc: types.SimpleNamespace(malloc=malloc)
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(malloc=None)
    return cupy


def signatures():
    """(kernel, types of its arguments as a Ledger writes them, name of the float type) of every launch."""
    from gpu_stages import SMALL, random_graphs
    from ledger import Ledger

    from refattn.config import Config, DataConfig, GraphConfig, ModelConfig, TrainingConfig
    from refattn.network.params import initialise
    from refattn.ops import load_backend
    from refattn.training.adam import Adam
    from refattn.training.cuda_shards import CudaShardStepper
    from refattn.training.cuda_stepper import CudaStepper
    from refattn.training.targets import Targets

    found = set()
    for dtype in ("float32", "float64"):
        for variant, head, attention in (("scann+", "published", {}), ("scann", "additive", {"b": "population"})):
            model = ModelConfig(variant=variant, head=head, attention_dropout=0.1, **SMALL)
            data = DataConfig(target=["a", "b"] if attention else "a")
            training = TrainingConfig(batch_size=4, dtype=dtype, attention=attention)
            config = Config(model, GraphConfig(), data, training)
            graphs, params = random_graphs(4), initialise(config.model, 0, dtype)
            adam, rows = Adam(params.vector, params.decay_mask(), config.training), np.arange(4)
            n_targets, ops = config.model.n_targets, load_backend("cuda")
            targets = Targets(np.zeros((4, n_targets), dtype), np.ones((len(graphs.z), n_targets), dtype))
            for kind in (CudaStepper, CudaShardStepper):
                with Ledger():
                    stepper = kind(config, ops, graphs, rows, targets, params, adam)
                    stepper.begin([rows], [1e-3])
                    stepper.replays.capture = False
                with Ledger() as ledger:
                    stepper.step(0)
                found |= {(kernel, own, dtype) for kernel, several in ledger.signatures.items() for own in several}
    return sorted(found, key=lambda entry: (entry[0].py_func.__name__, *entry[1:]))


def numba_type(name):
    """Numba's type for one of the Ledger's names, such as "float32 2C" or "int"."""
    from numba.cuda import types as numba

    scalars = {"int": numba.int64, "bool": numba.boolean}
    array = re.fullmatch(r"(\w+) (\d)([CA])", name)
    if array:
        return numba.Array(getattr(numba, array[1]), int(array[2]), array[3])
    return scalars.get(name) or getattr(numba, name)


def compiled(kernel, signature, capability, ptxas, folder):
    """PTX of a kernel, and what ptxas says of its machine code: registers and bytes spilled, or None without ptxas."""
    from numba import cuda

    ptx, _ = cuda.compile_ptx(kernel.py_func, tuple(map(numba_type, signature)), cc=capability)
    if not ptxas:
        return ptx, None
    path = Path(folder) / "kernel.ptx"
    # numba-cuda's compiler may be newer than ptxas, and writes its version (that of CUDA less 4) into the head
    toolkit = re.search(r"release (\d+)\.(\d+)", subprocess.run([ptxas, "--version"], **TEXT).stdout)
    path.write_text(re.sub(r"\.version [\d.]+", f".version {int(toolkit[1]) - 4}.{toolkit[2]}", ptx))
    options = f"-arch=sm_{capability[0]}{capability[1]}", "-v", "-o", path.with_suffix(".cubin")
    said = subprocess.run([ptxas, *options, path], check=True, **TEXT).stderr
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
    return ptx, (int(re.search(r"Used (\d+) registers", said)[1]), spilled)


def main():
    """Print a line for each kernel; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", default="9.0", help="of the GPU; 9.0 is an H100 or H200")
    capability = tuple(map(int, parser.parse_args().capability.split(".")))
    import numba.cuda.dispatcher
    from numba import cuda

    sys.modules["cupy"] = stand_in_for_cupy()
    cuda.is_available = lambda: True
    numba.cuda.dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
    from refattn.ops.cuda.launch import MAX_THREADS

    ptxas, wrong = shutil.which("ptxas"), []
    with tempfile.TemporaryDirectory() as folder:
        for kernel, signature, dtype in signatures():
            name = kernel.py_func.__name__
            ptx, code = compiled(kernel, signature, capability, ptxas, folder)
            in_float64 = len(re.findall(r"\.f64", ptx)) if dtype == "float32" else 0
            too_many = code and -(-code[0] // 8) * 8 * MAX_THREADS > REGISTERS
            if (in_float64 and name not in IN_FLOAT64) or (code and code[1]) or too_many:
                wrong.append(name)
            registers = f"{code[0]:4} registers, {code[1]} bytes spilled" if code else "no ptxas"
            print(f"{name:42} {dtype}  {registers}, {in_float64} of float64")
    print(f"not as they should be: {', '.join(wrong)}" if wrong else "all as they should be")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
