"""What each site contributes to the output, asked of the network itself: by gradients and by leaving the site out.

All scores are in standard deviations of the label (times std: the label's unit) and have one sign: positive where the
site raises the prediction above what it would be without it. c[i] is the site's input embedding (refattn.network.model
.input_embedding), b the baseline's, y(c) the output before any clip at zero. The geometry, that is distances, solid
angles and the edges themselves, stays as it is in all scores but `removal`.
"""

import dataclasses
from collections.abc import Callable

import ase
import numpy as np

from refattn.common.limits import PATH_SITES
from refattn.explanation.variants import ScoredInput
from refattn.network.inference import predict_rows
from refattn.prediction.predictor import Model
from refattn.structures.batch import EDGES_PER_SHARD, GraphBatch

COMPLETENESS = 1e-3  # relative; tolerance of the sum of integrated gradients
FIRST_NODES, MAX_NODES = 8, 512
# In units of the type's eps, of the largest term of the sum: below it the difference of two outputs is rounding.
ROUNDING = 100
GRAPHS = 32  # shards' worth of graphs that `removal` holds at a time


def gradient_times_input(subject: ScoredInput) -> np.ndarray:
    """Gradient times input of every site.

    score[i] = sum_d (c[i,d] - b[d]) d y / d c[i,d],  b = 0 unless the subject has another baseline

    The first-order estimate of what occlusion measures; not normalised, the sum over sites has no meaning of its own.

    Returns
    -------
    (N,) float64

    Source   Shrikumar et al., arXiv 1605.01713 (2016)
    """
    gradient = subject.summed_gradient(lambda part: subject.embedding[None], np.ones(1))
    return (subject.difference * gradient).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class IntegratedGradients:
    """Integrated gradients and how good their sum is.

    score : (N,) float64
    output, baseline_output : float   y(c) and y(b): with every site, and with the baseline's embedding at all of them
    n_nodes : int                     nodes of the quadrature that were used
    error : float                     (sum of score - (y(c) - y(b))) / |y(c) - y(b)|; 0 where both are the same
    settled : bool                    whether the quadrature met its tolerance with as many nodes as it may have
    """

    score: np.ndarray
    output: float
    baseline_output: float
    n_nodes: int
    error: float
    settled: bool


def integrated_gradients(
    subject: ScoredInput, map_fn: Callable = map, tolerance: float = COMPLETENESS
) -> IntegratedGradients:
    """Integrated gradients of every site, along the straight path on which all sites appear together.

    score[i] = sum_d (c[i,d] - b[d]) int_0^1 dt d y / d c[i,d] at b + t (c - b)
    Completeness: sum_i score[i] = y(c) - y(b).

    The integral is a Gauss-Legendre sum, whose nodes crowd at both ends of the path: near b the layer norms make the
    output change fast. The number of nodes doubles until the sum is complete within `tolerance` of |y(c) - y(b)| and
    no score has moved by more than `tolerance` of the sum of their magnitudes, or the rest is rounding. There are at
    most MAX_NODES, and of a large structure so many that nodes times sites stay below PATH_SITES, but 2 FIRST_NODES.

    Parameters
    ----------
    map_fn : callable, optional   like map
    tolerance : float, relative

    Source   Sundararajan et al., ICML 2017, arXiv 1703.01365, Eq. (1) and proposition 1
    """
    baseline, difference = subject.baseline, subject.difference
    ends = subject.outputs(lambda part: baseline + part[:, None, None] * difference, 2, map_fn)
    change = ends[1] - ends[0]
    rounding = ROUNDING * np.finfo(subject.embedding.dtype).eps
    most = min(MAX_NODES, max(2 * FIRST_NODES, PATH_SITES // len(subject.embedding)))
    n_nodes, before = FIRST_NODES, None
    while True:
        score = _quadrature(subject, n_nodes, map_fn)
        magnitude = np.abs(score).sum()
        floor = rounding * max(magnitude, np.abs(ends).max())
        complete = abs(score.sum() - change) <= max(tolerance * abs(change), floor)
        settled = complete and before is not None and np.abs(score - before).max() <= max(tolerance * magnitude, floor)
        if settled or 2 * n_nodes > most:
            break
        n_nodes, before = 2 * n_nodes, score
    error = (score.sum() - change) / abs(change) if change else 0.0
    return IntegratedGradients(score, float(ends[1]), float(ends[0]), n_nodes, float(error), bool(settled))


def _quadrature(subject, n_nodes, map_fn):
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    t = (1 + nodes) / 2
    baseline, difference = subject.baseline, subject.difference
    gradient = subject.summed_gradient(lambda part: baseline + t[part, None, None] * difference, weights / 2, map_fn)
    return (difference * gradient).sum(axis=1)


def occlusion(subject: ScoredInput, map_fn: Callable = map) -> np.ndarray:
    """Occlusion of every site: what the output loses when the site says nothing about itself.

    score[i] = y(c) - y(c with b at site i)

    The geometry is kept: the site's edges stay, and its neighbours still see something at that place. One forward pass
    of the whole structure for each site.

    Parameters
    ----------
    map_fn : callable, optional   like map

    Returns
    -------
    (N,) float64

    Source   Zeiler & Fergus, ECCV 2014, arXiv 1311.2901, for pixels
    """

    def occluded(part):
        embeddings = np.repeat(subject.embedding[None], len(part), axis=0)
        embeddings[np.arange(len(part)), part] = subject.baseline
        return embeddings

    return subject.output() - subject.outputs(occluded, len(subject.embedding), map_fn)


def removal(model: Model, subject: ScoredInput, atoms: ase.Atoms, map_fn: Callable = map) -> np.ndarray:
    """Removal of every atom: what the output loses when the atom is taken away and the graph is made anew.

    score[i] = y(structure) - y(structure without atom i)

    The neighbours close ranks in new Voronoi cells, so that this score is about the geometry too. In a periodic
    structure it makes a vacancy in every cell: it depends on the size of the cell. Per-site ring features of the other
    atoms are kept. NaN for a structure of one site, which leaves nothing.

    Parameters
    ----------
    map_fn : callable, optional   like map

    Returns
    -------
    (N,) float64

    Raises StructureError where the rest has no graph.
    """
    n_sites = len(atoms)
    if n_sites == 1:
        return np.full(1, np.nan)
    size = max(1, GRAPHS * EDGES_PER_SHARD // max(1, len(subject.graph.nbr)))
    parts = (range(start, min(start + size, n_sites)) for start in range(0, n_sites, size))
    rest = [_outputs_without(model, subject, atoms, part, map_fn) for part in parts]
    return subject.output() - np.concatenate(rest)


def _outputs_without(model, subject, atoms, sites, map_fn):
    """(len(sites),) float64 outputs of the structure without each of the sites."""
    name = atoms.info.get("id", "structure")

    def graph_without(site):
        return model.graph(f"{name} without atom {site}", _without(atoms, site))

    graphs = GraphBatch.concatenate(list(map_fn(graph_without, sites)))
    rows = np.arange(len(graphs))
    output = predict_rows(subject.params, subject.config, subject.ops, graphs, rows, map_fn)
    return output.prediction[:, subject.target].astype(float)


def _without(atoms, site):
    keep = np.arange(len(atoms)) != site
    rest = ase.Atoms(atoms.numbers[keep], atoms.positions[keep], cell=atoms.cell, pbc=atoms.pbc)
    if "ring" in atoms.arrays:
        rest.set_array("ring", atoms.arrays["ring"][keep])
    return rest
