"""What the CPU kernels are made of: products by hand, vectors, the exponential and the dropout's random bits."""

import os
import subprocess
import sys

import numpy as np
import pytest

from refattn.ops.cpu.simd.gemm import add_transposed_product, multiply, multiply_few, pack, padded, panels_of
from refattn.ops.cpu.simd.kernel import kernel
from refattn.ops.cpu.simd.sigmoid import exponential, sigmoid
from refattn.ops.cpu.simd.vector import (
    BYTES,
    add_heads,
    head_sums,
    lanes_for,
    lanes_of,
    larger_of,
    load,
    number_of,
    products_with_rows,
    row_view,
    scale_heads,
    store,
    sum_of,
    zeros,
)
from refattn.ops.random import item_keys, mix, scramble, uniform

DTYPES = [np.float32, np.float64]
# rows, depth, columns: less than a block and a panel, exactly, more; nothing to sum; the network's own
SIZES = [(1, 1, 1), (5, 7, 3), (6, 4, 16), (17, 0, 20), (97, 30, 37), (131, 20, 128), (64, 128, 7), (13, 128, 128)]
SIZES += [(n, 3, 32) for n in range(1, 13)]


@kernel
def product(c, start, a, b, panels):
    pack(panels, b)
    multiply(c, start, a, panels)


@kernel
def of_unpacked(found, added, of_few, a, b):
    multiply(found, None, a, b)
    multiply(added, added, a, b)
    multiply_few(of_few, a, b)


def close(found, expected, terms, dtype):
    """Within the rounding of a sum of `terms` products of numbers near 1."""
    return np.abs(found - expected).max(initial=0) <= 4 * (terms + 4) * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_products_equal_numpy(m, k, n, dtype):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=size).astype(dtype) for size in ((m, k), (k, n), (m, n)))
    panels, exact = np.empty(panels_of(k, n, dtype), dtype), a.astype(np.longdouble) @ b
    for start in (None, c[0].copy()):
        found = np.full((m, n), np.nan, dtype)
        product(found, start, a, b, panels)
        assert close(found, exact + (0 if start is None else start), k, dtype)
    found, factor = c.copy(), np.ascontiguousarray(b.T)
    product(found, found, a, factor.T, panels)
    assert close(found, exact + c, k, dtype)
    found, factor = c.copy(), np.ascontiguousarray(a.T)
    add_transposed_product(found, factor, b, panels)
    assert close(found, exact + c, k, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_products_with_a_factor_that_is_not_packed(m, k, n, dtype):
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=size).astype(dtype) for size in ((k, m), (k, padded(n, dtype)), (m, n)))
    b = b[:, :n]
    exact = a.T.astype(np.longdouble) @ b
    found, of_few, added = np.full((m, n), np.nan, dtype), np.full((m, n), np.nan, dtype), c.copy()
    of_unpacked(found, added, of_few, a.T, b)
    assert close(found, exact, k, dtype)
    assert close(added, exact + c, k, dtype)
    assert close(of_few, exact, k, dtype)


def test_products_write_nothing_but_their_rows():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(11, 9)), rng.normal(size=(9, 21))
    whole = np.full((13, 21), 7.0)
    product(whole[1:12], None, a, b, np.empty(panels_of(9, 21, np.float64)))
    assert (whole[[0, 12]] == 7).all()
    assert close(whole[1:12], a @ b, 9, np.float64)


def test_a_row_of_a_product_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 128)).astype(np.float32) for n in (100, 128))
    panels, whole = np.empty(panels_of(128, 128, np.float32), np.float32), np.empty((100, 128), np.float32)
    product(whole, None, a, b, panels)
    for n in range(1, 100):
        part = np.empty((n, 128), np.float32)
        product(part, None, a[:n], b, panels)
        assert np.array_equal(part, whole[:n])


def test_lanes_divide_the_width():
    for dtype in DTYPES:
        for width in range(1, 130):
            n = len(lanes_for(width, dtype))
            assert width % n == 0
            assert n == 2 * len(lanes_of(dtype)) or width % (2 * n)


