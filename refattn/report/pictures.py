"""A picture of an explained structure for print: its sites coloured by scores, from three sides, to one scale.

Orthographic, so that the scale bar holds everywhere. Bonds and outlines fade into the background with depth. The
colour of a site is exact; only in the back half of a large structure, where a cage could not be read otherwise, it
pales. Printed at half the size, 8.5 cm, the text has 5 pt, which is what journals ask for at least. Viridis and RdBu
of Matplotlib are told apart with every common kind of colour blindness.
"""

import itertools
import math
import re
import textwrap
import typing
from pathlib import Path

import matplotlib
import numpy as np
from ase.data import chemical_symbols
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from refattn.common.text import printable
from refattn.explanation.comparison import POPULATIONS
from refattn.explanation.explain import Explanation
from refattn.report.density import ROOM, Projection, colours_at, density_colours, draw_density
from refattn.report.findings import SUBSCRIPTS, Column, ExplainedStructure, in_words, with_unit
from refattn.report.png import write_figure
from refattn.report.scene import Scene

DPI = 300
INCH = 2.54  # cm, as all lengths down to MAX_ROW
WIDTH = 17.0  # two columns of a journal
BAR = 2.2  # colour bar
TITLE = 1.4  # with one line of predictions
HEAD = 0.6
FOOT = 0.8  # scale bar
GAP = 0.35  # between the views
LABEL = 0.35  # room for the name of an axis
MIN_ROW = 2.6
MAX_ROW = 6.0
MAX_SCALE = 1.15  # cm/Å
LETTER = 10  # pt: text
LINE = 0.42  # cm, from one line of text to the next
NUMBER = 9  # pt: numbers of the colour bar
SMALL = 7.5  # pt: its name
BAR_LINE = 0.28  # cm, from one line of its name to the next
OVER_TICK = 0.25  # from a bar to its name: half the height of the number that may stand at its end
BAR_ROOM = 1.9  # for its name
MIN_BAR = 1.2
MAX_LETTERS = 80  # drawn atoms
MIN_LETTER = 4.5  # pt
SHRINK = (1, 1, 0.85, 0.65, 0.5, 0.42)  # of a text of so many letters
MAX_LETTER = 11.0  # pt
BOND_WIDTH = 0.09  # Å, half of the width
BOX_WIDTH = 0.02  # Å, half of the width
BOX_PIECES = 64  # that are sorted by depth
FOG = 0.65  # part of the background in the bonds that are farthest away
PALE = 0.5  # the same in balls
SHALLOW = 6.0  # Å; a structure that is less deep fades less
FEW = 30  # balls; of fewer none pales
EMPTY = 0.0, 0.0, 0.0, 0.0
CAP = np.linspace(-np.pi / 2, np.pi / 2, 9)  # rad, along the visible half of a stick's end
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
MAPS = {False: "viridis", True: "RdBu_r"}
THUMBNAIL = 240, 160  # pixels


class Theme(typing.NamedTuple):
    """Colours of all that is not a score."""

    background: str
    text: str
    outline: str
    bond: str
    box: str
    density: tuple[str, ...] = ()  # from the lowest contour to the highest


THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#1b1f24", "#8b929c", "#6b7380", ("#fdecd2", "#fbb765", "#e8590c", "#8f2d0e")),
    "dark": Theme("#14171c", "#e6e9ed", "#d5dae0", "#7f8791", "#98a1ad", ("#33231b", "#85401b", "#e0712a", "#ffd9a8")),
}


class Shape(typing.NamedTuple):
    """A polygon of the picture: its depth towards the viewer, corners (k, 2) Å, colours, width of the outline in pt."""

    depth: float
    corners: np.ndarray
    face: tuple
    edge: tuple
    width: float


def picture(path: Path | str, finding: ExplainedStructure, stacks: list[list[str]], background: str = "light") -> None:
    """Write the picture of a structure to a PNG, SVG or PDF, see `drawing`. Raises OutputError."""
    write_figure(path, drawing(finding, stacks, background), DPI)


