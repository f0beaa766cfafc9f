"""Parts of a training step on the device, in Numba's simulator or on a GPU: batches, loss, Adam, sums, graphs.

NUMBA_ENABLE_CUDASIM=1 pytest tests/ops/cuda_device.py; see test_cuda.py
"""

import contextlib
import ctypes
import dataclasses
import types

import numpy as np
import pytest
import tolerances
from ledger import Ledger
from simulator import smaller_config
from small_data import write_molecules

from refattn.common.loss import LOSSES
from refattn.config import ModelConfig, TrainingConfig
from refattn.data.store import read_dataset
from refattn.errors import ConfigError
from refattn.network.dropout import Dropout
from refattn.network.params import initialise
from refattn.ops import load_backend
from refattn.ops.cuda import launch, sums, toolchain
from refattn.ops.cuda import loss as loss_module
from refattn.ops.cuda.adam import adam_update, advance
from refattn.ops.cuda.dataset import DeviceDataset, Plan, Size
from refattn.ops.cuda.graph import transposed
from refattn.ops.cuda.layers import column_total
from refattn.ops.cuda.loss import loss_slope
from refattn.ops.random import mix
from refattn.training.adam import Adam, step_size
from refattn.training.cuda_stepper import CudaStepper, Gradients, filled_up, step_bytes
from refattn.training.targets import Targets

CUDA = load_backend("cuda")
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_molecules(tmp_path_factory.mktemp("data") / "data.h5", 10)


def host(array):
    return np.asarray(CUDA.to_host(array))


# ---- batches -----------------------------------------------------------------------------------------------------

ROWS = np.array([7, 0, 3, 3, 5, 9])  # the sizes of molecules differ, one comes twice


def batch_on_both(data, **model):
    """The DeviceDataset, and the batch ROWS on the host."""
    graphs, config = read_dataset(data).graphs, dataclasses.replace(smaller_config(data).model, **model)
    ring = np.random.default_rng(0).integers(0, 2, (len(graphs.z), 2)).astype(float)
    graphs = dataclasses.replace(graphs, ring=ring)
    device = DeviceDataset.of(graphs, config, np.float32)
    assert DeviceDataset.of(graphs, config, np.float32) is device
    return device, graphs.take(ROWS).for_network(config, np.float32)


@pytest.mark.parametrize("model", [{}, {"features": "cgcnn", "ring": True}], ids=["plain", "features"])
def test_a_gathered_batch_is_the_host_s(data, model):
    device, expected = batch_on_both(data, **model)
    plan = Plan.of(np.append([2, 4], ROWS), start=[0, 2], cursor=1)
    shard = device.gather(plan, device.size(ROWS))
    check_shard(shard, expected)
    n_sites = len(expected.z)
    for mine, theirs in zip(shard.nbr, transposed(CUDA.to_device(expected.nbr), n_sites), strict=True):
        assert np.array_equal(host(mine), host(theirs))


def check_shard(shard, expected):
    """All that `expected` has stands at the beginning of the arrays of `shard`."""
    for field in dataclasses.fields(expected):
        theirs, mine = getattr(expected, field.name), getattr(shard, field.name)
        if field.name == "structure":
            continue
        if theirs is None:
            assert mine is None
            continue
        mine = host(mine.nbr if field.name == "nbr" else mine)
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine[: len(theirs)], theirs), field.name


def test_what_fills_a_batch_up_is_a_graph_of_its_own(data):
    device, expected = batch_on_both(data, ring=True)
    n, n_sites, n_edges = device.size(ROWS)[:3]
    size = Size(n + 3, n_sites + 7, n_edges + 12, 3)
    shard = device.gather(Plan.of(ROWS), size)
    check_shard(shard, expected)
    site_ptr, edge_ptr, nbr = host(shard.site_ptr), host(shard.edge_ptr), host(shard.nbr.nbr)
    assert (site_ptr[-1], edge_ptr[-1], len(nbr)) == (size.n_sites, size.n_edges, size.n_edges)
    assert np.diff(site_ptr[n:]).tolist() == [2, 2, 3]
    assert sorted(np.diff(edge_ptr[n_sites:]).tolist()) == [1, 1, 2, 2, 2, 2, 2]
    owner = np.repeat(np.arange(size.n_sites), np.diff(edge_ptr))
    assert np.array_equal(nbr[n_edges:], owner[n_edges:])
    for mine, theirs in zip(shard.nbr, transposed(CUDA.to_device(nbr), size.n_sites), strict=True):
        assert np.array_equal(host(mine), host(theirs))
    assert not host(shard.z)[n_sites:].any()
    assert all((host(array)[n_edges:] == 1).all() for array in (shard.r, shard.omega, shard.weight))


