"""refattn.explain: all that can be said of the sites of a structure, in one dataclass.

The table SITE_SCORES names every number that a site gets; the definitions stand where they are computed.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import ase
import numpy as np

from refattn.common.limits import OCCLUDED_SITES
from refattn.errors import ConfigError, DataError, StructureError
from refattn.explanation.attribution import gradient_times_input, integrated_gradients, occlusion, removal
from refattn.explanation.flow import Flow, attention_flow, residual_share
from refattn.explanation.variants import LARGE, ScoredInput
from refattn.network.inference import overflow_is_reported
from refattn.network.model import forward
from refattn.network.params import Parameters
from refattn.prediction.predictor import Model, Skip, Structures
from refattn.structures.batch import GraphBatch


@dataclasses.dataclass(frozen=True)
class SiteScore:
    """A number for every site: its field in Explanation, what it is, and how to draw and read it.

    signed : bool        whether it has a sign, so that colours should diverge from zero
    in_unit : bool       whether it has the label's unit; else it has none
    sums_to : str        what its sum over the sites is; empty where the sum has no meaning
    """

    name: str
    text: str
    signed: bool
    in_unit: bool
    sums_to: str = ""


SITE_SCORES = (
    SiteScore("beta", "global attention", False, False, "1"),
    SiteScore("scaled_beta", "global attention times the number of sites", False, False, "N"),
    SiteScore("impact", "global attention carried through the local attention", False, False, "1"),
    SiteScore("gradient_times_input", "gradient times input", True, True),
    SiteScore("integrated_gradients", "integrated gradients", True, True, "value - baseline_value"),
    SiteScore("occlusion", "loss when the site says nothing of itself", True, True),
    SiteScore("removal", "loss when the atom is taken away", True, True),
)
COSTLY = ("integrated_gradients", "occlusion", "removal")
DEFAULT = COSTLY[:2]
BLOCK_SITES = 4096  # sites of structures that are explained at once, and those of one


@dataclasses.dataclass(frozen=True)
class Edges:
    """The edges of a structure, in the order of `alpha`.

    site, nbr : (E,) int     the site that looks, and the one that it sees
    image : (E, 3) int       the periodic image of nbr, in cell vectors (rule "upstream": of its box)
    r : (E,) float64         distance, Å
    omega : (E,) float64     solid angle of the shared Voronoi facet, sr
    """

    site: np.ndarray
    nbr: np.ndarray
    image: np.ndarray
    r: np.ndarray
    omega: np.ndarray


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a prediction rests on: a structure of N sites and E edges, a network of L layers and H heads.

    Attributes
    ----------
    id : str
    target, unit : str                     the label
    value : float                          the prediction, in `unit`
    z : (N,) int                           atomic numbers
    beta : (N,) float64                    global attention: softmax over the structure, sums to 1
    scaled_beta : (N,) float64             beta N: 1 where attention is even, so that structures of any size, and a
                                           cell and its supercell, compare
    edges : Edges
    alpha : (L, E, H) float                local attention alpha[l,e,h] of layer l, edge e and head h: the softmax of
                                           C^-1/2 q . k over the edges of a site; sums to 1 over them
    flow : Flow                            flow[i,j], the part of site i's representation that came from site j through
                                           all layers; rows sum to 1 (flow.py)
    impact : (N,) float64                  impact[j] = sum_i beta[i] flow[i,j]; sums to 1
    site_embedding : (N, G) float          representation of the sites after step 5 of docs/design.md section 3
    structure_vector : (G,) float          struct = sum_i beta[i] k[i] of step 6
    gradient_times_input : (N,) float64    in `unit`, as the next three (attribution.py); positive raises the prediction
    integrated_gradients : (N,) float64    or None where it was not asked for, as the next two
    occlusion, removal : (N,) float64
    baseline_value : float                 in `unit`: the prediction with the baseline's embedding at all sites, before
                                           a clip at zero; integrated gradients sum to value - baseline_value
    n_nodes : int                          of the quadrature of the integrated gradients
    completeness_error : float             relative: (sum - (value - baseline_value)) / |value - baseline_value|; large
                                           where the two values agree but for rounding
    settled : bool                         whether that quadrature met its tolerance; if not, trust it no further than
                                           completeness_error

    baseline_value and the three after it are None without integrated gradients. Scores of a non-negative target
    explain the output before the clip at zero.
    """

    id: str
    target: str
    unit: str
    value: float
    z: np.ndarray
    beta: np.ndarray
    scaled_beta: np.ndarray
    edges: Edges
    alpha: np.ndarray
    flow: Flow
    impact: np.ndarray
    site_embedding: np.ndarray
    structure_vector: np.ndarray
    gradient_times_input: np.ndarray
    integrated_gradients: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    removal: np.ndarray | None = None
    baseline_value: float | None = None
    n_nodes: int | None = None
    completeness_error: float | None = None
    settled: bool | None = None

    def site_scores(self) -> dict[str, np.ndarray]:
        """{name: (N,) float64} of all SITE_SCORES that were computed, in the table's order."""
        found = {score.name: getattr(self, score.name) for score in SITE_SCORES}
        return {name: values for name, values in found.items() if values is not None}


