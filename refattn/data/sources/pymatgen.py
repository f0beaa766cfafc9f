"""Structures as pymatgen writes them in JSON: MPtrj, the files of Alexandria, and lists of entries, packed or not.

A record is an object with a `structure` among labels, or a structure alone. Records may lie in lists and objects in
each other, whose keys are their ids. The text is cut into records while it is read, so that memory does not depend on
its length.
"""

import collections
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import ase
import numpy as np
from ase.geometry import cell_to_cellpar, cellpar_to_cell

from refattn.common.archives import OPENERS, decompressed
from refattn.common.jsoncutter import JsonCutter
from refattn.common.strict_json import with_keys_once
from refattn.data.sources.extxyz import ISOTOPES, Frame, check_occupancy, labels_of_json, numbers_among
from refattn.errors import DataError, in_one_line

KEYS = ("structure", "@module", "@class", "lattice", "sites", "composition", "data")  # with which a record may begin
IDS = ("material_id", "mat_id", "entry_id", "frame_id", "id")
ABOUT = (*IDS, "@module", "@class", "@version")  # texts that are no labels
PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")  # of a lattice, Å and degrees
OFF = 0.01  # 1; rounding of what a lattice or a site says twice
NOT_PER_SITE = {"stress"}
# Units of labels by the names that MPtrj and Alexandria have for them.
UNITS = dict.fromkeys(("energy", "energy_total", "corrected_total_energy", "uncorrected_total_energy"), "eV")
UNITS |= dict.fromkeys(("correction", "bandgap", "band_gap", "band_gap_ind", "band_gap_dir"), "eV")
UNITS |= dict.fromkeys(("energy_per_atom", "ef_per_atom", "e_per_atom_relaxed", "ef_per_atom_relaxed"), "eV/atom")
UNITS |= dict.fromkeys(("e_form", "e_above_hull"), "eV/atom")


def is_pymatgen(path: Path, beginning: bytes) -> bool:
    """Whether a file of JSON is packed or begins with a structure of pymatgen, and not as a database of ASE."""
    return path.suffix.lower() in OPENERS or re.search(rb'"(@module|lattice|sites)"\s*:', beginning) is not None


def read_pymatgen(path: Path, id_from: str, progress: Callable[[float], None]) -> Iterator[Frame | DataError]:
    """The Frame of every record of a file. Raises DataError where it cannot be read on."""
    size = max(path.stat().st_size, 1)
    with open(path, "rb") as raw:
        cutter = JsonCutter(unpacked_text(path, raw))
        cutter.decoder = json.JSONDecoder(object_pairs_hook=with_keys_once)
        for key, record in cutter.records(lambda key, is_nested: key in KEYS or not is_nested):
            progress(min(raw.tell() / size, 1.0))
            try:
                yield frame_of_record(record, key)
            except DataError as error:
                yield error
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                yield DataError(f"the structure {key or 'in it'} cannot be read ({in_one_line(error)}); repair it")


def unpacked_text(path: Path, raw: BinaryIO) -> io.TextIOWrapper:
    """The text in the open file `raw`, whose `path` says whether it is packed."""
    return io.TextIOWrapper(decompressed(raw, path), encoding="utf-8")


def frame_of_record(record: dict, key: str = "") -> Frame:
    """The Frame of a record; its numbers are labels, its lists of numbers for all sites arrays.

    Raises DataError for a site that is shared or not full, and what NumPy raises for other structures.
    """
    structure = record if "sites" in record else record["structure"]
    atoms = atoms_of(structure)
    data = record.get("data")
    data = data if isinstance(data, dict) else {}
    other = numbers_among(data)
    for name, value in numbers_among(record).items():
        if not math.isclose(other.get(name, value), value, rel_tol=1e-6) and value == value:
            raise DataError(f"{name} is {value:g} beside the structure and {other[name]:g} in its data; keep one")
    values = {**data, **record}
    id = key or next((str(values[name]) for name in IDS if values.get(name)), "")
    labels, texts = labels_of_json(values, but=ABOUT)
    properties = [site.get("properties") or {} for site in structure["sites"]]
    columns = {name: [own.get(name) for own in properties] for name in properties[0]} if properties else {}
    columns |= {name: value for name, value in values.items() if isinstance(value, list) and name not in NOT_PER_SITE}
    arrays = {name: array for name, column in columns.items() if (array := _per_site(column, len(atoms))) is not None}
    units = {name: UNITS[name] for name in labels if name in UNITS}
    return Frame(id, labels, atoms, arrays, texts, units=units)


