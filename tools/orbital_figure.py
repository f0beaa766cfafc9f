"""The figures of taught attention: HOMO and LUMO of molecules, by a network, by GFN2-xTB and from first principles.

    refattn train qm9_orbitals --data qm9_orbitals.h5 --out RUN
    python tools/orbital_figure.py RUN docs/images/orbitals.png
    python tools/orbital_figure.py molecules-orbitals docs/images/paper.png --authors --method 'b3lyp/6-31g*'

The run has two targets, the HOMO and the LUMO. Geometries are relaxed by GFN2-xTB (extra `xtb`). --authors takes the
molecules that the paper of the network shows (from SMILES, extra `smiles`) instead of six of ours, --method adds a row
by PySCF (extra `pyscf`). Of degenerate orbitals, those of benzene and C60, the mean population is shown: each of them
alone is arbitrary; with --method orbitals within 0.3 eV count as degenerate. What is printed are the energies, and how
the shares of the atoms agree in each pair of rows: total variation, and rank correlation without hydrogen.
"""

import argparse
import io
import itertools
from pathlib import Path
from typing import NamedTuple

import ase
import matplotlib
import numpy as np
from ase.build import molecule
from ase.optimize import BFGS
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image
from scipy.spatial.transform import Rotation

import refattn
from refattn.common.ranks import spearman
from refattn.data.sources.smiles import frame_of_smiles
from refattn.explanation.symmetry import equivalent_sites, symmetrised
from refattn.generate.first_principles import DEGENERATE as NEAR
from refattn.generate.first_principles import orbital_labels
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
ATTENTION = "attention"
CLEAR = 0.7  # Å between atoms on the page
MANY = 20  # sites; of more no number is written


class Column(NamedTuple):
    """A molecule of the figure; shares {(orbital, row): (N,)}, energies {(orbital, row): eV}."""

    atoms: ase.Atoms
    scene: Scene
    shares: dict
    energies: dict


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--authors", action="store_true", help="the molecules of the paper")
    parser.add_argument("--method", help="FUNCTIONAL/BASIS of another row, such as b3lyp/6-31g*")
    arguments = parser.parse_args()
    model = refattn.load(arguments.run)
    columns = []
    for id, atoms in (of_the_paper() if arguments.authors else structures()).items():
        columns.append(column(model, relax(id, atoms, NEAR if arguments.method else DEGENERATE), arguments.method))
        print_column(columns[-1])
    draw(arguments.out, columns)


def column(model, atoms, method):
    """The Column of a molecule with the populations by GFN2-xTB; `method` adds those from first principles."""
    [found] = findings(model, [atoms], compare=True, scores=())
    known = {"GFN2-xTB": (atoms.info, found.populations)}
    if method:
        labels, arrays = orbital_labels(atoms, method)
        classes = equivalent_sites(atoms)
        known = {method.upper(): (labels, {k: symmetrised(x, classes) for k, x in arrays.items()}), **known}
    shares, energies = {}, {}
    for target, orbital in orbitals_of(model).items():
        shares[orbital, ATTENTION] = found.explanations[target].beta
        energies[orbital, ATTENTION] = found.explanations[target].value
        for row, (labels, populations) in known.items():
            positive = np.clip(populations[f"{orbital}_population"], 0, None)
            shares[orbital, row] = positive / positive.sum()
            energies[orbital, row] = labels[orbital]
    return Column(atoms, Scene.of(found.atoms), shares, energies)


def print_column(column):
    """A line for each orbital: energies in eV, and of each pair of rows total variation and rank correlation."""
    heavy = column.atoms.numbers != 1
    for orbital in ("homo", "lumo"):
        rows = [row for of, row in column.shares if of == orbital]
        energies = ", ".join(f"{row} {column.energies[orbital, row]:.2f}" for row in rows)
        pairs = []
        for a, b in itertools.combinations(rows, 2):
            x, y = column.shares[orbital, a], column.shares[orbital, b]
            pairs.append(f"{a}, {b} {distance(x, y):.3f} {spearman(x[heavy], y[heavy]):.2f}")
        print(f"{column.atoms.info['id']}\t{orbital}\t{energies}\t{'; '.join(pairs)}", flush=True)


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


def of_the_paper():
    """{name: ase.Atoms} of the molecules whose attention Vu et al. (2023) show beside orbitals."""
    smiles = {
        "dimethyl fumarate": "COC(=O)/C=C/C(=O)OC",
        "methyl acrylate": "COC(=O)C=C",
        "thymine": "Cc1c[nH]c(=O)[nH]c1=O",
        "dimethylbutadiene": "CC(=C)C(C)=C",
        "cyclohexanol": "OC1CCCCC1",
    }
    return {name: frame_of_smiles(text).atoms for name, text in smiles.items()}


def relax(id, atoms, degenerate):
    """The structure with forces below 0.005 eV/Å, with its energies and populations."""
    atoms.calc = xtb_calculator()
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=200)
    labels, arrays = xtb_labels(atoms, degenerate)
    found = ase.Atoms(atoms.symbols, atoms.positions, info={"id": id, **labels})
    for orbital in ("homo_population", "lumo_population"):
        found.set_array(orbital, arrays[orbital])
    return found