def explain(
    model: Model,
    structures: Structures,
    scores: Iterable[str] = DEFAULT,
    share: float | str = 0.5,
    dtype: str = "float64",
    n_threads: int | None = None,
) -> Explanation | list[Explanation]:
    """What the predictions of one ase.Atoms or of an iterable of them rest on.

    Parameters
    ----------
    model : refattn.Model
    structures : ase.Atoms, or iterable of ase.Atoms     as for Model.predict
    scores : iterable of str
        Which of the costly scores to compute. "integrated_gradients" takes some dozens of passes through the network;
        "occlusion" one for each site; "removal" one, and a graph, for each site: NaN beyond OCCLUDED_SITES of
        refattn.common.limits.
    share : float in 0 to 1, or "norm"
        Weight of the residual path in the flow (flow.py).
    dtype : "float64" or "float32"
        Type of the computation, whatever the model was trained in. Occlusion is a small difference of large numbers:
        between equivalent atoms of C60 it differed by 2e-4 of the largest in float32, by 4e-13 in float64 (measured
        with a model of the fullerene set). Structures of more than 10,000 sites are computed in the type that the
        model was trained in, because of the memory.
    n_threads : int, optional
        By default one for each core. It changes no bit of the result.

    Returns
    -------
    Explanation of one ase.Atoms, or a list of them

    Raises ConfigError for an unknown score or share, and what Model.predict raises.
    """
    alone = isinstance(structures, ase.Atoms)
    stream = explain_stream(model, [structures] if alone else structures, scores, share, dtype, n_threads)
    found = [explanation for _, explanation in stream]
    return found[0] if alone else found


def explain_stream(
    model: Model,
    structures: Iterable[ase.Atoms],
    scores: Iterable[str] = DEFAULT,
    share: float | str = 0.5,
    dtype: str = "float64",
    n_threads: int | None = None,
    block: int = 32,
    skip: Skip | None = None,
) -> Iterator[tuple[ase.Atoms, Explanation]]:
    """Like explain, for any number of structures in bounded memory: yields (ase.Atoms, Explanation).

    Where `skip` is given, structures that explain would refuse are left out, and skip(id, error) is called.
    """
    task = _Task(model, _checked(scores), _checked_share(share), model.checkpoint.params.astype(dtype))
    blocks = model.stream_batches(structures, task.explained, block, n_threads, skip, max_sites=BLOCK_SITES)
    for kept, explanations in blocks:
        yield from zip(kept, explanations, strict=True)


def _checked(scores):
    unknown = [name for name in scores if name not in COSTLY]
    if unknown:
        raise ConfigError(f"there is no score {unknown[0]!r} to ask for; the costly ones are {', '.join(COSTLY)}")
    return tuple(scores)


