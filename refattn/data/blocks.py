"""The graphs of finished blocks beside a data set in the making, so that a killed `prepare` can go on.

Only what is expensive is kept, a file per block of structures. The source is read and the data set is written anew:
an HDF5 file that was open when its process was killed cannot be trusted, and both take seconds.

A file begins with a BLAKE2 digest of everything it depends on (the command, the structures of the block) and of its
own content. So it is taken for what it was written for, complete and undamaged, or it is not taken at all and the block
is computed again: no order of writes, renames and kills can put a wrong graph into a data set.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import platform
import re
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np

from refattn.common.files import LOCK, PART, cannot_be_written, temporary_file
from refattn.config import GraphConfig
from refattn.data.store import Record, Source
from refattn.errors import OutputError, RefattnError, StructureError
from refattn.structures.batch import GraphBatch

DIGEST_BYTES = 32
# Files of other names are not removed. Those of several processes are of processes.py.
OURS = re.compile(rf"\d{{6,}}\.(block|h5|json)|command\.json|{PART.pattern}|{LOCK.pattern}")
PIECE = re.compile(r"\d{6,}\.h5\.parts")
GRAPH_ARRAYS = ("site_ptr", "edge_ptr", "nbr", "z", "r", "omega", "weight", "structure", "image", "omega_max")


class FinishedBlocks:
    """Finished blocks in the folder OUT.parts; use it in a `with` statement around that of the DatasetWriter.

    The end of the block removes the folder, when the data set is in its place and after an error about the input. It
    stays after Ctrl-C, a kill, and an error of the disk: the same command then goes on where this one ended.

    Parameters
    ----------
    out : path
        The data set in the making.
    command : dict
        What the graphs depend on besides the structures (see command_of).
    note : callable (text), optional
        Is told when the checkpoint of another command is removed.
    """

    def __init__(self, out: Path | str, command: dict, note: Callable[[str], None] | None = None):
        self.folder = Path(out).with_name(Path(out).name + ".parts")
        self.text = json.dumps(command, indent=1, sort_keys=True)
        self.note = note or (lambda text: None)
        self.is_open = False

    def __enter__(self) -> "FinishedBlocks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        to_be_kept = kind is not None and (not issubclass(kind, RefattnError) or issubclass(kind, OutputError))
        if self.is_open and not to_be_kept:
            self.remove()

    def open(self) -> None:
        """Take over the folder of an earlier run of this command, or begin one. Raises OutputError.

        To be called when this process is known to be the only one that writes the data set.
        """
        known = self.folder / "command.json"
        try:
            if self.folder.is_symlink() or (known.is_file() and not _is_command(known)):
                raise OutputError(f"{self.folder}: is no folder of finished blocks; move it, or choose another OUT")
            if self.folder.is_dir() and not (known.is_file() and known.read_bytes() == self.text.encode()):
                if any(OURS.fullmatch(file.name) for file in self.folder.iterdir()):
                    self.note(f"{self.folder}: is of another command, or of a source that has changed; starting over")
                self.remove()
            self.folder.mkdir(exist_ok=True)
            self._write(known, self.text.encode())
        except OSError as error:
            raise cannot_be_written(self.folder, error) from None
        self.is_open = True

    def load(self, number: int, records: list[Record]) -> list[GraphBatch | StructureError] | None:
        """The GraphBatch or StructureError of every record of block `number`, or None where they are to be computed."""
        try:
            content = self._path(number).read_bytes()
        except OSError:  # not there, which is the usual case; whatever else it is, the block can be computed
            return None
        payload = content[DIGEST_BYTES:]
        if content[:DIGEST_BYTES] != self._digest(records, payload):
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return _unpacked(dict(arrays))

    def save(self, number: int, records: list[Record], results: list[GraphBatch | StructureError]) -> None:
        """Keep the GraphBatch or StructureError of every record of block `number`. Raises OutputError."""
        stream = io.BytesIO()
        np.savez(stream, **_packed(results))
        payload = stream.getvalue()
        try:
            self._write(self._path(number), self._digest(records, payload) + payload)
        except OSError as error:
            raise cannot_be_written(self.folder, error) from None

    def remove(self) -> None:
        """Remove the folder, but for files that are somebody else's."""
        with contextlib.suppress(OSError):  # what cannot be removed is in nobody's way: it has a digest
            _remove(self.folder)

    def _path(self, number):
        return self.folder / f"{number:06d}.block"

    def _write(self, path, content):
        with temporary_file(self.folder) as part:
            part.write_bytes(content)
            part.replace(path)

    def _digest(self, records, payload):
        digest = hashlib.blake2b(self.text.encode(), digest_size=DIGEST_BYTES)
        digest.update(json.dumps([(record.id, len(record.atoms)) for record in records]).encode())
        for atoms in (record.atoms for record in records):
            for values in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
                digest.update(values.tobytes())
        digest.update(payload)
        return digest.digest()


