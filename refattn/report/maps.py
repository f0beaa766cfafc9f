"""The folder that `refattn embed` writes: vectors of structures and sites, and maps of both.

    embedding.h5      every vector                                              see embedding_file.py
    map.csv           id, number of sites, x, y, prediction and label of every structure
    structures.png    the same as a picture
    site_map.csv      id, site from 0, element, x, y, beta of the sites that are mapped
    sites.png         the same as a picture

All files appear when all are done, or none does. Memory holds a block of structures, a few numbers for every structure
and site, and for UMAP the vectors that are mapped.
"""

import contextlib
import csv
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

import ase
import numpy as np
from ase.data import chemical_symbols

import refattn
from refattn.common.files import make_directory, replacing
from refattn.common.hdf5 import NewFile, reading_hdf5
from refattn.common.outputs import is_output
from refattn.common.strict_json import to_json
from refattn.common.text import csv_cell, encodable
from refattn.errors import DataError
from refattn.prediction.embedding import Embedding
from refattn.prediction.predictor import Model
from refattn.prediction.targets import target_number
from refattn.report import png
from refattn.report.embedding_file import embedding_writer
from refattn.report.findings import with_unit
from refattn.report.map_pictures import by_colour_bar, by_element
from refattn.report.projection import LAYOUTS

COLOURS = ("prediction", "label", "size")
SITE_COLOURS = ("element", "attention")


MARKS = {
    "embedding.h5": "refattn-embedding",
    "map.csv": re.compile(rb"id,sites,x,y,"),
    "structures.png": png.MARK,
    "site_map.csv": re.compile(rb"id,site,element,x,y,beta"),
    "sites.png": png.MARK,
}  # how an earlier output begins


@dataclasses.dataclass(frozen=True)
class MapOptions:
    """What the maps show.

    map : one of LAYOUTS
    colour : one of COLOURS              of a structure; size is its number of sites
    site_colour : one of SITE_COLOURS    of a site
    sites : bool                         whether there is a map of the sites
    target : str                         of several, whose read-out made the vectors; None: the only one
    max_points : int                     sites on it at most, drawn at random with seed 0
    of_several : bool                    whether each of several targets has a folder, of which this is one
    """

    map: str = "pca"
    colour: str = "prediction"
    site_colour: str = "element"
    sites: bool = True
    target: str | None = None
    max_points: int = 20000
    of_several: bool = False


def files_of(folder: Path | str, shown: MapOptions) -> dict[str, Path]:
    """{name: pathlib.Path} of all files that are written."""
    names = ["embedding.h5", "map.csv", "structures.png"] + ["site_map.csv", "sites.png"] * shown.sites
    return {name: Path(folder) / name for name in names}


def earlier_files(folder: Path | str) -> list[Path]:
    """What an earlier call left in the folder, or in folders of its targets there, which embedding.h5 knows as such."""
    folders = [Path(folder)]
    for path in folders[0].glob("*/embedding.h5"):
        if path.is_file() and is_output(path, MARKS[path.name]):
            with reading_hdf5(path) as file:
                folders += [path.parent] * bool(file.attrs.get("of_several"))
    marks = {place / name: mark for place in folders for name, mark in MARKS.items()}
    return [path for path, mark in marks.items() if path.is_file() and is_output(path, mark)]


def write_maps(
    folder: Path | str,
    model: Model,
    run: Path | str,
    blocks: Iterable[tuple[list[ase.Atoms], Embedding]],
    shown: MapOptions,
) -> dict:
    """Write vectors and maps of all structures into `folder`, which is made where there is none.

    Parameters
    ----------
    run : path                 of the model, for the record
    blocks : iterable          of (list of ase.Atoms, Embedding), such as embed_stream gives; labels as `label` in info

    Returns
    -------
    dict of structures, sites (numbers of them), map, and with principal components variance_fraction, a dict of lists

    Raises MissingExtra for UMAP without umap-learn, DataError where there is nothing to map, OutputError where the
    folder cannot be written.
    """
    lay_out = LAYOUTS[shown.map]()
    files = files_of(folder, shown)
    make_directory(folder)
    rule = to_json(dataclasses.asdict(model.config.graph))
    record = {"run": encodable(run), "neighbour_rule": rule, "created_by": f"refattn {refattn.__version__}"}
    record["of_several"] = shown.of_several
    with contextlib.ExitStack() as stack:
        # The last one is named when the disk is full: the largest.
        parts = {name: stack.enter_context(replacing(files[name])) for name in reversed(files)}
        with embedding_writer(parts["embedding.h5"], model, target_number(model, shown.target), record) as add:
            for structures, found in blocks:
                add(structures, found)
        with NewFile(parts["embedding.h5"], "r+") as file:
            return _map(file, parts, lay_out, shown)


