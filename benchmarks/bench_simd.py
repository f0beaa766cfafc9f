"""What gemm.py buys: training steps with its products, and with those of SciPy's BLAS called in the same kernels.

    python benchmarks/bench_simd.py --variants scann+ scann --registers 64 32

Three ways to multiply take turns, each in a process of its own with one thread: gemm.py; BLAS for every product; BLAS,
but loops over vectors for the products of a single site, which are too small for a call. A step is a batch of 128
made-up structures of QM9's size, at the published size of the network, in float32. Times are those of the processor,
not of the clock, because other programs may run beside. Every process compiles the kernels anew: minutes.

--registers 32 compiles for Haswell and has OpenBLAS run its kernels for it: what a processor without AVX-512 does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types

import numpy as np

PRODUCTS = ("gemm", "blas", "blas and loops")
TURN = 2  # steps of a process before the next one has its turn
SAME = 1e-4  # of the largest gradient: how far the ways may differ, by the order of float32 sums
HASWELL = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma", "OPENBLAS_CORETYPE": "Haswell"}


def main():
    """Print, for each variant and size of registers, the seconds of a step each way, and ratios to gemm.py's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["scann+", "scann"], choices=["scann+", "scann"])
    parser.add_argument("--registers", nargs="+", type=int, default=[64, 32], choices=[64, 32], help="bytes")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    for register_bytes in arguments.registers:
        for variant in arguments.variants:
            compare(variant, register_bytes, arguments.rounds)


def compare(variant, register_bytes, rounds):
    """Start a process for each way, let them take turns, and print a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        workers = [start(products, variant, register_bytes, f"{folder}/{n}") for n, products in enumerate(PRODUCTS)]
        norms = [json.loads(worker.stdout.readline()) for worker in workers]
        if max(abs(norm / norms[0] - 1) for norm in norms) > SAME:
            sys.exit(f"the ways do not compute the same gradient: norms {norms}")
        seconds = np.array([[turn(worker) for worker in workers] for _ in range(rounds)])  # (rounds, ways)
        for worker in workers:
            worker.stdin.close()
            worker.wait()
    for products, own, ratio in zip(PRODUCTS, seconds.T, (seconds / seconds[:, :1]).T, strict=True):
        low, median, high = np.percentile(ratio, [25, 50, 75])
        print(
            f"{variant:6} {8 * register_bytes} bits  {products:14} {1e3 * np.median(own):6.1f} ms a step, "
            f"{median:.3f} times gemm's (quartiles {low:.3f}, {high:.3f})",
            flush=True,
        )


def start(products, variant, register_bytes, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "OPENBLAS_NUM_THREADS": "1"}
    if register_bytes == 32:
        environment |= HASWELL
    command = [sys.executable, __file__, "--worker", products, variant, str(register_bytes)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turn(worker):
    """Processor seconds of one step of a worker, mean over a turn."""
    worker.stdin.write("\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def work(products, variant, register_bytes):
    """Answer every line with the processor seconds of a step; the first answer is the norm of the gradient."""
    from refattn.ops.cpu.simd import vector

    vector.BYTES = int(register_bytes)
    if products != "gemm":
        multiply_by_blas(loops=products != "blas")
    from refattn.benchmarks import synthetic  # only now, because kernels take their products when they are imported
    from refattn.benchmarks.peers.own import Own
    from refattn.network.params import initialise

    config = synthetic.network(variant=variant)
    source = synthetic.source(config)
    own = Own(config, initialise(config.model, 0), source)
    _, gradient = own.gradient(types.SimpleNamespace(rows=source.known))
    print(float(np.sqrt(sum((array.astype(float) ** 2).sum() for array in gradient.values()))), flush=True)
    own.train(source.known)
    for _ in sys.stdin:
        began = time.thread_time()
        for _ in range(TURN):
            own.train(source.known)
        print((time.thread_time() - began) / TURN, flush=True)


def multiply_by_blas(loops):
    """Replace the functions of gemm.py, before a kernel imports them, by calls of SciPy's sgemm."""
    from refattn.ops.cpu.simd import gemm
    from refattn.ops.cpu.simd.kernel import kernel
    from refattn.ops.cpu.simd.vector import lanes_for, load, row_view, store, zeros

    sgemm, lanes = blas_product(), lanes_for(128, np.float32)

    @kernel
    def pack(panels, b):
        n_columns = b.shape[1]
        for k in range(b.shape[0]):
            for n in range(n_columns):
                panels[k * n_columns + n] = b[k, n]

    @kernel
    def multiply(c, start, a, panels):
        if start is None:
            beta = np.float32(0)
        else:
            beta = np.float32(1)
            begin_with(c, start)
        if panels.ndim == 1:
            sgemm(c, a, panels[: a.shape[1] * c.shape[1]].reshape((a.shape[1], c.shape[1])), beta)
        else:
            sgemm(c, a, panels, beta)

    @kernel
    def begin_with(c, start):
        """c = start, where start is a row for all rows; else it is c itself in all kernels."""
        if start.ndim == 1:
            for m in range(c.shape[0]):
                for n in range(c.shape[1]):
                    c[m, n] = start[n]

    @kernel
    def add_transposed_product(c, a, b, panels):
        sgemm(c, a.T, b, np.float32(1))

    @kernel
    def multiply_few_by_blas(c, a, b):
        sgemm(c, a, b, np.float32(0))

    @kernel(fastmath=True)
    def multiply_few_by_loops(c, a, b):
        for m in range(len(c)):
            row = row_view(c, m)
            for n in range(0, len(row), len(lanes)):
                total = zeros(row, lanes)
                for k in range(len(b)):
                    total = total + a[m, k] * load(row_view(b, k), n, lanes)
                store(row, n, total)

    gemm.pack, gemm.multiply, gemm.add_transposed_product = pack, multiply, add_transposed_product
    gemm.multiply_few = multiply_few_by_loops if loops else multiply_few_by_blas


