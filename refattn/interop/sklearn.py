"""A network as an estimator of scikit-learn: fit, predict and score on lists of ase.Atoms."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np

from refattn.config import Config, DataConfig, GraphConfig, override
from refattn.data.store import Record
from refattn.data.writer import DatasetWriter
from refattn.errors import MissingExtra
from refattn.prediction.predictor import load
from refattn.structures.batch import GraphBatch
from refattn.training.train import train

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise MissingExtra("scikit-learn is not installed: run `pip install scikit-learn`") from None


class StructureRegressor(RegressorMixin, BaseEstimator):
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

    def fit(self, X: Sequence[ase.Atoms], y: np.ndarray) -> "StructureRegressor":
        """Train on structures and their labels.

        Parameters
        ----------
        X : list of ase.Atoms
        y : (S,) or (S, K) float     NaN where one of several labels is unknown

        A tenth of them chooses the best epoch.
        """
        structures = list(X)
        columns = np.asarray(y, dtype=float).reshape(len(structures), -1)
        names = ["y"] if np.ndim(y) == 1 else [f"y{k}" for k in range(columns.shape[1])]
        rule = self.rule or GraphConfig()
        with tempfile.TemporaryDirectory(prefix="refattn-") as folder:
            path = Path(folder) / "data.h5"
            with DatasetWriter(path, rule, source="refattn.interop.sklearn") as writer:
                labels = [dict(zip(names, row.tolist())) for row in columns]
                records = [Record(str(n), atoms, label, {}) for n, (atoms, label) in enumerate(zip(structures, labels))]
                graphs = [GraphBatch.from_atoms(atoms, rule, str(n)) for n, atoms in enumerate(structures)]
                writer.add(records, graphs)
            # the number of a structure is its place in X: two with the same id in info are no fault here
            split = ["data.test_part=false", f"data.split_seed={self.seed}", f"training.seed={self.seed}"]
            target = names[0] if len(names) == 1 else names
            config = Config(data=DataConfig(path=str(path), target=target))
            config = override(config, [*split, *self.settings])
            self.summary_ = train(config, Path(folder) / "run", self.n_threads, device=self.device)
            self.model_ = load(Path(folder) / "run", self.device)
        return self

    def predict(self, X: Sequence[ase.Atoms]) -> np.ndarray:
        """(S,) or (S, K) predictions, as y was."""
        check_is_fitted(self, "model_")
        return np.asarray(self.model_.predict(list(X), n_threads=self.n_threads).value)
