"""What a score does when the structure hardly changes, and over how many sites it is spread."""

import ase
import numpy as np

from refattn.validation.agreement import mean_and_error

RATTLE = 0.01  # Å
N_RATTLED = 5  # copies of a structure


def rattled_copies(atoms: ase.Atoms, stdev: float, n: int, rng: np.random.Generator) -> list[ase.Atoms]:
    """n copies with normally distributed displacements along x, y and z of standard deviation `stdev` (Å)."""
    copies = [atoms.copy() for _ in range(n)]
    for copy in copies:
        copy.positions += rng.normal(0, stdev, (len(atoms), 3))
    return copies


def max_sensitivity(score: np.ndarray, rattled: list[np.ndarray]) -> float:
    """Largest change of a score among those of rattled copies, relative to its size.

    max over n of |rattled[n] - score| / |score|, of Euclidean norms over the sites

    Parameters
    ----------
    score : (N,) float
    rattled : list of (N,) float

    Returns
    -------
    float; NaN for a score of zeros

    Source   Yeh et al., NeurIPS 2019, arXiv 1901.09392, Definition 2, by samples
    """
    norm = np.linalg.norm(score)
    return float(max(np.linalg.norm(other - score) for other in rattled) / norm) if norm > 0 else float("nan")


def complexity(score: np.ndarray) -> float:
    """Entropy of the shares that the sites have in a score's magnitude.

    -sum_i p[i] log(p[i]),  p[i] = |score[i]| / sum_j |score[j]|

    Parameters
    ----------
    score : (N,) float

    Returns
    -------
    float in 0 (one site has it all) to log N (an even score), nats; NaN for a score of zeros

    Source   Bhatt, Weller & Moura, IJCAI 2020, arXiv 2005.00631, Definition 5
    """
    total = np.abs(score).sum()
    if not total > 0:
        return float("nan")
    share = np.abs(score[score != 0]) / total
    return float(-(share @ np.log(share)) + 0.0)


def relative_complexity(score: np.ndarray) -> float:
    """Complexity over that of an even score, 0 to 1; NaN for a single site."""
    return complexity(score) / np.log(len(score)) if len(score) > 1 else float("nan")


def complexities(own: list[np.ndarray]) -> dict:
    """Entropy in nats, and over that of an even score, means over structures."""
    found = {"entropy": complexity, "of_even": relative_complexity}
    return {name: mean_and_error(np.array([one(values) for values in own])) for name, one in found.items()}
