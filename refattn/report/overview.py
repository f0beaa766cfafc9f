"""What is in a dataset, in numbers and in one picture."""

from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refattn.common.text import in_picture
from refattn.data.store import Dataset
from refattn.errors import DataError
from refattn.report.png import write_figure

N_BINS = 12  # of a histogram in text
N_LABELS = 8  # panels of labels in the picture, four a row
N_ELEMENTS = 16  # bars with names that can be read
STEPS = [1, 2, 5, 10]  # of the numbers at an axis
REASONS_SHOWN = 5
STRUCTURE = "#0072b2"  # blue of Okabe and Ito, which all eyes tell apart from their vermilion
LABEL = "#d55e00"  # vermilion


def describe(dataset: Dataset) -> dict:
    """Facts about a Dataset, as a dict for JSON: origin, counts, elements, neighbours, rule, labels, what was skipped.

    Lengths in Å, angles in sr; `histogram` counts structures or sites by their number of sites or edges.
    """
    sizes = np.diff(dataset.graphs.site_ptr)
    degrees = np.diff(dataset.graphs.edge_ptr)
    facts = {
        **dataset.attrs,
        "structures": len(dataset),
        "sites": int(dataset.graphs.site_ptr[-1]),
        "edges": int(dataset.graphs.edge_ptr[-1]),
        "sites_per_structure": _spread_of_counts(sizes),
        "edges_per_site": _spread_of_counts(degrees),
        "sites_without_neighbours": int((degrees == 0).sum()),
        "distance": {"unit": "Å", **_spread(dataset.graphs.r)},
        "solid_angle": {"unit": "sr", **_spread(dataset.graphs.omega)},
        "elements": dict(_elements(dataset)),
        "graph": {name: getattr(dataset.graph_config, name) for name in ("rule", "r_max", "omega_min", "weight_min")},
        "labels": {name: _label(dataset, name) for name in dataset.labels},
        "arrays": {name: list(values.shape[1:]) for name, values in dataset.arrays.items()},
        "skipped": len(dataset.skipped),
    }
    if dataset.skipped:
        facts["first_skipped"] = dict(dataset.skipped[:REASONS_SHOWN])
    return facts


