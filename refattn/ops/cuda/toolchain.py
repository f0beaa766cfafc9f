"""The only module that imports the CUDA toolchain: numba.cuda for kernels, CuPy for arrays, cuBLAS for products.

With NUMBA_ENABLE_CUDASIM=1, read at import, Numba's simulator runs the kernels as Python threads (see simulator.py),
and NumPy's arrays stand in for CuPy's. What it lacks (warp shuffles, cuBLAS, graphs) has an equivalent here, so that
all else is the same.
"""

import contextlib
import ctypes
import functools
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
from numba import cuda as numba_cuda

from refattn.common.jit import cache_of
from refattn.errors import ConfigError, DeviceError, MissingExtra, in_one_line

try:  # the package numba-cuda has a configuration of its own, the kernels that come with Numba have Numba's
    from numba.cuda.core import config
except ImportError:
    from numba import config

SIMULATED = bool(config.ENABLE_CUDASIM)
WARP = 4 if SIMULATED else 32  # threads that shuffle; a block is a multiple of it, and the simulator pays for each one


def _import_cupy():
    """CuPy, after a look for what it stands on. Raises MissingExtra, or ConfigError where there is no GPU."""
    try:
        import cupy
    except ImportError as error:
        raise MissingExtra(
            "the device cuda needs CuPy and numba-cuda, which come with the extra `cuda`: pip install 'refattn[cuda]'; "
            "without a GPU use --device cpu"
        ) from error
    if not numba_cuda.is_available():
        reason = in_one_line(numba_cuda.cuda_error() or "the driver answers, but knows no GPU")
        raise ConfigError(f"the device cuda needs an NVIDIA GPU and its driver: {reason}; use --device cpu")
    return cupy


def _load_numba_cuda():
    """Let numba-cuda load what it compiles with. Up to 0.30.4 it asks for a function that NumPy 2.5 has no more."""
    gone = "row_stack"  # an alias of vstack
    if hasattr(np, gone):
        return
    setattr(np, gone, np.vstack)
    try:
        import numba.cuda.np.arrayobj  # noqa: F401
    finally:
        delattr(np, gone)


class _SimulatedCuda:
    """numba.cuda as a kernel sees it in the simulator: threadIdx, shared memory and so on of the launch that runs.

    The simulator does this by exchanging the global `cuda` of a function while a thread is inside, which goes wrong
    for a device function of another file: the first thread to leave takes it from the others.
    """

    def __getattr__(self, name):
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context() or numba_cuda, name)


if SIMULATED:
    import refattn.ops.cuda.simulator  # noqa: F401  it takes the place of a part of Numba's

    cuda = _SimulatedCuda()
    xp = np
    to_host = np.asarray
    exp = np.exp  # of the type of its argument; math.exp is exact in float32 too, and a Python float
    kernel = numba_cuda.jit
    OutOfMemory = MemoryError

    def device(function):
        return function

else:
    from numba.cuda.dispatcher import CUDACache

    cuda = numba_cuda
    xp = _import_cupy()
    _load_numba_cuda()
    to_host = xp.asnumpy
    exp = math.exp

    def kernel(function):
        """numba_cuda.jit, whose kernels are kept on disk, and forgotten when a source changes; see common/jit.py."""
        compiled = numba_cuda.jit(function)
        compiled._cache = cache_of(function, CUDACache)
        return compiled

    device = functools.partial(numba_cuda.jit, device=True)
    OutOfMemory = xp.cuda.memory.OutOfMemoryError
    # Both libraries work in the stream that is current in CuPy, so that the order of launches is the order of
    # execution: Numba need not wait for the stream of every array. And small shards are meant.
    config.CUDA_ARRAY_INTERFACE_SYNC = config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


# ---- launches ----------------------------------------------------------------------------------------------------

LISTENER = None  # takes launches and products in the place of the device; benchmarks/ledger.py counts them


class _View:
    """An array as Numba takes it: address, shape and type, without the stream, for which it would wait or ask CuPy."""

    def __init__(self, array):
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.data.ptr, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
        }


@functools.lru_cache(maxsize=16)
def _numba_stream(pointer):
    return numba_cuda.external_stream(pointer) if pointer else 0


def call(function: Callable, blocks: int, threads: int, shared: int, arguments: Sequence) -> None:
    """Launch the kernel `function` in the current stream, with `shared` bytes of dynamic shared memory."""
    if LISTENER is not None:
        LISTENER.launched(function, blocks, threads, arguments)
        return
    stream = 0
    if not SIMULATED:
        stream = _numba_stream(xp.cuda.get_current_stream().ptr)
        arguments = [_View(a) if isinstance(a, xp.ndarray) else a for a in arguments]
    function[blocks, threads, stream, shared](*arguments)


