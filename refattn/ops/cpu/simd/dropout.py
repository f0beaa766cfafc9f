"""The random bits of dropout by vectors; those of refattn.ops.random.scramble."""

from llvmlite import ir
from numba import types

from refattn.ops.cpu.simd import meaning
from refattn.ops.cpu.simd.kernel import vector_intrinsic
from refattn.ops.cpu.simd.vector import spread
from refattn.ops.random import MULTIPLIER_1_32, MULTIPLIER_2_32, STEP_32


@vector_intrinsic(meaning.drop)
def drop(typingctx, x, key, column, threshold, scale):
    def codegen(context, builder, signature, arguments):
        x, key, column, threshold, scale = arguments
        bits, integer = ir.IntType(32), ir.VectorType(ir.IntType(32), x.type.count)

        def every(value):
            return ir.Constant(integer, [value] * integer.count)

        low, high = builder.trunc(key, bits), builder.trunc(builder.lshr(key, key.type(32)), bits)
        low, high, threshold, column = (
            spread(builder, number, integer.count) for number in (low, high, threshold, builder.trunc(column, bits))
        )
        column = builder.add(column, ir.Constant(integer, list(range(integer.count))))
        state = builder.add(low, builder.mul(column, every(STEP_32)))
        state = builder.xor(state, builder.lshr(state, every(16)))
        state = builder.mul(state, every(MULTIPLIER_1_32))
        state = builder.xor(builder.xor(state, builder.lshr(state, every(15))), high)
        state = builder.mul(state, every(MULTIPLIER_2_32))
        state = builder.xor(state, builder.lshr(state, every(16)))
        kept = builder.icmp_unsigned(">=", builder.lshr(state, every(8)), threshold)
        return builder.select(kept, builder.fmul(x, spread(builder, scale, integer.count)), ir.Constant(x.type, None))

    return x(x, types.uint64, types.int64, types.uint32, x.dtype), codegen
