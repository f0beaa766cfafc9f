"""prepare: structures from a source, through the neighbour rule, into a dataset, in bounded memory.

The main thread reads and writes; blocks of structures get their graphs on a pool of threads (the kernels release the
GIL). Blocks are written in the order in which they were read, so the number of threads does not change the result.
Nor does a kill: finished blocks are kept beside the dataset (blocks.py) until it is complete, and the same command
goes on from there. Memory grows with the ids only, some 0.3 kB a structure: source and writer keep them to
find those that occur twice.
"""

import collections
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from refattn.common.files import only_process
from refattn.common.text import encodable, printable
from refattn.config import GraphConfig
from refattn.data.blocks import FinishedBlocks, command_of
from refattn.data.parts import PartOfSource
from refattn.data.sources.labels import LABELS
from refattn.data.store import Source
from refattn.data.writer import DatasetWriter
from refattn.errors import ConfigError, DataError, StructureError
from refattn.structures.batch import GraphBatch

BLOCK_STRUCTURES = 512  # a block is full when it reaches this or the next
BLOCK_SITES = 16384
REASONS_KEPT = 5


@dataclasses.dataclass(frozen=True)
class PrepareReport:
    """What prepare did.

    `reasons` holds (id, reason) of the first few structures that were skipped, `labels` the unit of every label of the
    data set under its name; "" where it is not known. `n_resumed` structures have their graphs from the checkpoint of
    an earlier run, `n_labelled` of each label says how many have it, `notes` what else should be known of the source.
    `usual_units` are the labels whose unit neither the source nor the user says, but their name.
    `seconds` is by the clock, the other seconds are of a processor: they say where the work is, however
    many threads share it.
    """

    n_structures: int
    n_skipped: int
    n_resumed: int
    reasons: list[tuple[str, str]]
    n_sites: int
    n_edges: int
    seconds: float
    seconds_reading: float
    seconds_graphs: float
    seconds_writing: float
    labels: dict[str, str]
    n_labelled: dict[str, int]
    notes: list[str]
    usual_units: list[str]


