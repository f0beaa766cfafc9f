"""How sure a prediction is: distance to the training set, split-conformal intervals, and how well these hold.

A network's error grows where it has seen little. That is measured where the network itself tells structures apart: in
the space of `struct`, the representation from which the property is read, with the number of sites as one dimension
more, because `struct` is a mean over the sites. The distance there sets how wide an interval is relative to others, and
the errors on the validation set, which was not trained on, how wide all of them are.
"""

import math
import queue
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from refattn.errors import ConfigError, DataError

N_NEAREST = 5
GROUP = 64  # training structures of which the nearest is found first
BLOCK = 128  # structures whose distances to all training structures are held at a time
COLUMNS = 1 << 14  # training structures that these are compared with at a time: 8 MB a thread
SMALLEST = 0.01  # uncertainty of a structure that the training set holds several times
ROUNDING = 1e-9  # of a sum of shares
FEW = 100  # scores; with fewer, what intervals hold is far from what was asked for
NOMINAL = tuple(n / 10 for n in range(1, 10))  # coverages of the calibration curve


def own_struct(struct: np.ndarray, target: int, n_targets: int) -> np.ndarray:
    """(S, G + 1) of one target in (S, K G + 1), see MemberPredictions: its representation and the number of sites."""
    width = (struct.shape[1] - 1) // n_targets
    return struct[:, [*range(target * width, (target + 1) * width), -1]]


class TrainingSet:
    """The training structures in representation space, each dimension in units of its standard deviation.

    Parameters
    ----------
    representation : (T, G) float32     `struct` of the training structures, and what else stands beside it
    """

    def __init__(self, representation: np.ndarray):
        self.mean = representation.mean(axis=0, dtype=float)
        std = representation.std(axis=0, dtype=float)
        self.std = np.where(std > 0, std, 1)
        step = GROUP * BLOCK
        starts = range(0, max(len(representation), 1), step)
        self.points = np.concatenate([self._scaled(representation[start : start + step]) for start in starts])
        self.half_square = (self.points**2).sum(axis=1) / 2

    def distance(self, struct: np.ndarray, map_fn: Callable = map) -> np.ndarray:
        """Mean Euclidean distance to the N_NEAREST nearest training structures, all of them where there are fewer.

        Parameters
        ----------
        struct : (S, G) float32
        map_fn : callable, optional   like map

        Returns
        -------
        (S,) float64, in standard deviations of the training set; 0 for a structure among copies of itself

        Which ones are nearest is decided in float32, how far they are is computed in float64, from the nearest on.
        """
        blocks = [struct[start : start + BLOCK] for start in range(0, len(struct), BLOCK)]
        memory = queue.SimpleQueue()  # of ranks: the system takes longer to give it out than a product to be computed

        def of_block(block):
            try:
                free = memory.get_nowait()
            except queue.Empty:
                free = np.empty(min(BLOCK, len(struct)) * min(COLUMNS, len(self.points)), np.float32)
            found = self._block(block, free)
            memory.put(free)
            return found

        return np.concatenate([np.zeros(0), *map_fn(of_block, blocks)])

    def _block(self, struct, memory):
        x = self._scaled(struct)
        nearest = self._nearest(x, memory)
        distance = np.linalg.norm(self.points[nearest].astype(float) - x[:, None], axis=2)
        return np.sort(distance, axis=1).mean(axis=1)

    def _nearest(self, x, memory):
        """(S, k) int: the training structures nearest to each of x (S, G), in no order."""
        columns = []
        ranks = []
        for first in range(0, len(self.points), COLUMNS):
            points = self.points[first : first + COLUMNS]
            rank = memory[: len(x) * len(points)].reshape(len(x), len(points))
            np.matmul(x, points.T, out=rank)
            half_square = self.half_square[first : first + COLUMNS]
            np.subtract(half_square, rank, out=rank)  # half the squared distance, less half the square of x
            found = smallest(rank, min(N_NEAREST, len(points)))
            columns.append(first + found)
            ranks.append(np.take_along_axis(rank, found, axis=1))
        of_all = smallest(np.concatenate(ranks, axis=1), min(N_NEAREST, len(self.points)))
        return np.take_along_axis(np.concatenate(columns, axis=1), of_all, axis=1)

    def _scaled(self, struct):
        return ((struct - self.mean) / self.std).astype(np.float32)


def smallest(values: np.ndarray, k: int) -> np.ndarray:
    """(S, k) int: the columns of the k smallest of each row of `values` (S, T), in no order.

    They lie in the k groups of GROUP columns with the smallest minima: a third of the time of argpartition on all.
    """
    n_groups = values.shape[1] // GROUP
    if n_groups <= k:
        return np.argpartition(values, k - 1, axis=1)[:, :k]
    in_groups = n_groups * GROUP
    lowest = values[:, :in_groups].reshape(-1, n_groups, GROUP).min(axis=2)
    group = np.argpartition(lowest, k - 1, axis=1)[:, :k, None]
    columns = (group * GROUP + np.arange(GROUP)).reshape(len(values), -1)
    others = np.broadcast_to(np.arange(in_groups, values.shape[1]), (len(values), values.shape[1] - in_groups))
    columns = np.concatenate([columns, others], axis=1)
    of_columns = np.argpartition(np.take_along_axis(values, columns, axis=1), k - 1, axis=1)[:, :k]
    return np.take_along_axis(columns, of_columns, axis=1)


