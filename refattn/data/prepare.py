"""prepare: structures from a source, through the neighbour rule, into a dataset, in bounded memory.

The main thread reads and writes; blocks of structures get their graphs on a pool of threads (the kernels release the
GIL). Blocks are written in the order in which they were read, so the number of threads does not change the result.
"""

import collections
import dataclasses
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from refattn.config import GraphConfig
from refattn.data.files import LABELS, FilesSource
from refattn.data.qm9 import QM9Source
from refattn.data.writer import DatasetWriter
from refattn.errors import DataError, StructureError
from refattn.structures.graph import Graph

BLOCK_STRUCTURES, BLOCK_SITES = 512, 16384  # a block is full when it reaches one of them
REASONS_KEPT = 5


@dataclasses.dataclass(frozen=True)
class PrepareReport:
    """What prepare did.

    `reasons` holds (id, reason) of the first few structures that were skipped, `labels` the unit of every label of the
    data set under its name; "" where it is not known.
    """

    n_structures: int
    n_skipped: int
    reasons: list
    n_sites: int
    n_edges: int
    seconds: float
    labels: dict


def open_source(path, format="auto", labels=None, uncharacterised=None, keep_uncharacterised=False):
    """The source for `path`: an iterable of Record with name, licence, citation and fraction.

    Parameters
    ----------
    path : path
    format : "auto", "files" or "qm9"
        "auto" takes archives and folders of dsgdb9nsd files for QM9, and everything else for files that ASE reads.
    labels : path, optional                                    see FilesSource
    uncharacterised, keep_uncharacterised : optional           see QM9Source

    Raises DataError as the sources do.
    """
    path = Path(path)
    if format == "auto":
        archive = path.name.startswith("dsgdb9nsd") and ".tar" in path.suffixes
        format = "qm9" if archive or (path.is_dir() and any(path.glob("dsgdb9nsd_*.xyz"))) else "files"
    if format == "files":
        return FilesSource(path, labels)
    if labels:
        raise DataError(f"{labels}: QM9 comes with its labels; leave --labels out, or choose --format files")
    return QM9Source(path, uncharacterised, keep_uncharacterised)


def prepare(source, out, graph_config=None, units=None, limit=None, n_threads=1, append=False, progress=None):
    """Write the structures of `source` with their graphs and labels to the dataset `out`.

    Parameters
    ----------
    source : iterable of Record, with name, licence, citation and fraction (see open_source)
    out : path
    graph_config : GraphConfig, optional
    units : dict, optional
        name -> unit, for labels whose unit is not known or another one.
    limit : int, optional
        Stop after so many structures.
    n_threads : int
    append : bool
        Add to `out` instead of replacing it.
    progress : callable (done, total), optional
        Called after every block; `total` is an estimate, or None where nothing is known.

    Returns
    -------
    PrepareReport

    Raises
    ------
    DataError
        From the source or the writer, and when no structure is left; `out` is then as it was. A structure without
        a graph (StructureError) is no reason to stop: it is recorded in /skipped.
    """
    start, config = time.perf_counter(), graph_config or GraphConfig()
    label_attrs = {**LABELS}
    for name, unit in (units or {}).items():
        label_attrs[name] = {"kind": "", "description": "", **LABELS.get(name, {}), "unit": unit}
    skipped, count = [], collections.Counter()
    origin = {"source": source.name, "licence": source.licence, "citation": source.citation}
    with DatasetWriter(out, config, **origin, label_attrs=label_attrs, append=append) as writer:
        for block, results in _in_order(_blocks(itertools.islice(source, limit), count), config, n_threads):
            pairs = list(zip(block, results, strict=True))
            skipped += [(record.id, str(result)) for record, result in pairs if isinstance(result, StructureError)]
            kept = [pair for pair in pairs if not isinstance(pair[1], StructureError)]
            writer.add([record for record, _ in kept], [graph for _, graph in kept])
            count.update(done=len(pairs), sites=sum(len(g.z) for _, g in kept), edges=sum(len(g.nbr) for _, g in kept))
            total = _total(count["read"], source.fraction, limit)
            if progress and count["done"] != total:  # which is said once, when all is done
                progress(count["done"], total)
        n_kept = count["done"] - len(skipped)
        skipped += getattr(source, "skipped", [])
        if not n_kept:
            reason = f"; the first of {len(skipped)} was left out because: {skipped[0][1]}" if skipped else ""
            raise DataError(f"{source.name}: no structure is left to write{reason}; check the source")
        for id, reason in skipped:
            writer.skip(id, reason)
        labels = writer.label_units()
    if progress:
        progress(count["done"], count["done"])
    seconds = time.perf_counter() - start
    reasons = skipped[:REASONS_KEPT]
    return PrepareReport(n_kept, len(skipped), reasons, count["sites"], count["edges"], seconds, labels)


def _blocks(records, count):
    """Lists of successive records, counted in count["read"]."""
    block, n_sites = [], 0
    for record in records:
        block.append(record)
        count["read"] += 1
        n_sites += len(record.atoms)
        if len(block) == BLOCK_STRUCTURES or n_sites >= BLOCK_SITES:
            yield block
            block, n_sites = [], 0
    if block:
        yield block


def _graphs(block, config):
    """The Graph of every record, or its StructureError: an exception must not take the rest of the block with it."""
    rule, results = dataclasses.asdict(config), []
    for record in block:
        try:
            results.append(Graph.from_atoms(record.atoms, **rule))
        except StructureError as error:
            results.append(error)
    return results


def _in_order(blocks, config, n_threads):
    """(block, results) in the order of the blocks; at most two blocks a thread are in memory."""
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = collections.deque()
        for block in blocks:
            waiting.append((block, pool.submit(_graphs, block, config)))
            if len(waiting) > 2 * n_threads:
                block, future = waiting.popleft()
                yield block, future.result()
        for block, future in waiting:
            yield block, future.result()


def _total(n_read, fraction, limit):
    """Structures to expect: an estimate from the part of the input that has been read, at most `limit`."""
    expected = round(n_read / fraction) if fraction else None
    return min(filter(None, (expected, limit)), default=None)
