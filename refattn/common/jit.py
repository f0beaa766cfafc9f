"""The one decorator for compiled functions (docs/design.md section 6): every Numba kernel of refattn is made by it."""

from collections.abc import Callable

import numba

# Sums may be reordered, which vectorises them, and a product fused with a sum; NaN and infinity keep their meaning,
# because a loss that is not finite must be seen.
REORDER = {"reassoc", "contract", "arcp", "nsz"}


def jit(
    function: Callable | None = None, *, fastmath: bool = False, inline: bool = False, allocates: bool = True
) -> Callable:
    """numba.njit for refattn, as `@jit` or `@jit(fastmath=True)`.

    nogil, because threads live one level above; error_model="numpy", because with the default every division
    carries a check for zero and no loop that divides is vectorised (430 against 51 ns for 128 swishes); cache, so
    that only the first run on a machine compiles.

    inline copies a helper into the kernels that call it. With fastmath it must be: a call may otherwise be linked to
    another compilation of the helper in the run that compiles than in those that load from the cache, and the order
    of its sums, so the last bits, would differ between the first run and the others.

    A function that makes no arrays says so by allocates=False, and no references are counted in it: Numba counts,
    in atomic operations, every row that is taken of an array and every array that is handed to a helper (155 ns for an
    edge's backward in a layer, of 1,940). It cannot return an array then.
    """
    options = {"fastmath": REORDER if fastmath else False, "inline": "always" if inline else "never"}
    if not allocates:
        options["_nrt"] = False  # Numba's name: no run-time of its own
    compiled = numba.njit(nogil=True, error_model="numpy", cache=True, **options)
    return compiled if function is None else compiled(function)
