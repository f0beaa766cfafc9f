"""Parts of a source: the jobs of an array prepare or predict one each, and join.py puts prepared ones together.

Where there are as many files as parts, each part has some of the files. Else, as with an archive, every job reads the
whole source, which is quick, and the structures are dealt out in turn.
"""

import hashlib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import h5py
import numpy as np

from refattn.config import GraphConfig
from refattn.data.blocks import command_of
from refattn.data.sources.files import FilesSource
from refattn.data.store import Record, Source
from refattn.errors import ConfigError


class Part(typing.NamedTuple):
    """Part `number` of `count`, counted from 1 as in `sbatch --array=1-64`; part 1 of 1 is everything."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Of "K/N". Raises ConfigError for anything else."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        part = cls(*map(int, match.groups())) if match else cls(0)
        if not 1 <= part.number <= part.count:
            raise ConfigError(f"{text!r} is no part; write K/N with K from 1 to N, such as 3/8")
        return part

    def take_files(self, sources: list[FilesSource]) -> bool:
        """Leave only the files of this part to sources, and those with any to the list, where there are enough files;
        returns whether there are. A table of labels in the structures' order needs all of them."""
        files = [(source, file) for source in sources for file in source.files]
        if len(files) < self.count or any(source.table for source in sources):
            return False
        n = len(files)
        mine = files[n * (self.number - 1) // self.count : n * self.number // self.count]
        for source in sources:
            source.files = [file for other, file in mine if other is source]
        sources[:] = [source for source in sources if source.files]
        return True

    def take_turns(self, items: Iterable) -> Iterator:
        """Every item of this part where they are dealt out in turn."""
        return islice(items, self.number - 1, None, self.count)


class PartOfSource:
    """A source of which `prepare` is to take a part; everything else is asked of the source itself.

    has_graph : list of bool    of every structure of the part, by prepare

    Parameters
    ----------
    input : dict, optional      what input_of says of the whole source, where it is known
    """

    def __init__(self, source: Source, part: Part, input: dict[str, str] | None = None):
        self.source = source
        self.part = part
        self.input = input or input_of(source)
        is_files = isinstance(source, FilesSource)
        self.by_files = is_files and (source.cut is not None or part.take_files([source]))
        self.has_graph = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.source)

    def take(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records of the part among all that the source gives."""
        return iter(records) if self.by_files else self.part.take_turns(records)

    @property
    def says_skipped(self) -> bool:
        """Whether what the source left out is said by this part: where all read everything the first one does."""
        return self.by_files or self.part.number == 1

    def write(self, file: h5py.File, config: GraphConfig, units: dict[str, str], n_skipped: Sequence[int]) -> None:
        """Say in the file of the part which it is, and of what. n_skipped : (3,) int, left out without a graph, without
        an id, and by the source."""
        command = {"neighbour rule": vars(config), "units": units, "versions": command_of(self, config)["versions"]}
        group = file.create_group("part")
        group.attrs.update(number=self.part.number, count=self.part.count, by_files=self.by_files, n_skipped=n_skipped)
        group.attrs["whole"] = json.dumps(self.input | command, sort_keys=True)
        group["has_graph"] = np.array(self.has_graph, bool)


def input_of(source: Source) -> dict[str, str]:
    """Names and sizes of the files that the parts of one data set have in common, and the table of labels, as digests;
    not where they are: a job may have copied them."""
    files = getattr(source, "files", [Path(getattr(source, "path", ""))])
    found = [(file.name, file.stat().st_size if file.is_file() else 0) for file in files]
    table = getattr(source, "table", None)
    return {
        "source": source.name,
        "files": hashlib.sha256(json.dumps(found).encode()).hexdigest(),
        "labels": hashlib.sha256(Path(table.path).read_bytes()).hexdigest() if table else "",
    }