class Conformal:
    """Split-conformal intervals around the prediction of a run, or around the mean of an ensemble's members.

    The validation set gives a score of every structure s and with the score's quantile the interval of a new one:

        score[s] = |y[s] - y_hat[s]| / u[s],   y_hat +- q u,   q the ceil((n + 1) coverage)-th smallest score of n
        u = max(distance / median distance of the validation set, SMALLEST)

    distance is that of TrainingSet, in an ensemble the mean over the members. So u is 1 for a structure like those of
    the validation set and grows with the distance; SMALLEST keeps it from 0.

    If the new structure is exchangeable with the validation set, the interval holds its label with a probability of
    at least `coverage` and at most coverage + 1 / (n + 1), whatever the network and u are. Two limits: the validation
    set also chose the best epoch, so that its errors are a little too small (benchmarks/results/uncertainty.json has
    what is left of the coverage on test sets); and for structures of another kind nothing is promised. There the
    intervals widen with the distance; the same file says how much of the coverage is kept on larger molecules.

    Where the validation set is one of whole groups that are new to the network, such as trajectories (data.valid_by =
    "group"), its groups are exchangeable with a new group, not its structures with a new one: conformal_quantile gives
    every group the same weight then, and the interval holds the label of a structure of a new group with a probability
    of at least `coverage`.

    Parameters
    ----------
    label : (V,) float                      of the validation set
    predictions, distances : (K, V) float   of the K members
    spaces : list of K TrainingSet
    group : (V,) int                        of the structures; None where each is one of its own

    Source   Papadopoulos et al., ECML 2002 (inductive confidence machines, normalised scores); Lei et al., JASA 113,
             1094 (2018), section 2.2 and theorem 2.2; Angelopoulos & Bates, arXiv 2107.07511, section 2.3
    """

    def __init__(
        self,
        label: np.ndarray,
        predictions: np.ndarray,
        distances: list[np.ndarray],
        spaces: list[TrainingSet],
        group: np.ndarray | None = None,
    ):
        self.spaces = spaces
        self.group = group
        distance = np.mean(distances, axis=0)
        self.scale = float(np.median(distance)) or 1.0
        self.score = np.abs(label - np.mean(predictions, axis=0)) / self.uncertainty(distance)

    def distance(self, structs: list[np.ndarray], map_fn: Callable = map) -> np.ndarray:
        """Distance (S,) to the training set, the mean over the members, of `structs`, K arrays (S, G)."""
        return np.mean([space.distance(struct, map_fn) for space, struct in zip(self.spaces, structs)], axis=0)

    def uncertainty(self, distance: np.ndarray) -> np.ndarray:
        """u (S,) of the distances (S,); 1 is usual."""
        return np.maximum(distance / self.scale, SMALLEST)

    def half_width(self, distance: np.ndarray, coverage: float) -> np.ndarray:
        """Half of the interval's width (S,), in the label's unit. Raises what conformal_quantile does."""
        return conformal_quantile(self.score, coverage, self.group) * self.uncertainty(distance)

    @property
    def n_exchangeable(self) -> int:
        """How many structures, or groups of these, a new one has to be like."""
        return len(self.score) if self.group is None else len(np.unique(self.group))

    @property
    def assumption(self) -> str:
        """What must hold of new structures for the intervals to be right, as a part of a sentence."""
        what = "structures" if self.group is None else "groups of structures"
        if self.n_exchangeable == 1:
            return f"new {what} are drawn as the one of the validation set was"
        return f"new {what} are drawn as the {self.n_exchangeable} {what} of the validation set were"


def conformal_quantile(score: np.ndarray, coverage: float, group: np.ndarray | None = None) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores: a new one is at most that with a probability >= coverage.

    Of G groups, with n_g scores each, the smallest q for which

        sum_g 1 / (G + 1) * (part of the n_g scores of g that are at most q) >= coverage

    which is the same where n_g = 1. Then a score of a new group is at most q with that probability.

    Parameters
    ----------
    score : (n,) float
    coverage : float      between 0 and 1; taken as the decimal number that it is written as
    group : (n,) int      of the scores; None where each is one of its own

    Raises ConfigError for another coverage, DataError where n, or G, is too small: below coverage / (1 - coverage).

    Source   Lei et al., JASA 113, 1094 (2018), algorithm 2; Angelopoulos & Bates, arXiv 2107.07511, section 1;
             of groups Lee, Barber & Willett, arXiv 2306.06342 (hierarchical conformal prediction)
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"the coverage is {coverage}; it must be between 0 and 1, such as 0.9")
    exact = Fraction(str(float(coverage)))
    known, member = (score, None) if group is None else np.unique(group, return_inverse=True)
    rank = math.ceil((len(known) + 1) * exact)
    if rank > len(known):
        what = "structures" if group is None else "groups of structures"
        raise DataError(
            f"a coverage of {coverage} needs at least {math.ceil(exact / (1 - exact))} validation {what}, the run "
            f"has {len(known)}; ask for less coverage, or train with a larger validation set"
        )
    if group is None:
        return float(np.partition(score, rank - 1)[rank - 1])
    order = np.argsort(score, kind="stable")
    reached = np.cumsum((1 / np.bincount(member))[member[order]])
    wanted = float((len(known) + 1) * exact) - ROUNDING * len(known)
    return float(score[order][min(np.searchsorted(reached, wanted), len(score) - 1)])