def prepare(
    source: Source,
    out: Path | str,
    graph_config: GraphConfig | None = None,
    units: dict[str, str] | None = None,
    limit: int | None = None,
    n_threads: int = 1,
    append: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int | None, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> PrepareReport:
    """Write the structures of `source` with their graphs and labels to the dataset `out`.

    Parameters
    ----------
    source : Source
        Or a PartOfSource, for refattn.data.join; a part may be empty.
    units : dict, optional
        name -> unit, for labels whose unit is not known or another one.
    limit : int, optional
        Stop after so many structures.
    append : bool
        Add to `out` instead of replacing it.
    overwrite : bool
        Replace `out` even if it is no data set.
    progress : callable (done, total, resumed), optional
        Called after every block; `total` is an estimate, or None where nothing is known; `resumed` of the `done`
        structures were ready from an earlier run.
    note : callable (text), optional
        Is told what a user should know, such as that the checkpoint of another command is removed.

    Raises
    ------
    DataError
        From the source or the writer, and when no structure is left; `out` is then as it was. A structure without
        a graph (StructureError) is no reason to stop: it is recorded in /skipped.
    OutputError
        When the disk is full or fails; `out` is as it was.

    After an error of the disk, Ctrl-C or a kill the folder OUT.parts stays, and the same call goes on from it. All
    other errors remove it: to repair what they complain of makes another command of it.
    """
    start = time.perf_counter()
    config = graph_config or GraphConfig()
    part = source if isinstance(source, PartOfSource) else None
    if part and (append or limit):
        raise ConfigError("a part of a source is prepared as it is; leave out append, limit or part")
    origin = {"source": encodable(source.name), "licence": source.licence, "citation": source.citation}
    label_attrs = _label_attrs(units or {})
    writer = DatasetWriter(
        out, config, **origin, label_attrs=label_attrs, append=append, overwrite=overwrite, locked=True
    )
    count = collections.Counter()
    n_labelled = collections.Counter()
    seconds = collections.Counter()
    skipped = []
    unnamed = []
    checkpoint = FinishedBlocks(out, command_of(source, config), note)
    with only_process(out), checkpoint, _timed(writer, seconds):
        checkpoint.open()
        records = itertools.islice(_storable(source, unnamed), limit)
        blocks = _blocks(part.take(records) if part else records, count, seconds)
        for block, results, resumed in _in_order(blocks, checkpoint, config, n_threads, seconds):
            _take_units(label_attrs, source, units or {}, writer)
            skipped += _write(writer, block, results, count, seconds, n_labelled)
            if part:
                part.has_graph += [isinstance(result, GraphBatch) for result in results]
            count.update(done=len(block), resumed=len(block) if resumed else 0)
            total = _total(count["read"], source.fraction, limit)
            if progress and count["done"] != total:  # which is said once, when all is done
                progress(count["done"], total, count["resumed"])
        n_kept = count["done"] - len(skipped)
        others = [unnamed, [(printable(id), printable(text)) for id, text in getattr(source, "skipped", [])]]
        if part:
            others = others if part.says_skipped else [[], []]
            part.write(writer.file, config, units or {}, [len(skipped), *map(len, others)])
        skipped += itertools.chain(*others)
        if not (n_kept or part):
            reason = f"; the first of {len(skipped)} was left out because: {skipped[0][1]}" if skipped else ""
            raise DataError(f"{source.name}: no structure is left to write{reason}; check the source")
        for id, reason in skipped:
            writer.skip(id, reason)
        labels = writer.label_units()
        notes = notes_of(source, units or {}, [name for name in labels if n_labelled[name]] if append else labels)
    if progress:
        progress(count["done"], count["done"], count["resumed"])
    return PrepareReport(
        n_structures=n_kept,
        n_skipped=len(skipped),
        n_resumed=count["resumed"],
        reasons=skipped[:REASONS_KEPT],
        n_sites=count["sites"],
        n_edges=count["edges"],
        seconds=time.perf_counter() - start,
        **{f"seconds_{part}": seconds[part] for part in ("reading", "graphs", "writing")},
        labels=labels,
        n_labelled={name: n_labelled[name] for name in labels},
        notes=notes,
        usual_units=_usual_units(source, +n_labelled, units or {}),
    )


def notes_of(source: Source, units: dict[str, str], labels: Iterable[str]) -> list[str]:
    """Sentences on what should be known of a source, and on units that are given for none of the labels."""
    there = f"there are {', '.join(labels)}" if labels else "there is none"
    unknown = [f"the unit of {name} is given, which is no label; {there}" for name in units if name not in labels]
    return [*(source.notes() if hasattr(source, "notes") else []), *unknown]


def _label_attrs(units):
    """The attributes of labels that are known by name, with the user's units."""
    attrs = {**LABELS}
    for name, unit in units.items():
        attrs[name] = {"kind": "", "description": "", **LABELS.get(name, {}), "unit": unit}
    return attrs


def _usual_units(source, n_labelled, given):
    """The labels whose unit is known by nothing but their names."""
    if not hasattr(source, "notes"):  # of one published set, or of a kind of file that has units
        return []
    said = {name for name, unit in getattr(source, "units", {}).items() if unit}
    return [name for name in sorted(n_labelled) if LABELS.get(name, {}).get("unit") and name not in {*said, *given}]


def _take_units(label_attrs, source, given, writer):
    """Add to label_attrs the units that the source says, but for those that the user gives.

    Raises DataError for a label in several units, in the source or with those of the data set that is written.
    """
    advice = "convert one of them, or say by --unit {0}=UNIT that all are in one"
    for name, text in getattr(source, "mixed_units", {}).items():
        if name not in given:
            raise DataError(f"{text}; {advice.format(name)}")
    for name, unit in getattr(source, "units", {}).items():
        if name in given or unit in ("", label_attrs.get(name, {}).get("unit")):
            continue
        known = writer.label_units().get(name, unit)
        if known != unit:
            said = f"{source.name}: {name} is in {unit}, but in {known or 'no unit'} in the data set"
            raise DataError(f"{said}; {advice.format(name)}")
        label_attrs[name] = {"kind": "", "description": "", **LABELS.get(name, {}), "unit": unit}


@contextlib.contextmanager
def _timed(writer, seconds):
    """The open writer; its opening and closing count as writing."""
    began = time.thread_time()
    with writer:
        seconds["writing"] += time.thread_time() - began
        yield writer
        began = time.thread_time()
    seconds["writing"] += time.thread_time() - began


def _storable(records, unnamed):
    """The records whose ids a file can hold, those of file names in no encoding as escapes; (id, reason) of others are
    added to `unnamed`."""
    for record in records:
        id = encodable(record.id)
        if id and id.isprintable():
            yield record if id == record.id else record._replace(id=id)
        else:
            unnamed.append((printable(id), f"its id {id!r:.60} has characters that are not printed; give it another"))


def _blocks(records, count, seconds):
    """Lists of successive records, counted in count["read"] and timed in seconds["reading"]."""
    block = []
    n_sites = 0
    began = time.thread_time()
    for record in records:
        block.append(record)
        n_sites += len(record.atoms)
        if len(block) == BLOCK_STRUCTURES or n_sites >= BLOCK_SITES:
            count["read"] += len(block)
            seconds["reading"] += time.thread_time() - began
            yield block
            block = []
            n_sites = 0
            began = time.thread_time()
    count["read"] += len(block)
    seconds["reading"] += time.thread_time() - began
    if block:
        yield block


def _graphs(number, block, checkpoint, config):
    """(results, whether from the checkpoint, seconds): the GraphBatch or StructureError of every record of a block.

    An exception must not take the rest of the block with it.
    """
    began = time.thread_time()
    results = checkpoint.load(number, block)
    resumed = results is not None
    if not resumed:
        results = []
        for record in block:
            try:
                results.append(GraphBatch.from_atoms(record.atoms, config))
            except StructureError as error:
                results.append(error)
        checkpoint.save(number, block, results)
    return results, resumed, time.thread_time() - began


def _in_order(blocks, checkpoint, config, n_threads, seconds):
    """(block, results, whether resumed) in the order of the blocks; at most two blocks a thread are in memory."""
    pool = ThreadPoolExecutor(n_threads)
    waiting = collections.deque()

    def first():
        block, future = waiting.popleft()
        results, resumed, spent = future.result()
        seconds["graphs"] += spent
        return block, results, resumed

    try:
        for number, block in enumerate(blocks):
            waiting.append((block, pool.submit(_graphs, number, block, checkpoint, config)))
            if len(waiting) > 2 * n_threads:
                yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C or an error nobody waits for the rest


def _write(writer, block, results, count, seconds, n_labelled):
    """Add a block to the dataset; returns (id, reason) of the structures without a graph."""
    began = time.thread_time()
    pairs = list(zip(block, results, strict=True))
    kept = [pair for pair in pairs if isinstance(pair[1], GraphBatch)]
    writer.add([record for record, _ in kept], [graph for _, graph in kept])
    count.update(sites=sum(len(graph.z) for _, graph in kept), edges=sum(len(graph.nbr) for _, graph in kept))
    n_labelled.update(name for record, _ in kept for name, value in record.labels.items() if value == value)
    seconds["writing"] += time.thread_time() - began
    return [(record.id, str(result)) for record, result in pairs if not isinstance(result, GraphBatch)]


def _total(n_read, fraction, limit):
    """Structures to expect: an estimate from the part of the input that has been read, at most `limit`."""
    expected = round(n_read / fraction) if fraction else None
    return min(filter(None, (expected, limit)), default=None)
