"""Vectors of structures and sites in one HDF5 file, block by block, so that any number of them fits.

What it shares with explanations.h5 (tables.py) stands under the same names.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from refattn.common.hdf5 import NewFile, append, chunk_rows
from refattn.prediction.predictor import Model

LAYOUT = """
/structures   id, value, label (NaN where unknown), site_ptr, z, structure_vector
              sites of structure s are site_ptr[s]:site_ptr[s + 1]
/sites        beta (global attention), site_embedding
/pca          of structures and sites, where the map is one: mean (G), axes (2, G), variance_fraction (2);
              a vector v lies at axes (v - mean)
"""
BLOCK = 16384  # rows that are read at once


@contextlib.contextmanager
def embedding_writer(path: Path | str, model: Model, target: int, attributes: dict) -> Iterator[Callable]:
    """A function (list of ase.Atoms, Embedding) that adds structures to the HDF5 file `path`.

    Parameters
    ----------
    target : int             whose read-out made the vectors
    attributes : dict        of the file, beside format, version, layout, target and unit

    The label is `label` in the info of an ase.Atoms.
    """
    name, unit = model.targets[target], model.units[target]
    vector = (model.config.model.global_width,)
    with NewFile(path) as file:
        file.attrs.update(format="refattn-embedding", version=1, layout=LAYOUT, target=name, unit=unit)
        file.attrs.update(attributes)
        _column(file, "structures/id", h5py.string_dtype())
        _column(file, "structures/value", "f8", unit=unit, description=f"predicted {name}")
        _column(file, "structures/label", "f8", unit=unit)
        _column(file, "structures/site_ptr", "i8")
        _column(file, "structures/z", "u1")
        _column(file, "structures/structure_vector", model.dtype, vector)
        _column(file, "sites/beta", "f8", description="global attention")
        _column(file, "sites/site_embedding", model.dtype, vector)
        append(file["structures/site_ptr"], [0])
        yield lambda structures, found: _add(file, structures, found)


def _column(file, name, dtype, shape=(), **attributes):
    """Make a data set of rows of `shape`, without any yet."""
    chunks = (chunk_rows(shape, dtype), *shape)
    data = file.create_dataset(name, (0, *shape), maxshape=(None, *shape), chunks=chunks, dtype=dtype)
    data.attrs.update(attributes)


def _add(file, structures, found):
    labels = [atoms.info.get("label") for atoms in structures]
    site_ptr = file["structures/site_ptr"]
    append(file["structures/id"], found.id)
    append(file["structures/value"], found.value)
    append(file["structures/label"], [np.nan if label is None else label for label in labels])
    append(site_ptr, site_ptr[-1] + np.cumsum([len(z) for z in found.z]))
    append(file["structures/z"], np.concatenate(found.z))
    append(file["structures/structure_vector"], found.structure_vector)
    append(file["sites/beta"], np.concatenate(found.beta))
    append(file["sites/site_embedding"], np.concatenate(found.site_embedding))
    file.check()


def row_blocks(data: h5py.Dataset | np.ndarray, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The rows of a data set or array in blocks, for one pass in bounded memory.

    Parameters
    ----------
    data : (n, ...) h5py.Dataset or array
    rows : (m,) int, ascending, optional      which; by default all

    Yields arrays; put together they are data[rows].
    """
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        if rows is None:
            yield block
        else:
            first, last = np.searchsorted(rows, (start, start + BLOCK))
            yield block[rows[first:last] - start]
