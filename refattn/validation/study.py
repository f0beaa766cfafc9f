"""All tests of an explanation, for one trained network or for several that differ in their seed: a dict of numbers."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import ase
import numpy as np

from refattn.common.environment import available_cores
from refattn.common.metrics import metrics
from refattn.common.threads import workers
from refattn.errors import DataError, RunError, StructureError
from refattn.explanation.comparison import POPULATIONS, populations
from refattn.explanation.explain import DEFAULT, SITE_SCORES, explain_stream, subject_of
from refattn.explanation.symmetry import class_spread, equivalent_sites, symmetrised
from refattn.prediction.predictor import Model
from refattn.prediction.targets import target_number
from refattn.validation.agreement import (
    MEASURES,
    TOP,
    agreement,
    agreement_of_runs,
    baseline_scores,
    both_alike,
    mean_and_error,
)
from refattn.validation.equivalence import exact_structures, known_to, largest_spread, spreads
from refattn.validation.faithfulness import STEPS, against_random, deletion_and_insertion, orders
from refattn.validation.parameters import randomised, untrained
from refattn.validation.robustness import N_RATTLED, RATTLE, complexities, max_sensitivity, rattled_copies

FOR_ALL = ("occlusion",)  # of the costly scores; the others only for the first `n_costly` structures
# Scores that rank the sites of a structure as another one does, and a value that is no weight of the site.
UNRANKED = ("scaled_beta", "site_value")
UNTRAINED = "untrained_"
DRAWS = 5  # networks of random parameters, each of which is asked about every fifth structure
Scores = dict[str, np.ndarray]  # of the sites of one structure, by name


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is tested.

    scores : tuple of str    of explain.COSTLY
    share : float or "norm"  of the residual path in the flow
    n_costly : int           so many of the first structures get what takes many passes: integrated gradients, removal,
                             deletion and insertion, randomised parameters
    orbitals : bool          whether populations that the data do not have are computed
    seed : int               of random orders and random parameters
    target : str             whose scores are tested; None: those of all targets, one after the other
    n_threads : int          changes no bit of the result
    """

    scores: tuple[str, ...] = DEFAULT
    share: float | str = 0.5
    n_costly: int = 200
    orbitals: bool = False
    seed: int = 0
    target: str | None = None
    n_threads: int = dataclasses.field(default_factory=available_cores)

    @property
    def options(self) -> dict:
        """Those of explain_stream that are the same for all networks."""
        return {"n_threads": self.n_threads, "target": self.target}


@dataclasses.dataclass(frozen=True)
class ValidationCase:
    """A structure and what is known of its sites without a network.

    atoms : ase.Atoms                    perhaps with `label` in info, of several targets a dict of each
    n_neighbours, classes : (N,) int     edges of each site, class of equivalent sites
    populations : dict of name -> (N,) float64, averaged over equivalent sites; empty where unknown
    """

    atoms: ase.Atoms
    n_neighbours: np.ndarray
    classes: np.ndarray
    populations: dict[str, np.ndarray]

    def label(self, target: str) -> float:
        """The label of that name, NaN where it is not known."""
        label = self.atoms.info.get("label")
        label = label.get(target) if isinstance(label, dict) else label
        return np.nan if label is None else label

    @property
    def sites(self) -> dict[str, np.ndarray]:
        """{name: (N,) bool}: the sites of which ranks are compared."""
        return {"all": np.ones(len(self.atoms), dtype=bool), "without_hydrogen": self.atoms.numbers != 1}