@kernel
def arithmetic(y, a, b, lanes):
    to, first, second = row_view(y, 0), row_view(a, 1), row_view(b, ())
    for d in range(0, len(to), len(lanes)):
        x, z = load(first, d, lanes), load(second, d, lanes)
        store(to, d, (x + z) * (x - z) / 2 + larger_of(x, z) * 3.0 - 1 / (x * x + 1))


@kernel
def total(a, lanes):
    row = row_view(a, ())
    added = zeros(row, lanes)
    for d in range(0, len(row), len(lanes)):
        added = added + load(row, d, lanes)
    return sum_of(added) / number_of(row, len(row))


@kernel
def attend(sums, added, a, b, heads, channels):
    sums, added, a, b = row_view(sums, ()), row_view(added, ()), row_view(a, ()), row_view(b, ())
    factor = head_sums(a, b, heads, channels)
    store(sums, 0, factor)
    add_heads(added, factor, a, heads, channels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 6, 16, 40, 128])
def test_vectors_calculate_as_numpy_does(width, dtype):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, width)).astype(dtype), rng.normal(size=width).astype(dtype)
    y, x = np.full((2, width), 7, dtype), a[1]
    arithmetic(y, a, b, lanes_for(width, dtype))
    expected = (x + b) * (x - b) / 2 + 3 * np.maximum(x, b) - 1 / (x * x + 1)
    assert np.abs(y[0] - expected).max() <= 32 * np.finfo(dtype).eps
    assert (y[1] == 7).all()
    assert abs(total(b, lanes_for(width, dtype)) - b.mean()) <= width * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "channels"), [(1, 1), (2, 3), (3, 8), (8, 16)])
def test_heads_calculate_as_numpy_does(heads, channels, dtype):
    rng = np.random.default_rng(0)
    a, b, before = rng.normal(size=(3, heads, channels)).astype(dtype)
    sums, added = np.empty(heads, dtype), before.flatten()
    attend(sums, added, a.flatten(), b.flatten(), (0,) * heads, (0,) * channels)
    factor = (a * b).sum(axis=1)
    allowed = 16 * channels * np.finfo(dtype).eps * max(1, np.abs(factor).max())
    assert np.abs(sums - factor).max() <= allowed
    assert np.abs(added.reshape(heads, -1) - (before + factor[:, None] * a)).max() <= allowed


@kernel
def row_products(sums, a, x, heads, lanes):
    store(row_view(sums, ()), 0, products_with_rows(a, row_view(x, ()), heads, lanes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_rows", "width"), [(1, 1), (1, 128), (2, 6), (3, 40), (5, 8), (8, 128), (16, 64), (11, 16)])
def test_products_with_rows_calculate_as_numpy_does(n_rows, width, dtype):
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(n_rows, 3, width)).astype(dtype), rng.normal(size=width).astype(dtype)
    sums = np.full(n_rows + 1, 7, dtype)
    row_products(sums, a[:, 1], x, (0,) * n_rows, lanes_for(width, dtype))
    assert close(sums[:-1], a[:, 1].astype(np.longdouble) @ x, width, dtype)
    assert sums[-1] == 7


@kernel
def scale(y, factor, x, heads, channels):
    scale_heads(row_view(y, ()), load(row_view(factor, ()), 0, heads), row_view(x, ()), heads, channels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "channels"), [(1, 1), (3, 8), (8, 16)])
def test_heads_are_scaled(heads, channels, dtype):
    rng = np.random.default_rng(0)
    factor, x = rng.normal(size=heads).astype(dtype), rng.normal(size=(heads, channels)).astype(dtype)
    y = np.empty(heads * channels, dtype)
    scale(y, factor, x.flatten(), (0,) * heads, (0,) * channels)
    assert np.array_equal(y.reshape(heads, channels), factor[:, None] * x)


OTHER_REGISTERS = """
import sys, pytest
from refattn.ops.cpu.simd import vector
vector.BYTES = int(sys.argv[1])
wanted = "float32 and (calculate or scaled or product) or float64 and vectors_calculate"
sys.exit(pytest.main(["-x", "-p", "no:cacheprovider", "-k", wanted, sys.argv[2]]))
"""


