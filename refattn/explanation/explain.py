"""refattn.explain: all that can be said of the sites of a structure, in one dataclass.

The table SITE_SCORES names every number that a site gets; the definitions stand where they are computed.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import ase
import numpy as np

from refattn.common.limits import OCCLUDED_SITES
from refattn.errors import ConfigError, DataError, StructureError, not_finite
from refattn.explanation.attribution import gradient_times_input, integrated_gradients, occlusion, removal
from refattn.explanation.flow import Flow, attention_flow, residual_share
from refattn.explanation.variants import LARGE, ScoredInput
from refattn.network.inference import overflow_is_reported, probability, to_labels
from refattn.network.params import Parameters
from refattn.prediction.predictor import Model, Skip
from refattn.prediction.targets import target_number
from refattn.structures.batch import GraphBatch, Structures, checked_structures


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
    SiteScore("site_value", "the property by the site alone", False, True),
    SiteScore("contribution", "contribution to the prediction", True, True, "value - mean_value"),
    SiteScore("gradient_times_input", "gradient times input", True, True),
    SiteScore("integrated_gradients", "integrated gradients", True, True, "value - baseline_value"),
    SiteScore("occlusion", "loss when the site says nothing of itself", True, True),
    SiteScore("removal", "loss when the atom is taken away", True, True),
)
COSTLY = ("integrated_gradients", "occlusion", "removal")
DEFAULT = COSTLY[:2]
OF_ADDITIVE_HEAD = ("site_value", "contribution")
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
    site_value : (N,) float64              in `unit`, of the additive head: mean_value + std f, what the site alone says
                                           the property is; for the read-out "sum" what it adds, its element's reference
                                           value + std f; of a class f. None where the head is another, as the next
    contribution : (N,) float64            in `unit`: std beta f, for the read-out "sum" std f; how far the site moves
                                           the prediction from mean_value. They sum to value - mean_value
    mean_value : float                     in `unit`, what the output zero stands for: the mean of the training labels;
                                           for the read-out "sum" the sum of the elements' reference values; zero where
                                           labels are not scaled or not negative, of a class 0.5
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
    spread : float                         in `unit`: the standard deviation of the training labels, for the read-out
                                           "sum" of what the reference values leave of them; None where labels are not
                                           scaled, and of a class
    of_class : bool                        whether the target is a class
    atoms : ase.Atoms                      the structure

    baseline_value and the three that follow it are None without integrated gradients. Scores of a non-negative target
    explain the output before the clip at zero. Of a class value, mean_value and baseline_value are probabilities, and
    scores explain the log odds, log(value / (1 - value)), and sum to differences of these.
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
    mean_value: float
    site_value: np.ndarray | None = None
    contribution: np.ndarray | None = None
    integrated_gradients: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    removal: np.ndarray | None = None
    baseline_value: float | None = None
    n_nodes: int | None = None
    completeness_error: float | None = None
    settled: bool | None = None
    spread: float | None = None
    of_class: bool = False
    atoms: ase.Atoms | None = dataclasses.field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        from refattn.report.notebook import explanation_html  # stands above this package

        return explanation_html(self)

    @property
    def unit_of_scores(self) -> str:
        """That of the scores that are in the label's unit: of a class the log odds."""
        return "log odds" if self.of_class else self.unit

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
    target: str | None = None,
) -> "Explained | list[Explained]":
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
    target : str, optional
        The target to explain; by default all.

    Returns
    -------
    Explanation of one ase.Atoms, or a list of them; where several targets are explained, a dict of Explanation by their
    names in the place of each

    Raises ConfigError for an unknown score, share or target, and what Model.predict raises.
    """
    alone = isinstance(structures, ase.Atoms)
    options = {"dtype": dtype, "n_threads": n_threads, "target": target}
    stream = explain_stream(model, checked_structures(structures), scores, share, **options)
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
    target: str | None = None,
) -> "Iterator[tuple[ase.Atoms, Explained]]":
    """Like explain, for any number of structures in bounded memory: yields (ase.Atoms, Explanation).

    Where `skip` is given, structures that explain would refuse are left out, and skip(id, error) is called.
    """
    targets = [*range(len(model.targets))] if target is None else [target_number(model, target)]
    task = _Task(model, _checked(scores), _checked_share(share), model.checkpoint.params.astype(dtype), targets)
    blocks = model.stream_batches(structures, task.explained, block, n_threads, skip, max_sites=BLOCK_SITES)
    for kept, explanations in blocks:
        for atoms, found in zip(kept, explanations, strict=True):
            yield atoms, found if len(targets) > 1 else next(iter(found.values()))


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
    targets: list[int]

    def explained(self, ids, structures, graphs, map_fn, refuse):
        """The structures that have an Explanation, and a dict of these for each, by target; see Predictor.compute."""
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
            if isinstance(result, dict):
                kept.append(atoms)
                explanations.append(result)
            else:
                refuse(id, result)
        return kept, explanations

    def _explanation(self, id, atoms, graph, map_fn):
        model = self.model
        own = model.checkpoint.params
        subject = subject_of(model, self.params if len(graph.z) <= LARGE else own, graph)
        with overflow_is_reported():
            tape = subject.forward()
        output = model.ops.to_host(tape.prediction)
        output = np.maximum(output, 0) if model.config.model.non_negative else output
        values, means = (to_labels(model.checkpoint, y, graph, np.zeros(1, int))[0] for y in (output, 0 * output))
        if not np.isfinite(values).all():
            raise not_finite(id)
        shared = {"id": id, "atoms": atoms, "z": graph.z, **_local_attention(subject, graph, tape, self.share)}
        subjects = [dataclasses.replace(subject, target=k) for k in self.targets]
        read = [
            _global_attention(about, tape, shared["flow"]) | self._contributions(about, tape, means[about.target])
            for about in subjects
        ]
        del tape  # what follows needs its memory
        found = {}
        for k, about, fields in zip(self.targets, subjects, read, strict=True):
            names = {"target": model.targets[k], "unit": model.units[k], "of_class": model.config.of_class}
            known = {"value": float(values[k]), "mean_value": float(means[k])}
            if model.config.training.scale_target and not model.config.of_class:
                known["spread"] = float(model.checkpoint.scale.std[k])
            scores = self._attributions(about, atoms, means[k], map_fn)
            found[model.targets[k]] = Explanation(**shared, **names, **known, **fields, **scores)
        return found

    def _contributions(self, subject, tape, mean):
        """The fields of an Explanation that only the additive head gives; `mean` is the mean_value of the structure."""
        head = tape.read_outs[subject.target].head
        if head.value is None:
            return {}
        std, reference = (getattr(self.model.checkpoint.scale, name) for name in ("std", "reference"))
        f, weight = (subject.ops.to_host(array).astype(float) for array in (head.value, head.weight))
        if self.model.config.of_class:
            mean = 0.0  # of the log odds
        elif subject.config.readout == "sum":
            mean = 0.0 if reference is None else reference[subject.target][subject.graph.z]
        return {"site_value": mean + std[subject.target] * f, "contribution": std[subject.target] * weight * f}

    def _attributions(self, subject, atoms, mean, map_fn):
        """The fields of an Explanation that are in the label's unit: gradients, and what was asked of COSTLY."""
        std, reference = (getattr(self.model.checkpoint.scale, name) for name in ("std", "reference"))
        std = std[subject.target]
        found = {"gradient_times_input": std * gradient_times_input(subject)}
        if "integrated_gradients" in self.scores:
            result = integrated_gradients(subject, map_fn)
            found |= {
                "integrated_gradients": std * result.score,
                "baseline_value": self._baseline_value(subject, mean, result.baseline_output),
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
            if reference is not None:
                found["removal"] = found["removal"] + reference[subject.target][atoms.numbers]
        return found

    def _baseline_value(self, subject, mean, output):
        if self.model.config.of_class:
            return float(probability(output))
        return mean + self.model.checkpoint.scale.std[subject.target] * output


def subject_of(model: Model, params: Parameters, graph: GraphBatch, target: int = 0) -> ScoredInput:
    """The ScoredInput of one structure before the network of `model` with the parameters `params`, in their type."""
    config = model.config.model
    subject = ScoredInput.of(params, config, model.ops, graph.for_network(config, params.vector.dtype))
    return dataclasses.replace(subject, target=target)


def _local_attention(subject, graph, tape, share):
    """The fields of an Explanation that all targets share."""
    ops = subject.ops
    alpha = np.stack([ops.to_host(array) for array in tape.alpha])
    edge_ptr, nbr = subject.graph.edge_ptr, subject.graph.nbr
    flow = attention_flow(alpha, edge_ptr, nbr, residual_share(tape, ops) if share == "norm" else share)
    site = np.repeat(np.arange(len(graph.z)), np.diff(edge_ptr))
    return {"edges": Edges(site, nbr, graph.image, graph.r, graph.omega), "alpha": alpha, "flow": flow}


def _global_attention(subject, tape, flow):
    """The fields of an Explanation that the read-out of its target gives."""
    ops = subject.ops
    read_out = tape.read_outs[subject.target]
    beta = ops.to_host(tape.beta[subject.target]).astype(float)
    return {
        "beta": beta,
        "scaled_beta": beta * len(beta),
        "impact": flow.impact(beta),
        "site_embedding": ops.to_host(read_out.site),
        "structure_vector": ops.to_host(read_out.struct)[0],
    }


Explained = Explanation | dict[str, Explanation]
