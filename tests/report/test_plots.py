"""The pictures of a run."""

from types import SimpleNamespace

import numpy as np
import pytest

from refattn.report import plots
from refattn.report.plots import parity_plot, uncertainty_plot, within_groups


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


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be written, laid out."""
    figures = []
    monkeypatch.setattr(plots, "write_figure", lambda path, figure, dpi: figures.append(figure))
    return figures


@pytest.mark.parametrize(("n", "n_groups"), [(1, 1), (4, 2), (16, 2), (45, 4), (300, 10)])
def test_means_are_of_ten_structures_and_no_point_is_hidden(drawn, n, n_groups):
    curve = {"wanted": [0.5, 0.9], "found": [0.0, 1.0]}
    error = np.linspace(0, 1, n)
    uncertainty_plot("x.png", [(error, 1 + error, curve, "eV", "")])
    drawn[0].draw_without_rendering()
    left, right = drawn[0].axes
    assert len(left.lines[0].get_xdata()) == n_groups
    assert not any(artist.get_clip_on() for artist in (*left.lines, *left.collections, right.lines[1]))
    assert left.get_legend().get_window_extent().y0 > left.get_window_extent().y1


def test_titles_of_axes_keep_off_the_edge(drawn):
    values = np.linspace(0, 1, 5)
    panels = [
        [({"test": (values, values, 0.0)}, name, "Å")] for name in ("spread", "spread less its composition's mean")
    ]
    parity_plot("x.png", *panels)
    drawn[0].draw_without_rendering()
    assert all(axes.yaxis.label.get_window_extent().x0 > 0.08 * drawn[0].dpi for axes in drawn[0].axes)
