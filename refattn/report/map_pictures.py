"""Maps as pictures for print, one column of a journal wide: points coloured by a number or by their element.

A step along x is as long as one along y, so that distances can be compared. Viridis of Matplotlib and the eight colours
of Okabe and Ito (Color Universal Design, 2008) are told apart with every common kind of colour blindness.
"""

import collections
import textwrap
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refattn.report.png import METADATA
from refattn.report.projection import Layout

WIDTH = 8.5  # cm
HEIGHT = 7.2  # cm
INCH = 2.54  # cm
DPI = 300
FONT = 8  # pt
SMALL = 7  # pt
LONGEST = 36  # letters beside the colour bar
STEPS = [1, 2, 2.5, 5, 10]  # of ticks
GREY = "#b4b4b4"
# Close to what chemists are used to: carbon black, nitrogen blue, oxygen red, fluorine green, sulfur yellow. A colour
# whose element is not there is lent to another one, the last first.
OWN = {1: "#56b4e9", 6: "#000000", 7: "#0072b2", 8: "#d55e00"}
OWN |= {16: "#f0e442", 17: "#cc79a7", 9: "#009e73", 15: "#e69f00"}
OUTSIDE = 2  # % of the points at each end whose colour is that of the end, so that a few odd ones do not flatten all


def by_colour_bar(path: Path | str, layout: Layout, values: np.ndarray, title: str) -> None:
    """Points coloured by a number; grey, and beneath, where it is NaN.

    Parameters
    ----------
    path : path of a PNG
    layout : Layout              m points
    values : (m,) float or int
    title : str                  of the colour bar
    """
    figure, axes = _axes(layout)
    known = np.isfinite(values)
    axes.scatter(*layout.xy[~known].T, s=_area(len(values)), color=GREY, lw=0, rasterized=True)
    order = np.random.default_rng(0).permutation(np.flatnonzero(known))  # no part of the file hides another
    low, high = limits(values[known])
    points = axes.scatter(
        *layout.xy[order].T, c=values[order], s=_area(len(values)), vmin=low, vmax=high, lw=0, rasterized=True
    )
    beyond = (values[known].min() < low, values[known].max() > high)
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[beyond]
    bar = figure.colorbar(points, ax=axes, extend=extend, aspect=25, pad=0.03)
    bar.locator = MaxNLocator(6, steps=STEPS, integer=np.issubdtype(values.dtype, np.integer))
    bar.formatter.set_useOffset(False)
    bar.update_ticks()
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=SMALL, width=0.5, length=2.5)
    bar.set_label(textwrap.fill(title, LONGEST), fontsize=FONT, parse_math=False)
    _save(figure, path)


def limits(values: np.ndarray) -> tuple[float, float]:
    """(low, high): the ends of the colours, percentiles; a little apart where all values are the same."""
    low, high = np.percentile(values, (OUTSIDE, 100 - OUTSIDE))
    if low == high:
        low, high = values.min(), values.max()
    widen = 0.01 * (abs(low) or 1.0) if low == high else 0.0
    return low - widen, high + widen


def by_element(path: Path | str, layout: Layout, z: np.ndarray) -> None:
    """Points coloured by element, rare elements on top.

    Parameters
    ----------
    path : path of a PNG
    layout : Layout      m points
    z : (m,) int         atomic numbers
    """
    figure, axes = _axes(layout)
    handles = {}
    for number, colour, members in element_groups(z):
        name = chemical_symbols[number] if number else "others"
        handles[number or len(chemical_symbols)] = axes.scatter(
            *layout.xy[members].T, s=_area(len(z)), color=colour, lw=0, label=name, rasterized=True
        )
    legend = figure.legend(
        handles=[handles[key] for key in sorted(handles)], loc="outside upper center", ncols=len(handles),
        fontsize=SMALL, frameon=False, handlelength=1, handletextpad=0.2, columnspacing=0.9,
    )  # fmt: skip
    for handle in legend.legend_handles:
        handle.set_sizes([25])
    _save(figure, path)


def element_groups(z: np.ndarray) -> list[tuple[int, str, np.ndarray]]:
    """What one colour stands for, frequent elements first: a list of (atomic number, colour, numbers of the points).

    The most frequent elements have a colour, their own where OWN names one; all others share grey, under the number 0,
    and come first.
    """
    ranked = [number for number, _ in collections.Counter(z.tolist()).most_common()]
    named = ranked[: len(OWN)]
    others = ranked[len(OWN) :]
    free = [colour for number, colour in OWN.items() if number not in named]
    groups = [(0, GREY, np.flatnonzero(np.isin(z, others)))] if others else []
    for number in named:
        colour = OWN[number] if number in OWN else free.pop()
        groups.append((number, colour, np.flatnonzero(z == number)))
    return groups


def _axes(layout):
    figure = Figure(figsize=(WIDTH / INCH, HEIGHT / INCH), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(layout.axes[0], fontsize=FONT)
    axes.set_ylabel(layout.axes[1], fontsize=FONT)
    axes.tick_params(labelsize=SMALL, width=0.5, length=2.5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
    return figure, axes


def _area(n):
    """Of a point, pt^2, when there are `n`."""
    return float(np.clip(6000 / max(n, 1), 1.0, 16.0))


def _save(figure, path):
    figure.savefig(path, format="png", dpi=DPI, metadata=METADATA["png"])
