"""refattn.interop.sklearn: the estimator in scikit-learn's tools, and its checks that apply to lists of structures."""

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_predict
from sklearn.utils import estimator_checks
from small_data import label, molecules, sent

from refattn.errors import DataError
from refattn.interop.sklearn import StructureClassifier, StructureRegressor

# The network of small_data.small_config, which other tests compile
SMALL = {"n_layers": 2, "width": 16, "n_heads": 4, "global_width": 16, "head_width": 16, "embedding_width": 8}
SETTINGS = tuple(f"model.{name}={value}" for name, value in (SMALL | {"n_elements": 10}).items())
SETTINGS += ("model.attention_dropout=0.05", "training.batch_size=8", "training.learning_rate=3e-3")
CHECKS = ("no_attributes_set_in_init", "get_params_invariance", "set_params", "estimator_repr")
CHECKS += ("parameters_default_constructible", "estimator_cloneable", "estimator_tags_renamed", "valid_tag_types")


@pytest.mark.parametrize("kind", [StructureRegressor, StructureClassifier])
@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_s_checks(name, kind):
    getattr(estimator_checks, f"check_{name}")(kind.__name__, kind())


def test_fit_predict_and_score():
    structures = molecules(30)
    y = np.array([label(atoms) for atoms in structures])
    estimator = StructureRegressor((*SETTINGS, "training.epochs=10"), n_threads=1)
    with pytest.raises(NotFittedError):
        estimator.predict(structures)
    assert is_regressor(estimator)
    assert estimator.fit(structures, y) is estimator
    predicted = estimator.predict(structures)
    assert predicted.shape == y.shape and estimator.score(structures, y) > 0.3
    assert np.array_equal(clone(estimator).fit(structures, y).predict(structures), predicted)
    assert np.array_equal(sent(estimator).predict(structures), predicted)
    assert estimator.model_.predict(structures[0]).attention[0].sum() == pytest.approx(1)


def test_several_labels_and_cross_validation():
    structures = molecules(12)
    y = np.array([[label(atoms), len(atoms)] for atoms in structures])
    estimator = StructureRegressor((*SETTINGS, "training.epochs=1"), n_threads=1)
    found = cross_val_predict(estimator, structures, y, cv=2)
    assert found.shape == y.shape and np.isfinite(found).all()


def test_classes_and_weights():
    structures = molecules(30)
    y = np.where([8 in atoms.numbers for atoms in structures], "oxide", "none")
    estimator = StructureClassifier((*SETTINGS, "training.epochs=10"), n_threads=1)
    assert is_classifier(estimator)
    probability = estimator.fit(structures, y).predict_proba(structures)
    assert estimator.classes_.tolist() == ["none", "oxide"]
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-15)
    assert (estimator.predict(structures) == estimator.classes_[probability.argmax(axis=1)]).all()
    assert estimator.score(structures, y) > 0.8
    weighted = clone(estimator).fit(structures, y, sample_weight=np.where(y == "oxide", 10.0, 1.0))
    assert weighted.predict_proba(structures)[:, 1].mean() > probability[:, 1].mean() + 0.05
    with pytest.raises(DataError, match="y has 1 different values"):
        estimator.fit(structures, ["oxide"] * 30)