def blas_product():
    """An intrinsic sgemm(c, a, b, beta): c = a b + beta c for matrices of which one axis is contiguous."""
    import llvmlite.binding
    import numba
    from llvmlite import ir
    from numba.core import cgutils
    from numba.extending import get_cython_function_address, intrinsic

    llvmlite.binding.add_symbol("scipy_sgemm", get_cython_function_address("scipy.linalg.cython_blas", "sgemm"))
    integer, pointer = ir.IntType(32), ir.IntType(8).as_pointer()

    @intrinsic
    def sgemm(typingctx, c, a, b, beta):
        def codegen(context, builder, signature, arguments):
            matrices = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args, arguments[:3], strict=False)
            ]

            def address(value):
                return builder.bitcast(cgutils.alloca_once_value(builder, value), pointer)

            def layout(matrix):
                """For BLAS, which counts down the columns: is it transposed, and the numbers from line to line."""
                outer, inner = cgutils.unpack_tuple(builder, matrix.strides)
                n_rows, n_columns = cgutils.unpack_tuple(builder, matrix.shape)
                single = builder.icmp_signed("==", n_columns, inner.type(1))  # whose strides mean nothing
                by_rows = builder.or_(single, builder.icmp_signed("==", inner, inner.type(4)))
                letter = builder.select(by_rows, ir.IntType(8)(ord("N")), ir.IntType(8)(ord("T")))
                step = builder.sdiv(builder.select(by_rows, outer, inner), inner.type(4))
                fewest = builder.select(by_rows, n_columns, n_rows)
                step = builder.select(builder.icmp_signed("<", step, fewest), fewest, step)
                return address(letter), address(builder.trunc(step, integer))

            c, a, b = matrices
            rows, columns = (builder.trunc(n, integer) for n in cgutils.unpack_tuple(builder, c.shape))
            depth = builder.trunc(cgutils.unpack_tuple(builder, a.shape)[1], integer)
            (of_a, step_a), (of_b, step_b), (_, step_c) = layout(a), layout(b), layout(c)
            one = address(ir.Constant(ir.FloatType(), 1.0))
            data_a, data_b, data_c = (builder.bitcast(matrix.data, pointer) for matrix in (a, b, c))
            sizes = [address(size) for size in (columns, rows, depth)]
            routine = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [pointer] * 13), "scipy_sgemm"
            )
            factors = [one, data_b, step_b, data_a, step_a, address(arguments[3]), data_c, step_c]
            builder.call(routine, [of_b, of_a, *sizes, *factors])
            return context.get_dummy_value()

        return numba.types.none(c, a, b, numba.types.float32), codegen

    return sgemm


if __name__ == "__main__":
    main()
