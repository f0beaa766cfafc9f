"""Matrix products inside kernels: BLAS's gemm, called from compiled code without the GIL.

A product of NumPy's costs a microsecond of Python and ends the kernel; called from inside, the rows that it makes are
still in the cache when the kernel goes on with them (a product whose arrays come from memory runs at 70 instead of 92
GFLOP/s, measured on one core of an AMD EPYC 7002).
"""

import ctypes
import functools

import numpy as np
import threadpoolctl
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

from refattn.jit import jit

ROUTINES = {"float32": "sgemm", "float64": "dgemm"}
SYMBOLS = ("scipy_{}_64_", "scipy_{}_", "{}_64_", "{}_")  # of NumPy's wheels, and of other builds of OpenBLAS


@functools.cache
def gemm_of(dtype):
    """Address of BLAS's gemm for float32 or float64: a number, so that the kernels that take it can be cached.

    The newest OpenBLAS that is loaded, as a rule NumPy's own; elsewhere what SciPy was built with. (OpenBLAS 0.3.31
    multiplies 64 rows at 90 GFLOP/s, 0.3.30, which SciPy 1.17 brings, at 68: measured as above.)
    """
    name = ROUTINES[np.dtype(dtype).name]
    loaded = [library for library in threadpoolctl.threadpool_info() if library["internal_api"] == "openblas"]
    for library in sorted(loaded, key=lambda library: library["version"] or "", reverse=True):
        handle = ctypes.CDLL(library["filepath"])
        for symbol in SYMBOLS:
            routine = getattr(handle, symbol.format(name), None)
            if routine:
                return np.uintp(ctypes.cast(routine, ctypes.c_void_p).value)
    return np.uintp(get_cython_function_address("scipy.linalg.cython_blas", name))


@intrinsic
def _gemm(typingctx, address, letters, sizes, strides, beta, c, a, b):
    """C = op(A) op(B) + beta C, column by column as Fortran has it.

    letters : (op(A), op(B)), the codes of N or T; sizes : (m, n, k); strides : from column to column, of A, B and C

    Sizes are handed over as 64-bit integers; a BLAS that reads 32 bits finds them too, in the lower half.
    """

    def codegen(context, builder, signature, arguments):
        address, letters, sizes, strides, beta, *arrays = arguments
        number = context.get_value_type(signature.args[4])

        def places(pack, kind):
            values = cgutils.unpack_tuple(builder, pack)
            if kind != values[0].type:
                values = [builder.trunc(value, kind) for value in values]
            return [cgutils.alloca_once_value(builder, value) for value in values]

        c, a, b = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args[5:], arrays, strict=True)
        )
        stride_a, stride_b, stride_c = places(strides, ir.IntType(64))
        one, beta = (cgutils.alloca_once_value(builder, value) for value in (ir.Constant(number, 1.0), beta))
        order = [*places(letters, ir.IntType(8)), *places(sizes, ir.IntType(64))]
        order += [one, a, stride_a, b, stride_b, beta, c, stride_c]
        routine = ir.FunctionType(ir.VoidType(), [value.type for value in order])
        builder.call(builder.inttoptr(address, routine.as_pointer()), order)
        return context.get_dummy_value()

    return types.none(address, letters, sizes, strides, beta, c, a, b), codegen


N, T = ord("N"), ord("T")


@jit
def add_product(gemm, c, a, b, beta):
    """c = a b + beta c for (M, K), (K, N) arrays with contiguous rows. BLAS sees c^T = b^T a^T.

    gemm : address from gemm_of, for the type of the arrays, which beta has too
    """
    _gemm(gemm, (N, N), (b.shape[1], a.shape[0], a.shape[1]), (b.shape[1], a.shape[1], c.shape[1]), beta, c, b, a)


@jit
def add_product_transposed(gemm, c, a, b, beta):
    """c = a b^T + beta c for (M, K), (N, K)."""
    _gemm(gemm, (T, N), (b.shape[0], a.shape[0], a.shape[1]), (b.shape[1], a.shape[1], c.shape[1]), beta, c, b, a)


@jit
def add_transposed_product(gemm, c, a, b, beta):
    """c = a^T b + beta c for (K, M), (K, N)."""
    _gemm(gemm, (N, T), (b.shape[1], a.shape[1], a.shape[0]), (b.shape[1], a.shape[1], c.shape[1]), beta, c, b, a)