def validate(
    models: list[Model],
    structures: Iterable[ase.Atoms],
    settings: Settings,
    note: Callable[[str], None] = lambda text: None,
    skip: Callable[[str, Exception], None] | None = None,
) -> dict:
    """Test what the networks' scores say of the sites of structures that they were not trained on.

    Parameters
    ----------
    models : list of refattn.Model      the same network trained from several seeds
    structures : list of ase.Atoms      perhaps with `label` in info (of several targets a dict), populations in arrays
    note : callable (str)               told what is being done
    skip : callable (id, error), optional     told of structures that are left out instead of an error

    Returns
    -------
    dict of numbers, lists, strings and None, as validation.json has it; of several targets with a dict of each, by its
    name, under `targets`

    Raises RunError for models of different targets, DataError without structures, and what refattn.explain raises.
    """
    if len({(model.target, model.unit, model.config.graph) for model in models}) > 1:
        raise RunError("the runs differ in target, unit or neighbour rule; validate runs that differ in their seed")
    wanted = models[0].targets if settings.target is None else (settings.target,)
    units = [models[0].units[target_number(models[0], target)] for target in wanted]
    records = {}
    cases = []
    for target in wanted:
        own = dataclasses.replace(settings, target=target)
        note(f"{target}: scores of run 1 of {len(models)}")
        if cases:
            first = site_scores(models[0], [case.atoms for case in cases], own)
        else:
            cases, *first = first_scores(models[0], structures, own, skip)
        if not cases:
            raise DataError("there is no structure to validate with; give some that can be explained")
        records[target] = validate_target(models, cases, first, own, note)
    if len(records) == 1:
        return records[wanted[0]]
    names = {"target": ", ".join(wanted), "unit": ", ".join(units)}
    return {**names, "n_runs": len(models), "n_structures": len(cases), "targets": records}


def validate_target(
    models: list[Model],
    cases: list[ValidationCase],
    first: tuple[list[Scores], list[float]],
    settings: Settings,
    note: Callable[[str], None],
) -> dict:
    """The record of the target that `settings` names; `first` are site_scores of the first model."""
    atoms = [case.atoms for case in cases]
    few = cases[: settings.n_costly]
    found = [first]
    for number, model in enumerate(models[1:], start=2):
        note(f"scores of run {number} of {len(models)}")
        found.append(site_scores(model, atoms, settings))
    scored, values = zip(*found)
    record = describe(models, cases, values, settings)
    note("an untrained network, and baselines")
    references = {name: baselines(cases, name) for name in POPULATIONS if all(name in c.populations for c in cases)}
    blank = scores_of_draws([untrained(models[0], seed) for seed in draws(atoms, settings)], atoms, settings)
    record["agreement"] = {n: agreements(cases, scored, blank, n, refs) for n, refs in references.items()}
    note("deletion and insertion")
    population = next((name for name in references if name.split("_")[0] in settings.target.lower()), None)
    record["faithfulness"] = faithfulness(models, few, scored, references.get(population, {}), settings)
    record["stability"] = stability(cases, scored)
    note("randomised parameters")
    record["randomisation"] = randomisation(models[0], few, scored[0], settings)
    record["equivalence"] = equivalence(models, cases, scored[0], settings)
    record["rattle"] = RATTLE
    record["max_sensitivity"] = sensitivity(models[0], few, scored[0], settings)
    names = [name for name in record["titles"] if name in scored[0][0]]
    record["complexity"] = {n: complexities([scores[n] for scores in scored[0] if n in scores]) for n in names}
    return record


def first_scores(
    model: Model, structures: Iterable[ase.Atoms], settings: Settings, skip: Callable[[str, Exception], None] | None
) -> tuple[list[ValidationCase], list[Scores], list[float]]:
    """ValidationCase, scores and prediction of every structure that has them."""
    cases = []
    found = []
    values = []
    costly = [name for name in settings.scores if name in FOR_ALL]
    for atoms, e in explain_stream(model, structures, costly, settings.share, **settings.options, skip=skip):
        known = {}
        try:
            classes = equivalent_sites(atoms)
            if settings.orbitals or all(name in atoms.arrays for name in POPULATIONS):
                known = {name: symmetrised(own, classes) for name, own in populations(atoms).items()}
        except (StructureError, DataError) as error:
            if skip is None:
                raise
            skip(e.id, error)
            continue
        degree = np.bincount(e.edges.site, minlength=len(atoms))
        cases.append(ValidationCase(atoms, degree, classes, known))
        found.append(ranked(e.site_scores()))
        values.append(e.value)
    add_costly(model, [case.atoms for case in cases[: settings.n_costly]], found, settings)
    return cases, found, values