def atoms_of(structure: dict) -> ase.Atoms:
    """The ase.Atoms of a Structure or Molecule as a dict."""
    lattice = structure.get("lattice")
    sites = structure["sites"]
    symbols = []
    for number, site in enumerate(sites):
        shares = collections.Counter()
        for kind in site["species"]:
            shares[kind["element"]] += kind["occu"]
        check_occupancy({number: shares})
        (symbol,) = shares
        symbols.append(ISOTOPES.get(symbol, symbol))
    if not lattice:
        return ase.Atoms(symbols, np.array([site["xyz"] for site in sites], float).reshape(-1, 3))
    matrix = _matrix(lattice)
    _check_positions(sites, matrix)
    cell = {"cell": matrix, "pbc": _periods(lattice)}
    if all("abc" in site for site in sites):
        positions = np.array([site["abc"] for site in sites], float).reshape(-1, 3)
        return ase.Atoms(symbols, scaled_positions=positions, **cell)
    positions = [site["xyz"] if "xyz" in site else np.array(site["abc"], float) @ matrix for site in sites]
    return ase.Atoms(symbols, np.array(positions, float), **cell)


def _periods(lattice):
    """The periodic directions of a lattice, all where it says nothing."""
    found = lattice.get("pbc")
    if found is None:
        return True
    if not isinstance(found, list) or len(found) != 3 or not all(isinstance(value, bool) for value in found):
        raise DataError(f"the pbc of its lattice is {str(found)[:40]!r}; write three of true and false")
    return found


def _check_positions(sites, matrix):
    """Raise DataError where both positions of a site are given and are not one, but for lattice vectors."""
    both = [k for k, site in enumerate(sites) if "abc" in site and "xyz" in site]
    if not both:
        return
    abc, xyz = (np.array([sites[k][name] for k in both], float) for name in ("abc", "xyz"))
    step = abc - np.linalg.solve(matrix.T, xyz.T).T
    is_off = (np.abs((step - np.rint(step)) @ matrix) > OFF * np.abs(matrix).max()).any(axis=1)
    if is_off.any():
        raise DataError(f"abc and xyz of the site {both[is_off.argmax()]} are two positions; correct one of them")


def _matrix(lattice):
    """(3, 3) float64, the cell vectors of a Lattice. Raises DataError where it says two lengths, angles or volumes."""
    said = {name: lattice[name] for name in (*PARAMETERS, "volume") if lattice.get(name) is not None}
    if "matrix" not in lattice and len(said.keys() & set(PARAMETERS)) < len(PARAMETERS):
        raise DataError("its lattice has neither a matrix nor all lengths and angles; give them")
    matrix = lattice["matrix"] if "matrix" in lattice else cellpar_to_cell([said[name] for name in PARAMETERS])
    matrix = np.array(matrix, float)
    found = dict(zip((*PARAMETERS, "volume"), (*cell_to_cellpar(matrix), abs(np.linalg.det(matrix))), strict=True))
    for name, value in said.items():
        if not abs(found[name] - value) <= OFF * abs(value):
            raise DataError(
                f"{name} of its lattice is {value}, that of its matrix {found[name]:.6g}; correct one of them"
            )
    return matrix


def _per_site(column, n_sites):
    """(N, ...) float64 where a list holds numbers for every site, else None."""
    if len(column) != n_sites:
        return None
    try:
        return np.array([np.nan if value is None else value for value in column], float)
    except (ValueError, TypeError):
        return None
