"""The picture of the README: one structure, its global attention, a site's local attention, and its contributions.

    refattn train --data pt-graphene --target deformation_energy --epochs 40 --out RUN
    python tools/make_picture.py RUN docs/images/attention.png [--structure Pt9_bridge_1000K-0000]

The structure is one of the built-in set; take one of the test part of the run's split.json.
"""

import argparse
from pathlib import Path

import ase.io
import matplotlib
import numpy as np
from ase.data import chemical_symbols
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

import refattn
import refattn.data.builtin
from refattn.report.scene import Scene

SETS = Path(refattn.data.builtin.__file__).parent / "sets"
INK, BOND, PLAIN = "#1b1f24", "#aab0b8", "#e9ecef"
SIZE, DPI = (10.5, 3.9), 125  # inches, dots an inch
ROOM = 0.3  # Å around the structure
POINTS_OF_BALL = 1150  # area of a ball of 1 Å radius, in points squared


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--structure", default="Pt9_bridge_1000K-0000")
    arguments = parser.parse_args()
    frames = ase.io.iread(SETS / "pt_graphene.extxyz.gz", format="extxyz")
    atoms = next(frame for frame in frames if frame.info["id"] == arguments.structure)
    found = refattn.explain(refattn.load(arguments.run), atoms, scores=("integrated_gradients",))
    draw(arguments.out, atoms, found)


def draw(path, atoms, found):
    """Three panels with the same view."""
    scene = Scene.of(atoms)
    view = next(iter(scene.views.values()))
    points = scene.position @ view.T
    figure = Figure(figsize=SIZE, dpi=DPI)
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.13, top=0.8, wspace=0.02)
    low, high = scene.extent(view)
    for panel in axes:
        panel.set(aspect="equal", xlim=(low[0] - ROOM, high[0] + ROOM), ylim=(low[1] - ROOM, high[1] + ROOM))
        panel.set_axis_off()
        panel.add_collection(LineCollection([points[bond, :2] for bond in scene.bonds], colors=BOND, linewidths=2.2))

    label = atoms.info[found.target]
    figure.suptitle(
        f"{atoms.get_chemical_formula()}: {found.target.replace('_', ' ')} {found.value:.2f} {found.unit} predicted, "
        f"{label:.2f} {found.unit} by GFN2-xTB",
        x=0.02, y=0.985, ha="left", fontsize=11, color=INK,
    )  # fmt: skip
    coloured(axes[0], scene, points, found.scaled_beta, Normalize(0, found.scaled_beta.max()), "viridis")
    caption(axes[0], "global attention  β N", "1 where it is even")
    centre = int(np.argmax(np.abs(found.integrated_gradients)))
    local_attention(axes[1], scene, points, found, centre)
    caption(
        axes[1], "local attention  α", f"of the ringed {chemical_symbols[found.z[centre]]}, last layer, mean of heads"
    )
    largest = np.abs(found.integrated_gradients).max()
    coloured(axes[2], scene, points, found.integrated_gradients, Normalize(-largest, largest), "RdBu_r")
    caption(axes[2], f"integrated gradients ({found.unit})", "red raises the prediction, blue lowers it")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def balls(panel, scene, points, colours):
    """The sites, farthest first."""
    order = np.argsort(points[:, 2])
    panel.scatter(
        points[order, 0], points[order, 1], s=POINTS_OF_BALL * scene.radius[order] ** 2, c=colours[order],
        edgecolors=INK, linewidths=0.6, zorder=3,
    )  # fmt: skip


def coloured(panel, scene, points, values, norm, name):
    """Sites coloured by a score, with its scale below."""
    mapping = matplotlib.cm.ScalarMappable(norm, name)
    balls(panel, scene, points, mapping.to_rgba(values))
    bar = panel.figure.colorbar(mapping, ax=panel, orientation="horizontal", fraction=0.035, pad=0.01, shrink=0.5)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)


def local_attention(panel, scene, points, found, centre):
    """The neighbours of one site, and lines as wide as its attention to them."""
    alpha = found.alpha[-1].mean(axis=1)
    colours = np.array([matplotlib.colors.to_rgba(PLAIN)] * len(points))
    mine = found.edges.site == centre
    norm = Normalize(0, alpha[mine].max())
    for neighbour, share in zip(found.edges.nbr[mine], alpha[mine], strict=True):
        colours[neighbour] = matplotlib.colormaps["viridis"](norm(share))
        panel.add_patch(
            FancyArrowPatch(
                points[neighbour, :2], points[centre, :2], arrowstyle="-", linewidth=1 + 6 * norm(share),
                color=colours[neighbour], zorder=2.5,
            )
        )  # fmt: skip
    balls(panel, scene, points, colours)
    ring = 2.2 * POINTS_OF_BALL * scene.radius[centre] ** 2
    panel.scatter(*points[centre, :2], s=ring, facecolors="none", edgecolors="#c2410c", linewidths=2, zorder=4)
    bar = panel.figure.colorbar(
        matplotlib.cm.ScalarMappable(norm, "viridis"), ax=panel, orientation="horizontal", fraction=0.035, pad=0.01,
        shrink=0.5,
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)


def caption(panel, title, text):
    panel.set_title(f"{title}\n", fontsize=10.5, color=INK, pad=1)
    panel.text(0.5, 1.01, text, transform=panel.transAxes, ha="center", fontsize=8.5, color="#5b6470")


if __name__ == "__main__":
    main()