def drawing(finding: ExplainedStructure, stacks: list[list[str]], background: str = "light") -> Figure:
    """The picture of a structure: a row for every score, 17 cm wide, 300 dpi.

    Parameters
    ----------
    stacks : list of lists of str     columns and projections of the ExplainedStructure, one below the other; several
                                      lists, of one length, stand side by side, and have one view instead of three
    background : "light" or "dark"
    """
    theme = THEMES[background]
    scene = Scene.of(finding.atoms)
    views = list(scene.views.values())[: 1 if len(stacks) > 1 else None]
    names_of_all = itertools.chain(*stacks)
    known = {name: (finding.columns if name in finding.columns else finding.projections)[name] for name in names_of_all}
    beyond = ROOM * any(isinstance(column, Projection) for column in known.values())
    rects = [(low - beyond, high + beyond) for low, high in map(scene.extent, views)]
    sizes = np.array([high - low for low, high in rects])
    gap = GAP + LABEL * bool(scene.axes)
    width = WIDTH / len(stacks)
    room = width - BAR - (len(rects) + 1) * gap
    scale = min(MAX_SCALE, room / sizes[:, 0].sum(), MAX_ROW / sizes[:, 1].max())
    sizes *= scale
    bars = {name: _bar_name(column) for name, column in known.items()}
    row = max(MIN_ROW, sizes[:, 1].max() + 2 * gap, MIN_BAR + max(map(_height_of, bars.values())))
    below = _wrapped(_kept_together(amounts_of_all(finding)), WIDTH - 2 * GAP, LETTER)
    title = TITLE + LINE * below.count("\n")
    headings = [[_row_heading(finding, known, names, row, width) for row in range(len(names))] for names in stacks]
    head = HEAD + LINE * max(text.count("\n") for texts in headings for text in texts)
    n_rows = max(map(len, stacks))
    height = title + n_rows * (head + row) + FOOT
    figure = Figure(figsize=(WIDTH / INCH, height / INCH), dpi=DPI, facecolor=theme.background)
    spare = (room - sizes[:, 0].sum()) / (len(rects) + 1) + gap
    for stack, number in itertools.product(range(len(stacks)), range(n_rows)):
        name = stacks[stack][number]
        column = known[name]
        bottom = height - title - (number + 1) * (head + row)
        left = stack * width + spare
        for seen, (view, rect, size) in enumerate(zip(views, rects, sizes, strict=True)):
            axes = _axes(figure, (left, bottom + (row - size[1]) / 2, *size), rect)
            _draw(axes, scene, view, column, theme, scale, seen)
            left += size[0] + spare
        style = {"color": theme.text, "fontsize": LETTER, "va": "center", "parse_math": False}
        corner = (stack * width + GAP) / WIDTH, (bottom + row + head / 2) / height
        figure.text(*corner, headings[stack][number], **style)
        _colour_bar(figure, (stack + 1) * width - BAR + GAP, bottom, row, column, bars[name], theme)
    _heading(figure, finding, below, theme)
    _scale_bar(figure, scale, theme)
    return figure


def thumbnail(path: Path | str, finding: ExplainedStructure, name: str) -> None:
    """Write the first view alone, small and without a background; coloured by column `name`."""
    scene = Scene.of(finding.atoms)
    view = next(iter(scene.views.values()))
    low, high = scene.extent(view)
    scale = float((np.array(THUMBNAIL) / (high - low)).min()) * INCH / DPI
    size = scale * (high - low)
    figure = Figure(figsize=(THUMBNAIL[0] / DPI, THUMBNAIL[1] / DPI), dpi=DPI)
    figure.patch.set_alpha(0)
    grey = Theme("#8b929c", "#8b929c", "#59616c", "#8b929c", "#8b929c")
    place = *(np.array(THUMBNAIL) * INCH / DPI - size) / 2, *size
    _draw(_axes(figure, place, (low, high)), scene, view, finding.columns[name], grey, scale)
    write_figure(path, figure, DPI)


