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
from numba.extending import overload
from numpy.typing import DTypeLike

from refattn.ops.cpu.memory import ALIGNMENT
from refattn.ops.cpu.simd import meaning
from refattn.ops.cpu.simd.kernel import kernel, vector_intrinsic
from refattn.ops.cpu.simd.vector import lanes_of, load_at, spread, store_at

ROWS = 6  # with two vectors each 12 sums: with one number and two vectors of the factors they fill 16 registers
BLOCK = 16 * ROWS  # rows of the left factor that stay in the cache while the panels pass


@functools.cache
def panels_of(depth: int, columns: int, dtype: DTypeLike) -> int:
    """Size of a work array for the panels of a (depth, columns) factor, and ROWS rows of a product with the last one.

    For a smaller factor a part of it is enough.
    """
    lanes = len(lanes_of(dtype))
    return (-(-columns // lanes) * depth + ROWS) * lanes


@functools.cache
def padded(width: int, dtype: DTypeLike) -> int:
    """Numbers to leave for a row of a factor that is not packed, so that rows do not share a set of the cache."""
    return width + ALIGNMENT // np.dtype(dtype).itemsize


def _lanes_by_type(array):
    """lanes_of the type of an array, inside kernels."""
    return lanes_of(array.dtype)


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
    depth, columns = b.shape
    wide = 2 * len(lanes)
    column = start = 0
    while column + wide <= columns:
        for k in range(depth):
            _copy_row(panels, start, b, k, column, lanes + lanes)
            start += wide
        column += wide
    if column + len(lanes) <= columns:
        for k in range(depth):
            _copy_row(panels, start, b, k, column, lanes)
            start += len(lanes)
        column += len(lanes)
    if column < columns:
        for k in range(depth):
            for n in range(len(lanes)):
                panels[start + n] = b[k, column + n] if column + n < columns else 0
            start += len(lanes)


@vector_intrinsic(meaning.copy_row)
def _copy_row(typingctx, panels, start, b, k, column, lanes):
    def codegen(context, builder, signature, arguments):
        panels_type, _, b_type, *_ = signature.args
        panels, start, b, k, column, _ = arguments
        panels = context.make_array(panels_type)(context, builder, panels)
        b = context.make_array(b_type)(context, builder, b)
        align = context.get_abi_sizeof(b.data.type.pointee)
        row_step, column_step = _steps(builder, b, align)
        offset = builder.add(builder.mul(k, row_step), builder.mul(column, column_step))
        source = builder.gep(b.data, [offset])
        target = builder.gep(panels.data, [start])
        if b_type.layout == "C":
            store_at(builder, load_at(builder, source, len(lanes), align), target, align)
        else:
            for n in range(len(lanes)):
                n = ir.Constant(start.type, n)
                value = builder.load(builder.gep(source, [builder.mul(n, column_step)]))
                builder.store(value, builder.gep(target, [n]))
        return context.get_dummy_value()

    return types.none(panels, start, b, k, column, lanes), codegen


def _steps(builder, array, n_bytes):
    """An array's strides in numbers of `n_bytes` each."""
    return [builder.sdiv(step, step.type(n_bytes)) for step in cgutils.unpack_tuple(builder, array.strides)]


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


@vector_intrinsic(meaning.of_any_layout)
def _of_any_layout(typingctx, array):
    by_strides = array.copy(layout="A") if getattr(array, "ndim", 0) == 2 else array
    return by_strides(array), lambda context, builder, signature, arguments: arguments[0]


@kernel
def _multiply(c, start, a, panels):
    n_rows, columns = c.shape
    wide = 2 * len(_lanes_by_type(c))
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
    n_rows, columns = c.shape
    m = 0
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
    n_rows, columns = c.shape
    wide = 2 * len(_lanes_by_type(c))
    m = 0
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
    n_rows, columns = c.shape
    depth = a.shape[1]
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


@kernel
def _begin(start, c, m, n):
    """What c[m, n] begins with; see multiply."""
    if start is None:
        return c.dtype.type(0)
    if start.ndim == 1:
        return start[n]
    return start[m, n]


@vector_intrinsic(meaning.multiply_block)
def _multiply_block(typingctx, c, start, a, panels, m, column, rows, vectors, lanes):
    def codegen(context, builder, signature, arguments):
        c_type, start_type, a_type, panels_type, *_, rows, vectors, lanes = signature.args
        c, start, a, panels, m, column, *_ = arguments
        align = context.get_abi_sizeof(context.get_value_type(c_type.dtype))
        size = (len(vectors), len(lanes), align)
        c, a, panels = (
            context.make_array(array_type)(context, builder, array)
            for array_type, array in ((c_type, c), (a_type, a), (panels_type, panels))
        )

        def offsets(step, offset):
            """Of the rows m and following in an array, from its beginning."""
            yield (offset := builder.add(builder.mul(m, step), offset))
            for _ in range(1, len(rows)):
                yield (offset := builder.add(offset, step))

        c_step, _ = _steps(builder, c, align)
        a_step, along = _steps(builder, a, align)
        depth = cgutils.unpack_tuple(builder, a.shape)[1]
        c_offsets = list(offsets(c_step, column))
        if isinstance(start_type, types.NoneType):
            zero = ir.Constant(ir.VectorType(c.data.type.pointee, len(lanes)), None)
            begin = [[zero] * len(vectors) for _ in rows]
        else:
            start = context.make_array(start_type)(context, builder, start)
            start_offsets = [column] * len(rows) if start_type.ndim == 1 else c_offsets
            begin = [_vectors(builder, start.data, offset, *size) for offset in start_offsets]
        rows_of_a = [builder.gep(a.data, [offset]) for offset in offsets(a_step, m.type(0))]
        if panels_type.ndim == 2:  # b itself
            panel = builder.gep(panels.data, [column])
            panel_step = _steps(builder, panels, align)[0]
        else:
            panel = builder.gep(panels.data, [builder.mul(column, depth)])
            panel_step = m.type(len(vectors) * len(lanes))
        sums = _add_products(builder, begin, rows_of_a, along, panel, panel_step, depth, *size)
        for offset, row in zip(c_offsets, sums, strict=True):
            for n, vector in enumerate(row):
                address = builder.gep(c.data, [builder.add(offset, m.type(n * len(lanes)))])
                store_at(builder, vector, address, align)
        return context.get_dummy_value()

    return types.none(c, start, a, panels, m, column, rows, vectors, lanes), codegen


def _vectors(builder, address, offset, n_vectors, n_lanes, align):
    """Vectors behind each other, from an offset on."""
    offsets = [builder.add(offset, offset.type(n * n_lanes)) for n in range(n_vectors)]
    return [load_at(builder, builder.gep(address, [offset]), n_lanes, align) for offset in offsets]


def _add_products(builder, begin, rows_of_a, along, panel, panel_step, depth, n_vectors, n_lanes, align):
    """The innermost loop: begin[row] + sum_k a[row, k] b[k], so many vectors for each row."""
    integer = along.type
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("k", "step", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(integer)
    sums = [[builder.phi(vector.type) for vector in row] for row in begin]
    builder.cbranch(builder.icmp_signed("<", k, depth), body, after)
    builder.position_at_end(body)
    factors = _vectors(builder, panel, builder.mul(k, panel_step), n_vectors, n_lanes, align)
    vector_type = factors[0].type
    signature = ir.FunctionType(vector_type, [vector_type] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fmuladd.v{n_lanes}f{8 * align}")
    k.add_incoming(integer(0), before)
    k.add_incoming(builder.add(k, integer(1)), body)
    for row, first, address in zip(sums, begin, rows_of_a, strict=True):
        factor = spread(builder, builder.load(builder.gep(address, [builder.mul(k, along)])), n_lanes)
        for total, vector, b in zip(row, first, factors, strict=True):
            total.add_incoming(vector, before)
            total.add_incoming(builder.call(multiply_add, [factor, b, total]), body)
    builder.branch(head)
    builder.position_at_end(after)
    return sums