def held_coverage(n: int, coverage: float) -> tuple[float, float]:
    """What intervals of a `coverage` from n scores hold in 9 of 10 validation sets: the 5 % and 95 % points of Beta(q,
    n + 1 - q), q = ceil((n + 1) coverage), which is how the held share is distributed for one validation set.

    Source   Vovk, Mach. Learn. 92, 349 (2013); Angelopoulos & Bates, arXiv 2107.07511, section 3.2
    """
    from scipy.special import betaincinv

    rank = _rank(n, coverage)
    return tuple(betaincinv(rank, n + 1 - rank, (0.05, 0.95)).tolist())


def _rank(n, coverage):
    """The ceil((n + 1) coverage) of conformal_quantile."""
    return math.ceil((n + 1) * Fraction(str(float(coverage))))


def coverage_error(n: int, n_test: int, coverage: float) -> dict[str, float]:
    """Mean and standard deviation of the share of n_test labels that intervals of a `coverage` from n scores hold.

    The share that one validation set gives is distributed as Beta(q, n + 1 - q), q = ceil((n + 1) coverage), and the
    number of test labels that are held, given that share, binomially; together this is the beta-binomial distribution:

        expected = q / (n + 1),   validation^2 = expected (1 - expected) / (n + 2)
        test^2 = expected (1 - expected) (n + 1) / (n + 2) / n_test,   both^2 = validation^2 + test^2

    Returns
    -------
    dict of expected, and the standard deviations validation, test and both; n_test at least 1

    Source   Vovk, Mach. Learn. 92, 349 (2013); Angelopoulos & Bates, arXiv 2107.07511, section 3.2 and appendix C
    """
    expected = _rank(n, coverage) / (n + 1)
    variance = expected * (1 - expected)
    validation = variance / (n + 2)
    test = variance * (n + 1) / (n + 2) / n_test
    return {
        "expected": expected,
        "validation": math.sqrt(validation),
        "test": math.sqrt(test),
        "both": math.sqrt(validation + test),
    }


def reliability(
    conformal: Conformal, coverage: float, label: np.ndarray, prediction: np.ndarray, distance: np.ndarray
) -> dict:
    """How well intervals hold on a set with known labels.

    Parameters
    ----------
    conformal : Conformal
    coverage : float
    label, prediction, distance : (S,) float

    Returns
    -------
    dict
        n, wanted_coverage, assumption (of the intervals, in words), by_group (whether they are calibrated so), coverage
        (the part of the labels within their intervals), mean_width (in the label's unit), calibration_error (mean
        |found - wanted| over the coverages NOMINAL, those of them for which the validation set is large enough; None
        where there is none), spearman (rank correlation of |error| and uncertainty; None where one of them is
        constant), mean_distance, median_distance_of_validation, and curve {wanted, found}, the coverages behind
        calibration_error

    Raises DataError for a set without structures, and what conformal_quantile does.
    """
    if not len(label):
        raise DataError("there are no test structures to count coverage on; give a set with --data")
    error, n = np.abs(label - prediction), conformal.n_exchangeable
    half = conformal.half_width(distance, coverage)
    nominal = [wanted for wanted in NOMINAL if wanted <= n / (n + 1)]
    found = [float((error <= conformal.half_width(distance, wanted)).mean()) for wanted in nominal]
    return {
        "n": len(label),
        "wanted_coverage": coverage,
        "assumption": conformal.assumption,
        "by_group": conformal.group is not None,
        "coverage": float((error <= half).mean()),
        "mean_width": float(2 * half.mean()),
        "calibration_error": float(np.mean(np.abs(np.subtract(found, nominal)))) if found else None,
        "spearman": rank_correlation(error, distance),
        "mean_distance": float(distance.mean()),
        "median_distance_of_validation": conformal.scale,
        "curve": {"wanted": nominal, "found": found},
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation of `a` and `b` (S,), with mean ranks for ties; None where one of them is constant."""
    from scipy.stats import rankdata  # half a second, of which a training has no use

    ranks = rankdata(a), rankdata(b)
    if min(rank.std() for rank in ranks) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])
