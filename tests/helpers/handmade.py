"""Structures and graphs written down by hand: what a dataset must give back is known without running refattn."""

import ase
import numpy as np

from refattn.config import GraphConfig
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.structures.batch import GraphBatch

CONFIG = GraphConfig(rule="isolated", r_max=3.5, omega_min=0.3, weight_min=0.1)
HOMO = {"homo": {"unit": "eV", "description": "an orbital", "kind": "intensive"}}


def line(id, n_sites, labels=None, arrays=None, z=6):
    """A chain of sites 1.5 Å apart along x, every site joined to the ones before and after it."""
    atoms = ase.Atoms(
        [z] * n_sites, [[1.5 * i, 0.0, 0.0] for i in range(n_sites)], cell=[9, 8, 7], pbc=[True, False, True]
    )
    nbr = [[j for j in (i - 1, i + 1) if 0 <= j < n_sites] for i in range(n_sites)]
    n_edges = sum(map(len, nbr))
    graph = GraphBatch.of_structure(
        z=np.full(n_sites, z, np.int32),
        edge_ptr=np.cumsum([0, *map(len, nbr)]).astype(np.int32),
        nbr=np.array([j for row in nbr for j in row], np.int32),
        image=np.zeros((n_edges, 3), np.int8),
        r=np.full(n_edges, 1.5),
        omega=np.linspace(1.0, 2.0, n_edges),
        omega_max=np.full(n_sites, 2.5),
    )
    return Record(id, atoms, labels or {}, arrays or {}), graph


def chains():
    """Four structures of 3, 1, 2 and 4 sites; homo is known for two of them, the array for one."""
    return [
        line("a", 3, {"homo": -1.5}),
        line("b", 1),
        line("ü c", 2, {"homo": 2.5, "gap": 7.0}, {"population": np.array([0.25, 0.75])}, z=8),
        line("d", 4),
    ]


def write(path, pairs, **options):
    """A dataset of `pairs` in blocks of two, made with CONFIG."""
    with DatasetWriter(path, CONFIG, **{"source": "by hand", "label_attrs": HOMO, **options}) as writer:
        for start in range(0, len(pairs), 2):
            block = pairs[start : start + 2]
            writer.add([record for record, _ in block], [graph for _, graph in block])
    return path
