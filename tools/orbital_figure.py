"""The figure of taught attention in the README: HOMO and LUMO of six molecules, by a network and by GFN2-xTB.

    refattn train qm9_orbitals --data qm9_orbitals.h5 --out RUN
    python tools/orbital_figure.py RUN docs/images/orbitals.png

RUN has two targets, the HOMO and the LUMO. Geometries are relaxed by GFN2-xTB (extra `xtb`). Of degenerate orbitals,
those of benzene and C60, the mean population is shown: each of them alone is arbitrary.
"""

import argparse
import io
from pathlib import Path

import ase
import matplotlib
import numpy as np
from ase.build import molecule
from ase.optimize import BFGS
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

import refattn
from refattn.generate.orbitals import xtb_calculator, xtb_labels
from refattn.report.findings import findings
from refattn.report.scene import Scene

INK, SOFT, BOND = "#1b1f24", "#5b6470", "#aab0b8"
WIDTH, DPI = 9.4, 170  # inches, dots an inch
PANEL, HEAD, FOOT, LEFT = 1.46, 0.33, 0.62, 0.75  # inches: a row, the names, the colour bar, the names of the rows
BALL = 1.5  # times the radius of a Scene's ball, so that a number fits; not of hydrogen
TEXT = 9  # pt
STEP = 0.05  # of the colours
COLOURS = 224  # of the palette of the file
DEGENERATE = 0.02  # eV
MANY = 20  # sites; of more no number is written


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model = refattn.load(arguments.run)
    relaxed = [relax(id, atoms) for id, atoms in structures().items()]
    found = list(findings(model, relaxed, compare=True, scores=()))
    draw(arguments.out, found, orbitals_of(model))
    for finding in found:
        known = finding.atoms.info
        for target, orbital in orbitals_of(model).items():
            e = finding.explanations[target]
            apart = distance(e.beta, finding.populations[f"{orbital}_population"])
            print(f"{finding.id}\t{orbital}\t{e.value:.2f} {e.unit}, GFN2-xTB {known[orbital]:.2f} eV\t{apart:.3f}")


def orbitals_of(model):
    """{target: "homo" or "lumo"}."""
    named = {o: [t for t in model.targets if o in t.lower()] for o in ("homo", "lumo")}
    if not all(len(targets) == 1 for targets in named.values()):
        raise SystemExit(f"the run predicts {', '.join(model.targets)}; give one of a HOMO and a LUMO")
    return {targets[0]: orbital for orbital, targets in named.items()}


def structures():
    """{name: ase.Atoms}; formamide and acrolein roughly."""
    formamide = [[0, 0, 0], [1.22, 0, 0], [-0.68, 1.18, 0], [-0.55, -0.95, 0], [-0.17, 2.05, 0], [-1.69, 1.2, 0]]
    acrolein = [[0, 0, 0], [-0.68, 1.15, 0], [1.47, 0, 0], [2.1, -1.05, 0], [-0.53, -0.95, 0], [-1.76, 1.15, 0]]
    acrolein += [[-0.15, 2.1, 0], [2.0, 0.97, 0]]
    return {
        "pyridine": molecule("C5H5N"),
        "furan": molecule("C4H4O"),
        "acrolein": ase.Atoms("CCCOHHHH", acrolein),
        "formamide": ase.Atoms("CONHHH", formamide),
        "benzene": molecule("C6H6"),
        "C60": molecule("C60"),
    }


def relax(id, atoms):
    """The structure with forces below 0.005 eV/Å, with its energies and populations."""
    atoms.calc = xtb_calculator()
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=200)
    labels, arrays = xtb_labels(atoms, DEGENERATE)
    found = ase.Atoms(atoms.symbols, atoms.positions, info={"id": id, **labels})
    for orbital in ("homo_population", "lumo_population"):
        found.set_array(orbital, arrays[orbital])
    return found


def distance(beta, share):
    """Total variation of attention and population."""
    share = np.clip(share, 0, None)
    return np.abs(beta - share / share.sum()).sum() / 2