def _checked_share(share):
    if share != "norm" and not (isinstance(share, (int, float)) and 0 <= share <= 1):
        raise ConfigError(f"the share of the residual path is {share!r}; it must be a number from 0 to 1, or 'norm'")
    return share


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is asked about every structure, and the parameters in the type of the computation."""

    model: Model
    scores: tuple[str, ...]
    share: float | str
    params: Parameters

    def explained(self, ids, structures, graphs, map_fn, refuse):
        """The structures that have an Explanation, and a list of these; see Predictor.compute."""
        # One structure is spread over the threads; of several each has one.
        over_structures = map if len(ids) == 1 else self.model.ops.side_by_side(map_fn)
        within_structure = map_fn if over_structures is map else map

        def explanation_or_error(row):
            try:
                return self._explanation(ids[row], structures[row], graphs.take([row]), within_structure)
            except (StructureError, DataError) as error:
                return error

        kept, explanations = [], []
        results = over_structures(explanation_or_error, range(len(ids)))
        for id, atoms, result in zip(ids, structures, results, strict=True):
            if isinstance(result, Explanation):
                kept.append(atoms)
                explanations.append(result)
            else:
                refuse(id, result)
        return kept, explanations

    def _explanation(self, id, atoms, graph, map_fn):
        model = self.model
        own = model.checkpoint.params
        subject = subject_of(model, self.params if len(graph.z) <= LARGE else own, graph)
        output, attention = _attention(subject, graph, self.share)
        output = max(output, 0.0) if model.config.model.non_negative else output
        value = model.checkpoint.scale.mean[0] + model.checkpoint.scale.std[0] * output
        names = {"id": id, "target": model.target, "unit": model.unit, "value": value, "z": graph.z}
        return Explanation(**names, **attention, **self._attributions(subject, atoms, map_fn))

    def _attributions(self, subject, atoms, map_fn):
        """The fields of an Explanation that are in the label's unit: gradients, and what was asked of COSTLY."""
        mean, std = self.model.checkpoint.scale.mean[0], self.model.checkpoint.scale.std[0]
        found = {"gradient_times_input": std * gradient_times_input(subject)}
        if "integrated_gradients" in self.scores:
            result = integrated_gradients(subject, map_fn)
            found |= {
                "integrated_gradients": std * result.score,
                "baseline_value": mean + std * result.baseline_output,
                "n_nodes": result.n_nodes,
                "completeness_error": result.error,
                "settled": result.settled,
            }
        unknown = np.full(len(atoms), np.nan)
        few = len(atoms) <= OCCLUDED_SITES  # the network once for each site costs the square of them
        if "occlusion" in self.scores:
            found["occlusion"] = std * occlusion(subject, map_fn) if few else unknown
        if "removal" in self.scores:
            found["removal"] = std * removal(self.model, subject, atoms, map_fn) if few else unknown
        return found


def subject_of(model: Model, params: Parameters, graph: GraphBatch) -> ScoredInput:
    """The ScoredInput of one structure before the network of `model` with the parameters `params`, in their type."""
    config = model.config.model
    return ScoredInput.of(params, config, model.ops, graph.for_network(config, params.vector.dtype))


def _attention(subject, graph, share):
    """Output, and the fields of an Explanation that the forward pass alone gives."""
    ops = subject.ops
    with overflow_is_reported():
        tape = forward(subject.params, subject.graph.to(ops), subject.config, ops)
    alpha = np.stack([ops.to_host(array) for array in tape.alpha])
    beta = ops.to_host(tape.beta[0]).astype(float)
    edge_ptr, nbr = subject.graph.edge_ptr, subject.graph.nbr
    flow = attention_flow(alpha, edge_ptr, nbr, residual_share(tape, ops) if share == "norm" else share)
    site = np.repeat(np.arange(len(graph.z)), np.diff(edge_ptr))
    return float(tape.prediction[0, 0]), {
        "beta": beta,
        "scaled_beta": beta * len(beta),
        "edges": Edges(site, nbr, graph.image, graph.r, graph.omega),
        "alpha": alpha,
        "flow": flow,
        "impact": flow.impact(beta),
        "site_embedding": ops.to_host(tape.read_outs[0].site),
        "structure_vector": ops.to_host(tape.read_outs[0].struct)[0],
    }