def site_scores(
    model: Model, structures: list[ase.Atoms], settings: Settings, costly: Iterable[str] | None = None
) -> tuple[list[Scores], list[float]]:
    """Scores, a dict of name -> (N,) float64, and prediction of every structure."""
    first = [name for name in settings.scores if name in FOR_ALL] if costly is None else costly
    found = []
    values = []
    for _, e in explain_stream(model, structures, first, settings.share, **settings.options):
        found.append(ranked(e.site_scores()))
        values.append(e.value)
    if costly is None:
        add_costly(model, structures[: settings.n_costly], found, settings)
    return found, values


def draws(structures: list, settings: Settings) -> range:
    """Seeds of the networks of random parameters: DRAWS, or one for each of fewer structures."""
    first = DRAWS * settings.seed
    return range(first, first + min(DRAWS, len(structures)))


def scores_of_draws(random: Sequence[Model], structures: list[ase.Atoms], settings: Settings) -> list[Scores]:
    """Scores of every structure by one of the networks `random`, which take turns."""
    found = [{} for _ in structures]
    for draw, model in enumerate(random):
        found[draw :: len(random)], _ = site_scores(model, structures[draw :: len(random)], settings, costly=())
    return found


def add_costly(model: Model, structures: list[ase.Atoms], found: list[Scores], settings: Settings) -> None:
    """Add what takes many passes to the scores `found` of the first structures."""
    rest = [name for name in settings.scores if name not in FOR_ALL]
    if rest:
        stream = explain_stream(model, structures, rest, settings.share, **settings.options)
        for scores, (_, e) in zip(found, stream):
            scores |= {name: getattr(e, name) for name in rest}


def ranked(scores: Scores) -> Scores:
    """The scores without those that rank the sites as another one does."""
    return {name: values for name, values in scores.items() if name not in UNRANKED}


def describe(
    models: list[Model], cases: list[ValidationCase], values: Sequence[list[float]], settings: Settings
) -> dict:
    """What was tested, and how well the networks predict it."""
    label = np.array([case.label(settings.target) for case in cases], dtype=float)
    known = ~np.isnan(label)
    return {
        "target": settings.target,
        "unit": models[0].units[target_number(models[0], settings.target)],
        "n_runs": len(models),
        "n_structures": len(cases),
        "n_costly": min(settings.n_costly, len(cases)),
        "n_sites": sum(len(case.atoms) for case in cases),
        "seed": settings.seed,
        "share": settings.share,
        "top": TOP,
        "mae": [metrics(label[known], np.array(value)[known])["mae"] for value in values],
        "label_mean_absolute_deviation": metrics(label[known], np.full(known.sum(), label[known].mean()))["mae"]
        if known.any()
        else None,
        "taught": taught_arrays(models, settings.target),
        "titles": {score.name: score.text for score in SITE_SCORES if score.name not in UNRANKED},
    }


def taught_arrays(models: list[Model], target: str) -> list[str | None]:
    """The per-site array that the global attention of the target was taught in each run; None where none was."""
    return [dict(model.config.training.attention).get(target) for model in models]


def baselines(cases: list[ValidationCase], population: str) -> dict[str, list[np.ndarray]]:
    """{name of BASELINES: scores of all structures} that know no network."""
    element = [case.atoms.numbers for case in cases]
    degree = [case.n_neighbours for case in cases]
    both = [z * 1000 + n for z, n in zip(element, degree, strict=True)]
    known = [case.populations[population] for case in cases]
    keys = {"element": element, "neighbours": degree, "element_and_neighbours": both}
    found = {name: baseline_scores(key, known) for name, key in keys.items()}
    return {**found, "even": [np.ones(len(case.atoms)) for case in cases]}