def colours_of(column: Column) -> np.ndarray:
    """(N, 4) float: the colour of every site; grey where it has no number."""
    colours = _mapping(column).to_rgba(np.nan_to_num(column.values))
    colours[~np.isfinite(column.values)] = 0.6, 0.6, 0.6, 1
    return colours


def _mapping(column):
    return ScalarMappable(Normalize(*column.limits), MAPS[column.signed])


def colour_stops(signed: bool, n: int = 17) -> list:
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


def _draw(axes, scene, view, column, theme, scale, seen=None):
    """The structure in one view, number `seen`, farthest things first; without a number it has no letters.

    On a density there are outlines alone.
    """
    points = scene.position @ view.T
    fog = _Fog(points[:, 2], theme.background)
    is_density = isinstance(column, Projection)
    if is_density:
        draw_density(axes, column, seen, theme.density)
        balls, below = None, colours_at(column, seen, points[:, :2], theme.density, theme.background)
    else:
        balls = below = [fog.of_ball(c, p[2]) for c, p in zip(colours_of(column)[scene.site], points)]
    shapes = [*_balls(scene, points, balls, fog, theme, scale), *_sticks(scene, points, fog, theme, is_density)]
    shapes = sorted([*shapes, *_box_lines(scene, points, view, fog, theme)], key=lambda shape: shape.depth)
    _, corners, faces, edges, widths = zip(*shapes)
    collection = PolyCollection(corners, facecolors=faces, edgecolors=edges, linewidths=widths, clip_on=False)
    axes.add_collection(collection, autolim=False)
    if seen is not None:
        _letters(axes, scene, points, below, scale)
        if scene.axes:
            _names_of_axes(axes, scene, points, view, theme, LABEL / scale)


def _names_of_axes(axes, scene, points, view, theme, room):
    """a, b and c beside the middle of an outer edge of the cell, beyond the balls; `room` for a letter is in Å."""
    style = {"color": theme.text, "fontsize": LETTER, "style": "italic", "ha": "center", "va": "center"}
    edges = (scene.box @ view[:2].T).reshape(len(scene.axes), -1, 2, 2)
    centre = edges.reshape(-1, 2).mean(axis=0)
    for name, (starts, ends) in zip(scene.axes, edges.swapaxes(1, 2)):
        along = (ends[0] - starts[0]) / np.linalg.norm(ends[0] - starts[0])
        outwards = np.array([along[1], -along[0]])
        offsets = ((starts + ends) / 2 - centre) @ outwards
        outer = np.abs(offsets).argmax()
        point = (starts + ends)[outer] / 2
        outwards = outwards * (np.sign(offsets[outer]) or 1)
        steps = point + outwards * np.arange(room / 2, scene.radius.max() + 2 * room, room / 8)[:, None]
        clear = np.linalg.norm(steps[:, None] - points[:, :2], axis=2) > scene.radius + room / 2
        free = clear.all(axis=1)
        axes.text(*steps[free.argmax() if free.any() else -1], name, **style)


class _Fog:
    """Blends a colour into the background by depth, `of_ball` that of a ball in the back half only."""

    def __init__(self, depth, background):
        self.near = depth.max()
        self.span = max(np.ptp(depth), SHALLOW)
        self.pale = PALE * (np.ptp(depth) > SHALLOW and len(depth) > FEW)
        self.background = np.array(to_rgb(background))

    def __call__(self, colour, depth):
        return self._blend(colour, FOG * np.clip((self.near - depth) / self.span, 0, 1))

    def of_ball(self, colour, depth):
        return self._blend(colour, self.pale * np.clip(2 * (self.near - depth) / self.span - 1, 0, 1))

    def _blend(self, colour, part):
        return (*((1 - part) * np.array(to_rgb(colour)) + part * self.background), 1.0)


def _balls(scene, points, colours, fog, theme, scale):
    """The atoms; circles where there are no `colours`."""
    for i, (point, radius) in enumerate(zip(points, scene.radius)):
        width = np.clip(0.06 * _in_points(radius, scale), 0.15, 0.7)
        depth = point[2]
        corners = point[:2] + radius * CIRCLE
        face = EMPTY if colours is None else colours[i]
        yield Shape(depth, corners, face, fog(theme.outline, depth), width)