def _map(file, parts, lay_out, shown):
    """Lay out what is in the open embedding.h5, and write tables and pictures to `parts`."""
    n_structures = len(file["structures/id"])
    n_sites = len(file["sites/beta"])
    if not n_structures:
        raise DataError("there is no structure to map; give files that hold one that the model can read")
    colour = _colour(file, shown.colour)
    layout = lay_out(file["structures/structure_vector"], np.arange(n_structures))
    layouts = {"structures": layout}
    _write_map(parts["map.csv"], file, layout.xy)
    by_colour_bar(parts["structures.png"], layout, *colour)
    if shown.sites:
        layout = layouts["sites"] = _map_sites(file, parts, lay_out, shown)
    summary = {"structures": n_structures, "sites": n_sites, "map": shown.map}
    if layout.pca is None:
        return summary
    for name, layout in layouts.items():
        for field, values in dataclasses.asdict(layout.pca).items():
            file[f"pca/{name}/{field}"] = values
    return summary | {"variance_fraction": {k: v.pca.variance_fraction.tolist() for k, v in layouts.items()}}


def _map_sites(file, parts, lay_out, shown):
    """Lay out some of the sites, and write their table and picture. Returns the Layout."""
    data = file["sites/site_embedding"]
    rows = np.random.default_rng(0).permutation(len(data))[: shown.max_points]
    rows.sort()
    layout = lay_out(data, rows)
    site_ptr = file["structures/site_ptr"][()]
    z = file["structures/z"][()]
    beta = file["sites/beta"][()]
    structure = np.searchsorted(site_ptr, rows, side="right") - 1
    _write_site_map(parts["site_map.csv"], file, structure, rows - site_ptr[structure], z[rows], layout.xy, beta[rows])
    if shown.site_colour == "element":
        by_element(parts["sites.png"], layout, z[rows])
    else:
        scaled = beta[rows] * np.diff(site_ptr)[structure]
        by_colour_bar(parts["sites.png"], layout, scaled, "attention × number of sites")
    return layout


def _colour(file, name):
    """(values (S,), title) of the colours of the structures."""
    if name == "size":
        return np.diff(file["structures/site_ptr"][()]), "number of sites"
    target = file.attrs["target"]
    unit = file.attrs["unit"]
    values = file["structures/value" if name == "prediction" else "structures/label"][()]
    if np.isnan(values).all():
        raise DataError(f"no structure has the label {target}; give files that have it, or take --colour prediction")
    return values, with_unit(f"{target.replace('_', ' ')}, {name}", unit)


def _write_map(path, file, xy):
    """map.csv; the label's cell is empty where it is not known."""
    target = file.attrs["target"]
    unit = file.attrs["unit"]
    label = ["" if np.isnan(label) else label for label in file["structures/label"][()].tolist()]
    columns = {
        "id": file["structures/id"].asstr()[()].tolist(),
        "sites": np.diff(file["structures/site_ptr"][()]).tolist(),
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        with_unit(f"predicted {target}", unit): file["structures/value"][()].tolist(),
        with_unit(target, unit): label,
    }
    _write_csv(path, columns)


def _write_site_map(path, file, structure, site, z, xy, beta):
    """site_map.csv, a row for every site that is mapped."""
    columns = {
        "id": file["structures/id"].asstr()[()][structure].tolist(),
        "site": site.tolist(),
        "element": [chemical_symbols[number] for number in z],
        "x": xy[:, 0].tolist(),
        "y": xy[:, 1].tolist(),
        "beta": beta.tolist(),
    }
    _write_csv(path, columns)


def _write_csv(path, columns):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(map(csv_cell, columns))
        writer.writerows(zip(*(map(csv_cell, column) for column in columns.values()), strict=True))