def selections(cases: list[ValidationCase]) -> list[str]:
    """Names of the choices of sites that differ: without hydrogen only where there is some."""
    return [which for which in cases[0].sites if which == "all" or any(1 in case.atoms.numbers for case in cases)]


def agreements(
    cases: list[ValidationCase], scored: Sequence[list[Scores]], blank: list[Scores], population: str, references: dict
) -> dict:
    """{sites: {score: numbers}}: every score of the networks, of an untrained one, and baselines, with a population."""
    names = list(scored[0][0])
    record = {}
    for which in selections(cases):
        element = measured(cases, references["element"], population, which)
        rows = {name: np.array([measured(cases, own, population, which, name) for own in scored]) for name in names}
        rows |= {UNTRAINED + name: measured(cases, blank, population, which, name)[None] for name in blank[0]}
        rows |= {name: measured(cases, own, population, which)[None] for name, own in references.items()}
        record[which] = {name: compared(values, element) for name, values in rows.items()}
    return record


def measured(
    cases: list[ValidationCase], scores: list, population: str, which: str, name: str | None = None
) -> np.ndarray:
    """(S, 3) MEASURES of scores, or of the score `name` among them; NaN where a structure lacks it."""
    missing = np.full(len(MEASURES), np.nan)
    found = []
    for case, own in zip(cases, scores, strict=True):
        values = own if name is None else own.get(name)
        sites = case.sites[which]
        known = case.populations[population][sites]
        found.append(missing if values is None else agreement(symmetrised(values, case.classes)[sites], known))
    return np.array(found)


def compared(values: np.ndarray, element: np.ndarray) -> dict:
    """Means of (runs, S, 3) MEASURES over structures, and what the rank correlation gains on that of the element."""
    own = values.mean(axis=0)  # of the runs
    record = {}
    for m, measure in enumerate(MEASURES):
        by_run = [mean_and_error(run[:, m])["mean"] for run in values]
        record[measure] = {**mean_and_error(own[:, m]), "runs": by_run}
    gain = own[:, 0] - element[:, 0]
    known = ~np.isnan(gain)
    record["gain_on_element"] = mean_and_error(gain)
    record["better_than_element"] = float((gain[known] > 0).mean()) if known.any() else None
    return record


def faithfulness(
    models: list[Model],
    cases: list[ValidationCase],
    scored: Sequence[list[Scores]],
    references: dict,
    settings: Settings,
) -> dict:
    """{score: deletion and insertion}, in the label's unit, means over structures and runs, against random orders."""
    named = {name: own for name, own in references.items() if name != "even"}
    curves = {}

    def one(job):
        model, own, number = job
        scores = {**own, **{name: values[number] for name, values in named.items()}}
        order = orders(scores, np.random.default_rng([settings.seed, number]))
        atoms = cases[number].atoms
        graph = model.graph(str(atoms.info.get("id", number)), atoms)
        target = target_number(model, settings.target)
        subject = subject_of(model, model.checkpoint.params.astype("float64"), graph, target)
        return {k: model.checkpoint.scale.std[target] * deletion_and_insertion(subject, v) for k, v in order.items()}

    jobs = [(model, own[s], s) for model, own in zip(models, scored, strict=True) for s in range(len(cases))]
    with workers(settings.n_threads) as run:
        for found in run(one, jobs):
            for name, curve in found.items():
                curves.setdefault(name, []).append(curve)
    shape = (len(models), len(cases), 2, STEPS + 1)
    curves = {name: np.reshape(curve, shape).mean(axis=0) for name, curve in curves.items()}
    return {name: against_random(curve, curves["random"]) for name, curve in curves.items()}