def test_with_registers_of_other_processors(tmp_path):
    """The compiler makes vectors that this processor lacks of those that it has.

    It does so at the end, whether it looks for quicker code or not, which takes twice as long.
    """
    runs = {}
    for n_bytes in {16, 32, 64} - {BYTES}:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / str(n_bytes)), "NUMBA_OPT": "0"}
        command = [sys.executable, "-c", OTHER_REGISTERS, str(n_bytes), __file__]
        with open(tmp_path / f"{n_bytes}.log", "w") as log:
            runs[n_bytes] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    codes = {n_bytes: run.wait() for n_bytes, run in runs.items()}  # of both, so that none is left behind
    for n_bytes, code in codes.items():
        said = (tmp_path / f"{n_bytes}.log").read_text(encoding="utf-8")
        assert code == 0, said[-5000:]
        assert " passed" in said


@kernel(fastmath=True)
def of_each(exponentials, sigmoids, x):
    for n in range(len(x)):
        exponentials[n] = exponential(x[n])
        sigmoids[n] = sigmoid(x[n])


@kernel(fastmath=True)
def of_vectors(exponentials, sigmoids, x, lanes):
    exponentials, sigmoids, x = row_view(exponentials, ()), row_view(sigmoids, ()), row_view(x, ())
    for n in range(0, len(x), len(lanes)):
        store(exponentials, n, exponential(load(x, n, lanes)))
        store(sigmoids, n, sigmoid(load(x, n, lanes)))


@pytest.mark.parametrize("vectors", [False, True])
def test_exponential_and_sigmoid_in_float32(vectors):
    x = np.linspace(-87, 87, 400_000, dtype=np.float32)
    found = np.empty((2, len(x)), np.float32)
    if vectors:
        of_vectors(*found, x, lanes_for(len(x), np.float32))
    else:
        of_each(*found, x)
    exact = np.exp(x.astype(float))
    error, small = np.abs(found[0] / exact - 1), np.abs(x) < 1
    assert error.max() < 1.4e-6  # the rounding of x log2(e) in its part behind the point, 87 eps and more
    assert error[small].max() < 1.8e-7
    assert np.abs(found[1] - 1 / (1 + 1 / exact)).max() < 1e-7


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vectors", [False, True])
def test_exponential_and_sigmoid_at_the_ends(vectors, dtype):
    x = np.array([np.nan, np.inf, -np.inf, 1e4, -1e4, 0, 200, -200], dtype)
    found = np.empty((2, len(x)), dtype)
    if vectors:
        of_vectors(*found, x, lanes_for(len(x), dtype))
    else:
        of_each(*found, x)
    assert np.isnan(found[:, 0]).all()
    assert (found[0, [1, 3, 6]] > 1e37).all()
    assert (np.abs(found[0, [2, 4, 7]]) < 1e-37).all()
    np.testing.assert_allclose(found[1, 1:], [1, 0, 1, 0, 0.5, 1, 0], rtol=0, atol=1e-37)


def test_scrambled_bits_are_those_of_the_definition():
    """One number, step by step in Python's own integers."""
    key, column, cut = 0x0123456789ABCDEF, 5, 0xFFFFFFFF
    state = ((key & cut) + column * 0x9E3779B9) & cut
    state = ((state ^ (state >> 16)) * 0x7FEB352D) & cut
    state = ((state ^ (state >> 15) ^ (key >> 32)) * 0x846CA68B) & cut
    expected = state ^ (state >> 16)
    assert scramble(np.array([key], np.uint64), np.array([column], np.uint32))[0] == expected


def test_numbers_are_uniform_and_independent():
    n, width = 20_000, 64
    numbers = uniform(item_keys(mix(np.arange(1, dtype=np.uint64)), np.array([0, n])), width)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 64, (0, 1))[0]
    expected = n * width / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 4 * np.sqrt(2 * 63)  # chi squared, four deviations
    centred = np.sqrt(12) * (numbers - 0.5)
    for a, b in ((centred[:, :-1], centred[:, 1:]), (centred[:-1], centred[1:]), (centred[::2], centred[1::2])):
        assert abs((a * b).mean()) < 4 / np.sqrt(a.size)
    kept = (numbers >= 0.1).sum(axis=1)
    assert abs(kept.var() / (width * 0.09) - 1) < 4 * np.sqrt(2 / n)
