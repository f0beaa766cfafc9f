"""Training on ranks: processes, on one machine or many, that an MPI launcher started; and their sums, in a fixed order.

The sum of a batch's shards runs along a binary tree that their number K alone decides: its node (depth, number) is the
sum over the shards from K number >> depth up to K (number + 1) >> depth. Rank r of R computes the shards from K r // R
up to K (r + 1) // R and adds up the nodes that lie among them. Then every rank gets a slice of all nodes, finishes the
tree for it, and gives the result to all. So the sum has the same bits for any number of ranks, and as many bytes
travel as with a sum whose order the library chooses.
"""

import atexit
import contextlib
import functools
import itertools
import os
import socket
import sys
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from refattn.common.environment import available_cores, launched
from refattn.errors import ConfigError, RefattnError, TrainingError, in_one_line

WAIT = 3  # seconds that the first rank has to say what is wrong before another one does
INSTALL = "install refattn[mpi], and start with the mpiexec of the same MPI, or with srun --mpi=pmi2"
DEVICES = Path("/dev")  # where every GPU has a file, nvidia0 and so on
Node = tuple[int, int]  # depth, number


class Ranks:
    """A process that is alone. MpiRanks has the same methods for several.

    index, size : int     of this process; how many there are
    """

    index = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.index == 0

    def share(self, n: int) -> slice:
        """The items of this rank among `n`."""
        return slice(n * self.index // self.size, n * (self.index + 1) // self.size)

    def gather(self, items: list) -> list:
        """The items of all ranks, in the ranks' order, on each of them."""
        return items

    def from_first(self, item: object) -> object:
        """The item of the first rank, on all."""
        return item

    def wait(self) -> None:
        """Until all ranks are here."""

    def total(self, n_shards: int, nodes: list[np.ndarray], out: np.ndarray) -> None:
        """Write the sum over all shards of all ranks into `out` (P,).

        nodes : list of (P,)     the sums of this rank's nodes; see nodes_of
        """
        out[...] = nodes[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on one of the ranks."""
        return any(self.gather([bool(flag)]))

    def n_threads(self) -> int:
        """A core for each thread of all ranks that may use the same cores of a machine."""
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        mine = socket.gethostname(), cores
        return max(1, available_cores() // self.gather([mine]).count(mine))

    def map(self, map_fn: Callable) -> Callable:
        """A function like map whose items all ranks share out, and whose results all of them get, in order.

        map_fn : callable     for the items of a rank; its attribute `local` in what is returned
        """
        if self.size == 1:
            return map_fn

        def shared(function, items):
            items = list(items)
            return self.gather(list(map_fn(function, items[self.share(len(items))])))

        shared.local = map_fn
        return shared

    def check_equal(self, digest: str) -> None:
        """Raise TrainingError where the ranks have come to different digests."""
        found = self.gather([(digest, self.index, socket.gethostname())])
        for other, index, host in found:
            if other != found[0][0]:
                raise TrainingError(
                    f"rank {index} on {host} has come to other parameters than rank 0 on {found[0][2]}; train on "
                    "machines with the same processor and the same versions (refattn info)"
                )

    @contextlib.contextmanager
    def ending_together(self, *but: type) -> Iterator[None]:
        """End all ranks when the block raises an error on one of them, but for the kinds that all raise together."""
        yield


class MpiRanks(Ranks):
    """The ranks of a communicator of mpi4py."""

    def __init__(self, communicator: typing.Any):
        self.communicator = communicator
        self.index = communicator.Get_rank()
        self.size = communicator.Get_size()
        self.ends = False

    def gather(self, items: list) -> list:
        return [item for part in self.communicator.allgather(items) for item in part]

    def from_first(self, item: object) -> object:
        return self.communicator.bcast(item)

    def wait(self) -> None:
        self.communicator.Barrier()

    def total(self, n_shards: int, nodes: list[np.ndarray], out: np.ndarray) -> None:
        n_ranks = self.size
        each = [nodes_of(n_shards, n_shards * r // n_ranks, n_shards * (r + 1) // n_ranks) for r in range(n_ranks)]
        ends = [len(out) * r // n_ranks for r in range(n_ranks + 1)]
        lengths = np.diff(ends)
        mine = lengths[self.index]
        sent = np.concatenate([node[a:b] for a, b in itertools.pairwise(ends) for node in nodes] or [out[:0]])
        received = np.empty((sum(map(len, each)), mine), out.dtype)
        to_all = len(nodes) * lengths
        from_all = [len(part) * mine for part in each]
        self.communicator.Alltoallv([sent, to_all], [received, from_all])
        known = dict(zip((node for part in each for node in part), received))
        total = tree_sum(n_shards, (0, 0), known.get, lambda a, b: np.add(a, b, out=a))
        self.communicator.Allgatherv(np.ascontiguousarray(total), [out, lengths])

    @contextlib.contextmanager
    def ending_together(self, *but: type) -> Iterator[None]:
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, but) or self.ends:
                raise
            self.ends = True
            atexit.register(self.communicator.Abort, 1)  # after the error was said; MPI's own end would wait for all
            if self.first:
                raise
            time.sleep(WAIT)
            sys.stderr = sys.__stderr__  # the command line keeps all but the first rank silent
            if not isinstance(error, RefattnError):
                raise
            raise type(error)(f"rank {self.index} on {socket.gethostname()}: {error}") from None


ALONE = Ranks()


@functools.cache
def open_ranks() -> Ranks:
    """The Ranks that this process was started with; ALONE without a launcher.

    Raises ConfigError where a launcher started several processes that do not see each other.
    """
    n_started = launched()[0]
    if n_started < 2:
        return ALONE
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"{n_started} processes were started, but mpi4py finds no MPI ({in_one_line(error)}); {INSTALL}"
        ) from None
    size = MPI.COMM_WORLD.Get_size()
    if size == 1:
        raise ConfigError(
            f"{n_started} processes were started, but they do not see each other: the MPI of mpi4py "
            f"({in_one_line(MPI.Get_library_version())[:40]}) is not that of the launcher; {INSTALL}"
        )
    return MpiRanks(MPI.COMM_WORLD)


def take_gpu(ranks: Ranks) -> None:
    """Let this process see one GPU, as the ranks of a machine share out those that it has or CUDA_VISIBLE_DEVICES
    names; none or a single one that is named is left so, by who hid or shared them out. To be called before anything
    asks for a GPU.

    Raises ConfigError where there are fewer of them than ranks.
    """
    host = socket.gethostname()
    hosts = ranks.gather([host])
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        n_found = sum(path.name.removeprefix("nvidia").isdecimal() for path in DEVICES.glob("nvidia*"))
        named = [str(number) for number in range(n_found or hosts.count(host))]
    else:
        named = named.split(",")
        if len(named) == 1:
            return
    if len(named) < hosts.count(host):
        raise ConfigError(
            f"{host} has {hosts.count(host)} ranks and {len(named)} GPUs, and every rank needs its own; start fewer "
            "ranks a machine, or give each one GPU by CUDA_VISIBLE_DEVICES"
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = named[hosts[: ranks.index].count(host)]


def nodes_of(n_shards: int, first: int, last: int, node: Node = (0, 0)) -> list[Node]:
    """The largest nodes of the tree that lie among the shards from `first` up to `last`, in their order."""
    start, stop = shards_of(n_shards, node)
    if start == stop or stop <= first or last <= start:
        return []
    if first <= start and stop <= last:
        return [node]
    return [found for child in children(node) for found in nodes_of(n_shards, first, last, child)]


def tree_sum(n_shards: int, node: Node, known: Callable, add: Callable) -> typing.Any:
    """The sum over the shards of a node.

    Parameters
    ----------
    known : callable (Node)     gives the sums of nodes where they are known, None for others; asked in their order
    add : callable (a, b)       a + b
    """
    found = known(node)
    if found is not None:
        return found
    parts = [child for child in children(node) if np.diff(shards_of(n_shards, child))]
    sums = [tree_sum(n_shards, child, known, add) for child in parts]
    return functools.reduce(add, sums)


def shards_of(n_shards: int, node: Node) -> tuple[int, int]:
    """The first shard of a node, and the one after its last."""
    depth, number = node
    return n_shards * number >> depth, n_shards * (number + 1) >> depth


def children(node: Node) -> tuple[Node, Node]:
    """The two nodes of which a node is the sum."""
    depth, number = node
    return (depth + 1, 2 * number), (depth + 1, 2 * number + 1)