def distance(x, y):
    """Total variation of two distributions over the atoms."""
    return np.abs(x - y).sum() / 2


def draw(path, columns):
    """A column for every molecule, a row for each orbital and who says where it is; one scale of colours."""
    rows = list(columns[0].shares)
    largest = max(values.max() for column in columns for values in column.shares.values())
    norm = BoundaryNorm(np.arange(np.ceil(largest / STEP) + 1) * STEP, 256, extend="neither")
    height = HEAD + len(rows) * PANEL + FOOT
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    widths = widths_of([column.scene for column in columns])
    for number, column in enumerate(columns):
        left = LEFT + widths[:number].sum()
        middle = (left + widths[number] / 2) / WIDTH
        for place, row in enumerate(rows):
            bottom = height - HEAD - (place + 1) * PANEL
            axes = figure.add_axes(
                (left / WIDTH, bottom / height, widths[number] / WIDTH, PANEL / height), aspect="equal"
            )
            panel(axes, column, column.shares[row], norm)
            if row[1] != ATTENTION:
                apart = distance(column.shares[row], column.shares[row[0], ATTENTION])
                style = {"ha": "center", "va": "center", "fontsize": TEXT, "color": SOFT}
                is_beside = rows[place - 1][1] == ATTENTION
                text = f"differ by {apart:.0%}" if is_beside else f"from attention by {apart:.0%}"
                figure.text(middle, (bottom + PANEL) / height, text, **style)
        name = column.atoms.info["id"]
        figure.text(middle, 1 - HEAD / 2 / height, name, ha="center", va="center", fontsize=TEXT + 3, color=INK)
    for place, (orbital, who) in enumerate(rows):
        y = 1 - (HEAD + (place + 0.5) * PANEL) / height
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


def widths_of(scenes):
    """(M,) inches: of molecules as they are long; of a cage, which is drawn smaller, at least 0.72 of the longest."""
    spans = np.array([np.ptp(scene.position, axis=0)[0] + 2 * BALL * scene.radius.max() for scene in scenes])
    flat = max(span for span, scene in zip(spans, scenes, strict=True) if len(scene.position) <= MANY)
    widths = np.clip(spans, 0.72 * flat, flat)
    return widths * (WIDTH - LEFT) / widths.sum()


def panel(axes, column, values, norm):
    """One molecule, its sites coloured by their shares; those of atoms other than hydrogen in per cent."""
    scene = column.scene
    view = next(iter(scene.views.values())) if len(values) > MANY else view_of(scene)
    points = scene.position @ view.T
    low, high = scene.extent(view)
    axes.set_axis_off()
    axes.set(xlim=(low[0] - 0.5, high[0] + 0.5), ylim=(low[1] - 0.5, high[1] + 0.5))
    mapping = matplotlib.cm.ScalarMappable(norm, "viridis")
    is_cage = len(values) > MANY
    shown = points[:, 2] > 0 if is_cage else np.ones(len(values), dtype=bool)  # of a cage the half in front
    for bond in scene.bonds[shown[scene.bonds].all(axis=1)]:
        axes.plot(*points[bond, :2].T, color=BOND, lw=2, zorder=1)
    for site in sorted(np.flatnonzero(shown), key=lambda site: points[site, 2]):
        radius = scene.radius[site] * (1 if is_cage or scene.z[site] == 1 else BALL)
        axes.add_patch(Circle(points[site, :2], radius, fc=mapping.to_rgba(values[site]), ec=INK, lw=0.6, zorder=2))
    if is_cage:
        ends = sorted({f"{100 * end:.1f}" for end in (values.min(), values.max())})
        box = {"fc": "white", "ec": "none", "pad": 1.5, "alpha": 0.85}
        middle = {"transform": axes.transAxes, "ha": "center", "va": "center", "zorder": 3}
        axes.text(0.5, 0.5, f"{' to '.join(ends)} each", fontsize=TEXT - 0.5, bbox=box, **middle)
        return
    for site in np.flatnonzero(column.atoms.numbers != 1):
        colour = mapping.to_rgba(values[site])
        ink = "black" if np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
        style = {"ha": "center", "zorder": 3, "color": ink}
        number = f"{100 * values[site]:.0f}"
        symbol = column.atoms.symbols[site]
        axes.text(*points[site, :2], f"{symbol}\n{number}", va="center", fontsize=TEXT - 0.5, linespacing=0.85, **style)


def view_of(scene):
    """(3, 3) the axes to the right, up and to the viewer: as it lies, or tilted so that no number is hidden."""
    heavy = scene.position[scene.z != 1]

    def nearest(view):
        return min((np.hypot(*(view @ (a - b))[:2]) for a, b in itertools.combinations(heavy, 2)), default=CLEAR)

    tilts = [np.eye(3)]
    for degrees in (15, 30, 45):
        angles = [(x, y, 0) for x in (-degrees, 0, degrees) for y in (-degrees, 0, degrees)]
        tilts += [Rotation.from_euler("xyz", angle, degrees=True).as_matrix() for angle in angles]
    return next((view for view in tilts if nearest(view) >= CLEAR), max(tilts, key=nearest))


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
