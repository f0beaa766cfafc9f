"""The one decorator for compiled functions (docs/design.md section 6): every Numba kernel of refattn is made by it."""

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numba
from numba.core.caching import Cache, FunctionCache, NullCache

# Sums may be reordered, which vectorises them, and a product fused with a sum; NaN and infinity keep their meaning,
# because a loss that is not finite must be seen.
REORDER = {"reassoc", "contract", "arcp", "nsz"}
ROOT = Path(__file__).parents[2]  # of the package
IMPORT = re.compile(rb"^(?:from|import) +(refattn[\w.]*)(?: +import +(\([^)]*\)|.*))?", re.MULTILINE)


def jit(
    function: Callable | None = None, *, fastmath: bool = False, inline: bool = False, allocates: bool = True
) -> Callable:
    """numba.njit for refattn, as `@jit` or `@jit(fastmath=True)`.

    nogil, because threads live one level above; error_model="numpy", because with the default every division
    carries a check for zero and no loop that divides is vectorised (430 against 51 ns for 128 swishes). What is
    compiled is kept on disk, so that only the first run on a machine compiles, and made anew when a source changes.

    inline copies a helper into the kernels that call it. With fastmath it must be: a call may otherwise be linked to
    another compilation of the helper in the run that compiles than in those that load from the cache, and the order
    of its sums, so the last bits, would differ between the first run and the others.

    A function that makes no arrays says so by allocates=False, and no references are counted in it: Numba counts,
    in atomic operations, every row that is taken of an array and every array that is handed to a helper (155 ns for an
    edge's backward in a layer, of 1,940). It cannot return an array then.
    """
    if function is None:
        return functools.partial(jit, fastmath=fastmath, inline=inline, allocates=allocates)
    options = {"fastmath": REORDER if fastmath else False, "inline": "always" if inline else "never"}
    if not allocates:
        options["_nrt"] = False  # Numba's name: no run-time of its own
    compiled = numba.njit(nogil=True, error_model="numpy", **options)(function)
    if not numba.config.DISABLE_JIT:
        compiled._cache = cache_of(function)  # what cache=True sets, to a cache that looks at one file only
    return compiled


@functools.cache
def _kept_by(cache):
    """The class `cache` of Numba, which forgets a kernel when a file of refattn changes that its code may come from.

    A kernel that cannot be kept, or one that was kept and cannot be read, is compiled anew.
    """
    index_file = sys.modules[cache.__mro__[1].__module__].IndexDataCacheFile  # numba-cuda has a copy of Numba's

    class Cache(cache):
        def __init__(self, function):
            super().__init__(function)
            stamp = sources_digest(inspect.getfile(function))
            self._cache_file = index_file(self._cache_path, self._impl.filename_base, stamp)

        def load_overload(self, sig, target_context):
            try:
                return super().load_overload(sig, target_context)
            except Exception:  # what a damaged file raises in LLVM and where Python objects are read
                return None

        def save_overload(self, sig, data):
            try:
                super().save_overload(sig, data)
            except Exception as error:  # the disk is full, or the index is damaged: as above
                _tell_not_kept(error)

    return Cache


def cache_of(function: Callable, kind: type = FunctionCache) -> Cache:
    """The function's cache, of a class of Numba's; one that keeps nothing where no folder for it can be written."""
    try:
        return _kept_by(kind)(function)
    except (OSError, RuntimeError) as error:
        _tell_not_kept(error)
        return NullCache()


_not_kept = []  # why, the first time


def _tell_not_kept(error):
    """Say it once. What this imports is no part of any kernel, so that it has no place among the imports above."""
    from refattn.common.notices import tell
    from refattn.errors import in_one_line

    if not _not_kept:
        _not_kept.append(in_one_line(error))
        tell(f"compiled kernels cannot be kept ({_not_kept[0]}); they are compiled again in the next process")


@functools.cache
def sources_digest(path: str) -> str:
    """Digest of a file, of the files of refattn that it imports, and of those that they import."""
    paths = [Path(path)]
    digest = hashlib.sha256()
    for path in paths:  # which grows
        own, imported = _read(path)
        digest.update(own)
        paths += [file for file in imported if file not in paths]
    return digest.hexdigest()


@functools.cache
def _read(path):
    """Digest of a file, and the files of refattn that are imported where its lines begin."""
    source = path.read_bytes()
    imported = []
    for module, names in IMPORT.findall(source):
        path = ROOT.joinpath(*module.decode().split("."))
        imported += [path.with_suffix(".py"), path / "__init__.py"]
        imported += [path / f"{name}.py" for name in re.findall(r"\w+", names.decode())]
    return hashlib.sha256(source).digest(), [file for file in imported if file.is_file()]
