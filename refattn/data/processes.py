"""prepare by several processes: each prepares pieces of the source, and join.py makes one data set of them.

Threads share the interpreter's lock, which `prepare` holds for half of its time: they keep two cores busy, processes
all. A piece is some of the files of a folder, or some of the frames where there are only a few files of extended XYZ:
then every process cuts all frames, and parses its own, which is most of the work. The pieces do not depend on the
number of processes, nor does the data set, which is that of prepare.prepare. Finished pieces are kept beside it until
it is complete, in the folder of blocks.py.

A process is this module, run by another interpreter: it reads what to prepare from stdin, and says what it does on
stdout, both in lines of JSON. It ends when nobody listens any more.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import ase

from refattn import errors
from refattn.common.archives import OPENERS
from refattn.common.files import only_process, write_text
from refattn.config import GraphConfig
from refattn.data.blocks import FinishedBlocks, command_of
from refattn.data.join import join
from refattn.data.parts import Part, PartOfSource, input_of
from refattn.data.prepare import REASONS_KEPT, PrepareReport, notes_of, prepare
from refattn.data.sources import extxyz
from refattn.data.sources.files import XYZ, FilesSource, n_bytes
from refattn.data.store import Source, open_dataset, read_strings
from refattn.errors import DataError, RefattnError
from refattn.structures.batch import GraphBatch

PIECE_BYTES = 1 << 22  # of the source: some seconds, so that processes end together
UNPACKED = 4  # about how many times the packed size text has
MAX_PIECES = 256
SUMMED = ("n_resumed", "n_sites", "n_edges", "seconds_reading", "seconds_graphs", "seconds_writing")


class NotAsOne(RefattnError):
    """The pieces do not make what one process would have made, or a process broke down."""


class Finished(typing.NamedTuple):
    """A piece, and what is to be known of it besides its file."""

    report: PrepareReport
    texts: dict[str, tuple[int, str, str]]  # of its FilesSource, as `numeric`
    numeric: list[str]


def n_pieces(source: Source) -> int:
    """How many pieces a source is prepared in, 1 where one process has to read it: a large file that is no extended
    XYZ, an archive, a database, and whatever has its labels in a table."""
    if not isinstance(source, FilesSource) or source.table:
        return 1
    return _cut(source)[0]


def _cut(source):
    """How many pieces there are, and whether they are runs of frames: where there are too few files to share them out,
    and all can be cut."""
    n_files = len(source.files)
    text = sum(n_bytes([file]) * (UNPACKED if file.suffix.lower() in OPENERS else 1) for file in source.files)
    wanted = max(1, min(text // PIECE_BYTES, MAX_PIECES))
    by_frames = n_files * PIECE_BYTES < text and all(XYZ.search(file.name) for file in source.files)
    return wanted if by_frames else min(n_files, wanted), by_frames


def prepare_in_processes(
    source: FilesSource,
    out: Path | str,
    graph_config: GraphConfig | None = None,
    units: dict[str, str] | None = None,
    n_processes: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int | None, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> PrepareReport:
    """As prepare.prepare, by processes: the same data set, report and errors, and it goes on after a kill as that does.

    source : FilesSource     of several pieces (n_pieces), that was not iterated yet
    """
    start = time.perf_counter()
    config = graph_config or GraphConfig()
    cut = _cut(source)
    command = command_of(source, config)
    command["source"] |= {"files": _digest_of(source.files), "units": units or {}}
    command["source"]["cut"] = [*cut, extxyz.PIECE, extxyz.LINES_PER_LOOK, *sys.version_info[:2]]
    checkpoint = FinishedBlocks(out, command, note)
    GraphBatch.from_atoms(ase.Atoms("H2", [[0, 0, 0], [0, 0, 1]]), config)  # compiled once, not by all of them
    try:
        with only_process(out), checkpoint:
            checkpoint.open()
            order = _order_for(source, config, units, checkpoint.folder, *cut)
            found = _prepare_pieces(order, n_processes, out, progress)
            began = time.thread_time()
            n_structures, n_skipped, reasons = _join(order, out, overwrite)
            spent = time.thread_time() - began
    except NotAsOne:
        return prepare(
            source, out, config, units, n_threads=n_processes, overwrite=overwrite, progress=progress, note=note
        )
    for name, (count, text, where) in itertools.chain(*(piece.texts.items() for piece in found)):
        known = source.texts.get(name, (0, text, where))
        source.texts[name] = (known[0] + count, *known[1:])
    source.numeric.update(*(piece.numeric for piece in found))
    reports = [piece.report for piece in found]
    n_labelled = sum((collections.Counter(report.n_labelled) for report in reports), collections.Counter())
    labels = dict(sorted((name, unit) for report in reports for name, unit in report.labels.items()))
    sums = {name: sum(getattr(report, name) for report in reports) for name in SUMMED}
    sums["seconds_writing"] += spent
    n_done = sum(report.n_structures + report.n_skipped for report in reports)
    if progress:
        progress(n_done, n_done, sums["n_resumed"])
    return PrepareReport(
        n_structures=n_structures,
        n_skipped=n_skipped,
        reasons=reasons,
        seconds=time.perf_counter() - start,
        labels=labels,
        n_labelled={name: n_labelled[name] for name in labels},
        notes=notes_of(source, units or {}, labels),
        usual_units=sorted(set().union(*(report.usual_units for report in reports))),
        **sums,
    )


def _digest_of(files):
    """Of the names, sizes and times of the files: none of a finished piece may have changed."""
    facts = [(str(file), *((found := file.stat()).st_size, found.st_mtime_ns)) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _order_for(source, config, units, folder, count, by_frames):
    """What a process has to know; see _serve."""
    return {
        "source": {"path": str(source.path), "recursive": source.recursive, "id_from": source.id_from},
        "origin": {name: getattr(source, name) for name in ("name", "licence", "citation")},
        "graph": dataclasses.asdict(config),
        "units": units or {},
        "by_frames": by_frames,
        "folder": str(folder),
        "count": count,
    }


def _piece(order, number):
    return Path(order["folder"]) / f"{number:06d}.h5"


def _prepare_pieces(order, n_processes, out, progress):
    """Every piece by one of the processes, in their order; a list of Finished."""
    numbers = range(1, order["count"] + 1)
    missing = [number for number in numbers if not _piece(order, number).with_suffix(".json").exists()]
    done = {number: _read_finished(order, number, resumed=True) for number in numbers if number not in missing}
    waiting = iter(missing)
    failed = {}  # number -> RefattnError
    states = {number: _counts(piece.report) + (1.0,) for number, piece in done.items()}
    said = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_process(order, said)) for _ in range(min(n_processes, len(missing)))]

        def go_on(process):
            number = None if failed else next(waiting, None)
            if number is None:
                process.stdin.close()
            else:
                process.stdin.write(f"{number}\n")
                process.stdin.flush()

        for process in processes:
            go_on(process)
        n_open = len(processes)
        while n_open:
            process, message = _next(said)
            if message is None:
                n_open -= 1
                if not process.stdin.closed:
                    raise NotAsOne
                continue
            number = message["piece"]
            if "error" in message:
                kind, text = message["error"]
                kind = getattr(errors, kind, None)
                is_of_writer = kind is DataError and text.startswith(str(_piece(order, number)))
                if kind is None or is_of_writer:  # one process may not come so far, or leave the structure out
                    raise NotAsOne
                failed[number] = kind(text.replace(str(_piece(order, number)), str(out)))
            elif "state" in message:
                states[number] = tuple(message["state"])
            else:
                done[number] = _read_finished(order, number)
                states[number] = _counts(done[number].report) + (1.0,)
            if "state" not in message:
                go_on(process)
            _say(states, order["count"], progress)
    if failed:
        raise failed[min(failed)]
    return [done[number] for number in numbers]


def _next(said):
    """What a process says next; the wait ends now and then, since Windows has no Ctrl-C within one."""
    while True:
        with contextlib.suppress(queue.Empty):
            return said.get(timeout=1)


def _counts(report):
    return report.n_structures + report.n_skipped, report.n_resumed


def _say(states, count, progress):
    """Tell `progress` how far all pieces are together, but for the end."""
    n_done = sum(state[0] for state in states.values())
    fraction = sum(state[2] for state in states.values()) / count
    if progress and 0 < fraction < 1:
        progress(n_done, round(n_done / fraction), sum(state[1] for state in states.values()))


def _read_finished(order, number, resumed=False):
    content = json.loads(_piece(order, number).with_suffix(".json").read_text(encoding="utf-8"))
    report = PrepareReport(**content.pop("report"))
    if resumed:
        n_done = report.n_structures + report.n_skipped
        report = dataclasses.replace(report, n_resumed=n_done, seconds_reading=0, seconds_graphs=0, seconds_writing=0)
    return Finished(report, **content)


def _join(order, out, overwrite):
    """The data set of all pieces: its numbers of structures and of those left out, and the reasons of the first few."""
    paths = [_piece(order, number) for number in range(1, order["count"] + 1)]
    shapes = {}
    for path in paths:
        with open_dataset(path) as file:
            for name, values in file["arrays"].items():
                if shapes.setdefault(name, values.shape[1:]) != values.shape[1:]:
                    raise NotAsOne
    try:
        joined = join(paths, out, overwrite, locked=True, unique=True)
    except DataError:
        raise NotAsOne from None
    with open_dataset(out) as file:
        first = [read_strings(file[f"skipped/{name}"], slice(REASONS_KEPT)).tolist() for name in ("id", "reason")]
    return joined.n_structures, joined.n_skipped, list(zip(*first, strict=True))


@contextlib.contextmanager
def _process(order, said) -> Iterator[subprocess.Popen]:
    """A process that got its order; (process, message) of all that it says are put into `said`, None at its end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "refattn.data.processes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"},
    )

    def listen():
        with contextlib.suppress(ValueError):  # of a line that was cut
            for line in process.stdout:
                said.put((process, json.loads(line)))
        said.put((process, None))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        yield process
    except BrokenPipeError:
        raise NotAsOne from None
    finally:
        process.terminate()  # those that are done have ended, or are about to
        process.wait()
        listener.join()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()


