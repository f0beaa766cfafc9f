"""One explained structure with all that is known of it, as columns that tables, pictures and pages have in common."""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import ase
import numpy as np

from refattn.common.ranks import spearman
from refattn.errors import DataError, StructureError
from refattn.explanation.comparison import POPULATIONS, populations
from refattn.explanation.explain import SITE_SCORES, Explanation, SiteScore, explain_stream
from refattn.explanation.symmetry import equivalent_sites, symmetrised
from refattn.generate.first_principles import FrontierOrbitals, frontier_orbitals
from refattn.prediction.predictor import Model
from refattn.report.density import Projection, projections

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
# Of the spread of the training labels: a prediction that all sites together move by less hardly depends on a score.
HARDLY = 0.05
# Narrower than this part of the largest magnitude, a range of colours would show rounding.
NARROWEST = 0.02
# Half of the summed differences of a population from the same share everywhere, up to which its order says nothing.
EVEN = 0.01


def with_unit(name: str, unit: str) -> str:
    """A name with its unit in brackets, where it has one."""
    return f"{name} ({unit})" if unit else name


class Column(typing.NamedTuple):
    """A number for every site.

    signed : bool            whether colours should diverge from zero
    values : (N,) float64    in `unit`; empty where it has none
    shared : (low, high)     the ends of the colours of a set; None where they are the structure's own
    note : str               what holds of this structure alone
    """

    name: str
    text: str
    unit: str
    signed: bool
    values: np.ndarray
    shared: tuple[float, float] | None = None
    note: str = ""

    @property
    def title(self) -> str:
        """What it is, with its unit."""
        return with_unit(self.about, self.unit)

    @property
    def about(self) -> str:
        """What it is in this structure."""
        return self.text + self.note

    @property
    def limits(self) -> tuple[float, float]:
        """(low, high): the ends of its colours; symmetric where it is signed, never so narrow as to show rounding."""
        if self.shared:
            return self.shared
        finite = self.values[np.isfinite(self.values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        largest = max(abs(low), abs(high)) or 1.0
        if self.signed:
            return -largest, largest
        if self.name in POPULATIONS:
            low = min(low, 0.0)
        widen = max(0.0, NARROWEST * largest - (high - low)) / 2
        return low - widen, high + widen


@dataclasses.dataclass(frozen=True)
class ExplainedStructure:
    """A structure, what its prediction rests on, and what is known beside.

    Attributes
    ----------
    atoms : ase.Atoms
    explanations : dict              target -> Explanation
    labels : dict                    target -> float in the label's unit, None where it is not known
    populations : dict               name of POPULATIONS -> (N,) float64, averaged over equivalent sites; empty where
                                     nothing is compared
    orbitals : FrontierOrbitals      of which the populations are; None where no method computed them
    """

    atoms: ase.Atoms
    explanations: dict[str, Explanation]
    labels: dict[str, float | None] = dataclasses.field(default_factory=dict)
    populations: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    orbitals: FrontierOrbitals | None = None

    @property
    def explanation(self) -> Explanation:
        """The Explanation of the first target; id, atoms and local attention are the same in all."""
        return next(iter(self.explanations.values()))

    @property
    def id(self) -> str:
        return self.explanation.id

    @cached_property
    def columns(self) -> dict[str, Column]:
        """{name: Column} of every score that was computed, see column_name, then of the populations."""
        found = []
        for target, e in self.explanations.items():
            about = f"{target.replace('_', ' ')}, " if len(self.explanations) > 1 else ""
            for s in SITE_SCORES:
                if (values := getattr(e, s.name)) is not None:
                    unit = e.unit_of_scores if s.in_unit else ""
                    share = strength(e, s)
                    weak = f", all sites together {share:.1%} of the labels' spread" if share < HARDLY else ""
                    name = self.column_name(s.name, target)
                    found.append(Column(name, about + s.text, unit, s.signed, values, note=weak))
        found += [Column(name, POPULATIONS[name], "", False, known) for name, known in self.populations.items()]
        return {column.name: column for column in found}

    @property
    def densities(self) -> list[str]:
        """The names of the densities that there are: none but of orbitals by PySCF."""
        return [f"{name}_density" for name in self.orbitals.coefficients] if self.orbitals else []

    @cached_property
    def projections(self) -> dict[str, Projection]:
        """{name: Projection} of every density, in all views. Raises MissingExtra without PySCF."""
        return projections(self.atoms, self.orbitals) if self.densities else {}

    @property
    def weak(self) -> list[str]:
        """Scores in the label's unit that hardly matter, however strong their colours: all sites together move the
        prediction by less than HARDLY of the spread of the training labels."""
        each = [(e, s) for e in self.explanations.values() for s in SITE_SCORES if getattr(e, s.name) is not None]
        return list(dict.fromkeys(s.name for e, s in each if strength(e, s) < HARDLY))

    def column_name(self, name: str, target: str) -> str:
        """The name of the column of a score: of several targets, with the target's behind it; populations have one."""
        return name if len(self.explanations) == 1 or name in POPULATIONS else f"{name}_{target}"

    def of_targets(self) -> Iterator[tuple[Explanation, float | None]]:
        """The Explanation and the label of every target."""
        return ((e, self.labels.get(target)) for target, e in self.explanations.items())

    @cached_property
    def correlations(self) -> dict[tuple[str, str], float]:
        """{(score, population): Spearman correlation over the sites}; NaN where a score is the same everywhere, or a
        population EVEN: of C60 it would rank what is wrong with the coordinates.

        Of a signed score the magnitude is ranked: a population has no sign.
        """
        scores = [column for column in self.columns.values() if column.name not in POPULATIONS]
        found = {}
        for name, known in self.populations.items():
            is_even = np.abs(known - known.mean()).sum() <= 2 * EVEN * np.abs(known).sum()
            for score in scores:
                magnitude = np.abs(score.values) if score.signed else score.values
                found[score.name, name] = np.nan if is_even else spearman(magnitude, known)
        return found

    @property
    def formula(self) -> str:
        """Formula with subscripts: Hill's order; for a crystal of three periods the smallest, metals first."""
        crystal = bool(self.atoms.pbc.all())
        counts = self.atoms.symbols.formula.convert("metal" if crystal else "hill").count()
        divisor = math.gcd(*counts.values()) if crystal else 1
        parts = (symbol + (str(n // divisor) if n > divisor else "") for symbol, n in counts.items())
        return "".join(parts).translate(SUBSCRIPTS)

    def top_site(self, name: str) -> int | None:
        """Number of the site where a column's magnitude is largest, or None where it has no number."""
        magnitude = np.abs(self.columns[name].values)
        return None if np.isnan(magnitude).all() else int(np.nanargmax(magnitude))

    def site_name(self, site: int) -> str:
        """Element and number of a site, such as O3."""
        return f"{self.atoms.symbols[site]}{site}"


def share_limits(shown: list[dict[str, Column]] | list[dict[str, Projection]]) -> None:
    """Give every column, or projection, of these structures the colours of the whole set."""
    for name in shown[0] if shown else ():
        each = np.array([columns[name].limits for columns in shown])
        low, high = float(each[:, 0].min()), float(each[:, 1].max())
        for columns in shown:
            columns[name] = columns[name]._replace(shared=(low, high))


def strength(explanation: Explanation, score: SiteScore) -> float:
    """Sum of the magnitudes of a score in the label's unit, in units of the spread of the training labels; infinity of
    other scores, and where the spread is not known."""
    values = getattr(explanation, score.name)
    if not (score.signed and score.in_unit and explanation.spread) or not np.isfinite(values).any():
        return math.inf
    return float(np.nansum(np.abs(values))) / explanation.spread


def in_words(value: float | None, unit: str) -> str:
    """A value with its unit; a dash where it is None or no number."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g} {unit}".strip().replace("-", "−")


def findings(
    model: Model,
    structures: Iterable[ase.Atoms],
    compare: bool = False,
    skip: Callable[[str, Exception], None] | None = None,
    method: str = "",
    report: Callable[[str], object] | None = None,
    **options: object,
) -> Iterator[ExplainedStructure]:
    """The ExplainedStructure of every structure, in bounded memory.

    Parameters
    ----------
    structures : iterable of ase.Atoms     perhaps with the known `label` in info, of several targets a dict of each
    compare : bool                         whether to add the populations of the frontier orbitals
    skip : callable, optional              (id, error): called for a structure that is left out instead of an error
    method : str                           of the populations, see first_principles.orbital_labels; empty: see
                                           comparison.populations
    report : callable, optional            see first_principles.orbital_labels
    options                                those of explain_stream

    Raises what refattn.explain, comparison.populations, first_principles.frontier_orbitals and
    symmetry.equivalent_sites raise.
    """
    for atoms, found in explain_stream(model, structures, skip=skip, **options):
        explanations = found if isinstance(found, dict) else {found.target: found}
        first = next(iter(explanations))
        try:
            known, orbitals = _compared(atoms, method, report) if compare else ({}, None)
        except (StructureError, DataError) as error:
            if skip is None:
                raise
            skip(explanations[first].id, error)
            continue
        label = atoms.info.get("label")
        labels = label if isinstance(label, dict) else {first: label}
        yield ExplainedStructure(atoms, explanations, labels, known, orbitals)


def _compared(atoms, method, report):
    """Populations of the frontier orbitals that do not hang on the choice of one orbital of a degenerate set, and the
    FrontierOrbitals of a method."""
    classes = equivalent_sites(atoms)
    orbitals = frontier_orbitals(atoms, method, report) if method else None
    own = {name: orbitals.arrays[name] for name in POPULATIONS} if orbitals else populations(atoms)
    return {name: symmetrised(values, classes) for name, values in own.items()}, orbitals
