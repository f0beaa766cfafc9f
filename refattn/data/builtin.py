"""The data set that ships inside the package, and the way from a path to a Dataset."""

import functools
import gzip
import shutil
import tempfile
from pathlib import Path

from refattn.data.prepare import open_source, prepare
from refattn.data.store import read_dataset

BUILTIN = Path(__file__).parent / "sets"
FULLERENE = BUILTIN / "fullerene.extxyz.gz"


def open_data(path, graph_config):
    """A data set in memory: the file `path`, or for an empty path the built-in fullerene set.

    The built-in set ships as structures and labels; its graphs are made here, by `graph_config`, in seconds.

    Returns a Dataset without positions. Raises DataError as read_dataset does.
    """
    if path:
        return read_dataset(path, with_positions=False)
    return _open_builtin(graph_config)


@functools.cache
def _open_builtin(graph_config):
    with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
        unpacked, dataset = Path(folder) / "fullerene.extxyz", Path(folder) / "fullerene.h5"
        with gzip.open(FULLERENE, "rb") as packed, open(unpacked, "wb") as stream:
            shutil.copyfileobj(packed, stream)
        prepare(open_source(unpacked), dataset, graph_config)
        return read_dataset(dataset, with_positions=False)
