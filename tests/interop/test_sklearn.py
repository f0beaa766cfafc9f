"""refattn.interop.sklearn: the estimator in scikit-learn's tools, and its checks that apply to lists of structures."""

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_predict
from sklearn.utils import estimator_checks
from small_data import label, molecules, sent

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


SIX = molecules(6)
Y = [float(n) for n in range(6)]
REFUSED = {
    "lengths": (ValueError, SIX, Y[:-1], {}, r"y has the shape \(5,\) and X 6 structures; give each one label"),
    "a third axis": (ValueError, SIX, np.zeros((6, 1, 1)), {}, r"y has the shape \(6, 1, 1\)"),
    "weights": (ValueError, SIX, Y, {"sample_weight": Y[1:]}, r"sample_weight has the shape \(5,\) and X 6"),
    "a weight": (ValueError, SIX, Y, {"sample_weight": [1, 1, -1, 1, 1, 1]}, r"sample_weight\[2\] is -1; it must be"),
    "unknown": (ValueError, SIX, [np.nan] * 6, {}, "y is known for 0 of 6 structures; a training needs two"),
    "one unknown": (ValueError, SIX, [[1, np.nan]] * 6, {}, "y is known for 6, 0 of 6 structures"),
    "infinite": (ValueError, SIX, [np.inf, *Y[1:]], {}, r"y\[0\] is infinite; labels are finite"),
    "one": (ValueError, SIX[:1], Y[:1], {}, "y is known for 1 of 1 structures; a training needs two"),
    "none": (ValueError, [], [], {}, "X holds no structures; give at least two"),
    "text": (ValueError, SIX, [*"abcdef"], {}, "y is .'a', .*; it must hold numbers"),
    "a file": (TypeError, "x.xyz", [1], {}, "the structures are 'x.xyz'; give ase.Atoms or a list of them"),
    "files": (TypeError, ["x.xyz"], [1], {}, "structure 0 is of type str; give ase.Atoms"),
    "setting": (ValueError, SIX, Y, {}, "^settings: training.epochs is -1; it must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_fitted(case):
    """One sentence, in the names of fit's parameters."""
    kind, structures, y, more, message = REFUSED[case]
    estimator = StructureRegressor(("training.epochs=-1",) if case == "setting" else ())
    with pytest.raises(kind, match=message):
        estimator.fit(structures, y, **more)
    with pytest.raises(TypeError, match="settings is 'training.epochs=1'; give a tuple"):
        StructureRegressor("training.epochs=1").fit(SIX, Y)


def test_what_is_no_two_classes():
    for y, message in (
        (["oxide"] * 6, "y has one class; a classifier takes two"),
        ([1, 2, 3, 1, 2, 3], "y has 3 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            StructureClassifier().fit(SIX, y)
    with pytest.raises(ValueError, match=r"y has the shape \(6, 1\); give a class for each"):
        StructureClassifier().fit(SIX, [[0], [1]] * 3)