def draw(path, found, orbitals):
    """A column for every molecule, four rows, one scale of colours."""
    names = [(target, orbital, who) for target, orbital in orbitals.items() for who in ("attention", "GFN2-xTB")]
    largest = max(shares(f, *name).max() for f in found for name in names)
    norm = BoundaryNorm(np.arange(np.ceil(largest / STEP) + 1) * STEP, 256, extend="neither")
    height = HEAD + len(names) * PANEL + FOOT
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    scenes = [Scene.of(finding.atoms) for finding in found]
    spans = [np.ptp(scene.position, axis=0)[0] + 2 * BALL * scene.radius.max() for scene in scenes]
    flat = max(spans[:-1])
    widths = np.array([max(0.72 * flat, min(span, flat)) for span in spans])
    widths *= (WIDTH - LEFT) / widths.sum()
    for number, (finding, scene) in enumerate(zip(found, scenes, strict=True)):
        left = LEFT + widths[:number].sum()
        for row, name in enumerate(names):
            bottom = height - HEAD - (row + 1) * PANEL
            axes = figure.add_axes(
                (left / WIDTH, bottom / height, widths[number] / WIDTH, PANEL / height), aspect="equal"
            )
            panel(axes, finding, scene, shares(finding, *name), norm)
            if name[2] == "attention":
                apart = distance(shares(finding, *name), shares(finding, name[0], name[1], "GFN2-xTB"))
                place = ((left + widths[number] / 2) / WIDTH, bottom / height)
                figure.text(*place, f"differ by {apart:.0%}", ha="center", va="center", fontsize=TEXT, color=SOFT)
        middle = (left + widths[number] / 2) / WIDTH
        figure.text(middle, 1 - HEAD / 2 / height, finding.id, ha="center", va="center", fontsize=TEXT + 3, color=INK)
    for row, (_, orbital, who) in enumerate(names):
        y = 1 - (HEAD + (row + 0.5) * PANEL) / height
        style = {"rotation": 90, "va": "center", "ha": "center", "color": INK}
        figure.text(0.22 / WIDTH, y, orbital.upper(), fontsize=TEXT + 3, weight="bold", **style)
        figure.text(0.52 / WIDTH, y, who, fontsize=TEXT + 1.5, **style)
    colour_bar(figure, norm, height)
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=DPI)
        Image.open(stream).convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def shares(finding, target, orbital, who):
    """(N,) the attention of a target, or the population of its orbital."""
    return finding.explanations[target].beta if who == "attention" else finding.populations[f"{orbital}_population"]


def panel(axes, finding, scene, values, norm):
    """One molecule, its sites coloured by their shares; those of atoms other than hydrogen in per cent."""
    view = next(iter(scene.views.values())) if len(values) > MANY else np.eye(3)
    points = scene.position @ view.T
    low, high = scene.extent(view)
    axes.set_axis_off()
    axes.set(xlim=(low[0] - 0.5, high[0] + 0.5), ylim=(low[1] - 0.5, high[1] + 0.5))
    mapping = matplotlib.cm.ScalarMappable(norm, "viridis")
    is_cage = len(values) > MANY
    shown = points[:, 2] > 0 if is_cage else np.ones(len(values), dtype=bool)  # of a cage the half in front
    for bond in scene.bonds[shown[scene.bonds].all(axis=1)]:
        axes.plot(*points[bond, :2].T, color=BOND, lw=2, zorder=1)
    for site in np.flatnonzero(shown):
        radius = scene.radius[site] * (1 if is_cage or scene.z[site] == 1 else BALL)
        axes.add_patch(Circle(points[site, :2], radius, fc=mapping.to_rgba(values[site]), ec=INK, lw=0.6, zorder=2))
    if is_cage:
        ends = sorted({f"{100 * end:.1f}" for end in (values.min(), values.max())})
        box = {"fc": "white", "ec": "none", "pad": 1.5, "alpha": 0.85}
        middle = {"transform": axes.transAxes, "ha": "center", "va": "center", "zorder": 3}
        axes.text(0.5, 0.5, f"{' to '.join(ends)} each", fontsize=TEXT - 0.5, bbox=box, **middle)
        return
    for site in np.flatnonzero(finding.atoms.numbers != 1):
        colour = mapping.to_rgba(values[site])
        ink = "black" if np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
        style = {"ha": "center", "zorder": 3, "color": ink}
        number = f"{100 * values[site]:.0f}"
        symbol = finding.atoms.symbols[site]
        axes.text(*points[site, :2], f"{symbol}\n{number}", va="center", fontsize=TEXT - 0.5, linespacing=0.85, **style)


def colour_bar(figure, norm, height):
    axes = figure.add_axes((0.36, 0.42 / height, 0.36, 0.13 / height))
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, "viridis"), cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    axes.set_xticks(norm.boundaries[::2])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    axes.tick_params(labelsize=TEXT, colors=INK)
    text = "share of the atom (%)"
    figure.text(0.35, 0.485 / height, text, ha="right", va="center", fontsize=TEXT + 0.5, color=INK)


if __name__ == "__main__":
    main()
