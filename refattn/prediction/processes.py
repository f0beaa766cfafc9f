"""Predictions by several processes: each reads pieces of the sources (data/sources/pieces.py) and predicts them.

Threads share the interpreter's lock, which reading and making graphs hold for a third of the time: they keep three
cores busy, processes all. What they predict has the same bits, and comes in the order of the sources. The process that
asks computes with threads for ALONE seconds first, in which most inputs end: others would take as long to start.
"""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import typing
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

import ase

from refattn.common.environment import available_cores
from refattn.data.sources.files import FilesSource, Seen, Skip, read_structures
from refattn.data.sources.pieces import pieces
from refattn.errors import DataError, RunError
from refattn.prediction.predictor import Outside, Prediction, Predictor

ALONE = 2.0  # seconds
AHEAD = 3  # pieces for every process: one that it computes, others that wait
MOST = 61  # processes, which is all that Windows can wait for
LARGEST = 1 << 19  # sites of a piece: a packed file of a megabyte may hold a hundred times that

_order: tuple | None = None  # what this process was told, in one that was started here


class Found(typing.NamedTuple):
    """What a process makes of a piece."""

    met: list[tuple[str, tuple]]  # ids and locations, in the order of reading
    predicted: list[tuple[list[ase.Atoms], Prediction]]
    left_out: list[tuple[str, str]]
    outside: Outside


class Recorder(Seen):
    """A Seen that keeps the ids that are new to it."""

    def __init__(self):
        super().__init__()
        self.met = []

    def meet(self, id: str, location: tuple[str, int | None]) -> tuple[str, int | None] | None:
        other = super().meet(id, location)
        if other is None:
            self.met.append((id, location))
        return other


def predict_sources(
    model: Predictor,
    sources: Sequence[FilesSource],
    n_processes: int | None = None,
    skip: Skip | None = None,
    **asked: object,
) -> Iterator[tuple[list[ase.Atoms], Prediction]]:
    """What model.predict_stream gives of the structures of sources, by processes.

    Parameters
    ----------
    model : Predictor           with an Outside in `outside`; copies of it go to the processes
    sources : of FilesSource    that pieces.can_be_cut
    n_processes : int           by default one for each core
    skip, **asked               as of Predictor.predict_stream

    Raises what predict_stream and the sources raise; RunError where a process breaks down.
    """
    seen = Seen()
    n_processes = n_processes or available_cores()
    for source in sources:
        source.skip = skip

    def predict_here(piece):
        structures = read_structures([piece], skip=skip, seen=seen)
        return model.predict_stream(structures, n_threads=n_processes, skip=skip, **asked)

    begun = time.monotonic()
    found = pieces(sources)
    for piece in found:
        yield from predict_here(piece)
        if n_processes > 1 and time.monotonic() - begun > ALONE:
            break
    else:
        return
    context = multiprocessing.get_context("spawn")
    order = (model, asked, skip is not None)
    pool = concurrent.futures.ProcessPoolExecutor(min(n_processes, MOST), context, _begin, order)
    with _sigterm_exits():
        try:
            for piece, future in _ahead(pool, found, AHEAD * n_processes):
                result = future.result()
                if result is None or any(id in seen for id, _ in result.met):
                    yield from predict_here(piece)  # and meet the error, or say what is left out
                    continue
                for id, location in result.met:
                    seen.meet(id, location)
                for id, reason in result.left_out:
                    skip(id, DataError(reason))
                model.outside.merge(result.outside)
                yield from result.predicted
        except BrokenProcessPool:
            raise RunError(
                "one of the processes that predict was killed, perhaps for its memory; ask for fewer --threads"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ahead(pool, found, n):
    """(piece, Future) in order, of `n` pieces that are under way; at last the error that ended `found`."""
    waiting = collections.deque()
    error = None
    is_open = True
    while is_open or waiting:
        while is_open and len(waiting) < n:
            try:
                piece = next(found, None)
            except Exception as raised:  # of reading, in its turn
                piece = None
                error = raised
            is_open = piece is not None
            if is_open:
                piece.skip = None
                with _interrupts_wait():
                    waiting.append((piece, pool.submit(_predict, piece)))
        if waiting:
            yield waiting.popleft()
    if error:
        raise error


@contextlib.contextmanager
def _sigterm_exits():
    """SIGTERM is an exit, after which the pool is closed; by default Python would end with warnings of what is open."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _interrupts_wait():
    """Ctrl-C and SIGTERM are heard afterwards: a process that is half started would end with a traceback.

    The processes that start here inherit the mask and never hear Ctrl-C: who asked does, and ends them. In this process
    the mask holds for one thread and the signal may reach another, after which Python calls the handler in the main
    thread all the same; so the handlers wait too.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {}
    heard = []
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, lambda number, frame: heard.append(number)) for number in numbers}
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers) if masks else None
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None was not set by Python
        if heard:
            signal.raise_signal(heard[0])


def _begin(model, asked, skips):
    """What a process does first."""
    global _order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # was inherited from _interrupts_wait
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    _order = model, asked, skips


def _end_with(parent):
    parent.join()
    os._exit(1)


def _predict(piece):
    """Found of a piece; None where an error is to be met by the process that asked, or where it is too much at once."""
    model, asked, skips = _order
    model.outside = Outside(model.checkpoints[0])
    left_out = []
    skip = (lambda id, error: left_out.append((id, str(error)))) if skips else None
    seen = Recorder()
    try:
        structures = read_structures([piece], skip=skip, seen=seen)
        predicted = []
        n_sites = 0
        for found in model.predict_stream(structures, n_threads=1, skip=skip, **asked):
            predicted.append(found)
            n_sites += sum(map(len, found[0]))
            if n_sites > LARGEST:
                return None
    except Exception:  # whatever it is, predict_here meets it again
        return None
    return Found(seen.met, predicted, left_out, model.outside)
