"""How long `refattn prepare` takes, and where: reading (ours and ASE's), graphs, all of it.

    python benchmarks/bench_prepare.py SOURCE [--limit N] [--threads N] [--json OUT]

SOURCE is extended XYZ, gzipped or not. The parts are measured on one thread, in processor seconds, the best of 5 runs
over an unpacked copy of the first frames: ASE's reader seeks, which is quadratic in a packed file. The peak of memory
is taken after prepare, which comes first.
"""

import argparse
import gzip
import itertools
import tempfile
import time
from pathlib import Path

import ase.io

from refattn.common.environment import available_cores, peak_memory_mb, versions
from refattn.common.files import write_text
from refattn.common.strict_json import to_json
from refattn.data.prepare import prepare
from refattn.data.sources.extxyz import cut_frames
from refattn.data.sources.files import FilesSource
from refattn.data.sources.registry import open_source
from refattn.errors import StructureError
from refattn.structures.batch import GraphBatch

FRAMES_OF_PARTS = 2000
REPEATS = 5


def best_seconds(function):
    """Processor seconds of the shortest of a few runs: other programs only ever add to a time."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def unpack(source, out, n_frames):
    """Write the first frames of `source` as they are to the plain file `out`; returns how many there were."""
    with open(out, "w", encoding="utf-8") as stream:
        frames = list(itertools.islice(cut_frames(lines_of(source), source), n_frames))
        for header, comment, rows, _ in frames:
            stream.write(header + comment + "".join(rows))
    return len(frames)


def lines_of(source):
    """The lines of a text file that may be gzipped."""
    opener = gzip.open if Path(source).suffix == ".gz" else open
    with opener(source, "rt", encoding="utf-8-sig") as stream:
        yield from stream


def make_graphs(records):
    for record in records:
        try:
            GraphBatch.from_atoms(record.atoms)
        except StructureError:  # prepare records these; here they only take their time
            continue


def measure(source, limit, n_threads, folder):
    """All measurements as a dict for JSON."""
    facts = {"source": Path(source).name, "threads": n_threads, "cores": available_cores(), "versions": versions()}
    report = prepare(open_source(source), folder / "set.h5", limit=limit, n_threads=n_threads)
    facts |= {f"prepare_{name}": getattr(report, name) for name in ("n_structures", "n_sites", "n_edges", "seconds")}
    facts |= {name: getattr(report, name) for name in ("seconds_reading", "seconds_graphs", "seconds_writing")}
    facts |= {"peak_memory_mb": peak_memory_mb(), "output_mb": (folder / "set.h5").stat().st_size / 1e6}
    n_frames = unpack(source, folder / "part.extxyz", min(FRAMES_OF_PARTS, limit or FRAMES_OF_PARTS))
    part = folder / "part.extxyz"
    records = list(FilesSource(part))
    parts = {
        "read": lambda: sum(1 for _ in FilesSource(part)),
        "read_by_ase": lambda: sum(1 for _ in ase.io.iread(part, index=":", format="extxyz")),
        "graphs": lambda: make_graphs(records),
    }
    facts["parts_n_frames"] = n_frames
    return facts | {f"parts_{name}_ms": 1e3 * best_seconds(function) / n_frames for name, function in parts.items()}


def table(facts):
    """The measurements as text."""
    n = facts["prepare_n_structures"]
    lines = [f"{facts['source']}, {facts['threads']} threads on {facts['cores']} cores", ""]
    lines.append(f"{'one thread, ' + str(facts['parts_n_frames']) + ' frames':<40}{'ms a frame':>12}")
    for name, key in (("reading", "read"), ("reading with ASE", "read_by_ase"), ("graphs", "graphs")):
        lines.append(f"  {name:<38}{facts[f'parts_{key}_ms']:>12.3f}")
    lines += ["", f"{'prepare, ' + str(n) + ' structures':<40}{'seconds':>12}"]
    lines.append(f"  {'by the clock':<38}{facts['prepare_seconds']:>12.1f}")
    for name in ("reading", "graphs", "writing"):
        lines.append(f"  {'of a processor: ' + name:<38}{facts[f'seconds_{name}']:>12.1f}")
    lines.append(f"  {'structures a second':<38}{n / facts['prepare_seconds']:>12.0f}")
    lines.append(f"  {'peak memory, MB':<38}{facts['peak_memory_mb'] or 0:>12.0f}")
    lines.append(f"  {'file, MB':<38}{facts['output_mb']:>12.1f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--limit", type=int, help="structures to prepare; default: all")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--json", type=Path, metavar="OUT", help="file for the measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        facts = measure(options.source, options.limit, options.threads, Path(folder))
    print(table(facts))
    if options.json:
        write_text(options.json, to_json(facts) + "\n")


if __name__ == "__main__":
    main()