def _sticks(scene, points, fog, theme, is_empty):
    """Bonds, from where they leave the surface of one ball to that of the other, as round sticks or their outlines."""
    inside = np.sqrt(scene.radius**2 - BOND_WIDTH**2)
    for i, j in scene.bonds:
        along = (points[j] - points[i]) / np.linalg.norm(points[j] - points[i])
        start, end = points[i] + inside[i] * along, points[j] - inside[j] * along
        if (end - start) @ along > 0:
            depth = (start[2] + end[2]) / 2
            face = EMPTY if is_empty else fog(theme.bond, depth)
            yield Shape(depth, _stick(start, end, along), face, fog(theme.outline, depth), 0.3)


def _stick(start, end, along):
    """(18, 2) Å: outline of a stick; its ends are circles, seen as ellipses that bulge outwards."""
    flat = np.linalg.norm(along[:2])
    ahead = along[:2] / max(flat, 1e-9)
    aside = np.array([-ahead[1], ahead[0]])
    cap = BOND_WIDTH * np.sin(CAP)[:, None] * aside + BOND_WIDTH * abs(along[2]) * np.cos(CAP)[:, None] * ahead
    return np.concatenate([end[:2] + cap, start[:2] - cap])


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
    """Element and number of the site, as in the text, on the balls that no other ball covers.

    Only the symbol where both are too small to read, and nothing where that is, or where it is the formula's only one.
    """
    sizes = np.minimum(MAX_LETTER, 1.3 * _in_points(scene.radius, scale))
    if len(points) > MAX_LETTERS:
        return
    alone = len(set(scene.z)) == 1
    for i, point in enumerate(points):
        nearer = points[:, 2] > point[2]
        covered = nearer & (np.linalg.norm(points[:, :2] - point[:2], axis=1) < scene.radius + 0.5 * scene.radius[i])
        if covered.any():
            continue
        symbol = chemical_symbols[scene.z[i]]
        texts = [f"{symbol}{scene.site[i]}", *([] if alone else [symbol])]
        fitting = [text for text in texts if sizes[i] * SHRINK[len(text)] >= MIN_LETTER]
        if not fitting:
            continue
        luminance = np.dot(colours[i][:3], (0.299, 0.587, 0.114))
        colour = "black" if luminance > 0.5 else "white"
        size = sizes[i] * SHRINK[len(fitting[0])]
        axes.text(*point[:2], fitting[0], color=colour, fontsize=size, ha="center", va="center_baseline")


def _in_points(length, scale):
    """A length in Å, at `scale` cm/Å, in points."""
    return length * scale * 72 / INCH


def _bar_name(column):
    """What stands above a colour bar, on lines as wide as there is room."""
    return _wrapped(with_unit(column.name.replace("_", " "), printable(column.unit)), BAR_ROOM, SMALL)


def _height_of(name):
    """Height of the name of a colour bar, and of the room around it, in cm."""
    return OVER_TICK + BAR_LINE * (1 + name.count("\n"))


def _colour_bar(figure, left, bottom, row, column, name, theme):
    width, height = figure.get_size_inches() * INCH
    is_density = isinstance(column, Projection)
    above = _height_of(name)
    length = min(0.76 * row, 4.0, row - above - OVER_TICK)
    place = (left, bottom + (row - length - above) / 2, 0.3, length)
    axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
    mapping = density_colours(column, theme.density) if is_density else _mapping(column)
    bar = figure.colorbar(mapping, cax=axes)
    if is_density:
        bar.set_ticks(column.levels, labels=[f"{level:.4g}" for level in column.levels])
    else:
        bar.locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
        bar.formatter.set_useOffset(False)
        bar.update_ticks()
    bar.outline.set(edgecolor=theme.text, linewidth=0.5)
    axes.tick_params(labelsize=NUMBER, colors=theme.text, width=0.5, length=2.5)
    x, y = (place[0] - 0.1) / width, (place[1] + length + OVER_TICK) / height
    figure.text(x, y, name, color=theme.text, fontsize=SMALL, va="bottom", linespacing=1.05, parse_math=False)


