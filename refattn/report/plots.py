"""Pictures of a run: the learning curve, the parity plot and of classes the ROC curve."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from refattn.common.metrics import means_of_groups
from refattn.common.text import counted, in_picture
from refattn.report.png import write_figure

DPI = 160
MOST_POINTS = 200_000  # of a part, others are left out of the picture
COLOURS = {"train": "#b0b7c3", "valid": "#e08a3c", "test": "#2b6cb0"}


def learning_curve(path: Path | str, history: list[dict], unit: str) -> None:
    """Mean absolute error over the epochs, on training batches (with dropout) and on the validation set.

    Parameters
    ----------
    path : path of a PNG
    history : list of dict with epoch, train_mae, valid_mae
    """
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(history) < 3 else None
    axes.semilogy(epochs, [r["train_mae"] for r in history], color="#6b7280", marker=marker, label="training batches")
    axes.semilogy(epochs, [r["valid_mae"] for r in history], color=COLOURS["valid"], marker=marker, label="validation")
    best = min(history, key=lambda record: record["valid_mae"])
    axes.plot(best["epoch"], best["valid_mae"], "o", color=COLOURS["valid"], mfc="white", label="best model")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # with numbers at the smaller ones too many would overlap
    axes.yaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"mean absolute error ({in_picture(unit)})" if unit else "mean absolute error")
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False)
    write_figure(path, figure, DPI)


def parity_plot(path: Path | str, targets: list[tuple], within: list[tuple] = ()) -> None:
    """Predictions against labels, of one target beside the other; below them the same within groups.

    Parameters
    ----------
    path : path of a PNG
    targets : list of (parts, name, unit)
        parts : dict of "train", "valid", "test" -> (label (S,), prediction (S,), mae)
    within : list like targets, optional
        labels and predictions less the mean label of their group in training
    """
    rows = [list(targets), *([list(within)] if within else [])]
    figure = Figure(figsize=(4.6 * len(targets), 4.6 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1)  # inches; a long title would touch the edge
    panels = figure.subplots(len(rows), len(targets), squeeze=False)
    for axes, (parts, target, unit) in zip(panels.flat, [panel for row in rows for panel in row], strict=True):
        _draw_parity(axes, parts, target, unit)
    write_figure(path, figure, DPI)


def roc_plot(path: Path | str, targets: list[tuple]) -> None:
    """The share of a class that is found against the share of others that is mistaken for it, for every threshold.

    Parameters
    ----------
    path : path of a PNG
    targets : list of (parts, name)
        parts : dict of "train", "valid", "test" -> (label (S,), probability (S,), auc)
    """
    figure = Figure(figsize=(4.6 * len(targets), 4.6), layout="constrained")
    for axes, (parts, target) in zip(figure.subplots(1, len(targets), squeeze=False).flat, targets, strict=True):
        axes.plot([0, 1], [0, 1], color="0.3", lw=0.8)
        for name, (label, probability, auc) in parts.items():
            thresholds = np.append(np.inf, np.unique(probability)[::-1])
            mistaken, found = (_share_above(probability[label == y], thresholds) for y in (0, 1))
            axes.plot(mistaken, found, color=COLOURS[name], label=f"{name}: AUC {auc:.3f}")
        axes.set_xlabel(in_picture(f"{target}, share of others mistaken for it"))
        axes.set_ylabel(in_picture(f"{target}, share found"))
        axes.set_aspect("equal")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    write_figure(path, figure, DPI)


def _share_above(probability, thresholds):
    """(n,) the share of the probabilities (S,) that is at least each threshold (n,)."""
    return 1 - np.searchsorted(np.sort(probability), thresholds) / len(probability)


def _draw_parity(axes, parts, target, unit):
    every = [values for label, prediction, _ in parts.values() for values in (label, prediction) if len(values)]
    low = min(values.min() for values in every)
    high = max(values.max() for values in every)
    margin = 0.04 * (high - low) or 1.0
    axes.plot([low - margin, high + margin], [low - margin, high + margin], color="0.3", lw=0.8, zorder=1)
    for name, (label, prediction, mae) in parts.items():
        size = 3 if len(label) > 2000 else 9
        if len(label) > MOST_POINTS:
            chosen = np.random.default_rng(0).choice(len(label), MOST_POINTS, replace=False)
            label, prediction = (values[chosen] for values in (label, prediction))
        text = f"{name}: MAE {mae:.3g} {in_picture(unit)}".rstrip()
        axes.scatter(label, prediction, s=size, color=COLOURS[name], lw=0, label=text, zorder=2, rasterized=True)
    suffix = f" ({unit})" if unit else ""
    axes.set_xlabel(in_picture(f"{target}, label{suffix}"))
    axes.set_ylabel(in_picture(f"{target}, prediction{suffix}"))
    axes.set_aspect("equal")
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False, markerscale=2)


def within_groups(parts: dict, columns: dict, summary: dict[str, dict]) -> list[tuple]:
    """Panels for parity_plot: labels and predictions less the mean label of their group, or composition, in training.

    Structures of groups that training lacks have no such mean and no point. Empty where a target has none to show.

    Parameters
    ----------
    parts : dict of name -> refattn.network.evaluate.EvaluatedPart
    columns : dict of name -> list of (label, prediction) of every target, where the label is known
    summary : dict of target -> dict with its unit
    """
    what = "composition" if parts["train"].group is None else "group"
    panels = []
    for k, (target, found) in enumerate(summary.items()):
        groups = {name: getattr(part, what)[~np.isnan(part.label[:, k])] for name, part in parts.items()}
        shown = {}
        for name in ("valid", "test"):
            if name not in parts:
                continue
            known = np.isin(groups[name], groups["train"])
            mean = means_of_groups(groups["train"], columns["train"][k][0], groups[name][known])
            label, prediction = (values[known] - mean for values in columns[name][k])
            if len(label):
                shown[name] = (label, prediction, np.abs(label - prediction).mean())
        if not shown:
            return []
        panels.append((shown, f"{target} less its {what}'s mean", found["unit"]))
    return panels


def uncertainty_plot(path: Path | str, targets: list[tuple]) -> None:
    """Absolute error against uncertainty, and found against wanted coverage, a row for each target.

    The line on the left joins the mean errors of groups of equal size, in the order of their uncertainty: ten, or fewer
    where they would have fewer than ten structures.

    Parameters
    ----------
    path : path of a PNG
    targets : list of (error, uncertainty, curve, unit, name)
        error : (S,) float           in `unit`
        uncertainty : (S,) float     1 is usual; see Conformal
        curve : dict of "wanted", "found" -> list of float
        name : str                   what stands before "absolute error"
    """
    figure = Figure(figsize=(8, 3.8 * len(targets)), layout="constrained")
    for row, target in zip(figure.subplots(len(targets), 2, squeeze=False), targets, strict=True):
        _draw_uncertainty(*row, *target)
    write_figure(path, figure, DPI)


def _draw_uncertainty(left, right, error, uncertainty, curve, unit, name):
    size = 3 if len(error) > 2000 else 9
    top = np.quantile(error, 0.995) * 1.05 or 1.0
    above = error > top
    points = uncertainty[~above], error[~above]
    left.scatter(*points, s=size, color=COLOURS["train"], lw=0, rasterized=True, clip_on=False)
    if above.any():  # at the upper edge, so that nothing is left out unseen
        text = f"{above.sum()} larger, up to {error.max():.3g}"
        at_edge = np.full(above.sum(), top)
        left.scatter(uncertainty[above], at_edge, s=18, marker="^", color=COLOURS["valid"], clip_on=False, label=text)
    n_groups = min(10, max(len(error) // 10, 2), len(error))
    groups = np.array_split(np.argsort(uncertainty, kind="stable"), n_groups)
    means = np.array([[uncertainty[group].mean(), error[group].mean()] for group in groups])
    of = "tenths" if n_groups == 10 else counted(n_groups, "group")
    left.plot(*means.T, "o-", color=COLOURS["test"], clip_on=False, label=f"means of {of}")
    left.set_ylim(0, top)
    left.set_xlabel("uncertainty (1: median of the validation set)")
    title = in_picture(f"{name}absolute error")
    left.set_ylabel(f"{title} ({in_picture(unit)})" if unit else title)
    small = {"fontsize": "small", "columnspacing": 1.2, "borderpad": 0}
    left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, **small)  # over no point
    right.plot([0, 1], [0, 1], color="0.3", lw=0.8)
    right.plot(curve["wanted"], curve["found"], "o-", color=COLOURS["test"], clip_on=False)
    right.set_xlim(0, 1)
    right.set_ylim(0, 1)
    right.set_aspect("equal")
    right.set_xlabel("wanted coverage")
    right.set_ylabel("found coverage")
    for axes in (left, right):
        axes.grid(alpha=0.25)
