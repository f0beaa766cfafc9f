"""What a device would do: launches and products written down with their bytes and operations, and not run.

With a Ledger in use (`with Ledger() as ledger:`) arrays keep whatever is in their memory, so that a step of any size
can be counted on a machine without a GPU, in the simulator.

Bytes are those of every array that a kernel is given, once each: read or written in full. What this leaves out comes
from the cache on a GPU of today: rows of sites read once for each edge (N rows instead of E), second readings of a
row, and tables such as nbr. Operations are those of the products, 2 for a multiply-add.
"""

import dataclasses
import inspect

import numpy as np

from refattn.ops.cuda import toolchain

TABLES = ("all_", "order", "label")  # begin the names of arguments of which a kernel reads as much as it writes


@dataclasses.dataclass(frozen=True)
class Entry:
    """One launch: its name, "kernel", "product" or "library" (CuPy's elementwise kernels), and what it moves."""

    name: str
    kind: str
    bytes: int
    operations: int
    shape: tuple


class Ledger:
    """Entries in the order of the launches, and the largest number of bytes that work arrays had at once.

    Attributes
    ----------
    entries : list of Entry
    signatures : dict of kernel -> set of tuples of its arguments' types, such as ("float32 2C", "int64")
    peak_bytes : int
    """

    def __init__(self):
        self.entries = []
        self.signatures = {}
        self.peak_bytes = 0
        self._bytes = 0

    def __enter__(self):
        self._xp = toolchain.xp
        toolchain.xp = _CountedArrays(self, toolchain.xp)
        toolchain.LISTENER = self
        return self

    def __exit__(self, *error):
        toolchain.xp = self._xp
        toolchain.LISTENER = None

    def array(self, array):
        """A work array that tells what is done with it."""
        counted = array.view(_Counted)
        self._bytes += array.nbytes
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        counted.finalizer = _Size(self, array.nbytes)
        return counted

    def launched(self, function, blocks, threads, arguments):
        """Called for every launch of a kernel."""
        python = getattr(function, "py_func", None) or function.fn
        arrays = {name: a for name, a in zip(inspect.signature(python).parameters, arguments) if np.ndim(a)}
        moved = sum(a.nbytes for name, a in arrays.items() if not name.startswith(TABLES))
        moved *= 1 + any(name in ("all_z", "all_nbr") for name in arrays)  # a gather reads as much as it writes
        self.signatures.setdefault(function, set()).add(tuple(map(_type, arguments)))
        name = python.__name__.strip("_").removesuffix("_kernel")
        self.entries.append(Entry(name, "kernel", moved, 0, (blocks, threads)))

    def multiplied(self, a, b, out, accumulate):
        """Called for every product out = a b."""
        (m, k), n = a.shape, b.shape[1]
        moved = a.nbytes + b.nbytes + out.nbytes * (1 + bool(accumulate))
        self.entries.append(Entry(f"({m}, {k}) ({k}, {n})", "product", moved, 2 * m * n * k, (m, k, n)))

    def library(self, name, *arrays):
        """Called for every elementwise operation of the library of arrays."""
        moved = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
        self.entries.append(Entry(name, "library", moved, 0, np.shape(arrays[-1])))


class _CountedArrays:
    """A library of arrays, whose new ones are counted."""

    def __init__(self, ledger, xp):
        self.ledger = ledger
        self.xp = xp

    def empty(self, shape, dtype):
        return self.ledger.array(self.xp.empty(shape, dtype))

    def asarray(self, array):
        return self.ledger.array(self.xp.asarray(array))

    def __getattr__(self, name):
        return getattr(self.xp, name)


class _Size:
    """Takes the bytes of a work array off the ledger when the last view of it is gone."""

    def __init__(self, ledger, n):
        self.ledger = ledger
        self.n = n

    def __del__(self):
        self.ledger._bytes -= self.n


class _Counted(np.ndarray):
    """A work array under a Ledger; views of it, and results of its operations, are counted too."""

    def __array_finalize__(self, other):
        self.finalizer = getattr(other, "finalizer", None)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        ledger = toolchain.LISTENER
        plain = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in inputs]
        if out is None:
            shape = np.broadcast_shapes(*map(np.shape, plain))
            dtype = np.result_type(*plain)
            out = (ledger.array(np.empty(shape, dtype)),)
        ledger.library(ufunc.__name__, *plain, out[0])
        return out[0]

    def __setitem__(self, place, value):
        toolchain.LISTENER.library("copy", value, np.asarray(self)[place])


def _type(argument):
    """The type of an argument of a kernel, as text: that of the elements, dimensions and layout of an array."""
    if not isinstance(argument, np.ndarray):
        return type(argument).__name__
    layout = "C" if argument.flags.c_contiguous else "A"
    return f"{argument.dtype} {argument.ndim}{layout}"
