"""Two pictures and a table of the comparison, from the JSONs that run.py keeps.

    python benchmarks/accuracy/plot.py [--results benchmarks/results/accuracy] [--out FOLDER]

FOLDER (by default that of the results) gets structures.png, time.png and README.md. The error by the number of
structures is that after ten minutes of two cores, or of a method without a budget; the error by time is that of the
runs on all structures, of a method that cannot take all on the most that it took. Several seeds are a mean and, in the
table, their spread.
"""

import argparse
import json
import statistics
import typing
from pathlib import Path

import matplotlib
from run import METHODS, RESULTS
from sets import SETS

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

EQUAL = 10  # minutes, for all sizes of the training set
OTHERS = (1, 60)  # minutes, for all structures
NAMES = {
    "refattn": "refattn",
    "scann+": "SCANN+ as published",
    "painn": "PaiNN",
    "schnet": "SchNet",
    "painn-16": "PaiNN, batches of 16",
    "schnet-16": "SchNet, batches of 16",
    "alignn": "ALIGNN",
    "soap-krr": "SOAP + kernel ridge",
    "forest": "forest, composition only",
}
COLOURS = dict(
    zip(
        NAMES,
        ("#c0392b", "#e59866", "#1f618d", "#5dade2", "#17a589", "#a9dfbf", "#7d3c98", "#239b56", "#7f8c8d"),
        strict=True,
    )
)
ALIKE = 1.05  # times the smallest error: one seed does not tell what is nearer apart


class Point(typing.NamedTuple):
    """The runs of one method, set, training set and budget: means over their seeds.

    minutes : budget, minutes of two cores, 0: none
    used : minutes of two cores that were used, with preparation
    """

    n_train: int
    minutes: int
    used: float
    valid: float
    test: float
    spread: float | None


def read_results(folder: Path) -> list[dict]:
    """All JSONs of a folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def points(results: list[dict], name: str, method: str) -> dict[tuple[str, int], Point]:
    """{(size as in SETS, minutes): Point} of a method on a set."""
    found = {}
    for result in results:
        if (result["set"], result["method"]) == (name, method):
            found.setdefault((result["n_train"], result["minutes"]), []).append(result)
    return {key: mean_of(runs) for key, runs in found.items()}


def mean_of(runs: list[dict]) -> Point:
    """A Point of runs that differ in their seed only."""
    test = [run["test_mae"] for run in runs]
    return Point(
        n_train=runs[0]["sizes"]["n_train"],
        minutes=runs[0]["minutes"],
        used=statistics.mean((run["prepare_s"] + run["train_s"] / run.get("slowdown", 1)) / 120 for run in runs),
        valid=statistics.mean(run["valid_mae"] for run in runs),
        test=statistics.mean(test),
        spread=statistics.stdev(test) if len(test) > 1 else None,
    )


def by_structures(found: dict[tuple[str, int], Point]) -> dict[str, Point]:
    """{size: the Point of EQUAL minutes, or of a method without a budget}."""
    return {size: point for (size, minutes), point in found.items() if minutes in (0, EQUAL)}


def by_time(found: dict[tuple[str, int], Point]) -> dict[int, Point]:
    """{minutes: Point} on all structures, or on the most that a method without a budget took."""
    if any(minutes for _, minutes in found):
        return {minutes: point for (size, minutes), point in sorted(found.items()) if size == "all"}
    return {0: max(found.values(), key=lambda point: point.n_train)} if found else {}


def table(results: list[dict], name: str) -> str:
    """The Markdown table of a set: test MAE, what is within ALIKE of the smallest of a column in bold."""
    sizes = list(SETS[name].sizes)
    rows = {}
    for method in NAMES:
        found = points(results, name, method)
        if found:
            structures, times = by_structures(found), by_time(found)
            rows[method] = [structures.get(size) for size in sizes] + [times.get(minutes) for minutes in OTHERS]
    best = [min((point.test for point in column if point), default=None) for column in zip(*rows.values(), strict=True)]
    heads = sizes + [f"all, {minutes} min" for minutes in OTHERS]
    lines = [f"| test MAE, {SETS[name].unit} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    for method, row in rows.items():
        cells = [cell(point, smallest) for point, smallest in zip(row, best, strict=True)]
        lines.append(f"| {NAMES[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(point: Point | None, smallest: float | None) -> str:
    """A number of a table."""
    if point is None:
        return "-"
    text = f"{point.test:.4f}" + (f" ± {point.spread:.4f}" if point.spread is not None else "")
    return f"**{text}**" if point.test <= ALIKE * smallest else text


def without_all(found: dict[tuple[str, int], Point]) -> list[tuple[float, float, str]]:
    """(x, y, how many structures) of a method in the picture by time that did not take all of them."""
    if any(size == "all" for size, _ in found):
        return []
    return [(point.used, point.test, f"{point.n_train:,}") for point in by_time(found).values()]


def draw(
    results: list[dict], path: Path, label: str, curve: typing.Callable, notes: typing.Callable = lambda found: []
) -> None:
    """A panel for each set with results; of a method's points `curve` makes (x, y), and `notes` (x, y, text)."""
    names = [name for name in SETS if any(result["set"] == name for result in results)]
    figure, panels = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        for method in NAMES:
            line = sorted(curve(points(results, name, method)))
            if line:
                style = {"lw": 2.5, "zorder": 3} if method == "refattn" else {"lw": 1.2}
                panel.plot(*zip(*line, strict=True), "o-", ms=4, color=COLOURS[method], label=NAMES[method], **style)
            for x, y, text in notes(points(results, name, method)):
                panel.annotate(text, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
        panel.set(xscale="log", yscale="log", xlabel=label, title=f"{name} ({SETS[name].unit})")
        for axis, places in ((panel.xaxis, (1, 3)), (panel.yaxis, (1, 2, 3, 5))):
            axis.set_major_locator(LogLocator(subs=places))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3, which="both", lw=0.5)
    panels[0][0].set_ylabel("test MAE")
    handles = {text: line for panel in panels[0] for line, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.17, 1, 1))
    figure.savefig(path, dpi=100)
    plt.close(figure)


def report(results: list[dict]) -> str:
    """The page: pictures, a table of each set, and what was run."""
    lines = ["# How well it learns, beside other methods", "", "![by structures](structures.png)", ""]
    lines += ["![by time](time.png)", "", "Written by `benchmarks/accuracy/plot.py`; how it is measured stands in", ""]
    lines[-2] += " [benchmarks/accuracy](../../accuracy/README.md). Minutes are those of two cores that are used fully,"
    lines[-2] += (
        f" {EQUAL} where none are named, run on one core; kernel ridge and forest take what they take. A dash: not run."
    )
    lines[-2] += " One seed where there is no ±: errors within 5 % of the smallest, all in bold, are not told apart."
    for name in SETS:
        if any(result["set"] == name for result in results):
            lines += [f"## {name}", "", table(results, name), ""]
    versions = {
        method: {r["method"]: r for r in results}[method]["versions"]
        for method in METHODS
        if any(r["method"] == method for r in results)
    }
    lines += ["## Versions", ""]
    lines += [
        f"- {NAMES[method]}: {', '.join(f'{k} {v}' for k, v in found.items())}" for method, found in versions.items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    out = asked.out or asked.results
    results = read_results(asked.results)
    draw(
        results,
        out / "structures.png",
        "training structures",
        lambda found: [(p.n_train, p.test) for p in by_structures(found).values()],
    )
    draw(
        results,
        out / "time.png",
        "minutes of two cores",
        lambda found: [(p.used, p.test) for p in by_time(found).values()],
        without_all,
    )
    (out / "README.md").write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
