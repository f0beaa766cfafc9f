"""The figures of a validation report, as PNG inside the page; legible in print at the width of a column."""

import base64
import io
import textwrap

import numpy as np
from matplotlib.figure import Figure

from refattn.common.text import in_picture
from refattn.report.sentences import SITES, title_of
from refattn.validation.agreement import BASELINES
from refattn.validation.faithfulness import STEPS
from refattn.validation.study import UNTRAINED

# Okabe & Ito's colours, which the colour-blind tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
PLAIN = "#9aa1ab"
BLANK = "#d9dce1"
SIZE = {"font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7, "ytick.labelsize": 7}


def figures(record: dict) -> list[tuple[str, str]]:
    """The figures of a study as (caption, PNG in base64)."""
    found = [
        (f"Rank correlation with the {population.split('_')[0].upper()} population", _bars(rows, record))
        for population, rows in record["agreement"].items()
    ]
    found.append(("Deletion and insertion", _curves(record)))
    if record["stability"]:
        found.append(("Agreement between runs of different seeds", _stability(record)))
    if record["randomisation"]["all"]:
        found.append(
            ("Rank correlation with the trained network's score, as its parameters are randomised", _cascade(record))
        )
    return found


def _png(draw, size):
    """Base64 text of what `draw` (figure) draws on a figure of `size` inches."""
    import matplotlib

    with matplotlib.rc_context(SIZE), io.BytesIO() as stream:
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(stream, format="png", dpi=150)
        return base64.b64encode(stream.getvalue()).decode()


def _label(name, record):
    """A score in words, on as many lines as it takes."""
    return textwrap.fill(title_of(name, record), 42)


def _colour(name, record):
    if name in record["titles"]:
        return COLOURS[list(record["titles"]).index(name) % len(COLOURS)]
    return BLANK if name.startswith(UNTRAINED) else PLAIN


def _bars(by_sites, record):
    """Means with their 95 % intervals, a panel for each choice of sites; dots are the runs."""

    def draw(figure):
        panels = figure.subplots(1, len(by_sites), sharex=True, sharey=True, squeeze=False)[0]
        names = list(next(iter(by_sites.values())))[::-1]
        for axes, (which, rows) in zip(panels, by_sites.items(), strict=True):
            for place, name in enumerate(names):
                row = rows[name]["spearman"]
                if row["mean"] is None:
                    continue
                axes.barh(place, row["mean"], xerr=row["error"], color=_colour(name, record), error_kw={"lw": 0.8})
                if len(row["runs"]) > 1:
                    axes.plot(row["runs"], [place] * len(row["runs"]), ".", color="black", ms=3)
            axes.set_title(SITES[which])
            axes.axvline(0, color="0.3", lw=0.6)
            axes.grid(axis="x", alpha=0.3)
        panels[0].set_yticks(range(len(names)), [_label(name, record) for name in names])
        figure.supxlabel("Spearman's rank correlation", fontsize=8)

    return _png(draw, (6.7, 0.6 + 0.28 * len(next(iter(by_sites.values())))))


def _curves(record):
    """Mean change of the prediction over the fraction of sites."""

    def draw(figure):
        panels = figure.subplots(1, 2, sharey=True)
        x = np.linspace(0, 1, STEPS + 1)
        for axes, kind in zip(panels, ("deletion", "insertion"), strict=True):
            for name, row in record["faithfulness"].items():
                style = {"color": "black", "ls": "--"} if name == "random" else {"color": _colour(name, record)}
                style |= {"ls": ":"} if name in BASELINES else {}
                style |= {"color": COLOURS[-1 - list(BASELINES).index(name)]} if name in BASELINES else {}
                axes.plot(x, row[kind]["curve"], lw=1.2, label=title_of(name, record), **style)
            axes.set_title(kind)
            axes.set_xlabel(f"fraction of sites {'deleted' if kind == 'deletion' else 'present'}")
            axes.grid(alpha=0.3)
        unit = f" ({in_picture(record['unit'])})" if record["unit"] else ""
        panels[0].set_ylabel(f"change of the prediction{unit}")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)

    return _png(draw, (6.7, 4.0))


def _stability(record):
    def draw(figure):
        axes = figure.subplots()
        names = list(record["titles"])
        names = [name for name in names if name in next(iter(record["stability"].values()))][::-1]
        for n, (which, rows) in enumerate(record["stability"].items()):
            means = [rows[name]["spearman"]["mean"] for name in names]
            errors = [rows[name]["spearman"]["error"] for name in names]
            place = np.arange(len(names)) + (0.2 - 0.4 * n if len(record["stability"]) > 1 else 0)
            values = [np.nan if mean is None else mean for mean in means]
            width = [0 if error is None else error for error in errors]
            axes.barh(place, values, 0.38, xerr=width, color=COLOURS[n], label=SITES[which], error_kw={"lw": 0.8})
        axes.set_yticks(range(len(names)), [_label(name, record) for name in names])
        axes.set_xlabel("Spearman's rank correlation between two runs")
        axes.set_xlim(min(0, axes.get_xlim()[0]), 1)
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    return _png(draw, (6.7, 2.6))


def _cascade(record):
    def draw(figure):
        axes = figure.subplots()
        numbers = record["randomisation"]
        for name, means in numbers["all"].items():
            values = [1.0, *(np.nan if mean is None else mean for mean in means)]
            axes.plot(values, "o-", ms=3, lw=1.2, color=_colour(name, record), label=title_of(name, record))
        axes.set_xticks(range(len(numbers["stages"]) + 1), ["trained", *numbers["stages"]], rotation=40, ha="right")
        axes.axhline(0, color="0.3", lw=0.6)
        axes.set_ylabel("Spearman's rank correlation")
        axes.set_xlabel("randomised down to")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)

    return _png(draw, (6.7, 3.0))
