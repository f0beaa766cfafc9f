"""SOAP of DScribe (Apache 2.0) and kernel ridge regression of scikit-learn (BSD-3).

SOAP with the settings of DScribe's tutorial (6 Å, n_max 8, l_max 6), averaged over the atoms ("outer") and divided by
its length; of the Materials Project's 87 elements in the compressed form "mu1nu1", where all pairs of elements would be
1.7 million numbers. A Gaussian kernel; its width and the ridge are those with the smallest validation error, tried
with at most 2,000 of the training structures. There is no budget: the time is what it takes.
"""

import common
import numpy as np
from dscribe.descriptors import SOAP
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import euclidean_distances

TRIED = 2000  # training structures while the two parameters are chosen
WIDTHS = 4.0 ** np.arange(-8, 4)  # 1 / (median squared distance)
RIDGES = 10.0 ** np.arange(-15, 1)


def descriptors(structures):
    """{part: (S, F)}; in float64, since snapshots of one cage differ by little."""
    periodic = bool(structures.pbc.any())
    species = np.unique(structures.z).tolist()
    compression = {"mode": "mu1nu1" if len(species) > 10 else "off"}
    soap = SOAP(
        r_cut=6.0, n_max=8, l_max=6, species=species, periodic=periodic, average="outer", compression=compression
    )
    found = {}
    for part, rows in structures.rows.items():
        features = np.empty((len(rows), soap.get_number_of_features()))
        for values, row in zip(features, rows.tolist(), strict=True):
            values[:] = soap.create(structures.atoms(row))
        found[part] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return found


def squared_distances(first, second):
    return euclidean_distances(first, second, squared=True)


def fit(order, features, labels):
    mean = labels["train"].mean()
    tried = slice(min(TRIED, len(labels["train"])))
    inner = squared_distances(features["train"][tried], features["train"][tried])
    outer = squared_distances(features["valid"], features["train"][tried])
    scale = 1 / np.median(inner)
    errors = {}
    for gamma in scale * WIDTHS:
        kernel, between = np.exp(-gamma * inner), np.exp(-gamma * outer)
        for alpha in RIDGES:
            model = KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel, labels["train"][tried] - mean)
            errors[gamma, alpha] = np.abs(model.predict(between) + mean - labels["valid"]).mean()
    gamma, alpha = min(errors, key=errors.get)
    model = KernelRidge(alpha=alpha, kernel="rbf", gamma=gamma).fit(features["train"], labels["train"] - mean)
    return lambda x: model.predict(x) + mean, {"gamma_times_median": gamma / scale, "alpha": alpha}


if __name__ == "__main__":
    common.run_without_budget(descriptors, fit, "dscribe", "scikit-learn")
