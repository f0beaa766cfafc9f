"""Explanations to files, structure by structure, so that any number of them fits: CSV, HDF5 and extended XYZ.

    structures.csv     a row for every structure: formula, prediction, label, correlations with orbital populations
    sites.csv          a row for every site: id, number from 0, element, position, every score
    edges.csv          a row for every edge: i, j, periodic image of j, distance, solid angle, mean attention by layer
    explained.extxyz   the structures with every score as a column of the atoms; opens in ASE and OVITO
    explanations.h5    all of it, and the local attention by layer, edge and head, and the representations

A column's unit stands in brackets behind its name in CSV, and as the attribute `unit` in HDF5.
"""

import contextlib
import csv
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from ase.io.extxyz import key_val_dict_to_str

from refattn.common.files import replacing
from refattn.common.hdf5 import NewFile, append, chunk_rows
from refattn.common.text import column_name, csv_cell, first_free, told_apart
from refattn.explanation.explain import SITE_SCORES
from refattn.report.findings import ExplainedStructure, with_unit

# How an earlier output begins.
MARKS = {
    "structures.csv": re.compile(rb"id,formula,sites,\W*predicted "),
    "sites.csv": re.compile(rb"id,site,element,x \("),
    "edges.csv": re.compile(rb"id,i,j,image_a,"),
    "explained.extxyz": re.compile(rb"\d+\n[^\n]*:beta(?:_[^:\n]*)?:R:1[^\n]* \"?predicted_"),
    "explanations.h5": "refattn-explanations",
}
LAYOUT = """
/structures   id, value, label (NaN where unknown), site_ptr, edge_ptr, z, position, cell, pbc, structure_vector;
              with integrated gradients baseline_value, completeness_error, n_nodes, settled;
              with an additive head mean_value
/sites        every score by its name, site_embedding      sites of structure s are site_ptr[s]:site_ptr[s + 1]
/edges        site, nbr (numbers within the structure), image, r, omega, alpha (layer, edge, head)
              edges of structure s are edge_ptr[s]:edge_ptr[s + 1]; they come in the order of their sites
/correlation  SCORE/POPULATION: Spearman's rank correlation over the sites of each structure
Of K > 1 targets, numbers of a structure have a last axis K, scores the name of the target behind theirs, and the
representations G columns for each target
"""
OF_EXTXYZ = ("Lattice", "Properties", "pbc")  # have a meaning in the comment line
SUMS_TO = {score.name: score.sums_to for score in SITE_SCORES}


@contextlib.contextmanager
def tables(folder: Path, attributes: dict, edges: bool = False) -> Iterator[Callable]:
    """A function (ExplainedStructure) that adds a structure to all tables in `folder`.

    Parameters
    ----------
    folder : pathlib.Path      a folder that exists
    attributes : dict          of the HDF5 file
    edges : bool               whether to write edges.csv too

    The files appear complete when the block ends, or not at all. Raises OutputError where they cannot be written.
    """
    wanted = {name: write for name, write in FILES.items() if edges or name != "edges.csv"}
    with contextlib.ExitStack() as stack:
        writers = []
        for name, write in wanted.items():
            part = stack.enter_context(replacing(folder / name))
            writers.append(stack.enter_context(write(part, attributes)))

        def add(finding):
            for writer in writers:
                writer(finding)

        yield add


