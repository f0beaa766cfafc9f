"""A network as a regressor or classifier of scikit-learn: fit, predict and score on lists of ase.Atoms."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np

from refattn.config import Config, DataConfig, GraphConfig, override
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.errors import ConfigError, MissingExtra
from refattn.prediction.predictor import load
from refattn.structures.batch import GraphBatch, checked_structures
from refattn.training.train import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise MissingExtra("scikit-learn is not installed: run `pip install scikit-learn`") from None


class _StructureEstimator(BaseEstimator):
    """SCANN or SCANN+ behind scikit-learn's interface.

    Parameters
    ----------
    settings : tuple of str      SECTION.KEY=VALUE, as of `refattn train --set`: "training.epochs=50"
    seed : int                   of the weights, the batches, and of the tenth of the structures that are validated on
    rule : GraphConfig           of the neighbours; None: the default one
    n_threads : int              None: one for each core
    device : str                 as of refattn.train

    Attributes
    ----------
    model_ : Model or Ensemble   of the last fit: attention, explanations and files of predictions are had from it
    summary_ : dict              what refattn.train returned
    """

    def __init__(
        self,
        settings: tuple[str, ...] = (),
        seed: int = 0,
        rule: GraphConfig | None = None,
        n_threads: int | None = None,
        device: str = "cpu",
    ):
        self.settings = settings
        self.seed = seed
        self.rule = rule
        self.n_threads = n_threads
        self.device = device

    def _fit(self, structures, y, weight, *settings):
        """Train on the labels y (S,) or (S, K) with weights (S,) or None; a tenth of them chooses the best epoch."""
        structures = checked_structures(structures)
        columns, weight = _checked_labels(len(structures), y, weight)
        names = ["y"] if np.ndim(y) == 1 else [f"y{k}" for k in range(columns.shape[1])]
        target = names[0] if len(names) == 1 else names
        if weight is not None:
            columns = np.column_stack([columns, weight])
            names = [*names, "weight"]
            settings = "data.weight=weight", *settings
        if isinstance(self.settings, str):
            raise TypeError(f"settings is {self.settings!r:.60}; give a tuple of such texts")
        # the number of a structure is its place in X: two with the same id in info are no fault here
        split = ["data.test_part=false", f"data.split_seed={self.seed}", f"training.seed={self.seed}"]
        try:
            config = override(Config(data=DataConfig(target=target)), [*split, *settings, *self.settings], "settings")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        rule = self.rule or GraphConfig()
        with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
            path = Path(folder) / "data.h5"
            with DatasetWriter(path, rule, source="refattn.interop.sklearn") as writer:
                labels = [dict(zip(names, row.tolist())) for row in columns]
                records = [Record(str(n), atoms, label, {}) for n, (atoms, label) in enumerate(zip(structures, labels))]
                graphs = [GraphBatch.from_atoms(atoms, rule, str(n)) for n, atoms in enumerate(structures)]
                writer.add(records, graphs)
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(path)))
            self.summary_ = train(config, Path(folder) / "run", self.n_threads, device=self.device)
            self.model_ = load(Path(folder) / "run", self.device)
        return self

    def _predict(self, X):
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict(X, n_threads=self.n_threads).value)


class StructureRegressor(RegressorMixin, _StructureEstimator):
    __doc__ = _StructureEstimator.__doc__

    def fit(
        self, X: Sequence[ase.Atoms], y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> "StructureRegressor":
        """Train on structures and their labels.

        Parameters
        ----------
        X : list of ase.Atoms
        y : (S,) or (S, K) float                NaN where one of several labels is unknown
        sample_weight : (S,) float, optional    greater than 0, of each structure's errors in the loss

        A tenth of them chooses the best epoch.
        """
        return self._fit(X, y, sample_weight)

    def predict(self, X: Sequence[ase.Atoms]) -> np.ndarray:
        """(S,) predictions, or (S, K) of several targets."""
        return self._predict(X)


class StructureClassifier(ClassifierMixin, _StructureEstimator):
    __doc__ = _StructureEstimator.__doc__ + "    classes_ : (2,)             the two values of y, in their order\n    "

    def fit(
        self, X: Sequence[ase.Atoms], y: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> "StructureClassifier":
        """Train on structures and their classes, with the cross entropy.

        Parameters
        ----------
        X : list of ase.Atoms
        y : (S,)                                of two values
        sample_weight : (S,) float, optional    greater than 0, of each structure in the loss

        A tenth of them chooses the best epoch. Raises ValueError where y has not two values.
        """
        if np.ndim(y) != 1:
            raise ValueError(f"y has the shape {np.shape(y)}; give a class for each structure, (S,)")
        n_classes = len({*np.asarray(y).tolist()})
        if n_classes != 2:
            raise ValueError(
                f"y has {'one class' if n_classes == 1 else f'{n_classes} classes'}; a classifier takes two"
            )
        self.classes_, number = np.unique(y, return_inverse=True)
        return self._fit(X, number.astype(float), sample_weight, "training.loss=cross_entropy")

    def predict_proba(self, X: Sequence[ase.Atoms]) -> np.ndarray:
        """(S, 2) probabilities of the two classes_."""
        second = self._predict(X)
        return np.column_stack([1 - second, second])

    def predict(self, X: Sequence[ase.Atoms]) -> np.ndarray:
        """(S,) the more probable of classes_."""
        return self.classes_[(self._predict(X) > 0.5).astype(int)]


def _checked_labels(n, y, weight):
    """The labels of n structures as (n, K), and their weights as (n,) or None. Raises ValueError."""
    label = _numbers(y, "y")
    if not n:
        raise ValueError("X holds no structures; give at least two")
    if label.ndim not in (1, 2) or len(label) != n or not label.size:
        raise ValueError(
            f"y has the shape {label.shape} and X {n} structures; give each one label, or a row of several"
        )
    label = label.reshape(n, -1)
    infinite = np.flatnonzero(np.isinf(label).any(axis=1))
    if len(infinite):
        raise ValueError(f"y[{infinite[0]}] is infinite; labels are finite, or NaN where unknown")
    known = ~np.isnan(label)
    if not known.any(axis=0).all() or known.any(axis=1).sum() < 2:
        counts = ", ".join(map(str, known.sum(axis=0).tolist()))
        raise ValueError(f"y is known for {counts} of {n} structures; a training needs two, one of them to validate on")
    return label, None if weight is None else _checked_weights(n, _numbers(weight, "sample_weight"))


def _checked_weights(n, weight):
    if weight.shape != (n,):
        raise ValueError(f"sample_weight has the shape {weight.shape} and X {n} structures; give each one weight")
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight > 0)))
    if len(wrong):
        raise ValueError(f"sample_weight[{wrong[0]}] is {weight[wrong[0]]:g}; it must be finite and greater than 0")
    return weight


def _numbers(values, name):
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {values!r:.60}; it must hold numbers, as many in each row") from None
