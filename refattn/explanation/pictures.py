"""A picture of an explained structure for print: its sites coloured by scores, from three sides, to one scale.

Orthographic, so that the scale bar holds everywhere. Bonds and outlines fade into the background with depth. The
colour of a site is exact in the front half of a structure; behind it, where a cage or a cluster could not be read
otherwise, it pales. Viridis and RdBu of Matplotlib are told apart with every common kind of colour blindness.
"""

import textwrap
import typing

import matplotlib
import numpy as np
from ase.data import chemical_symbols
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refattn.atomic import replacing
from refattn.explanation.findings import SUBSCRIPTS, in_words
from refattn.explanation.scene import Scene

WIDTH, DPI, INCH = 17.0, 300, 2.54  # cm: two columns of a journal
BAR, TITLE, FOOT, GAP = 3.1, 1.0, 0.75, 0.35  # cm: colour bar with its label, heading, scale bar, between the views
LEAST_ROW, MOST_ROW, MOST_SCALE = 3.0, 6.2, 1.15  # cm, cm, cm/Å
MOST_LETTERS = 80  # drawn atoms
LEAST_LETTER, MOST_LETTER = 4.5, 9.0  # pt
BOND_WIDTH, BOX_WIDTH, BOX_PIECES = 0.09, 0.02, 64  # Å, half of the width; pieces that are sorted by depth
FOG, PALE = 0.65, 0.6  # part of the background in bonds, and in balls, that are farthest away
SHALLOW = 6.0  # Å; a structure that is less deep fades less
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
MAPS = {False: "viridis", True: "RdBu_r"}
ON_CORNER = 0.3  # Å
THUMBNAIL = 240, 160  # pixels


class Theme(typing.NamedTuple):
    """Colours of all that is not a score."""

    background: str
    text: str
    outline: str
    bond: str
    box: str


THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#1b1f24", "#8b929c", "#6b7380"),
    "dark": Theme("#14171c", "#e6e9ed", "#d5dae0", "#7f8791", "#98a1ad"),
}


class Shape(typing.NamedTuple):
    """A polygon of the picture: its depth towards the viewer, corners (k, 2) Å, colours, width of the outline in pt."""

    depth: float
    corners: np.ndarray
    face: tuple
    edge: tuple
    width: float


def picture(path, finding, names, background="light"):
    """Write the picture of a structure: a row for every column of `names`, 17 cm wide, 300 dpi.

    Parameters
    ----------
    path : path of a PNG
    finding : Finding
    names : list of str          columns of the Finding
    background : "light" or "dark"

    Raises OutputError where it cannot be written.
    """
    theme, scene = THEMES[background], Scene.of(finding.atoms)
    rects = [scene.extent(view) for view in scene.views.values()]
    sizes = np.array([high - low for low, high in rects])
    room = WIDTH - BAR - (len(rects) + 1) * GAP
    scale = min(MOST_SCALE, room / sizes[:, 0].sum(), MOST_ROW / sizes[:, 1].max())
    row = max(LEAST_ROW, scale * sizes[:, 1].max() + 2 * GAP)
    height = TITLE + len(names) * row + FOOT
    figure = Figure(figsize=(WIDTH / INCH, height / INCH), dpi=DPI, facecolor=theme.background)
    spare = (room - scale * sizes[:, 0].sum()) / (len(rects) + 1) + GAP
    for number, name in enumerate(names):
        bottom, left = height - TITLE - (number + 1) * row, spare
        for view, rect, size in zip(scene.views.values(), rects, scale * sizes, strict=True):
            place = left, bottom + (row - size[1]) / 2, *size
            _draw(_axes(figure, place, rect), scene, view, finding.columns[name], theme, scale)
            left += size[0] + spare
        _colour_bar(figure, bottom, row, finding, name, names, theme)
    _heading(figure, finding, theme)
    _scale_bar(figure, scale, theme)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=DPI)


def thumbnail(path, finding, name):
    """Write the front view alone, small and without a background; coloured by column `name`."""
    scene = Scene.of(finding.atoms)
    view = scene.views["front"]
    low, high = scene.extent(view)
    scale = float((np.array(THUMBNAIL) / (high - low)).min()) * INCH / DPI
    size = scale * (high - low)
    figure = Figure(figsize=(THUMBNAIL[0] / DPI, THUMBNAIL[1] / DPI), dpi=DPI)
    figure.patch.set_alpha(0)
    grey = Theme("#8b929c", "#8b929c", "#59616c", "#8b929c", "#8b929c")
    place = *(np.array(THUMBNAIL) * INCH / DPI - size) / 2, *size
    _draw(_axes(figure, place, (low, high)), scene, view, finding.columns[name], grey, scale, letters=False)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=DPI)