def _csv(rows):
    """A writer of a CSV file; rows(finding) is a list of dicts, whose keys become the first line."""

    @contextlib.contextmanager
    def write(path, attributes):
        with open(path, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            named = False

            def add(finding):
                nonlocal named
                for row in rows(finding):
                    if not named:
                        writer.writerow(map(csv_cell, row))
                        named = True
                    writer.writerow(map(_cell, row.values()))

            yield add

    return write


def _cell(value):
    """An empty cell stands for what is not known."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else csv_cell(value)


def _structure_rows(finding):
    row = {"id": finding.id, "formula": finding.formula, "sites": len(finding.atoms)}
    for e, label in finding.of_targets():
        behind = f" {e.target}" if len(finding.explanations) > 1 else ""
        row[with_unit(f"predicted {e.target}", e.unit)] = e.value
        row[first_free(with_unit(e.target, e.unit), lambda name, taken=(*row,): name not in taken)] = label
        if e.contribution is not None:
            row[with_unit(f"mean{behind}", e.unit)] = e.mean_value
        if e.baseline_value is not None:
            row |= {with_unit(f"baseline{behind}", e.unit): e.baseline_value}
            row[f"completeness error{behind}"] = e.completeness_error
    for (score, population), rho in finding.correlations.items():
        row[f"Spearman {score} {population}"] = rho
    return [row]


def _sum_of(text, explanation):
    """What the sum of a score is: of a class in log odds."""
    return f"{text}, as log odds" if explanation.of_class and "value" in text else text


def _site_rows(finding):
    names = [with_unit(column.name, column.unit) for column in finding.columns.values()]
    values = np.stack([column.values for column in finding.columns.values()], axis=1).tolist()
    symbols = finding.atoms.get_chemical_symbols()
    positions = finding.atoms.positions.tolist()
    for site, (symbol, position, numbers) in enumerate(zip(symbols, positions, values, strict=True)):
        row = {"id": finding.id, "site": site, "element": symbol}
        yield row | dict(zip(("x (Å)", "y (Å)", "z (Å)"), position)) | dict(zip(names, numbers))


def _edge_rows(finding):
    edges = finding.explanation.edges
    mean = finding.explanation.alpha.mean(axis=2).T.tolist()
    layers = [f"alpha_{layer}" for layer in range(len(finding.explanation.alpha))]
    columns = (edges.site, edges.nbr, edges.image, edges.r, edges.omega)
    for i, j, image, r, omega, alpha in zip(*(column.tolist() for column in columns), mean, strict=True):
        row = {"id": finding.id, "i": i, "j": j, **dict(zip(("image_a", "image_b", "image_c"), image))}
        yield row | {"r (Å)": r, "omega (sr)": omega} | dict(zip(layers, alpha))


@contextlib.contextmanager
def _extxyz(path, attributes):
    with open(path, "w", encoding="utf-8") as stream:
        yield lambda finding: stream.write(extxyz_frame(finding))


def extxyz_frame(finding: ExplainedStructure) -> str:
    """A frame of extended XYZ, text: 17 digits of every score, so that nothing is lost on the way.

    In the comment line stand the cell, the periods, `id`, `predicted_TARGET`, and TARGET where the label is known.
    """
    atoms = finding.atoms
    info = {"id": finding.id}
    for e, label in finding.of_targets():
        info[f"predicted_{e.target}"] = float(e.value)
        if label is not None:
            info[first_free(e.target, lambda name: name not in {*info, *OF_EXTXYZ})] = float(label)
    names = told_apart(column_name(name) for name in finding.columns)
    columns = ":".join(["species:S:1:pos:R:3", *(f"{name}:R:1" for name in names)])
    lattice = " ".join(map(repr, atoms.cell.array.ravel().tolist()))
    comment = f'Lattice="{lattice}" ' if atoms.cell.any() else ""
    pbc = " ".join("FT"[int(periodic)] for periodic in atoms.pbc)
    comment += f'Properties={columns} {key_val_dict_to_str(info)} pbc="{pbc}"'
    numbers = np.column_stack([atoms.positions, *(column.values for column in finding.columns.values())]).tolist()
    rows = (f"{s} {' '.join(map(repr, row))}" for s, row in zip(atoms.get_chemical_symbols(), numbers, strict=True))
    return "\n".join([str(len(atoms)), comment, *rows, ""])


@contextlib.contextmanager
def _h5(path, attributes):
    with NewFile(path) as file:
        file.attrs.update({"format": MARKS["explanations.h5"], "version": 1, "layout": LAYOUT, **attributes})
        for name in ("structures", "sites", "edges"):
            file.create_group(name)
        for pointer in ("site_ptr", "edge_ptr"):
            _append(file, f"structures/{pointer}", np.zeros(1, dtype=np.int64))

        def add(finding):
            _add_to_h5(file, finding)
            file.check()

        yield add


def _add_to_h5(file, finding):
    e = finding.explanation
    atoms = finding.atoms
    _append(file, "structures/id", [e.id], h5py.string_dtype())
    _add_values(file, finding)
    for pointer, size in (("site_ptr", len(e.z)), ("edge_ptr", len(e.edges.r))):
        _append(file, f"structures/{pointer}", [file[f"structures/{pointer}"][-1] + size])
    _append(file, "structures/z", e.z.astype(np.uint8))
    _append(file, "structures/position", atoms.positions, unit="Å")
    _append(file, "structures/cell", atoms.cell.array[None], unit="Å")
    _append(file, "structures/pbc", atoms.pbc[None])
    each = list(finding.explanations.values())
    _append(file, "structures/structure_vector", _beside([x.structure_vector for x in each])[None])
    sums_to = {finding.column_name(name, x.target): _sum_of(text, x) for name, text in SUMS_TO.items() for x in each}
    for c in finding.columns.values():
        _append(file, f"sites/{c.name}", c.values, unit=c.unit, description=c.text, sums_to=sums_to.get(c.name, ""))
    _append(file, "sites/site_embedding", _beside([x.site_embedding for x in each]))
    for name, unit_of in (("site", ""), ("nbr", ""), ("image", ""), ("r", "Å"), ("omega", "sr")):
        _append(file, f"edges/{name}", getattr(e.edges, name), unit=unit_of)
    _append(file, "edges/alpha", e.alpha, axis=1, description="local attention: layer, edge, head")
    for (score, population), rho in finding.correlations.items():
        _append(file, f"correlation/{score}/{population}", [rho], description="Spearman; magnitudes of signed scores")


def _add_values(file, finding):
    """What is known of the structure's property; of K > 1 targets (K,) beside each other."""
    each = list(finding.explanations.values())
    unit = ", ".join(e.unit for e in each)
    targets = ", ".join(e.target for e in each)
    labels = [np.nan if label is None else label for _, label in finding.of_targets()]
    _append(file, "structures/value", _row([e.value for e in each]), unit=unit, description=f"predicted {targets}")
    _append(file, "structures/label", _row(labels), unit=unit)
    names = {"baseline_value": unit, "completeness_error": "", "n_nodes": "", "settled": ""}
    names |= {"mean_value": unit} if each[0].contribution is not None else {}
    for name, unit_of in names.items():
        values = [getattr(e, name) for e in each]
        if values[0] is not None:
            _append(file, f"structures/{name}", _row(values), unit=unit_of)


def _row(values):
    """A row for one structure: of one target its number, of several the numbers of all."""
    return values if len(values) == 1 else [values]


def _beside(arrays):
    """(..., G) of each target along the last axis."""
    return np.concatenate(arrays, axis=-1)


def _append(file, name, values, dtype=None, axis=0, **attributes):
    """Add `values` to a data set of any length along `axis`, which is made when first used."""
    values = np.asarray(values, dtype=object if dtype else None)
    if name not in file:
        shape, maxshape, chunk = ([*values.shape] for _ in range(3))
        shape[axis] = 0
        maxshape[axis] = None
        dtype = dtype or values.dtype
        chunk[axis] = chunk_rows(values.shape[:axis] + values.shape[axis + 1 :], dtype)
        data = file.create_dataset(name, shape, maxshape=maxshape, chunks=tuple(chunk), dtype=dtype)
        data.attrs.update(attributes)
    append(file[name], values, axis)


FILES = {
    "structures.csv": _csv(_structure_rows),
    "sites.csv": _csv(_site_rows),
    "edges.csv": _csv(_edge_rows),
    "explained.extxyz": _extxyz,
    "explanations.h5": _h5,
}
