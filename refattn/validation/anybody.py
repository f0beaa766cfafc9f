"""Scores of the sites from anybody, before any model that can be called: the same tests as of refattn's own."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import ase
import numpy as np

from refattn.errors import DataError
from refattn.explanation.symmetry import class_spread, equivalent_sites
from refattn.validation.agreement import TOP, agreement_of_runs, both_alike, mean_and_error
from refattn.validation.equivalence import largest_spread
from refattn.validation.faithfulness import against_random, deletion_and_insertion, orders
from refattn.validation.robustness import (
    N_RATTLED,
    RATTLE,
    complexities,
    max_sensitivity,
    rattled_copies,
)

Scores = Callable[[ase.Atoms], np.ndarray] | Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class ScoreValidation:
    """What the tests say of one score; `print` gives sentences, a notebook a page.

    record : dict     all numbers, named as in validation.json of `refattn explain --validate`
    """

    record: dict

    @property
    def pixel_flipping(self) -> dict:
        """Deletion: mean curve, its area, and the area beside that of random orders."""
        return self.record["faithfulness"]["score"]["deletion"]

    @property
    def insertion(self) -> dict:
        """The same while sites are inserted; a small area is good."""
        return self.record["faithfulness"]["score"]["insertion"]

    @property
    def mprt(self) -> list[float | None]:
        """Rank correlation with the score of each randomised model (model parameter randomisation test), if any."""
        return self.record["randomisation"]["all"].get("score", [])

    @property
    def seeds(self) -> dict:
        """Rank correlation, and overlap of the first sites, of every two seeds; empty for one."""
        return self.record["stability"].get("all", {}).get("score", {})

    @property
    def symmetry(self) -> dict:
        """Spread of the score among equivalent sites, relative to its largest; empty where none are equivalent."""
        return self.record["equivalence"]["data"].get("score", {})

    @property
    def max_sensitivity(self) -> dict:
        """Largest relative change of the score among rattled copies; empty for scores that are not a function."""
        return self.record["max_sensitivity"].get("score", {})

    @property
    def complexity(self) -> dict:
        """Entropy of the score in nats, and over that of an even score."""
        return self.record["complexity"]["score"]

    def __str__(self):
        from refattn.report.sentences import sentences  # stands above this package

        return "\n".join(f"{s.topic}: {s.verdict + ': ' if s.verdict else ''}{s.text}" for s in sentences(self.record))

    def _repr_html_(self) -> str:
        from refattn.report.validation import body_of

        return body_of(self.record)


@dataclasses.dataclass(frozen=True)
class AnyModel:
    """One structure before a model that can be called: a site that is taken away is no more in the structure.

    nothing : float     the prediction where no site is left
    """

    atoms: ase.Atoms
    predict: Callable[[ase.Atoms], float]
    delete: Callable[[ase.Atoms, np.ndarray], object]
    nothing: float = 0.0

    def without(self, absent: np.ndarray, map_fn: Callable = map) -> np.ndarray:
        """(n,) float64: predictions without the sites that are True in each row of absent (n, N)."""
        rows, number = np.unique(absent, axis=0, return_inverse=True)
        return np.fromiter(map_fn(self.value, rows), float)[number.reshape(-1)]

    def value(self, absent: np.ndarray) -> float:
        """The prediction without the sites that are True in absent (N,)."""
        left = self.delete(self.atoms, np.flatnonzero(absent)) if absent.any() else self.atoms
        if isinstance(left, ase.Atoms) and not len(left):
            return self.nothing
        value = np.asarray(self.predict(left), dtype=float)
        if value.size != 1:
            raise DataError(f"predict gave {value.size} numbers of one structure; it must give one")
        return float(value.reshape(()))


def removed(atoms: ase.Atoms, sites: np.ndarray) -> ase.Atoms:
    """A copy without the sites."""
    return atoms[np.setdiff1d(np.arange(len(atoms)), sites)]


def validate(
    scores: Scores,
    predict: Callable[[ase.Atoms], float],
    structures: Sequence[ase.Atoms],
    *,
    randomised: Sequence[Scores] = (),
    seeds: Sequence[Scores] = (),
    delete: Callable[[ase.Atoms, np.ndarray], object] = removed,
    nothing: float | None = None,
    rattle: float = RATTLE,
    n_rattled: int = N_RATTLED,
    seed: int = 0,
) -> ScoreValidation:
    """Test what per-site scores say of the predictions of any model.

    A score is faithful where deleting the sites that it names first (pixel flipping) changes the prediction at once,
    and inserting them brings it back; it says something of what was learned where it is another one of a model whose
    parameters are random (MPRT); it can be relied on where models of other seeds have the same, equivalent sites are
    equal, and a rattle of 0.01 Å hardly changes it. A low entropy (complexity) says that few sites have most of it.

    Parameters
    ----------
    scores : callable (ase.Atoms) -> (N,) float, or list of (N,) float in the order of the structures
        of signed ones the magnitude is ranked. Only of a callable the sensitivity to a rattle can be tested.
    predict : callable (ase.Atoms) -> float, or an ASE calculator, whose energy is taken
    structures : list of ase.Atoms
    randomised : list like `scores`, optional
        scores of the same model with parameters that are random, of one or of a cascade from the output to the input
    seeds : list like `scores`, optional
        scores of models that were trained from other seeds
    delete : callable (ase.Atoms, (n,) int) -> what predict takes, optional
        takes sites from a structure; by default they are removed from a copy
    nothing : float, optional
        the prediction where no site is left; by default the mean prediction of the structures
    rattle : float, Å
        standard deviation of the displacements
    n_rattled : int
        rattled copies of every structure
    seed : int
        of random orders and displacements

    Returns
    -------
    ScoreValidation

    Raises DataError for scores that do not fit the structures, a structure without atoms, and n_rattled below 1.

    Source   Samek et al., IEEE Trans. Neural Netw. Learn. Syst. 28, 2660 (2017), pixel flipping; Adebayo et al.,
             NeurIPS 2018, arXiv 1810.03292, MPRT; the others stand with their functions
    """
    structures = list(structures)
    if not structures:
        raise DataError("there is no structure to validate with")
    for number, atoms in enumerate(structures):
        if not len(atoms):
            raise DataError(f"structure {number} has no atoms; leave it out")
    if n_rattled < 1:
        raise DataError(f"n_rattled is {n_rattled}; at least one rattled copy is needed")
    predict = getattr(predict, "get_potential_energy", predict)
    own = scores_of(scores, structures, "the score")
    classes = [equivalent_sites(atoms) for atoms in structures]
    runs = [own, *(scores_of(other, structures, f"score {n} of seeds") for n, other in enumerate(seeds))]
    random = [scores_of(other, structures, f"score {n} of randomised") for n, other in enumerate(randomised)]
    record = {"target": "prediction", "unit": "", "n_runs": len(runs), "n_structures": len(structures)}
    record |= {"n_sites": sum(map(len, structures)), "seed": seed, "top": TOP, "mae": [], "agreement": {}}
    record |= {"titles": {"score": "the score"}, "rattle": rattle}
    record["faithfulness"] = faithfulness(own, [predict, delete, nothing], structures, seed)
    pairs = itertools.combinations(runs, 2)
    both = [[both_alike(*ab, own) for *ab, own in zip(a, b, classes)] for a, b in pairs]
    record["stability"] = {"all": {"score": agreement_of_runs(both)}} if both else {}
    means = [mean_and_error(np.array([both_alike(*ab, c)[0] for *ab, c in zip(own, b, classes)])) for b in random]
    stages = [f"model {n + 1}" for n in range(len(random))]
    record["randomisation"] = {"stages": stages, "all": {"score": [row["mean"] for row in means]} if means else {}}
    record["equivalence"] = equivalence(own, classes, structures)
    record["max_sensitivity"] = {}
    if callable(scores):
        rng = np.random.default_rng([seed, len(structures)])
        found = [sensitivity(scores, one, atoms, rattle, n_rattled, rng) for one, atoms in zip(own, structures)]
        record["max_sensitivity"]["score"] = mean_and_error(np.array(found))
    record["complexity"] = {"score": complexities(own)}
    return ScoreValidation(record)


def scores_of(scores: Scores, structures: list[ase.Atoms], what: str) -> list[np.ndarray]:
    """The scores of all structures, a list of (N,) float64; raises DataError where they do not fit."""
    found = [scores(atoms) for atoms in structures] if callable(scores) else list(scores)
    found = [np.asarray(values, dtype=float) for values in found]
    if len(found) != len(structures):
        raise DataError(f"{what} is of {len(found)} structures, and there are {len(structures)}")
    for number, (values, atoms) in enumerate(zip(found, structures)):
        if values.shape != (len(atoms),):
            raise DataError(f"{what} has shape {values.shape} in structure {number}; it has {len(atoms)} sites")
        if not np.isfinite(values).all():
            raise DataError(f"{what} is no finite number at a site of structure {number}")
    return found


def faithfulness(own: list[np.ndarray], model: list, structures: list[ase.Atoms], seed: int) -> dict:
    """{"score", "random": deletion and insertion}; `model` is predict, delete and nothing."""
    predict, delete, nothing = model
    subjects = [AnyModel(atoms, predict, delete) for atoms in structures]
    if nothing is None:
        nothing = float(np.mean([subject.value(np.zeros(len(subject.atoms), dtype=bool)) for subject in subjects]))
    curves = {"score": [], "random": []}
    for number, (subject, values) in enumerate(zip(subjects, own)):
        subject = dataclasses.replace(subject, nothing=nothing)
        for name, order in orders({"score": values}, np.random.default_rng([seed, number])).items():
            curves[name].append(deletion_and_insertion(subject, order))
    random = np.array(curves["random"])
    return {name: against_random(np.array(curve), random) for name, curve in curves.items()}


def equivalence(own: list[np.ndarray], classes: list[np.ndarray], structures: list[ase.Atoms]) -> dict:
    """Spreads of the score among equivalent sites, where a structure has such."""
    rows = enumerate(zip(own, classes))
    spreads = {n: class_spread(values, labels) for n, (values, labels) in rows if labels.max() + 1 < len(labels)}
    data = {"score": largest_spread(spreads, structures)} if spreads else {}
    return {"exact": {}, "data": data, "n_symmetric": len(spreads)}


def sensitivity(
    scores: Scores, own: np.ndarray, atoms: ase.Atoms, rattle: float, n: int, rng: np.random.Generator
) -> float:
    """max_sensitivity of the score of one structure."""
    copies = rattled_copies(atoms, rattle, n, rng)
    return max_sensitivity(own, scores_of(scores, copies, "the score of a rattled copy"))
