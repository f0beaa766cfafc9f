"""A set with numbers of its structures and sites, as the viewer chemiscope (chemiscope.org) opens it.

    meta            name and description
    structures      size, names, x, y, z (Å), and the cell of those with periods, for each structure
    properties      name -> target ("structure" or "atom"), values, units, description
    environments    structure, center and cutoff (Å) of every site
    settings        what is shown first

Chemiscope takes no number that is not finite: a property that has one is left out.
"""

import contextlib
import csv
import gzip
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import ase
import numpy as np

from refattn.common.files import replacing
from refattn.common.hdf5 import reading_hdf5
from refattn.common.strict_json import to_json
from refattn.errors import DataError
from refattn.report.findings import ExplainedStructure

SUFFIXES = (".chemiscope.json.gz", ".chemiscope.json")
CREATOR = "refattn"
MARK = re.compile(rb'\{"meta": \{"name": "refattn')
CUTOFF = 4.0  # Å, around a site that is chosen


def is_chemiscope(path: Path | str) -> bool:
    """Whether the name of a file asks for chemiscope's format."""
    return str(path).endswith(SUFFIXES)


def write_chemiscope(
    path: Path | str,
    structures: Iterable[ase.Atoms],
    properties: dict[str, tuple],
    about: str,
    axes: tuple[str, str],
    colour: str,
) -> None:
    """Write structures and their properties to a file that chemiscope opens.

    Parameters
    ----------
    path : path               compressed where it ends in .gz
    properties : dict         name -> (target, values, unit, description); target is "structure" or "atom", values are
                              numbers or texts in the order of the structures, and of their sites
    about : str               for the title
    axes : pair of str        the properties along x and y of the map that is shown first
    colour : str              the property of its colours

    Raises DataError where there is nothing to show, OutputError.
    """
    structures = list(structures)
    finite = {
        name: row for name, row in properties.items() if row[1] and (isinstance(row[1][0], str) or _finite(row[1]))
    }
    if not structures or not {*axes} <= finite.keys():
        raise DataError("there is nothing to map; give files with structures that the model can read")
    target = finite[axes[0]][0]
    shown = {"x": {"property": axes[0]}, "y": {"property": axes[1]}, "color": {"property": colour}}
    record = {
        "meta": {"name": f"{CREATOR}: {about}", "description": f"Written by {CREATOR}."},
        "structures": [_structure(atoms) for atoms in structures],
        "properties": {name: _property(*row) for name, row in finite.items()},
        "environments": [
            {"structure": number, "center": site, "cutoff": CUTOFF}
            for number, atoms in enumerate(structures)
            for site in range(len(atoms))
        ],
        "settings": {"target": target, "map": shown},
    }
    if target == "atom":
        record["settings"]["structure"] = [{"color": {"property": colour}}]
    data = to_json(record).encode()
    with replacing(path) as part:
        part.write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def _finite(values):
    return bool(np.isfinite(values).all())


def _structure(atoms):
    record = {"size": len(atoms), "names": atoms.get_chemical_symbols()}
    record |= dict(zip("xyz", np.round(atoms.positions, 5).T.tolist()))
    if atoms.pbc.any():
        record["cell"] = atoms.cell.complete().array.reshape(-1).tolist()
    return record


def _property(target, values, unit, description):
    return {"target": target, "values": values, "units": unit, "description": description}


class ExplanationFile:
    """What `refattn explain` writes to, as ReportWriter is for a folder: gathers all structures."""

    n_pictures = 0
    n_pages = 0

    def __init__(self):
        self.findings = []

    def add(self, finding: ExplainedStructure) -> None:
        """Add a structure."""
        self.findings.append(finding)


@contextlib.contextmanager
def explanation_file(path: Path | str, about: str) -> Iterator[ExplanationFile]:
    """An ExplanationFile, which is written to `path` when the block ends well."""
    writer = ExplanationFile()
    yield writer
    found = writer.findings
    properties = {}
    for column in found[0].columns.values() if found else ():
        values = [value for finding in found for value in finding.columns[column.name].values.tolist()]
        properties[column.name] = ("atom", values, column.unit, column.text)
    for target, e in found[0].explanations.items() if found else ():
        values = [finding.explanations[target].value for finding in found]
        properties[f"predicted {target}"] = ("structure", values, e.unit, f"predicted {target}")
    properties["id"] = ("structure", [finding.id for finding in found], "", "")
    properties["site"] = ("atom", [site for finding in found for site in range(len(finding.atoms))], "", "")
    first = next(iter(properties))
    write_chemiscope(path, [finding.atoms for finding in found], properties, about, ("site", first), first)


def write_embedding(path: Path | str, folder: Path, structures: list[ase.Atoms], about: str) -> None:
    """Write what write_maps left in `folder`, with a map of all sites, as one file for chemiscope."""
    properties = {}
    for name, target in (("map.csv", "structure"), ("site_map.csv", "atom")):
        if not (folder / name).exists():
            continue
        with open(folder / name, newline="", encoding="utf-8") as stream:
            columns = list(csv.DictReader(stream))
        for axis in "xy":
            properties[f"{target} {axis}"] = (target, [float(row[axis]) for row in columns], "", f"map, {axis}")
    with reading_hdf5(folder / "embedding.h5") as file:
        name, unit = file.attrs["target"], file.attrs["unit"]
        predicted = f"predicted {name}"
        properties[predicted] = ("structure", file["structures/value"][()].tolist(), unit, predicted)
        properties[name] = ("structure", file["structures/label"][()].tolist(), unit, "label")
        properties["id"] = ("structure", file["structures/id"].asstr()[()].tolist(), "", "")
        properties["beta"] = ("atom", file["sites/beta"][()].tolist(), "", "global attention")
    write_chemiscope(path, structures, properties, about, ("structure x", "structure y"), predicted)