def _row_heading(finding, known, names, row, width):
    """What the row shows, and how it correlates with the first of the scores above it, on lines of `width` cm."""
    name = names[row]
    text = known[name].title
    orbitals = {*POPULATIONS, *finding.densities}
    ends = [n for n in range(row) if names[n] in orbitals and names[n + 1] not in orbitals]
    first = ends[-1] + 1 if ends else 0
    rho = finding.correlations.get((names[first], name), np.nan)
    which = f"row {first + 1}:" if first else "the first row"
    text += "" if np.isnan(rho) else f"; Spearman correlation with {which} {rho:.2f}".replace("-", "−")
    return _wrapped(text, width - 2 * GAP, LETTER)


def _kept_together(text):
    """Text whose lines do not break between a name, its value and the unit."""
    return re.sub(r" (?=[−\d])|(?<=\d) ", "\N{NO-BREAK SPACE}", text)


def _wrapped(text, width, size):
    """Text of `size` pt on lines of at most `width` cm; words that are longer are cut."""
    letters = max(len(text), 1)
    while True:
        lines = textwrap.wrap(text, letters)
        widest = max((_width_of(line, size) for line in lines), default=0)
        if widest <= width or letters == 1:
            return "\n".join(lines)
        letters = max(1, min(letters - 1, int(letters * width / widest)))


def _width_of(line, size):
    """Width of a line of text of `size` pt, in cm."""
    width, *_ = text_to_path.get_text_width_height_descent(line, FontProperties(size=size), ismath=False)
    return width / 72 * INCH


def _heading(figure, finding, below, theme):
    """Id and formula, and below them prediction and label."""
    height = figure.get_figheight() * INCH
    name = printable(finding.id)
    name = name if len(name) <= 44 else f"{name[:20]}…{name[-22:]}"
    above = finding.formula if name.translate(SUBSCRIPTS) == finding.formula else f"{name}   {finding.formula}"
    style = {"color": theme.text, "fontsize": LETTER, "va": "center", "parse_math": False}
    figure.text(GAP / WIDTH, 1 - 0.45 / height, above, weight="bold", **style)
    middle = 0.95 + LINE / 2 * below.count("\n")
    figure.text(GAP / WIDTH, 1 - middle / height, below, **style)


def amounts_of_all(finding: ExplainedStructure) -> str:
    """Every target with its prediction and label in words."""
    return "; ".join(f"{e.target.replace('_', ' ')} {amounts(e, label)}" for e, label in finding.of_targets())


def amounts(explanation: Explanation, label: float | None) -> str:
    """Prediction and label in words, to the same decimal place: four digits of the larger one."""
    values = {"predicted": explanation.value} | ({} if label is None else {"label": label})
    largest = max(map(abs, values.values()))
    places = 3 - math.floor(math.log10(largest)) if math.isfinite(largest) and largest else 3
    if not 0 <= places <= 6:
        return ", ".join(f"{in_words(value, explanation.unit)} {name}" for name, value in values.items())
    texts = (f"{value:.{places}f} {explanation.unit}".rstrip() + f" {name}" for name, value in values.items())
    return ", ".join(texts).replace("-", "−")


def _scale_bar(figure, scale, theme):
    """A bar of a round length, about 1.5 cm, at the lower left."""
    height = figure.get_figheight() * INCH
    length = min((1, 2, 5, 10, 20, 50, 100), key=lambda length: abs(np.log(length * scale / 1.5)))
    axes = figure.add_axes((GAP / WIDTH, 0.3 / height, length * scale / WIDTH, 0.06 / height))
    axes.set(xticks=[], yticks=[], facecolor=theme.text)
    for spine in axes.spines.values():
        spine.set_visible(False)
    x = (GAP + length * scale + 0.15) / WIDTH
    figure.text(x, 0.33 / height, f"{length} Å", color=theme.text, fontsize=NUMBER, va="center")