if SIMULATED:

    def warp_sum(buffer, value):
        """Sum of `value` over the threads of a warp, known to all of them; has one barrier of the block."""
        lane = cuda.threadIdx.x
        buffer[lane] = value
        cuda.syncthreads()
        return _pairs(buffer, lane - lane % WARP, WARP)

    def group_sum(buffer, value, size):
        """Sum over the `size` threads, a power of two of at most WARP, of which this one is one; two barriers."""
        lane = cuda.threadIdx.x
        buffer[lane] = value
        cuda.syncthreads()
        total = _pairs(buffer, lane - lane % size, size)
        cuda.syncthreads()
        return total

    def _pairs(buffer, first, size):
        """What the shuffles add up to: halves of halves, so that every thread has the same bits."""
        if size == 1:
            return buffer[first]
        return _pairs(buffer, first, size // 2) + _pairs(buffer, first + size // 2, size // 2)

else:

    @device
    def warp_sum(buffer, value):
        """Sum of `value` over the threads of a warp, known to all of them; has one barrier of the block."""
        offset = WARP // 2
        while offset > 0:
            value += cuda.shfl_xor_sync(0xFFFFFFFF, value, offset)
            offset //= 2
        cuda.syncthreads()
        return value

    @device
    def group_sum(buffer, value, size):
        """Sum over the `size` threads, a power of two of at most WARP, of which this one is one; no barrier."""
        offset = size // 2
        while offset > 0:
            value += cuda.shfl_xor_sync(0xFFFFFFFF, value, offset)
            offset //= 2
        return value


# ---- products ----------------------------------------------------------------------------------------------------

WORKSPACE = 32 << 20  # bytes, what cuBLAS asks for on Hopper; its own, so that a captured product allocates nothing
DEFAULT_MATH, TF32_MATH = 0, 3  # cublasMath_t


class _Cublas:
    """cuBLAS without CuPy, whose wrapper promises nothing inside a captured graph and has no workspace to give.

    A handle for each stream and precision. Atomics are off in cuBLAS by default: results repeat bit for bit.
    """

    def __init__(self):
        from cuda.pathfinder import load_nvidia_dynamic_lib

        self.library = ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
        self.handles = {}
        pointer = ctypes.c_void_p
        integer = ctypes.c_int
        for name in ("cublasSgemm_v2", "cublasDgemm_v2"):
            shape = [integer] * 5 + [pointer] * 2 + [integer, pointer, integer, pointer, pointer, integer]
            getattr(self.library, name).argtypes = [pointer, *shape]
        self.library.cublasCreate_v2.argtypes = [pointer]
        self.library.cublasSetStream_v2.argtypes = [pointer, pointer]
        self.library.cublasSetWorkspace_v2.argtypes = [pointer, pointer, ctypes.c_size_t]
        self.library.cublasSetMathMode.argtypes = [pointer, integer]

    def __call__(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            raise DeviceError(f"{name} of cuBLAS fails with status {status}; check the GPU with nvidia-smi, try again")

    def handle(self, stream, tf32):
        """The handle for a stream (its address). Made on first use, which is to be before a capture."""
        if (stream, tf32) not in self.handles:
            handle = ctypes.c_void_p()
            workspace = xp.cuda.Memory(WORKSPACE)
            self("cublasCreate_v2", ctypes.byref(handle))
            self("cublasSetStream_v2", handle, stream)
            self("cublasSetWorkspace_v2", handle, workspace.ptr, WORKSPACE)
            self("cublasSetMathMode", handle, TF32_MATH if tf32 else DEFAULT_MATH)
            self.handles[stream, tf32] = handle, workspace
        return self.handles[stream, tf32][0]


_cublas = functools.cache(_Cublas)


TF32 = False  # whether products of float32 take factors rounded to 10 bits, by tensor cores; see in_tf32


def in_tf32(function: Callable) -> Callable:
    """The function with all products inside it in TF32."""

    @functools.wraps(function)
    def call_in_tf32(*arguments, **keywords):
        global TF32
        before = TF32
        TF32 = True
        try:
            return function(*arguments, **keywords)
        finally:
            TF32 = before

    return call_in_tf32


def multiply(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray, accumulate: bool = False) -> xp.ndarray:
    """out = a b, or out += a b with `accumulate`; rows or columns of a and b are contiguous.

    Parameters
    ----------
    a : (M, K), b : (K, N) float; out : (M, N) C-contiguous

    Returns
    -------
    out
    """
    if LISTENER is not None:
        LISTENER.multiplied(a, b, out, accumulate)
    elif SIMULATED:
        product = np.matmul(a, b)
        out[...] = out + product if accumulate else product
    elif not (out.size and a.shape[1]):
        if not accumulate:
            out[...] = 0
    else:
        letter, scalar = ("S", ctypes.c_float) if out.dtype == np.float32 else ("D", ctypes.c_double)
        handle = _cublas().handle(xp.cuda.get_current_stream().ptr, TF32)
        one = ctypes.byref(scalar(1))
        beta = ctypes.byref(scalar(accumulate))
        *sizes, step_b, step_a, step_out = by_columns(a, b, out)
        pointers = b.data.ptr, step_b, a.data.ptr, step_a, beta, out.data.ptr, step_out
        _cublas()(f"cublas{letter}gemm_v2", handle, *sizes, one, *pointers)
    return out


def by_columns(a: xp.ndarray, b: xp.ndarray, out: xp.ndarray) -> tuple[int, ...]:
    """The product as cuBLAS takes it, which goes by columns: out^T = b^T a^T, where it reads each array transposed.

    Returns
    -------
    transpose_b, transpose_a, n, m, k, step_b, step_a, step_out : int
    """
    (of_a, step_a), (of_b, step_b) = _layout(a), _layout(b)
    return of_b, of_a, out.shape[1], out.shape[0], a.shape[1], step_b, step_a, out.shape[1]


def _layout(x):
    """Whether cuBLAS is to transpose (1) the columns that it sees in the rows of x, and the step between them."""
    (n_rows, n_columns), (row, column) = x.shape, (step // x.itemsize for step in x.strides)
    if n_columns == 1 or (column == 1 and (n_rows == 1 or row >= n_columns)):
        return 0, row if n_rows > 1 else n_columns
    if n_rows == 1 or row == 1:
        return 1, column
    raise ValueError(f"an array of shape {x.shape} and strides {x.strides} has neither rows nor columns in one piece")


# ---- streams, graphs, memory -------------------------------------------------------------------------------------


@functools.cache
def training_stream():
    """The stream of captured graphs. It and the default stream wait for one another, but for during a capture."""
    return contextlib.nullcontext() if SIMULATED else xp.cuda.Stream()


class Scratch:
    """Memory for work arrays that captured graphs write into: it stays where it is as long as this object lives.

    CuPy's pool gives back to the driver what it holds free when memory runs out; a graph would not know. All graphs
    share the memory: they run one after the other, and nothing of a step is used in the next.
    """

    def __init__(self):
        self.held = []
        self.pool = None if SIMULATED else xp.cuda.MemoryPool(self._from_driver)

    def _from_driver(self, size):
        try:
            memory = xp.cuda.Memory(size)
        except xp.cuda.runtime.CUDARuntimeError:  # CuPy's own pool holds what predictions left free
            xp.get_default_memory_pool().free_all_blocks()
            memory = xp.cuda.Memory(size)
        self.held.append(memory)
        return xp.cuda.MemoryPointer(memory, 0)

    def in_use(self):
        """A context in which CuPy's arrays come from here."""
        return contextlib.nullcontext() if SIMULATED else xp.cuda.using_allocator(self.pool.malloc)


def lasting():
    """A context in which CuPy's arrays come from its own pool: for what outlives a step, whatever Scratch is in use.

    Memory that is free in a Scratch is written by graphs that were captured before.
    """
    return contextlib.nullcontext() if SIMULATED else xp.cuda.using_allocator(xp.get_default_memory_pool().malloc)


class Replay:
    """A function of no arguments, whose launches are captured as a graph; calling the Replay repeats them.

    The function runs twice: once as it is, so that all is compiled, loaded and allocated, and once captured. With
    capture=False, and in the simulator, it is called each time. It is to start and end with the same arrays.
    """

    def __init__(self, function: Callable[[], None], scratch: Scratch, capture: bool = True):
        self.function = function
        self.scratch = scratch
        self.capture = capture and not SIMULATED
        self.graph = None

    def __call__(self):
        with training_stream() as stream, self.scratch.in_use():
            if self.graph is not None:
                self.graph.launch(stream)
                return
            self.function()
            if self.capture:
                self._capture(stream)

    def _capture(self, stream):
        stream.begin_capture()
        try:
            self.function()
        except BaseException:
            stream.end_capture()  # or the stream would stay without use
            raise
        self.graph = stream.end_capture()


def free_memory() -> int | None:
    """Bytes that can still be had on the device, those in CuPy's pool among them; None in the simulator."""
    if SIMULATED:
        return None
    return xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()


def seconds(function: Callable[[], object], times: int = 1) -> float:
    """Time of `times` calls of a function on the device, from event to event, in s a call."""
    if SIMULATED:
        began = time.perf_counter()
        for _ in range(times):
            function()
        return (time.perf_counter() - began) / times
    events = [xp.cuda.Event() for _ in range(2)]
    events[0].record()
    for _ in range(times):
        function()
    events[1].record()
    events[1].synchronize()
    return xp.cuda.get_elapsed_time(*events) / 1e3 / times


def identity() -> bytes | None:
    """What tells the GPU of this process from all others; None in the simulator."""
    return None if SIMULATED else bytes(xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())["uuid"])


def device_facts() -> dict:
    """Name, memory and versions of the device, as a dict."""
    if SIMULATED:
        return {"name": "Numba's simulator"}
    properties = xp.cuda.runtime.getDeviceProperties(0)
    return {
        "name": properties["name"].decode(),
        "memory_gb": properties["totalGlobalMem"] / 1e9,
        "multiprocessors": properties["multiProcessorCount"],
        "driver": xp.cuda.runtime.driverGetVersion(),
        "runtime": xp.cuda.runtime.runtimeGetVersion(),
        "cupy": xp.__version__,
    }
