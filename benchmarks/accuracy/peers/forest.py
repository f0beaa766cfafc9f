"""A random forest of scikit-learn (BSD-3) that knows the composition only, by matminer (BSD).

132 statistics of the elements' properties (Ward et al., npj Comput. Mater. 2, 16028, 2016) and, of molecules, the
number of atoms of each element. scikit-learn's defaults, 100 trees. There is no budget: the time is what it takes.
"""

import common
import numpy as np
from matminer.featurizers.composition import ElementProperty
from pymatgen.core import Composition
from sklearn.ensemble import RandomForestRegressor


def features_of(structures):
    """{part: (S, F)}; those of a composition are computed once."""
    magpie = ElementProperty.from_preset("magpie", impute_nan=True)
    elements = np.unique(structures.z)
    is_molecule = not structures.pbc.any()
    known = {}

    def features(row):
        numbers = structures.numbers(row)
        counts = (numbers[:, None] == elements).sum(axis=0)
        formula = structures.atoms(row).get_chemical_formula()
        if formula not in known:
            known[formula] = magpie.featurize(Composition(formula))
        return [*known[formula], *(counts if is_molecule else ())]

    return {part: np.array([features(row) for row in rows.tolist()]) for part, rows in structures.rows.items()}


def fit(order, features, labels):
    model = RandomForestRegressor(random_state=order["seed"], n_jobs=order["threads"])
    model.fit(features["train"], labels["train"])
    return model.predict, {"n_estimators": model.n_estimators}


if __name__ == "__main__":
    common.run_without_budget(features_of, fit, "matminer", "scikit-learn")