def colours_of(column):
    """(N, 4) float: the colour of every site; grey where it has no number."""
    colours = ScalarMappable(Normalize(*column.limits), MAPS[column.signed]).to_rgba(np.nan_to_num(column.values))
    colours[~np.isfinite(column.values)] = 0.6, 0.6, 0.6, 1
    return colours


def colour_stops(signed, n=17):
    """n pairs (part of the range, "#rrggbb"), for pages that show the same colours."""
    colours = matplotlib.colormaps[MAPS[signed]](np.linspace(0, 1, n))
    return [[k / (n - 1), matplotlib.colors.to_hex(colour)] for k, colour in enumerate(colours)]


def _axes(figure, place, rect):
    """Empty axes at left, bottom, width, height in cm, which show the rectangle (low, high) in Å."""
    width, height = figure.get_size_inches() * INCH
    axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
    axes.set_axis_off()
    (left, bottom), (right, top) = rect
    axes.set(xlim=(left, right), ylim=(bottom, top))
    return axes


def _draw(axes, scene, view, column, theme, scale, letters=True):
    """The structure in one view, farthest things first."""
    points, colours = scene.position @ view.T, colours_of(column)[scene.site]
    fog = _Fog(points[:, 2], theme.background)
    shapes = [*_balls(scene, points, colours, fog, theme, scale), *_sticks(scene, points, fog, theme)]
    shapes = sorted([*shapes, *_box_lines(scene, points, view, fog, theme)], key=lambda shape: shape.depth)
    _, corners, faces, edges, widths = zip(*shapes)
    collection = PolyCollection(corners, facecolors=faces, edgecolors=edges, linewidths=widths, clip_on=False)
    axes.add_collection(collection, autolim=False)
    if letters:
        _letters(axes, scene, points, colours, scale)
        _names_of_axes(axes, scene, view, theme)


def _names_of_axes(axes, scene, view, theme):
    """a, b and c beyond the ends of the cell vectors, and beyond the balls that sit there."""
    style = {"color": theme.text, "fontsize": 8, "style": "italic", "ha": "center", "va": "center"}
    origin = view @ scene.origin
    for name, end in scene.axes.items():
        ball = scene.radius[np.linalg.norm(scene.position - end, axis=1) < ON_CORNER].max(initial=0)
        point = view @ end
        outwards = point[:2] - origin[:2]
        axes.text(*(point[:2] + (ball + 0.3) * outwards / max(np.linalg.norm(outwards), 1e-9)), name, **style)


class _Fog:
    """Blends a colour into the background by depth, `of_ball` that of a ball in the back half only."""

    def __init__(self, depth, background):
        self.near, self.span, self.deep = depth.max(), max(np.ptp(depth), SHALLOW), np.ptp(depth) > SHALLOW
        self.background = np.array(to_rgb(background))

    def __call__(self, colour, depth):
        return self._blend(colour, FOG * np.clip((self.near - depth) / self.span, 0, 1))

    def of_ball(self, colour, depth):
        return self._blend(colour, PALE * self.deep * np.clip(2 * (self.near - depth) / self.span - 1, 0, 1))

    def _blend(self, colour, part):
        return (*((1 - part) * np.array(to_rgb(colour)) + part * self.background), 1.0)


def _balls(scene, points, colours, fog, theme, scale):
    for point, radius, colour in zip(points, scene.radius, colours):
        width, depth = np.clip(0.06 * _in_points(radius, scale), 0.15, 0.7), point[2]
        corners = point[:2] + radius * CIRCLE
        yield Shape(depth, corners, fog.of_ball(colour, depth), fog(theme.outline, depth), width)


def _sticks(scene, points, fog, theme):
    """Bonds, from where they leave the surface of one ball to that of the other."""
    inside = np.sqrt(scene.radius**2 - BOND_WIDTH**2)
    for i, j in scene.bonds:
        along = (points[j] - points[i]) / np.linalg.norm(points[j] - points[i])
        start, end = points[i] + inside[i] * along, points[j] - inside[j] * along
        if (end - start) @ along > 0:
            depth = (start[2] + end[2]) / 2
            colour = fog(theme.bond, depth)
            yield Shape(depth, _strip(start, end, BOND_WIDTH), colour, colour, 0.0)


def _box_lines(scene, points, view, fog, theme):
    """The edges of the cell, outside the balls."""
    parts = np.linspace(0, 1, BOX_PIECES + 1)[:, None]
    for start, end in scene.box @ view.T:
        corners = start + parts * (end - start)
        middles = (corners[1:] + corners[:-1]) / 2
        free = (np.linalg.norm(middles[:, None] - points, axis=2) > scene.radius).all(axis=1)
        for first, last, depth in zip(corners[:-1][free], corners[1:][free], middles[free, 2]):
            colour = fog(theme.box, depth)
            yield Shape(depth, _strip(first, last, BOX_WIDTH), colour, colour, 0.3)


