"""refattn.neighbours beside pymatgen, freud, ASE, matscipy and vesin: the same numbers, and the time of each.

    python benchmarks/compare_neighbours.py crystals.extxyz.gz --number 40 --page docs/neighbours.md --json OUT.json

Whatever of these is installed takes part. Crystals are taken evenly from the file. Times are processor times of one
thread, of all programs on one crystal after another, ours the mean of many calls. pymatgen's VoronoiNN is called as it
comes. Solid angles are compared facet by facet, volumes cell by cell. The table goes between the marks of the page.
"""

import argparse
import functools
import importlib.metadata
import json
import platform
import re
import time
import warnings
from pathlib import Path

import numpy as np
from bench_neighbours import sample

from refattn.common.environment import processor
from refattn.neighbours import neighbour_list, voronoi

CUTOFF = 5.0  # Å, of the lists by distance
SMALL = 1e-5  # sr; facets that are smaller come and go with rounding
MARK = re.compile(r"(<!-- comparison: begin -->\n).*(<!-- comparison: end -->)", re.DOTALL)


def seconds(function, repeats=1):
    """Processor time of a call, and what it returned."""
    start = time.process_time()
    for _ in range(repeats):
        found = function()
    return (time.process_time() - start) / repeats, found


def pymatgen_call(atoms):
    from pymatgen.core import Lattice, Structure
    from pymatgen.core.local_env import VoronoiNN

    positions = atoms.get_scaled_positions()
    structure = Structure(Lattice(atoms.cell.array), atoms.get_chemical_symbols(), positions)
    return lambda: VoronoiNN().get_all_voronoi_polyhedra(structure)


def freud_call(atoms):
    import freud

    triangular, rotation = atoms.cell.standard_form()
    vectors = triangular.array
    (a, _, _), (b_x, b_y, _), (c_x, c_y, c_z) = vectors.tolist()
    box = freud.box.Box(a, b_y, c_z, b_x / b_y, c_x / c_z, c_y / c_z)
    points = box.wrap(atoms.positions @ rotation.T)
    return lambda: freud.locality.Voronoi().compute((box, points)).volumes


def matscipy_call(atoms):
    from matscipy.neighbours import neighbour_list as call

    return lambda: call("ijdDS", atoms, CUTOFF)


def vesin_call(atoms):
    from vesin import ase_neighbor_list as call

    return lambda: call("ijdDS", atoms, CUTOFF)


def ase_call(atoms):
    from ase.neighborlist import neighbor_list as call

    return lambda: call("ijdDS", atoms, CUTOFF)


# Program -> its call for a structure, what it gives, and its name on the package index
PROGRAMS = {
    "pymatgen": (pymatgen_call, "facets, by Qhull", "pymatgen-core"),
    "freud": (freud_call, "volumes of cells and facets, by Voro++", "freud-analysis"),
    "ase": (ase_call, f"list by distance, {CUTOFF:g} Å", "ase"),
    "matscipy": (matscipy_call, f"list by distance, {CUTOFF:g} Å", "matscipy"),
    "vesin": (vesin_call, f"list by distance, {CUTOFF:g} Å", "vesin"),
}


def worst_angle(found, cells):
    """Largest difference of solid angles from pymatgen's, facet by facet; infinite where a facet has no partner."""
    worst = 0.0
    for n, cell in enumerate(cells):
        rows = slice(*found.ptr[n : n + 2])
        ours = zip(found.r[rows].tolist(), found.omega[rows].tolist(), strict=True)
        theirs = ((2 * facet["face_dist"], facet["solid_angle"]) for facet in cell.values())
        ours, theirs = (
            sorted((round(r, 5), omega) for r, omega in facets if omega > SMALL) for facets in (ours, theirs)
        )
        if len(ours) != len(theirs):
            return np.inf
        worst = max([worst, *(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True))])
        worst = max([worst, *(abs(a[1] - b[1]) for a, b in zip(ours, theirs, strict=True))])
    return worst


def compare(atoms, programs):
    """Times, differences and failures of one crystal."""
    voronoi(atoms)
    own, found = seconds(functools.partial(voronoi, atoms), 50)
    record = {"formula": str(atoms.symbols), "sites": len(atoms), "facets": len(found), "refattn": own}
    record["fills_space"] = abs(found.cell_volume.sum() / atoms.get_volume() - 1)
    assert len(neighbour_list("i", atoms)) == len(found)
    for name in programs:
        call = PROGRAMS[name][0](atoms)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                record[name], result = seconds(call, 1 if name == "pymatgen" else 5)
        except (RuntimeError, ValueError, KeyError) as error:
            record[name] = None
            record[f"{name}_fails"] = f"{type(error).__name__}: {error}"
            continue
        if name == "pymatgen":
            record["pymatgen_angle"] = worst_angle(found, result)
        if name == "freud":
            record["freud_volume"] = float(np.abs(np.asarray(result) / found.cell_volume - 1).max())
    return record


def table(records, programs):
    """The comparison as lines of a page."""
    lines = ["| | gives | ms a crystal (median) | times ours (median, least, most) | fails | largest difference |"]
    lines += ["| --- | --- | ---: | ---: | ---: | --- |"]
    own = np.array([record["refattn"] for record in records])
    lines.append(f"| refattn | facets, areas, volumes | {1e3 * np.median(own):.2f} | 1 | 0 | |")
    for name in programs:
        done = [record for record in records if record[name] is not None]
        times = np.array([record[name] for record in done])
        ratio = times / np.array([record["refattn"] for record in done])
        difference = ""
        if name == "pymatgen":
            difference = f"angles {max(record['pymatgen_angle'] for record in done):.0e} sr"
        if name == "freud":
            difference = f"volumes {max(record['freud_volume'] for record in done):.0e}, relative"
        span = f"{np.median(ratio):.3g} ({ratio.min():.2g}, {ratio.max():.4g})"
        version = importlib.metadata.version(PROGRAMS[name][2])
        fails = f"{len(records) - len(done)} of {len(records)}"
        cells = (f"{name} {version}", PROGRAMS[name][1], f"{1e3 * np.median(times):.3g}", span, fails, difference)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", help="extended XYZ, gzipped or not")
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--total", type=int, default=60_000, help="crystals in the file, about")
    parser.add_argument("--largest", type=int, default=200, help="sites; pymatgen takes minutes for large ones")
    parser.add_argument("--page", help="the page that the table is put into")
    parser.add_argument("--json", help="all numbers")
    arguments = parser.parse_args()
    programs = []
    for name, (_, _, package) in PROGRAMS.items():
        try:
            importlib.metadata.version(package)
            programs.append(name)
        except importlib.metadata.PackageNotFoundError:
            print(f"{name} is not installed", flush=True)
    records = []
    for atoms in sample(arguments.crystals, arguments.number, arguments.total, largest=arguments.largest):
        records.append(compare(atoms, programs))
        print(json.dumps(records[-1]), flush=True)
    lines = table(records, programs)
    print("\n".join(lines))
    machine = {"processor": processor(), "python": platform.python_version()}
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"machine": machine, "crystals": records}, indent=1) + "\n")
    if arguments.page:
        page = Path(arguments.page)
        note = f"{len(records)} crystals of Materials Project, one thread of {machine['processor']}:"
        text = "\n".join(["", note, "", *lines, "", ""])
        page.write_text(MARK.sub(lambda found: found[1] + text + found[2], page.read_text()))


if __name__ == "__main__":
    main()
