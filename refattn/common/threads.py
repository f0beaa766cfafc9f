"""Shards on threads: each is computed by one thread from end to end, and results come back in the shards' order.

So a result has the same bits for any number of threads. BLAS runs on one thread inside (threadpoolctl): its own
threads would compete with ours, and its sums would depend on their number.
"""

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator

import threadpoolctl

from refattn.errors import ConfigError


def local_map(map_fn: Callable) -> Callable:
    """A function like map as the threads of this process are, where `map_fn` shares items out among ranks."""
    return getattr(map_fn, "local", map_fn)


def mapped_to(map_fn: Callable, reduced: Callable) -> Callable:
    """A function like `map_fn`, of whose results only reduced(result) are passed on."""

    def mapped(function, items):
        return map_fn(lambda item: reduced(function(item)), items)

    mapped.local = local_map(map_fn)
    return mapped


@contextlib.contextmanager
def workers(n_threads: int) -> Iterator[Callable]:
    """A function like `map(function, items)`, on `n_threads` threads; results come lazily, in order.

    When one item raises, those that have not begun are dropped and the error is passed on.
    """
    if n_threads < 1:
        raise ConfigError(f"{n_threads} threads cannot compute anything; ask for at least 1")
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        if n_threads == 1:
            yield map
            return
        pool = concurrent.futures.ThreadPoolExecutor(n_threads, thread_name_prefix="shard")
        try:
            yield pool.map
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