def _strip(start, end, half_width):
    """(4, 2) Å: corners of a straight strip in the plane of the picture."""
    along = (end - start)[:2]
    normal = np.array([-along[1], along[0]]) * half_width / max(np.linalg.norm(along), 1e-9)
    return np.array([start[:2] + normal, end[:2] + normal, end[:2] - normal, start[:2] - normal])


def _letters(axes, scene, points, colours, scale):
    """Element symbols on the balls that no other ball covers, where they are few and large enough to read.

    None where all are of one element: the formula names it.
    """
    sizes = np.minimum(MOST_LETTER, 1.15 * _in_points(scene.radius, scale))
    if len(points) > MOST_LETTERS or len(set(scene.z)) == 1:
        return
    for i, point in enumerate(points):
        nearer = points[:, 2] > point[2]
        covered = nearer & (np.linalg.norm(points[:, :2] - point[:2], axis=1) < scene.radius + 0.4 * scene.radius[i])
        if sizes[i] < LEAST_LETTER or covered.any():
            continue
        luminance = colours[i, :3] @ (0.299, 0.587, 0.114)
        text, colour = chemical_symbols[scene.z[i]], "black" if luminance > 0.5 else "white"
        size = sizes[i] * (0.85 if len(text) > 1 else 1)
        axes.text(*point[:2], text, color=colour, fontsize=size, ha="center", va="center_baseline")


def _in_points(length, scale):
    """A length in Å, at `scale` cm/Å, in points."""
    return length * scale * 72 / INCH


def _colour_bar(figure, bottom, row, finding, name, names, theme):
    column, (width, height) = finding.columns[name], figure.get_size_inches() * INCH
    length = min(0.82 * row, 4.0)
    place = (WIDTH - BAR + GAP, bottom + (row - length) / 2, 0.28, length)
    axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
    bar = figure.colorbar(ScalarMappable(Normalize(*column.limits), MAPS[column.signed]), cax=axes)
    bar.locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    bar.formatter.set_useOffset(False)
    bar.update_ticks()
    bar.outline.set(edgecolor=theme.text, linewidth=0.5)
    axes.tick_params(labelsize=7, colors=theme.text, width=0.5, length=2.5)
    text = textwrap.fill(column.title, max(14, int(length / 0.15)))
    axes.set_ylabel(text, fontsize=7.5, color=theme.text, parse_math=False)
    rho = finding.correlations.get((names[0], name))
    if rho is not None:
        x, y = GAP / WIDTH, (bottom + row - 0.05) / height
        text = f"Spearman correlation with the first row: {rho:.2f}" if np.isfinite(rho) else ""
        figure.text(x, y, text, color=theme.text, fontsize=7, va="top")


def _heading(figure, finding, theme):
    """Id and formula on the left, prediction and label on the right."""
    explanation, height = finding.explanation, figure.get_figheight() * INCH
    y, name = 1 - 0.4 / height, finding.id if len(finding.id) <= 44 else f"{finding.id[:20]}…{finding.id[-22:]}"
    left = finding.formula if name.translate(SUBSCRIPTS) == finding.formula else f"{name}   {finding.formula}"
    value = in_words(explanation.value, explanation.unit)
    right = f"{explanation.target.replace('_', ' ')}: {value} predicted"
    right += "" if finding.label is None else f", {in_words(finding.label, explanation.unit)} label"
    style = {"color": theme.text, "fontsize": 8.5, "va": "center", "parse_math": False}
    figure.text(GAP / WIDTH, y, left, weight="bold", **style)
    figure.text(1 - GAP / WIDTH, y, right, ha="right", **style)


def _scale_bar(figure, scale, theme):
    """A bar of a round length, about 1.5 cm, at the lower left."""
    height = figure.get_figheight() * INCH
    length = min((1, 2, 5, 10, 20, 50, 100), key=lambda length: abs(np.log(length * scale / 1.5)))
    axes = figure.add_axes((GAP / WIDTH, 0.3 / height, length * scale / WIDTH, 0.06 / height))
    axes.set(xticks=[], yticks=[], facecolor=theme.text)
    for spine in axes.spines.values():
        spine.set_visible(False)
    x = (GAP + length * scale + 0.15) / WIDTH
    figure.text(x, 0.33 / height, f"{length} Å", color=theme.text, fontsize=7, va="center")
