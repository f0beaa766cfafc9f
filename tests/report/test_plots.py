"""The pictures of a run."""

from types import SimpleNamespace

import numpy as np

from refattn.report.plots import within_groups


def test_labels_and_predictions_within_groups():
    """By hand: less the mean of the training labels of the same composition, without those that training lacks."""

    def part(composition, label, prediction):
        label, prediction = (np.array(values, dtype=float)[:, None] for values in (label, prediction))
        return SimpleNamespace(composition=np.array(composition), label=label, prediction=prediction, group=None)

    parts = {"train": part([1, 1, 2], [1, 3, 10], [0, 0, 0]), "test": part([2, 1, 3], [11, 5, 7], [12, 4, 7])}
    columns = {name: [(own.label[:, 0], own.prediction[:, 0])] for name, own in parts.items()}
    ((shown, name, unit),) = within_groups(parts, columns, {"gap": {"unit": "eV"}})
    label, prediction, mae = shown["test"]
    assert (label.tolist(), prediction.tolist(), mae) == ([1, 3], [2, 2], 1)
    assert (name, unit) == ("gap less its composition's mean", "eV")
    parts["test"].composition[:] = 3
    assert within_groups(parts, columns, {"gap": {"unit": "eV"}}) == []