def _remove(folder):
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "command.json"):  # which says whose it is
        if PIECE.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            _remove(path)
        elif OURS.fullmatch(path.name):
            path.unlink()
    folder.rmdir()


def _is_command(path):
    """Whether a file is a `command.json` of this class, and not somebody's of that name."""
    try:
        return [*json.loads(path.read_text(encoding="utf-8"))] == ["graph", "processor", "source", "versions"]
    except (ValueError, TypeError, RecursionError):
        return False


def command_of(source: Source, graph_config: GraphConfig) -> dict:
    """What decides about the graphs besides the structures themselves, as a dict for JSON.

    Where the structures come from, with size and time of the last change; the rule; program, libraries and processor.
    Limits, units and labels are not in it: they are applied anew when a command goes on.
    """
    origin = {"name": source.name}
    if getattr(source, "path", None):
        path = Path(source.path).absolute()
        origin |= {"path": str(path), "size": path.stat().st_size, "changed": path.stat().st_mtime_ns}
    return {
        "source": origin,
        "graph": vars(graph_config),
        "versions": {"numpy": np.__version__, "numba": numba.__version__, "kernels": _kernel_digest()},
        "processor": [platform.machine(), llvmlite.binding.get_host_cpu_name()],
    }


@functools.cache
def _kernel_digest():
    """A digest of the program text that the graphs are computed by: a version says nothing between two releases."""
    folder = Path(__file__).parent.parent
    files = [*sorted((folder / "structures").rglob("*.py")), folder / "common" / "jit.py"]
    return hashlib.blake2b(b"\0".join(file.read_bytes() for file in files), digest_size=16).hexdigest()


def _packed(results):
    """Arrays that hold the results of a block: those of all graphs together, reasons as UTF-8."""
    graphs = [result for result in results if isinstance(result, GraphBatch)]
    reasons = [str(result).encode() for result in results if not isinstance(result, GraphBatch)]
    arrays = {
        "has_graph": np.array([isinstance(result, GraphBatch) for result in results], bool),
        "reason_sizes": np.array([len(reason) for reason in reasons], np.int64),
        "reasons": np.frombuffer(b"".join(reasons), np.uint8),
    }
    if graphs:
        batch = GraphBatch.concatenate(graphs)
        arrays |= {name: getattr(batch, name) for name in GRAPH_ARRAYS}
    return arrays


def _unpacked(arrays):
    """The results that _packed made arrays of."""
    text = arrays["reasons"].tobytes()
    ends = np.cumsum(arrays["reason_sizes"]).tolist()
    reasons = iter([text[start:end].decode() for start, end in zip([0, *ends], ends)])
    rows = itertools.count()
    graphs = GraphBatch(**{name: arrays[name] for name in GRAPH_ARRAYS}) if arrays["has_graph"].any() else None
    return [
        graphs.take([next(rows)]).renumbered() if has_graph else StructureError(next(reasons))
        for has_graph in arrays["has_graph"].tolist()
    ]