def histogram(counts: np.ndarray) -> dict[str, int]:
    """Text of a range -> how many of `counts`, (K,) int, are in it: at most N_BINS ranges of equal width."""
    if not len(counts):
        return {}
    first, last = int(counts.min()), int(counts.max())
    width = -(-(last - first + 1) // N_BINS)
    found = np.bincount((counts - first) // width).tolist()
    starts = [first + width * number for number in range(len(found))]
    return {(f"{a}" if width == 1 else f"{a}-{a + width - 1}"): n for a, n in zip(starts, found, strict=True)}


def plot_overview(dataset: Dataset, path: Path | str, name: str) -> None:
    """Draw sizes, neighbours, elements and labels of a Dataset into the PNG `path`.

    Parameters
    ----------
    path : path             appears complete or not at all
    name : str              of the data set, for the title

    Raises DataError for a data set without structures, OutputError when the file cannot be written.
    """
    if not len(dataset):
        raise DataError(f"{name}: holds no structure, so there is nothing to draw; choose another data set")
    known = {label: values[np.isfinite(values)] for label, values in dataset.labels.items()}
    chosen = sorted((label for label in known if len(known[label])), key=lambda label: -len(known[label]))[:N_LABELS]
    n_rows = 1 + -(-len(chosen) // 4)
    figure = Figure(figsize=(15, 3.3 * n_rows + 0.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    axes = figure.subplots(n_rows, 4, squeeze=False).ravel()
    _draw_counts(axes[0], np.diff(dataset.graphs.site_ptr), "sites in a structure", "structures")
    _draw_counts(axes[1], np.diff(dataset.graphs.edge_ptr), "edges of a site", "sites")
    _draw_values(axes[2], dataset.graphs.r, "edge length (Å)", "edges", STRUCTURE)
    _draw_elements(axes[3], _elements(dataset))
    for panel, label in zip(axes[4:], chosen, strict=False):
        unit = dataset.label_attrs[label].get("unit", "")
        _draw_values(panel, known[label], f"{label} ({unit})" if unit else label, "structures", LABEL)
        panel.set_title(f"known for {len(known[label]):,} of {len(dataset):,}", fontsize=10)
    for panel in axes[4 + len(chosen) :]:
        panel.set_axis_off()
    figure.suptitle(_title(dataset, name, len(chosen)), fontsize=12)
    write_figure(path, figure, 110)


def _title(dataset, name, n_labels):
    counts = f"{len(dataset):,} structures, {len(dataset.graphs.z):,} sites, {len(dataset.graphs.nbr):,} edges"
    rule = dataset.graph_config
    second = f"neighbours: {rule.rule} rule, r ≤ {rule.r_max:g} Å, Ω ≥ {rule.omega_min:g} sr, "
    second += f"Ω/Ω$_{{max}}$ ≥ {rule.weight_min:g}"
    if n_labels < len(dataset.labels):
        second += f"; the {n_labels} of {len(dataset.labels)} labels that are known for most structures"
    return f"{in_picture(name)}: {counts}\n{second}"


def _draw_counts(axes, counts, what, of):
    """A bar per number, or for wide ranges per range of numbers."""
    width = -(-int(np.ptp(counts) + 1) // 60)
    first = int(counts.min())
    found = np.bincount((counts - first) // width)
    axes.bar(first + width * np.arange(len(found)) + (width - 1) / 2, found, width=0.85 * width, color=STRUCTURE)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=STEPS, integer=True))
    _finish(axes, what, of)


def _draw_values(axes, values, what, of, colour):
    """A histogram of the values between the 1st and the 999th permille, as far as others are far away."""
    if not len(values):
        axes.text(0.5, 0.5, f"no {of}", transform=axes.transAxes, ha="center", va="center")
        _finish(axes, what, of)
        return
    low, high = np.quantile(values, [0.001, 0.999])
    margin = 0.5 * (high - low)
    inside = values[(values >= low - margin) & (values <= high + margin)]
    axes.hist(inside, bins=min(60, max(10, int(np.sqrt(len(inside))))), color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    _finish(axes, what, of)
    if len(inside) < len(values):
        text = f"{len(values) - len(inside):,} outside"
        axes.text(0.98, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=9)


def _draw_elements(axes, elements):
    shown = sorted(elements, key=lambda pair: -pair[1])[:N_ELEMENTS]
    axes.bar([symbol for symbol, _ in shown], [count for _, count in shown], color=STRUCTURE, log=True)
    axes.set_ylim(bottom=0.7)  # so that a single site has a bar
    axes.tick_params(axis="x", labelsize=8 if len(shown) > 10 else 10)
    left_out = f" (the {N_ELEMENTS} most frequent of {len(elements)})" if len(elements) > len(shown) else ""
    _finish(axes, f"element{left_out}", "sites, log scale")


def _finish(axes, what, of):
    axes.set_xlabel(in_picture(what))
    axes.set_ylabel(of)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS, integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")


def _elements(dataset):
    """(symbol, number of sites) of every element, by atomic number."""
    elements, counts = np.unique(dataset.graphs.z, return_counts=True)
    return [(chemical_symbols[z], int(n)) for z, n in zip(elements, counts, strict=True)]


def _label(dataset, name):
    known = dataset.labels[name][np.isfinite(dataset.labels[name])]
    facts = {"unit": dataset.label_attrs[name].get("unit", ""), "known": len(known)}
    if len(known):
        facts |= {"mean": float(known.mean()), "std": float(known.std())}
        facts |= {"min": float(known.min()), "median": float(np.median(known)), "max": float(known.max())}
    return facts


def _spread(values):
    """Smallest, mean and largest of some numbers; nothing of none."""
    if not len(values):
        return {}
    return {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}


def _spread_of_counts(counts):
    if not len(counts):
        return {}
    ends = {"min": int(counts.min()), "mean": round(float(counts.mean()), 2), "max": int(counts.max())}
    return {**ends, "histogram": histogram(counts)}
