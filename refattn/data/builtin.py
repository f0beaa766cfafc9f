"""The data sets that ship inside the package, and the way from a path to a Dataset."""

import contextlib
import dataclasses
import functools
import os
import tempfile
import typing
from pathlib import Path

from refattn.common.environment import available_cores
from refattn.common.limits import MAPPED
from refattn.config import Config, GraphConfig
from refattn.data.groups import is_table
from refattn.data.mapped import open_mapped
from refattn.data.prepare import prepare
from refattn.data.sources.registry import open_source
from refattn.data.splits import PREFIX
from refattn.data.store import Dataset, read_dataset
from refattn.errors import DataError, OutputError

FOLDER = Path(__file__).parent / "sets"


class BuiltinSet(typing.NamedTuple):
    """A file of structures and labels inside the package, and the experiment that is made for it."""

    path: Path
    description: str
    experiment: str
    licence: str = "MIT"
    citation: str = "made by refattn data generate"


ORBITALS = "energy, deformation_energy, homo, lumo (eV), forces, orbital populations by GFN2-xTB"
SETS = {
    "molecules": BuiltinSet(
        FOLDER / "molecules.extxyz.gz",
        "6,000 molecules of QM9, drawn at random: xtb_homo, xtb_lumo (eV) and orbital populations by GFN2-xTB; homo, "
        "lumo by B3LYP where known",
        "builtin",
        "CC0-1.0",
        "Ramakrishnan et al., Sci. Data 1, 140022 (2014); Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019)",
    ),
    "fullerene": BuiltinSet(
        FOLDER / "fullerene.extxyz.gz",
        f"snapshots of C36, C50, C60, C70 and C72 in Langevin dynamics at 300, 600 and 1000 K: {ORBITALS}",
        "builtin_fullerene",
    ),
    "pt-graphene": BuiltinSet(
        FOLDER / "pt_graphene.extxyz.gz",
        f"snapshots of Pt1 to Pt13 on the sheet C24H12 in Langevin dynamics at 300, 600 and 1000 K: {ORBITALS}",
        "builtin_pt_graphene",
    ),
}


def open_data(
    path: Path | str, graph_config: GraphConfig | None, with_positions: bool = False, with_directions: bool = False
) -> Dataset:
    """A data set: the file `path`, a large one mapped (mapped.py) and others in memory, or a built-in set by its name.

    The built-in sets ship as structures and labels; their graphs are made here, by `graph_config` (None: the default
    rule), in seconds. With positions nothing is mapped.

    Returns a Dataset. Raises DataError as read_dataset and Dataset.with_directions do.
    """
    if path in SETS:
        dataset = _open_builtin(path, graph_config or GraphConfig(), with_positions or with_directions)
        try:
            return dataset.with_directions() if with_directions else dataset
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if not with_positions and Path(path).is_file() and Path(path).stat().st_size > MAPPED:
        with contextlib.suppress(OutputError):  # a folder that nobody may write
            return open_mapped(path, with_directions)
    return read_dataset(path, with_positions=with_positions, with_directions=with_directions)


def open_data_for(config: Config, path: Path | str | None = None) -> Dataset:
    """The data set of a network, at `path` or where the configuration says: graphs by its rule, and the directions of
    edges where it reads angles. Raises as open_data."""
    return open_data(path or config.data.path, config.graph, with_directions=config.model.reads_angles)


def with_absolute_paths(config: Config) -> Config:
    """The configuration whose files are found from any working directory."""
    data = config.data
    path = data.path if data.path in SETS else os.path.abspath(data.path)
    split = os.path.abspath(data.split) if data.split and not data.split.startswith(PREFIX) else data.split
    is_file = (data.split_by == "cluster" and data.split_group) or is_table(data)
    group = os.path.abspath(data.split_group) if is_file else data.split_group
    return dataclasses.replace(config, data=dataclasses.replace(data, path=path, split=split, split_group=group))


def data_of_run(path: str, run: Path | str) -> str:
    """Where the data set of a run is: at `path`, or, where both were moved together, under its name in the folder of
    the run or in one of the three above it. A wrong one is refused by the fingerprint of the run."""
    if path in SETS or Path(path).exists():
        return path
    folder = Path(run).absolute()
    places = [place / Path(path).name for place in (folder, *folder.parents[:3])]
    return next((str(place) for place in places if place.is_file()), path)


@functools.cache
def _open_builtin(name, graph_config, with_positions):
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        dataset = Path(folder) / f"{name}.h5"
        source = open_source(SETS[name].path)
        source.licence, source.citation = SETS[name].licence, SETS[name].citation
        prepare(source, dataset, graph_config, n_threads=available_cores())
        return read_dataset(dataset, with_positions=with_positions)
