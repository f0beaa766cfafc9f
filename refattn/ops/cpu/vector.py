"""Short rows as vectors: what LLVM's loop vectoriser leaves scalar, because a head's 16 channels are too few for it.

`lanes` is a tuple, whose length the compiler knows: the instructions are those for that many numbers. (Scores and
weighted sums of 600 edges with 8 heads of 16 channels: 110 us as loops, 30 us as vectors; AMD EPYC 7002, float32.)
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

REORDER = ("reassoc", "contract", "arcp", "nsz")  # as in jit.py


def _vector(context, builder, kind, array, lanes):
    """Address of the first numbers of an array as a vector of `lanes` numbers."""
    number = context.get_value_type(kind.dtype)
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(data, ir.VectorType(number, len(lanes)).as_pointer()), number


def _load(context, builder, kind, array, lanes):
    address, number = _vector(context, builder, kind, array, lanes)
    return builder.load(address, align=context.get_abi_sizeof(number))


def _spread(builder, value, lanes):
    """A vector whose numbers are all `value`."""
    kind = ir.VectorType(value.type, len(lanes))
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), [0] * len(lanes))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


@intrinsic
def dot(typingctx, a, b, lanes):
    """sum_c a[c] b[c]."""

    def codegen(context, builder, signature, arguments):
        kind_a, kind_b, lanes = signature.args
        a, b = (
            _load(context, builder, kind, array, lanes)
            for kind, array in zip((kind_a, kind_b), arguments[:2], strict=True)
        )
        number = context.get_value_type(kind_a.dtype)
        name = f"llvm.vector.reduce.fadd.v{len(lanes)}{'f32' if kind_a.dtype == types.float32 else 'f64'}"
        routine = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(number, [number, a.type]), name
        )
        product = builder.fmul(a, b, flags=REORDER)
        return builder.call(routine, [ir.Constant(number, -0.0), product], fastmath=REORDER)

    return a.dtype(a, b, lanes), codegen


@intrinsic
def add_scaled(typingctx, y, factor, x, lanes):
    """y[c] += factor x[c]."""

    def codegen(context, builder, signature, arguments):
        kind_y, _, kind_x, lanes = signature.args
        y, factor, x, _ = arguments
        x = _load(context, builder, kind_x, x, lanes)
        address, number = _vector(context, builder, kind_y, y, lanes)
        align = context.get_abi_sizeof(number)
        product = builder.fmul(_spread(builder, factor, lanes), x, flags=REORDER)
        builder.store(builder.fadd(builder.load(address, align=align), product, flags=REORDER), address, align=align)
        return context.get_dummy_value()

    return types.none(y, factor, x, lanes), codegen


@intrinsic
def set_sum(typingctx, y, factor_a, a, factor_b, b, lanes):
    """y[c] = factor_a a[c] + factor_b b[c]."""

    def codegen(context, builder, signature, arguments):
        kind_y, _, kind_a, _, kind_b, lanes = signature.args
        y, factor_a, a, factor_b, b, _ = arguments
        terms = [
            builder.fmul(_spread(builder, factor, lanes), _load(context, builder, kind, array, lanes), flags=REORDER)
            for factor, kind, array in ((factor_a, kind_a, a), (factor_b, kind_b, b))
        ]
        address, number = _vector(context, builder, kind_y, y, lanes)
        builder.store(builder.fadd(*terms, flags=REORDER), address, align=context.get_abi_sizeof(number))
        return context.get_dummy_value()

    return types.none(y, factor_a, a, factor_b, b, lanes), codegen
