"""Voronoi neighbours: refattn against pymatgen (as the authors call it) and SciPy, and how time and memory grow.

    python benchmarks/bench_neighbours.py --qm9 qm9.extxyz.gz --crystals materials_project.extxyz.gz --json OUT.json

One core, one process. Before anything is timed, the upstream rule must make the same edges as pymatgen on the same
structures (angles within 1e-5 sr; the worst is printed). pymatgen's time holds the Voronoi calls only, ours the whole
GraphBatch.from_atoms. Times are CPU times of the one thread, and each structure is timed by both within a second,
ours as the mean of ten calls, because the machine may be shared; the ratio is the median over structures.
"""

import argparse
import gzip
import io
import itertools
import json
import os
import platform
import subprocess
import sys
import time
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.io.extxyz import read_xyz
from scipy.spatial import Voronoi

from refattn.structures.batch import GraphBatch

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
SHAPES = ("crystal", "cluster", "carved", "rod")
PARITY = 1e-5  # sr and Å; 1e-6 is passed where Qhull loses it: gdb_218, nearly planar, has corners beyond 1e5 Å


def sample(path, n, total, smallest=1, largest=10**9):
    """Every (total / n)-th frame of an extended XYZ file with that many sites; the others are not parsed."""
    opener, seen, taken = gzip.open if str(path).endswith(".gz") else open, 0, []
    with opener(path, "rt") as lines:
        for first in lines:
            frame = [first, *itertools.islice(lines, int(first) + 1)]
            if smallest <= int(first) <= largest:
                seen += 1
                if seen % (total // n) == 0:
                    taken.append(next(read_xyz(io.StringIO("".join(frame)), 0)))
            if len(taken) == n:
                break
    return taken


def pymatgen_structure(atoms):
    """The structure as the authors hand it to pymatgen: float32 coordinates, a molecule in a box of 10 Å or more."""
    from pymatgen.core import Lattice, Structure

    symbols = atoms.get_chemical_symbols()
    if atoms.pbc.any():
        fractional = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T.astype(np.float32).astype(float)
        return Structure(Lattice(atoms.cell.array), symbols, fractional)
    rounded = atoms.positions.astype(np.float32)
    extent = (rounded.max(axis=0) - rounded.min(axis=0)).astype(float)
    box = Lattice(np.diag(np.maximum(10.0, extent + 0.1)))
    return Structure(box, symbols, rounded.astype(float), coords_are_cartesian=True)


def pymatgen_cells(structure):
    """The facets of every site, cutoff raised where every facet is open; and the seconds they took."""
    from pymatgen.analysis.local_env import VoronoiNN

    start, cells, cutoff = time.thread_time(), [], 7
    finder = VoronoiNN(cutoff=cutoff, allow_pathological=True, compute_adj_neighbors=False)
    for site in range(len(structure)):
        while True:
            try:
                cells.append(finder.get_voronoi_polyhedra(structure, site))
                break
            except (ValueError, RuntimeError):
                cutoff += 5
                finder = VoronoiNN(cutoff=cutoff, allow_pathological=True, compute_adj_neighbors=False)
    return cells, time.thread_time() - start


def assert_parity(atoms, structure, cells, thresholds):
    """Our edges are those of pymatgen after the authors' thresholds: site, distance, angle; returns the worst."""
    graph, worst = GraphBatch.from_atoms(atoms, rule="upstream", **thresholds), 0.0
    r_max, omega_min = thresholds["r_max"], thresholds["omega_min"]
    for site, cell in enumerate(cells):
        largest = max(facet["solid_angle"] for facet in cell.values())
        expected = []
        for facet in cell.values():
            distance = np.linalg.norm(facet["site"].coords - structure[site].coords)
            omega = facet["solid_angle"]
            if omega >= omega_min and omega >= 0.2 * largest and distance <= r_max:
                expected.append((facet["site"].index, distance, omega))
        rows = slice(*graph.edge_ptr[site : site + 2])
        found = zip(graph.nbr[rows].tolist(), graph.r[rows], graph.omega[rows], strict=True)
        found, expected = (sorted(edges, key=lambda e: (e[0], round(e[1], 5), e[2])) for edges in (found, expected))
        name = atoms.info.get("id", "structure")
        assert [e[0] for e in found] == [e[0] for e in expected], f"{name}, site {site}: other edges than pymatgen"
        for a, b in zip(found, expected, strict=True):
            worst = max(worst, abs(a[1] - b[1]), abs(a[2] - b[2]))
        assert worst < PARITY, f"{name}, site {site}: {worst:.1e} from pymatgen"
    return worst


def seconds(function, repeats=10):
    """Mean time of `repeats` calls in a row."""
    start = time.thread_time()
    for _ in range(repeats):
        function()
    return (time.thread_time() - start) / repeats


def compare(structures, thresholds):
    """Times of every structure: a dict of columns, seconds."""
    columns = {name: [] for name in ("sites", "worst", "pymatgen", "scipy", "upstream", "isolated")}
    for atoms in structures:
        structure = pymatgen_structure(atoms)
        cells, _ = pymatgen_cells(structure)
        columns["worst"].append(assert_parity(atoms, structure, cells, thresholds))
        GraphBatch.from_atoms(atoms, **thresholds)
        columns["sites"].append(len(atoms))
        columns["upstream"].append(seconds(lambda a=atoms: GraphBatch.from_atoms(a, rule="upstream", **thresholds)))
        columns["pymatgen"].append(pymatgen_cells(structure)[1])
        columns["isolated"].append(seconds(lambda a=atoms: GraphBatch.from_atoms(a, **thresholds)))
        images = [structure.lattice.get_points_in_sphere(structure.frac_coords, site.coords, 7.0) for site in structure]
        points = np.unique(np.round(np.concatenate([[p[0] for p in image] for image in images]), 9), axis=0)
        columns["scipy"].append(seconds(lambda p=points: Voronoi(p), 1))
    return columns


def report(name, columns):
    """Print a table of `compare` and return it as a dict."""
    sites, out = np.array(columns["sites"]), {"structures": len(columns["sites"]), "sites": int(sum(columns["sites"]))}
    out["worst"] = max(columns["worst"])
    print(f"\n{name}: {len(sites)} structures of {sites.mean():.1f} sites; same edges as pymatgen, {out['worst']:.0e}")
    print(f"{'':10} {'ms a structure':>16} {'(quartiles)':>18} {'us a site':>10} {'pymatgen is x times slower':>28}")
    for key in ("pymatgen", "scipy", "upstream", "isolated"):
        t = np.array(columns[key])
        low, middle, high = np.percentile(1e3 * t, [25, 50, 75])
        ratio = float(np.median(np.array(columns["pymatgen"]) / t))
        site = float(np.median(1e6 * t / sites))
        out[key] = {"ms": middle, "ms_quartiles": [low, high], "us_per_site": site, "ratio": ratio}
        print(f"{key:10} {middle:16.3f} {f'({low:.3f}, {high:.3f})':>18} {site:10.1f} {ratio:28.0f}")
    return out


def shape(kind, n):
    """About n sites: a perturbed periodic Si crystal, or an isolated cluster, random, carved or a rod of 10 x 10 Å."""
    rng = np.random.default_rng(0)
    if kind in ("cluster", "rod"):
        edges = [(20.0 * n) ** (1 / 3)] * 3 if kind == "cluster" else [10.0, 10.0, 0.2 * n]
        return Atoms(numbers=[6] * n, positions=rng.random((n, 3)) * edges)
    repeat = round((n / 8 * (1.0 if kind == "crystal" else 6 / np.pi)) ** (1 / 3)) + (kind == "carved")
    atoms = bulk("Si", cubic=True) * repeat
    if kind == "carved":
        atoms = atoms[np.argsort(np.linalg.norm(atoms.positions - atoms.positions.mean(axis=0) - 0.3, axis=1))[:n]]
        atoms.pbc = False
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return atoms


def one_size(kind, rule, n):
    """Seconds and memory of one graph; run in a process of its own, whose peak is the graph's."""
    GraphBatch.from_atoms(shape(kind, 200), rule=rule)
    atoms = shape(kind, n)
    before = peak_memory()
    took = min(seconds(lambda: GraphBatch.from_atoms(atoms, rule=rule), 1) for _ in range(5 if n <= 10_000 else 1))
    print(json.dumps({"sites": len(atoms), "seconds": took, "peak_mb": peak_memory(), "before_mb": before}))


def peak_memory():
    """Largest resident memory of this process so far, MB (ru_maxrss would begin with that of its parent)."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1e3


def scaling(kind, rule):
    """One row for each size, and the exponent of a fit of log time against log sites."""
    rows = []
    for n in SIZES:
        command = [sys.executable, __file__, "--one-size", kind, rule, str(n)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    exponent = float(np.polyfit(*(np.log([row[key] for row in rows]) for key in ("sites", "seconds")), 1)[0])
    sizes = (
        f"{r['sites']}: {1e6 * r['seconds'] / r['sites']:.0f} us, +{r['peak_mb'] - r['before_mb']:.0f} MB" for r in rows
    )
    print(f"{kind:8} {rule:9} time ~ sites^{exponent:.2f}   {'  '.join(sizes)}", flush=True)
    return {"exponent": exponent, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qm9", help="QM9 as (gzipped) extended XYZ")
    parser.add_argument("--crystals", help="crystals; those of 20 to 60 sites are taken")
    parser.add_argument("--json", help="where to write the numbers")
    parser.add_argument("--no-scaling", action="store_true")
    parser.add_argument("--one-size", nargs=3, metavar=("SHAPE", "RULE", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_size:
        one_size(arguments.one_size[0], arguments.one_size[1], int(arguments.one_size[2]))
        return
    warnings.simplefilter("ignore")
    results = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
    if arguments.qm9:
        structures = sample(arguments.qm9, 60, 120_000)
        results["molecules"] = report("QM9", compare(structures, {"r_max": 4.0, "omega_min": 0.4}))
    if arguments.crystals:
        structures = sample(arguments.crystals, 12, 12_000, 20, 60)
        results["crystals"] = report("Crystals", compare(structures, {"r_max": 6.0, "omega_min": 0.4}))
    if not arguments.no_scaling:
        print("\nGrowth, time a site, and by how much the peak of memory grew:")
        results["scaling"] = {k: {rule: scaling(k, rule) for rule in ("isolated", "upstream")} for k in SHAPES}
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump(results, stream, indent=1)


if __name__ == "__main__":
    main()