class _Runs:
    """The frames of files of extended XYZ, in `count` runs of about the same number of bytes, taken in ascending order.

    A frame belongs to the run in which its file has been read when it is cut.
    """

    def __init__(self, source, count):
        self.source = source.unread_copy()
        self.count = count
        self.runs = itertools.groupby(self.source.structures(parse=False), self._number)
        self.next = None  # (number, frames) of a run that was reached and not taken

    def _number(self, _):
        return 1 + min(int((self.source.fraction or 0) * self.count), self.count - 1)

    def take(self, number):
        """A FilesSource of the frames of a run, to be iterated before the next one is taken; it may have none."""
        piece = self.source.unread_copy()
        piece.cut = self._frames(number, piece)
        return piece

    def _frames(self, number, piece):
        while self.next is None or self.next[0] < number:
            self.next = next(self.runs, (self.count + 1, ()))
        if self.next[0] == number:
            for frame in self.next[1]:
                piece.fraction = (self.source.fraction or 0) * self.count - number + 1
                yield frame


def _serve(lines: Iterator[str], say: Callable[[dict], None]) -> None:
    """What a process does: prepare the pieces whose numbers follow the order."""
    order = json.loads(next(lines))
    source = FilesSource(**order["source"])
    for name, text in order["origin"].items():
        setattr(source, name, text)
    known = input_of(source)
    config = GraphConfig(**order["graph"])
    runs = _Runs(source, order["count"]) if order["by_frames"] else None
    for line in lines:
        number = int(line)
        piece = runs.take(number) if runs else source.unread_copy()
        part = PartOfSource(piece, Part(number, order["count"]), known)

        def progress(done, total, resumed, part=part, number=number):
            say({"piece": number, "state": [done, resumed, part.fraction or 0.0]})

        try:
            path = _piece(order, number)
            report = prepare(part, path, config, order["units"], overwrite=True, progress=progress)
            content = {"report": dataclasses.asdict(report), "texts": part.texts, "numeric": sorted(part.numeric)}
            write_text(path.with_suffix(".json"), json.dumps(content))
        except Exception as error:  # the others are told by the process that asked
            say({"piece": number, "error": [type(error).__name__, str(error)]})
        else:
            say({"piece": number})


def _say_line(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked is interrupted too, and ends this process
    with contextlib.suppress(BrokenPipeError):
        _serve(iter(sys.stdin.readline, ""), _say_line)