def stability(cases: list[ValidationCase], scored: Sequence[list[Scores]]) -> dict:
    """{sites: {score: numbers}}: agreement between every two runs; empty for a single one."""
    pairs = list(itertools.combinations(scored, 2))
    record = {}
    for which in selections(cases) if pairs else ():
        record[which] = {}
        for name in scored[0][0]:
            both = [[alike(case, a[s], b[s], which, name) for s, case in enumerate(cases)] for a, b in pairs]
            record[which][name] = agreement_of_runs(both)
    return record


def alike(case: ValidationCase, a: Scores, b: Scores, which: str, name: str) -> tuple[float, float]:
    """Spearman correlation and overlap of the first sites of one score from two networks; NaN where undefined."""
    if name not in a or name not in b:
        return np.nan, np.nan
    return both_alike(a[name], b[name], case.classes, case.sites[which])


def randomisation(model: Model, cases: list[ValidationCase], scored: list[Scores], settings: Settings) -> dict:
    """Rank correlation with the trained network's score while more and more parameters are random.

    Returns
    -------
    dict of `stages`, texts; for each choice of sites {score: means, stage by stage}, and under `draws` the same of
    {score: the mean of each draw, all parameters random}
    """
    record = {"stages": [], **{which: {} for which in selections(cases)}, "draws": {}}
    structures = [case.atoms for case in cases]
    seeds = draws(structures, settings)
    for stage in zip(*(randomised(model, seed) for seed in seeds), strict=True):
        record["stages"].append(stage[0][0])
        found = scores_of_draws([random for _, random in stage], structures, settings)
        for which in selections(cases):
            record["draws"][which] = {}
            for name in found[0]:
                rho = np.array([alike(c, a, b, which, name)[0] for c, a, b in zip(cases, scored, found)])
                record[which].setdefault(name, []).append(mean_and_error(rho)["mean"])
                each = [mean_and_error(rho[draw :: len(seeds)])["mean"] for draw in range(len(seeds))]
                record["draws"][which][name] = each
    return record


def equivalence(models: list[Model], cases: list[ValidationCase], scored: list[Scores], settings: Settings) -> dict:
    """Spreads between equivalent sites: of exact structures, the largest of all runs; of the data, in the first run."""
    record = {"exact": {}, "data": {}}
    probes = known_to(models[0], exact_structures())
    for model in models:
        found, _ = site_scores(model, probes, settings, costly=FOR_ALL)
        for atoms, scores in zip(probes, found, strict=True):
            own = record["exact"].setdefault(atoms.info["id"], {})
            known = {name: spread for name, spread in spreads(atoms, scores).items() if not np.isnan(spread)}
            own |= {name: max(own.get(name, 0.0), spread) for name, spread in known.items()}
    symmetric = [s for s, case in enumerate(cases) if case.classes.max() + 1 < len(case.atoms)]
    record["n_symmetric"] = len(symmetric)
    for name in scored[0] if symmetric else ():
        own = {s: class_spread(scored[s][name], cases[s].classes) for s in symmetric if name in scored[s]}
        own = {s: spread for s, spread in own.items() if not np.isnan(spread)}
        if own:
            record["data"][name] = largest_spread(own, [case.atoms for case in cases])
    return record


def sensitivity(model: Model, cases: list[ValidationCase], scored: list[Scores], settings: Settings) -> dict:
    """{score: mean of max_sensitivity} to a rattle, of the scores that one pass gives.

    A structure whose rattled copies cannot be explained, such as one of atoms as near as is allowed, is not in it.
    """
    found = {}
    for number, (case, own) in enumerate(zip(cases, scored)):
        copies = rattled_copies(case.atoms, RATTLE, N_RATTLED, np.random.default_rng([settings.seed, number]))
        try:
            rattled, _ = site_scores(model, copies, settings, costly=())
        except (StructureError, DataError):
            continue
        for name in rattled[0]:
            found.setdefault(name, []).append(max_sensitivity(own[name], [scores[name] for scores in rattled]))
    return {name: mean_and_error(np.array(values)) for name, values in found.items()}