def test_keys_of_the_dropout_have_the_bits_of_the_cpu_s(data):
    device, shard = batch_on_both(data, n_layers=2, dropout=0.1, attention_dropout=0.1)
    seed, step = 3, 41
    expected = Dropout(seed, step, shard, 2)
    size = filled_up(device.size(ROWS))
    plan = Plan.of(ROWS, stream=mix(mix(np.full(1, seed, np.uint64)) + np.uint64(step)))
    found = device.dropout(device.gather(plan, size), plan, size)
    for place in (0, 2, 4):
        assert np.array_equal(host(found.site_keys(place))[: len(shard.z)], expected.site_keys(place))
    for place in (1, 3):
        assert np.array_equal(host(found.edge_key[place // 2])[: len(shard.r)], expected.edge_key[place // 2])


def test_batches_are_filled_up_to_few_sizes():
    rng, sizes = np.random.default_rng(0), set()
    for _ in range(300):
        n_sites = rng.integers(8, 20, 128).sum()
        size = Size(128, int(n_sites), int(4.3 * n_sites) + int(rng.integers(-9, 9)))
        full = filled_up(size)
        n_pads, pad_sites = full.n_pads, full.n_sites - size.n_sites
        assert full.n_real == 128
        assert 1 <= n_pads <= pad_sites
        assert 0 <= full.n_edges - size.n_edges <= 16 * pad_sites
        assert full.n_sites * full.n_edges <= 1.25 * size.n_sites * size.n_edges
        sizes.add(full)
    assert len(sizes) <= 12
    assert filled_up(Size(1, 1, 0)).n_sites > filled_up(Size(1, 1, 0)).n_pads


# ---- loss, optimiser, sums ---------------------------------------------------------------------------------------


def weights_of(label):
    return 0.5 + 0.1 * np.arange(len(label))


def slope_of_one(totals, prediction, label, *others):
    """loss_slope of one target, whose weight is 1, without taught attention; structures weigh 0.5, 0.6, ..."""
    known = CUDA.to_device(label[:, None]), CUDA.to_device(weights_of(label))
    prediction = CUDA.to_device(prediction[:, None])
    return loss_slope(totals, prediction, known, (1.0,), CUDA.to_device(np.zeros((1, len(prediction)))), *others)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_slope_are_those_of_the_formulas(loss):
    rng, n, delta = np.random.default_rng(1), 11, 0.4
    label, prediction = rng.normal(size=20), np.append(rng.normal(size=n), [7.0, 8.0])
    rows = rng.permutation(20)[:n]
    totals, plan = CUDA.to_device(np.array([2.0, 3.0, -1.0])), Plan.of(rows)
    slope = host(slope_of_one(totals, prediction, label, plan, n, LOSSES[loss], delta))[:, 0]
    value, local = LOSSES[loss].points(prediction[:n], label[rows], delta)
    weight = weights_of(label)[rows]
    total, factor = LOSSES[loss].reduce((weight * value).sum(), weight.sum())
    assert np.allclose(slope[:n], factor * weight * local, rtol=tolerances.PARITY, atol=0)
    assert not slope[n:].any()
    error = local if loss == "cross_entropy" else prediction[:n] - label[rows]
    expected = [2 + n * total, 3 + np.abs(error).sum(), -1]
    assert np.allclose(host(totals), expected, rtol=tolerances.PARITY, atol=0)


@pytest.mark.parametrize("make", [loss_module._kernel_of, loss_module._kernel_of_shard])
def test_the_loss_of_a_type_is_compiled_for_it(make):
    """np.float32(1) is the same key as np.float64(1)."""
    weights = ((1.0,),) if make is loss_module._kernel_of else ()
    types_of = [np.dtype(name) for name in ("float32", "float64")]
    first, second = (make(LOSSES["huber"], *weights, 1.0, dtype) for dtype in types_of)
    assert first is not second and make(LOSSES["huber"], *weights, 1.0, types_of[0]) is first


@pytest.mark.filterwarnings("ignore:.*invalid value:RuntimeWarning")
def test_the_first_batch_with_a_loss_that_is_not_finite_is_remembered():
    totals, label = CUDA.to_device(np.array([0.0, 0.0, -1.0])), np.zeros(4)
    plan = Plan.of(np.arange(4), start=[0, 1, 2, 3])
    for prediction in (1.0, np.inf, np.nan, 0.0):
        slope_of_one(totals, np.array([prediction]), label, plan, 1, LOSSES["rmse"], 1.0)
        advance(plan.cursor)
    assert host(totals)[2] == 1
    assert host(plan.cursor)[0] == 4


def test_a_perfect_batch_has_no_slope():
    totals = CUDA.to_device(np.array([0.0, 0.0, -1.0]))
    slope = slope_of_one(totals, np.ones(3), np.ones(3), Plan.of(np.arange(3)), 3, LOSSES["rmse"], 1.0)
    assert host(slope).tolist() == [[0], [0], [0]]
    assert host(totals).tolist() == [0, 0, -1]


def test_adam_is_that_of_the_cpu():
    rng, config = np.random.default_rng(0), TrainingConfig(weight_decay=0.01)
    vector, mask = rng.normal(size=37), rng.integers(0, 2, 37)
    adam, grads = Adam(vector, mask, config), rng.normal(size=(3, 37))
    mine = [CUDA.to_device(array.copy()) for array in (vector, adam.m, adam.v)]
    rates = np.array([step_size(1e-2, step, config) for step in range(3)])
    rate, cursor, decay = map(CUDA.to_device, (rates, np.zeros(1, np.int64), adam.decay.copy()))
    for grad in grads:
        adam.update(vector, grad, 1e-2)
        adam_update(*mine, CUDA.to_device(grad), decay, rate, cursor, config)
        advance(cursor)
    for found, expected in zip(mine, (vector, adam.m, adam.v), strict=True):
        # the CPU's kernel may put 1 - beta_2, where digits cancel, in another place
        assert np.abs(host(found) - expected).max() <= tolerances.NETWORK * np.abs(expected).max()


@pytest.mark.parametrize("n_blocks", [2, 9])
def test_columns_are_summed_and_sums_that_were_put_off_too(monkeypatch, n_blocks):
    monkeypatch.setattr(launch, "MAX_BLOCKS", n_blocks)  # more blocks than a column has threads, or fewer
    table = initialise(ModelConfig(n_layers=1, width=6, n_heads=2, global_width=6), 0).table
    x = CUDA.to_device(np.random.default_rng(0).normal(size=(13, 6)))
    expected = host(x).sum(axis=0)
    assert np.allclose(host(column_total(x)), expected, rtol=1e-13)
    grads = Gradients(table, CUDA.to_device(np.zeros(sum(entry.size for entry in table))))
    for _ in range(2):  # the second time by the table of the first
        with grads.sums.collected():
            grads["site_b"][...] = column_total(x)
            grads.layer(0)["context_gain"][...] = column_total(x)
        grads.sums.add("key")
    assert len(grads.sums.tables) == 1
    found, start = host(grads.vector), 0
    for entry in table:
        wanted = expected if entry.name in ("site_b", "layer0.context_gain") else np.zeros(entry.size)
        assert np.allclose(found[start : start + entry.size], wanted, rtol=1e-13), entry.name
        start += entry.size


# ---- products, graphs, memory ------------------------------------------------------------------------------------


def by_columns_of_blas(transpose, x, step, n_rows, n_columns):
    """The matrix (n_rows, n_columns) that BLAS reads from the address of x, column by column."""
    shape = (n_columns, n_rows) if transpose else (n_rows, n_columns)
    steps = (x.itemsize, step * x.itemsize)
    read = np.lib.stride_tricks.as_strided(x, shape, steps)
    return read.T if transpose else read


@pytest.mark.parametrize(("m", "k", "n"), [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (4, 4, 4)])
@pytest.mark.parametrize("of", ["", "a", "b", "ab"])
def test_cublas_is_asked_for_the_product_that_is_meant(m, k, n, of):
    rng, out = np.random.default_rng(0), np.empty((m, n))
    a = rng.normal(size=(k, m)).T if "a" in of else rng.normal(size=(m, k))
    b = rng.normal(size=(n, k)).T if "b" in of else rng.normal(size=(k, n))
    if k == 1:
        a = a[:, 0][:, None]  # as the gradient of a prediction comes: without a step between its columns
    of_b, of_a, *sizes, step_b, step_a, step_out = toolchain.by_columns(a, b, out)
    assert sizes == [n, m, k]
    assert step_out == n
    assert step_b >= (k if of_b else n)
    assert step_a >= (m if of_a else k)
    product = by_columns_of_blas(of_b, b, step_b, n, k) @ by_columns_of_blas(of_a, a, step_a, k, m)
    assert np.allclose(product.T, a @ b, rtol=1e-13)


class HostArray(np.ndarray):
    """A NumPy array with an address in the place where CuPy has it."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)


class Blas:
    """cublasSgemm and cublasDgemm for addresses of host memory: the order of arguments is cuBLAS's."""

    def handle(self, stream, tf32):
        return stream, tf32

    def __call__(self, name, handle, transpose_a, transpose_b, m, n, k, alpha, a, step_a, b, step_b, beta, c, step_c):
        assert handle == (7, False)
        number = {"cublasSgemm_v2": ctypes.c_float, "cublasDgemm_v2": ctypes.c_double}[name]
        assert type(alpha._obj) is type(beta._obj) is number
        alpha, beta = alpha._obj.value, beta._obj.value
        shape_a, shape_b = (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n)
        a, b, c = (
            columns(address, number, step, shape)
            for address, step, shape in ((a, step_a, shape_a), (b, step_b, shape_b), (c, step_c, (m, n)))
        )
        c[...] = alpha * (a.T if transpose_a else a) @ (b.T if transpose_b else b) + (beta * c if beta else 0)


def columns(address, number, step, shape):
    """The matrix of `shape` whose columns begin `step` numbers after one another."""
    flat = np.ctypeslib.as_array((number * (step * shape[1])).from_address(address))
    return flat.reshape(shape[1], step)[:, : shape[0]].T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("accumulate", [False, True])
def test_cublas_computes_the_product_from_what_it_is_given(monkeypatch, dtype, accumulate):
    stream = types.SimpleNamespace(get_current_stream=lambda: types.SimpleNamespace(ptr=7))
    monkeypatch.setattr(toolchain, "SIMULATED", False)
    monkeypatch.setattr(toolchain, "_cublas", Blas)
    monkeypatch.setattr(toolchain, "xp", types.SimpleNamespace(cuda=stream))
    rng = np.random.default_rng(0)

    def array(*shape):
        return rng.normal(size=shape).astype(dtype).view(HostArray)

    for a, b in ((array(3, 4), array(4, 5)), (array(4, 3).T, array(4, 5)), (array(3, 4), array(5, 4).T)):
        out = array(3, 5)
        expected = np.asarray(a) @ np.asarray(b) + accumulate * np.asarray(out)
        assert toolchain.multiply(a, b, out, accumulate) is out
        assert np.allclose(out, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)
    out, none = array(3, 5), array(3, 0)
    before = out.copy()
    toolchain.multiply(none, array(0, 5), out, accumulate)
    assert np.array_equal(out, before if accumulate else np.zeros((3, 5)))


def test_cublas_is_not_asked_for_what_it_cannot_read():
    with pytest.raises(ValueError, match="neither rows nor columns"):
        toolchain.by_columns(np.zeros((8, 8))[::2, ::2], np.zeros((4, 4)), np.zeros((4, 4)))


class FakeStream:
    """Writes down what a captured step asks of a stream."""

    def __init__(self, calls):
        self.calls = calls

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def begin_capture(self):
        self.calls.append("begin")

    def end_capture(self):
        self.calls.append("end")
        return self

    def launch(self, stream):
        self.calls.append("launch")


class FakeScratch:
    def in_use(self):
        return contextlib.nullcontext()


def test_a_step_runs_once_is_captured_once_and_repeated(monkeypatch):
    calls = []
    monkeypatch.setattr(toolchain, "SIMULATED", False)
    monkeypatch.setattr(toolchain, "training_stream", lambda: FakeStream(calls))
    replay = toolchain.Replay(lambda: calls.append("step"), FakeScratch())
    for _ in range(3):
        replay()
    assert calls == ["step", "begin", "step", "end", "launch", "launch"]
    calls.clear()
    eager = toolchain.Replay(lambda: calls.append("step"), FakeScratch(), capture=False)
    eager()
    eager()
    assert calls == ["step", "step"]


def test_a_capture_that_fails_leaves_the_stream_usable(monkeypatch):
    calls = []

    def step():
        calls.append("step")
        if "begin" in calls:
            raise MemoryError

    monkeypatch.setattr(toolchain, "SIMULATED", False)
    monkeypatch.setattr(toolchain, "training_stream", lambda: FakeStream(calls))
    with pytest.raises(MemoryError):
        toolchain.Replay(step, FakeScratch())()
    assert calls == ["step", "begin", "step", "end"]


def test_what_outlives_a_step_is_not_in_the_memory_of_the_graphs(monkeypatch, data):
    """A graph that was captured before writes where the memory was free; the tables of the sums are kept for good."""
    within, made = [False], []

    @contextlib.contextmanager
    def memory_of_graphs(wanted):
        before, within[0] = within[0], wanted
        yield
        within[0] = before

    def to_device(array):
        made.append(within[0])
        return CUDA.to_device(array)

    monkeypatch.setattr(toolchain.Scratch, "in_use", lambda scratch: memory_of_graphs(True))
    monkeypatch.setattr(toolchain, "lasting", lambda: memory_of_graphs(False))
    config = smaller_config(data)
    graphs, params = read_dataset(data).graphs, initialise(config.model, 0)
    adam = Adam(params.vector, params.decay_mask(), config.training)
    with Ledger():
        stepper = CudaStepper(config, CUDA, graphs, np.arange(10), Targets(np.zeros((10, 1), np.float32)), params, adam)
        stepper.begin([np.arange(10)], [1e-3])
        monkeypatch.setattr(sums, "to_device", to_device)
        stepper.step(0)
    assert made == [False]


def test_memory_that_predictions_left_free_is_taken_before_there_is_none(monkeypatch):
    calls = []

    class Full(RuntimeError):
        pass

    def memory(size):
        calls.append(size)
        if len(calls) == 1:
            raise Full
        return size

    pool = types.SimpleNamespace(free_all_blocks=lambda: calls.append("free"))
    of_cuda = types.SimpleNamespace(Memory=memory, MemoryPointer=lambda memory, offset: (memory, offset))
    of_cuda.runtime = types.SimpleNamespace(CUDARuntimeError=Full)
    scratch = toolchain.Scratch()
    monkeypatch.setattr(toolchain, "xp", types.SimpleNamespace(cuda=of_cuda, get_default_memory_pool=lambda: pool))
    assert scratch._from_driver(512) == (512, 0) and scratch.held == [512]
    assert calls == [512, "free", 512]


@pytest.mark.parametrize("n", [1, 9])
def test_columns_beside_each_other_are_copied(n):
    columns = [np.random.default_rng(k).normal(size=(3, 1 + k % 2)).astype(np.float32) for k in range(n)]
    found = CUDA.xp.concatenate([CUDA.to_device(column) for column in columns], axis=1)
    assert np.array_equal(host(found), np.concatenate(columns, axis=1)) and found.dtype == np.float32


def test_widths_that_no_block_has_registers_for_are_refused():
    assert launch.threads_of(512) == 512
    with pytest.raises(ConfigError, match="a width of 513 is too large for the device cuda, which has 512 threads"):
        launch.threads_of(513)


@pytest.mark.parametrize("variant", ["scann", "scann+"])
def test_the_estimate_of_a_step_s_memory_holds(data, variant):
    config = smaller_config(data)
    model = ModelConfig(variant=variant, attention_dropout=0.05)
    config = dataclasses.replace(config, model=model)
    graphs, params = read_dataset(data).graphs, initialise(model, 0)
    adam = Adam(params.vector, params.decay_mask(), config.training)
    targets = Targets(np.zeros((10, 1), np.float32))
    with Ledger():
        stepper = CudaStepper(config, CUDA, graphs, np.arange(10), targets, params, adam)
        stepper.begin([np.arange(10)], [1e-3])
    with Ledger() as ledger:
        stepper.step(0)
    estimate = step_bytes(model, filled_up(stepper.data.size(np.arange(10))), 4)
    assert 1 <= estimate / ledger.peak_bytes <= 1.4
    launches = [entry.kind for entry in ledger.entries]
    assert launches.count("product") == (170 if variant == "scann+" else 131)
    assert len(launches) <= (420 if variant == "scann+" else 370)
