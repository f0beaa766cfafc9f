"""Matrix products inside kernels, blocked by hand for the registers of the processor.

The right factor is packed into panels, two vectors wide, so that the innermost loop reads one number after the other.
There ROWS rows of the result, two vectors each, stay in registers while all their products are added up: (128, 128)
(128, 128) in float32 runs at 98 GFLOP/s on one core of an AMD EPYC 7002, whose multiply-adds end at 107; NumPy's
OpenBLAS makes 89 of it. What a product has written is still in the cache when the kernel that asked for it goes on.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from refattn.ops.cpu.memory import ALIGNMENT
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.vector import lanes_of, load_at, spread, store_at

ROWS = 6  # with two vectors each 12 sums: with one number and two vectors of the factors they fill 16 registers
BLOCK = 16 * ROWS  # rows of the left factor that stay in the cache while the panels pass


@functools.cache
def panels_of(depth, columns, dtype):
    """Size of a work array for the panels of a (depth, columns) factor, and ROWS rows of a product with the last one.

    For a smaller factor a part of it is enough.
    """
    lanes = len(lanes_of(dtype))
    return (-(-columns // lanes) * depth + ROWS) * lanes


def padded(width, dtype):
    """Numbers to leave for a row of a factor that is not packed: the next ones lie at another place of the cache."""
    return width + ALIGNMENT // np.dtype(dtype).itemsize


def _lanes_by_type(array):
    """lanes_of the type of an array, inside kernels."""


@overload(_lanes_by_type, inline="always")
def _lanes(array):
    lanes = lanes_of(array.dtype.name)
    return lambda array: lanes


@kernel
def pack(panels, b):
    """Panels of b (K, N), or of a transposed array, into an array of panels_of.

    The numbers k, n of a panel of two vectors behind each other, then those of the next; what is left of the columns
    becomes panels of one vector, the last of them filled up with zeros.
    """
    lanes = _lanes_by_type(b)
    depth, columns, wide, column, at = b.shape[0], b.shape[1], 2 * len(lanes), 0, 0
    while column + wide <= columns:
        for k in range(depth):
            _copy_row(panels, at, b, k, column, lanes + lanes)
            at += wide
        column += wide
    if column + len(lanes) <= columns:
        for k in range(depth):
            _copy_row(panels, at, b, k, column, lanes)
            at += len(lanes)
        column += len(lanes)
    if column < columns:
        for k in range(depth):
            for n in range(len(lanes)):
                panels[at + n] = b[k, column + n] if column + n < columns else 0
            at += len(lanes)


@intrinsic
def _copy_row(typingctx, panels, at, b, k, first, lanes):
    """panels[at + n] = b[k, first + n] for as many numbers as `lanes` is long."""

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
            store_at(builder, load_at(builder, source, len(lanes), align), target, align)
        else:
            step = builder.sdiv(cgutils.unpack_tuple(builder, b.strides)[1], ir.Constant(at.type, align))
            for n in range(len(lanes)):
                n = ir.Constant(at.type, n)
                builder.store(builder.load(builder.gep(source, [builder.mul(n, step)])), builder.gep(target, [n]))
        return context.get_dummy_value()

    return types.none(panels, at, b, k, first, lanes), codegen


@kernel(inline=True)
def multiply(c, start, a, panels):
    """c = start + a b, b (K, N) packed in `panels`, or as it stands.

    Parameters
    ----------
    c : (M, N); a : (M, K), which may be a transposed array
    panels : work array of panels_of(K, N), packed; or b, with rows as `padded` says
    start : None for 0, (N,) for the same row everywhere, or (M, N), which may be c itself
    """
    _multiply(_of_any_layout(c), _of_any_layout(start), _of_any_layout(a), _of_any_layout(panels))


@intrinsic
def _of_any_layout(typingctx, array):
    """A matrix by a type that says nothing of its strides: one compilation serves all. What is none stays as it is."""
    kind = array.copy(layout="A") if getattr(array, "ndim", 0) == 2 else array
    return kind(array), lambda context, builder, signature, arguments: arguments[0]


@kernel
def _multiply(c, start, a, panels):
    (n_rows, columns), wide = c.shape, 2 * len(_lanes_by_type(c))
    for first in range(0, n_rows, BLOCK):
        last = min(first + BLOCK, n_rows)
        for column in range(0, columns - columns % wide, wide):
            m = first
            while m < last:
                rows = _rows_of_block(last - m)
                _multiply_rows(c, start, a, panels, m, column, rows, (0, 0))
                m += rows
    if columns % wide:
        _multiply_rest(c, start, a, panels)


@kernel
def _multiply_rest(c, start, a, panels):
    """The columns that fill no panel of two vectors."""
    lanes = _lanes_by_type(c)
    (n_rows, columns), m = c.shape, 0
    column = columns - columns % (2 * len(lanes))
    if column + len(lanes) <= columns:
        while m < n_rows:
            if n_rows - m >= 2 * ROWS:
                _multiply_block(c, start, a, panels, m, column, (0,) * 12, (0,), lanes)
                m += 2 * ROWS
            else:
                rows = _rows_of_block(n_rows - m)
                _multiply_rows(c, start, a, panels, m, column, rows, (0,))
                m += rows
        column += len(lanes)
    if column < columns:
        if panels.ndim == 1:
            _multiply_packed_columns(c, start, a, panels, column)
        else:
            _multiply_columns(c, start, a, panels, column)


@kernel
def add_transposed_product(c, a, b, panels):
    """c += a^T b for c (M, N), a (K, M), b (K, N); panels : work array of panels_of(K, N)."""
    pack(panels, b)
    multiply(c, c, a.T, panels)


@kernel(inline=True)
def multiply_few(c, a, b):
    """c = a b, b (K, N) as it stands, for so few rows that it is better to take all columns of some at once."""
    _multiply_few(_of_any_layout(c), _of_any_layout(a), _of_any_layout(b))


@kernel
def _multiply_few(c, a, b):
    (n_rows, columns), wide, m = c.shape, 2 * len(_lanes_by_type(c)), 0
    while m < n_rows:
        rows = _rows_of_block(n_rows - m)
        for column in range(0, columns - columns % wide, wide):
            _multiply_rows(c, None, a, b, m, column, rows, (0, 0))
        m += rows
    if columns % wide:
        _multiply_rest(c, None, a, b)


@kernel
def _multiply_packed_columns(c, start, a, panels, first):
    """The columns from `first` on, fewer than a vector has: a whole vector, of which that part is taken over."""
    lanes = _lanes_by_type(c)
    (n_rows, columns), depth = c.shape, a.shape[1]
    panel = panels[first * depth :]
    product = panels[len(panels) - ROWS * len(lanes) :].reshape((ROWS, len(lanes)))
    for m in range(0, n_rows, ROWS):
        rows = min(ROWS, n_rows - m)
        if rows == ROWS:
            _multiply_block(product, None, a[m : m + ROWS], panel, 0, 0, (0,) * 6, (0,), lanes)
        else:
            for r in range(rows):
                _multiply_block(product, None, a[m : m + rows], panel, r, 0, (0,), (0,), lanes)
        for r in range(rows):
            for n in range(first, columns):
                c[m + r, n] = _begin(start, c, m + r, n) + product[r, n - first]


@kernel
def _multiply_columns(c, start, a, b, first):
    """The columns from `first` on, number by number."""
    for m in range(len(c)):
        for n in range(first, c.shape[1]):
            total = _begin(start, c, m, n)
            for k in range(len(b)):
                total += a[m, k] * b[k, n]
            c[m, n] = total


@kernel(inline=True)
def _rows_of_block(left):
    """Rows of the next block of a product, of `left` that are left.

    Five until blocks of six fit, because small blocks leave the processor waiting for their sums.
    """
    return ROWS if left % ROWS == 0 else min(left, ROWS - 1)


@kernel(inline=True)
def _multiply_rows(c, start, a, panels, m, column, rows, vectors):
    """One block of a product: `rows`, at most ROWS, rows from m on, in the columns of a panel of one or two vectors."""
    lanes = _lanes_by_type(c)
    if rows == 6:
        _multiply_block(c, start, a, panels, m, column, (0,) * 6, vectors, lanes)
    elif rows == 5:
        _multiply_block(c, start, a, panels, m, column, (0,) * 5, vectors, lanes)
    elif rows == 4:
        _multiply_block(c, start, a, panels, m, column, (0,) * 4, vectors, lanes)
    elif rows == 3:
        _multiply_block(c, start, a, panels, m, column, (0,) * 3, vectors, lanes)
    elif rows == 2:
        _multiply_block(c, start, a, panels, m, column, (0,) * 2, vectors, lanes)
    else:
        _multiply_block(c, start, a, panels, m, column, (0,), vectors, lanes)


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
def _multiply_block(typingctx, c, start, a, panels, m, column, rows, vectors, lanes):
    """Rows m and following, as many as `rows` is long, of c = start + a b, and so many vectors of columns."""

    def codegen(context, builder, signature, arguments):
        kind_c, kind_start, kind_a, kind_panels, *_, rows, vectors, lanes = signature.args
        c, start, a, panels, m, column, *_ = arguments
        lanes, align = len(lanes), context.get_abi_sizeof(context.get_value_type(kind_c.dtype))
        c, a, panels = (
            context.make_array(kind)(context, builder, value)
            for kind, value in ((kind_c, c), (kind_a, a), (kind_panels, panels))
        )
        size = (len(vectors), lanes, align)

        def steps(array):
            return [builder.sdiv(s, ir.Constant(s.type, align)) for s in cgutils.unpack_tuple(builder, array.strides)]

        def places_of_rows(step, place):
            yield (place := builder.add(builder.mul(m, step), place))
            for _ in range(1, len(rows)):
                yield (place := builder.add(place, step))

        (row_of_c, _), (row_of_a, along) = steps(c), steps(a)
        depth = cgutils.unpack_tuple(builder, a.shape)[1]
        places = list(places_of_rows(row_of_c, column))
        if isinstance(kind_start, types.NoneType):
            zero = ir.Constant(ir.VectorType(c.data.type.pointee, lanes), None)
            begin = [[zero] * len(vectors) for _ in rows]
        else:
            start = context.make_array(kind_start)(context, builder, start)
            offsets = [column if kind_start.ndim == 1 else place for place in places]
            begin = [_vectors(builder, start.data, offset, *size) for offset in offsets]
        rows_of_a = [builder.gep(a.data, [place]) for place in places_of_rows(row_of_a, m.type(0))]
        if kind_panels.ndim == 2:  # b itself
            panel, step = builder.gep(panels.data, [column]), steps(panels)[0]
        else:
            panel, step = builder.gep(panels.data, [builder.mul(column, depth)]), m.type(len(vectors) * lanes)
        sums = _add_products(builder, begin, rows_of_a, along, panel, step, depth, *size)
        for place, row in zip(places, sums, strict=True):
            for n, value in enumerate(row):
                store_at(builder, value, builder.gep(c.data, [builder.add(place, m.type(n * lanes))]), align)
        return context.get_dummy_value()

    return types.none(c, start, a, panels, m, column, rows, vectors, lanes), codegen


def _vectors(builder, address, offset, n, lanes, align):
    """As many vectors behind each other."""
    places = [builder.add(offset, offset.type(number * lanes)) for number in range(n)]
    return [load_at(builder, builder.gep(address, [place]), lanes, align) for place in places]


def _add_products(builder, begin, rows_of_a, along, panel, step, depth, n, lanes, align):
    """The innermost loop: begin[row] + sum_k a[row, k] b[k], n vectors for each row."""
    integer, before = along.type, builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("k", "step", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(integer)
    sums = [[builder.phi(value.type) for value in row] for row in begin]
    builder.cbranch(builder.icmp_signed("<", k, depth), body, after)
    builder.position_at_end(body)
    factors = _vectors(builder, panel, builder.mul(k, step), n, lanes, align)
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
