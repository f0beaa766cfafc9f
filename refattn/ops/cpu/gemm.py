"""Matrix products inside kernels, blocked by hand for the registers of the processor.

The right factor is packed into panels, two vectors wide, so that the innermost loop reads one number after the other.
There ROWS rows of the result, two vectors each, stay in registers while all their products are added up: (128, 128)
(128, 128) in float32 runs at 98 GFLOP/s on one core of an AMD EPYC 7002, whose multiply-adds end at 107; NumPy's
OpenBLAS makes 89 of it. What a product has written is still in the cache when the kernel that asked for it goes on.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from refattn.ops.cpu.kernel import kernel
from refattn.ops.cpu.memory import empty
from refattn.ops.cpu.vector import lanes_of, load_at, spread, store_at

ROWS = 6  # with two vectors each 12 sums: with one number and two vectors of the factors they fill 16 registers
BLOCK = 16 * ROWS  # rows of the left factor that stay in the cache while the panels pass


def room_for(depth, columns, dtype):
    """Work array for the panels of a (depth, columns) factor, and ROWS rows of a product with the last one.

    For a smaller factor a part of it is enough.
    """
    wide = 2 * len(lanes_of(dtype))
    return empty(((-(-columns // wide) * depth + ROWS) * wide,), dtype)


def _lanes_by_type(array):
    """lanes_of the type of an array, inside kernels."""


@overload(_lanes_by_type, inline="always")
def _lanes(array):
    lanes = lanes_of(array.dtype.name)
    return lambda array: lanes


@kernel
def pack(panels, b):
    """Panels of b (K, N), or of a transposed array, into a work array of room_for: numbers k, n of panel p in order."""
    lanes = _lanes_by_type(b)
    depth, columns, wide = b.shape[0], b.shape[1], 2 * len(lanes)
    whole, at = columns - columns % wide, 0
    for first in range(0, whole, wide):
        for k in range(depth):
            _copy_row(panels, at, b, k, first, lanes)
            at += wide
    if columns > whole:
        for k in range(depth):
            for n in range(wide):
                panels[at + n] = b[k, whole + n] if whole + n < columns else 0
            at += wide


@intrinsic
def _copy_row(typingctx, panels, at, b, k, first, lanes):
    """panels[at + n] = b[k, first + n] for two vectors."""

    def codegen(context, builder, signature, arguments):
        kind_panels, _, kind_b, *_, lanes = signature.args
        panels, at, b, k, first, _ = arguments
        panels, b = (context.make_array(kind)(context, builder, a) for kind, a in ((kind_panels, panels), (kind_b, b)))
        align = context.get_abi_sizeof(b.data.type.pointee)
        row, column = (
            builder.mul(index, builder.sdiv(step, ir.Constant(step.type, align)))
            for index, step in zip((k, first), cgutils.unpack_tuple(builder, b.strides), strict=True)
        )
        source, target = builder.gep(b.data, [builder.add(row, column)]), builder.gep(panels.data, [at])
        if kind_b.layout == "C":
            for half in (0, len(lanes)):
                offset = [ir.Constant(at.type, half)]
                vector = load_at(builder, builder.gep(source, offset), len(lanes), align)
                store_at(builder, vector, builder.gep(target, offset), align)
        else:
            step = builder.sdiv(cgutils.unpack_tuple(builder, b.strides)[1], ir.Constant(at.type, align))
            for n in range(2 * len(lanes)):
                n = ir.Constant(at.type, n)
                builder.store(builder.load(builder.gep(source, [builder.mul(n, step)])), builder.gep(target, [n]))
        return context.get_dummy_value()

    return types.none(panels, at, b, k, first, lanes), codegen


@kernel
def multiply(c, start, a, panels):
    """c = start + a b, b (K, N) packed in `panels`.

    Parameters
    ----------
    c : (M, N); a : (M, K), which may be a transposed array
    start : None for 0, (N,) for the same row everywhere, or (M, N), which may be c itself
    """
    lanes = _lanes_by_type(c)
    (n_rows, columns), wide = c.shape, 2 * len(lanes)
    for first in range(0, n_rows, BLOCK):
        last = min(first + BLOCK, n_rows)
        for p in range(columns // wide):
            m = first
            while m < last:
                m += _multiply_rows(c, start, a, panels, m, p, last - m)
    if columns % wide:
        _multiply_rest(c, start, a, panels, wide)


@kernel
def add_transposed_product(c, a, b, panels):
    """c += a^T b for c (M, N), a (K, M), b (K, N); panels : work array of room_for(K, N)."""
    pack(panels, b)
    multiply(c, c, a.T, panels)


@kernel(inline=True)
def _multiply_rows(c, start, a, panels, m, p, left):
    """The next block of rows of multiply, of `left` that are left; returns their number.

    Five until blocks of six fit, because small blocks leave the processor waiting for their sums.
    """
    lanes = _lanes_by_type(c)
    if left % ROWS == 0:
        _multiply_block(c, start, a, panels, m, p, (0,) * 6, lanes)
        return 6
    if left >= 5:
        _multiply_block(c, start, a, panels, m, p, (0,) * 5, lanes)
        return 5
    if left == 4:
        _multiply_block(c, start, a, panels, m, p, (0,) * 4, lanes)
    elif left == 3:
        _multiply_block(c, start, a, panels, m, p, (0,) * 3, lanes)
    elif left == 2:
        _multiply_block(c, start, a, panels, m, p, (0,) * 2, lanes)
    else:
        _multiply_block(c, start, a, panels, m, p, (0,), lanes)
    return left


@kernel
def _multiply_rest(c, start, a, panels, wide):
    """The columns that fill no panel: all of the last panel, of which that part is taken over."""
    (n_rows, columns), depth = c.shape, a.shape[1]
    first = columns - columns % wide
    panel, product = panels[first * depth :], panels[len(panels) - ROWS * wide :].reshape((ROWS, wide))
    for m in range(0, n_rows, ROWS):
        rows = min(ROWS, n_rows - m)
        _multiply_rows(product, None, a[m : m + rows], panel, 0, 0, rows)
        for r in range(rows):
            for n in range(first, columns):
                c[m + r, n] = _begin(start, c, m + r, n) + product[r, n - first]


def _begin(start, c, m, n):
    """What c[m, n] begins with; see multiply."""


@overload(_begin, inline="always")
def _begin_by_type(start, c, m, n):
    if isinstance(start, types.NoneType):
        return lambda start, c, m, n: c.dtype.type(0)
    if start.ndim == 1:
        return lambda start, c, m, n: start[n]
    return lambda start, c, m, n: start[m, n]


@intrinsic
def _multiply_block(typingctx, c, start, a, panels, m, p, rows, lanes):
    """Rows m and following, as many as `rows` is long, of c = start + a b, in the columns of panel p."""

    def codegen(context, builder, signature, arguments):
        kind_c, kind_start, kind_a, kind_panels, *_, rows, lanes = signature.args
        c, start, a, panels, m, p, *_ = arguments
        lanes, align = len(lanes), context.get_abi_sizeof(context.get_value_type(kind_c.dtype))
        c, a, panels = (
            context.make_array(kind)(context, builder, value)
            for kind, value in ((kind_c, c), (kind_a, a), (kind_panels, panels))
        )

        def steps(array):
            return [builder.sdiv(s, ir.Constant(s.type, align)) for s in cgutils.unpack_tuple(builder, array.strides)]

        every = [builder.add(m, ir.Constant(m.type, row)) for row in range(len(rows))]
        (row_of_c, _), (row_of_a, along), wide = steps(c), steps(a), ir.Constant(m.type, 2 * lanes)
        depth, column = cgutils.unpack_tuple(builder, a.shape)[1], builder.mul(p, wide)
        places = [builder.add(builder.mul(row, row_of_c), column) for row in every]
        if isinstance(kind_start, types.NoneType):
            zero = ir.Constant(ir.VectorType(c.data.type.pointee, lanes), None)
            begin = [[zero, zero] for _ in every]
        else:
            start = context.make_array(kind_start)(context, builder, start)
            offsets = [column if kind_start.ndim == 1 else place for place in places]
            begin = [_pair(builder, start.data, offset, lanes, align) for offset in offsets]
        rows_of_a = [builder.gep(a.data, [builder.mul(row, row_of_a)]) for row in every]
        panel = builder.gep(panels.data, [builder.mul(builder.mul(p, depth), wide)])
        sums = _add_products(builder, begin, rows_of_a, along, panel, depth, lanes, align)
        for place, row in zip(places, sums, strict=True):
            for half, value in zip((0, lanes), row, strict=True):
                offset = builder.add(place, ir.Constant(m.type, half))
                store_at(builder, value, builder.gep(c.data, [offset]), align)
        return context.get_dummy_value()

    return types.none(c, start, a, panels, m, p, rows, lanes), codegen


def _pair(builder, address, offset, lanes, align):
    """Two vectors behind each other."""
    places = [builder.add(offset, ir.Constant(offset.type, half)) for half in (0, lanes)]
    return [load_at(builder, builder.gep(address, [place]), lanes, align) for place in places]


def _add_products(builder, begin, rows_of_a, along, panel, depth, lanes, align):
    """The innermost loop: begin[row] + sum_k a[row, k] b[k], two vectors for each row."""
    integer, before = along.type, builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("k", "step", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(integer)
    sums = [[builder.phi(value.type) for value in row] for row in begin]
    builder.cbranch(builder.icmp_signed("<", k, depth), body, after)
    builder.position_at_end(body)
    factors = _pair(builder, panel, builder.mul(k, ir.Constant(integer, 2 * lanes)), lanes, align)
    kind, name = factors[0].type, f"llvm.fmuladd.v{lanes}f{8 * align}"
    multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    k.add_incoming(ir.Constant(integer, 0), before)
    k.add_incoming(builder.add(k, ir.Constant(integer, 1)), body)
    for row, first, address in zip(sums, begin, rows_of_a, strict=True):
        factor = spread(builder, builder.load(builder.gep(address, [builder.mul(k, along)])), lanes)
        for total, value, b in zip(row, first, factors, strict=True):
            total.add_incoming(value, before)
            total.add_incoming(builder.call(multiply_add, [factor, b, total]), body)
    builder.branch(head)
    builder.position_at_end(after)
    return sums
