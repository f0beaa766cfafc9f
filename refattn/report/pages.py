"""Interactive pages of explained structures, and a page that lists the whole set; they work without a network.

    index.html          a sortable table of all structures
    pages/NAME.html     a structure: rotate it, choose the score, hover over a site for its numbers
    page.css  page.js  list.js     shared by all of them

The data stand in the page itself, because a browser reads no other file for a page that is opened from a disk.
"""

import contextlib
import html
import re
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import numpy as np

from refattn.common.files import replacing, write_text
from refattn.common.strict_json import to_json
from refattn.report.findings import ExplainedStructure, in_words
from refattn.report.pictures import amounts_of_all, colour_stops
from refattn.report.scene import Scene

MARK = re.compile(rb'<!DOCTYPE html>\n[^>]*>\n<head>\n[^>]*>\n<meta name="generator" content="refattn">')  # of a page
OWN_FILES = ("page.css", "page.js", "list.js")
DIGITS = 4  # of a position in Å
HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="refattn">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{root}page.css">
</head>
<body>
"""
PAGE = """<p><a href="../index.html">all structures</a></p>
<h1>{id} <span class="soft">{formula}</span></h1>
<p>{amounts}{picture}</p>
<div class="bar"><label>score <select id="score"></select></label>
<span id="views">view </span> <label><input id="numbered" type="checkbox"> site numbers</label>
<button id="save">save picture</button> <span id="note" class="soft"></span></div>
<div id="plot"><canvas tabindex="0"></canvas><div class="hovertext" hidden></div></div>
<h2>Sites</h2>
<div class="scroll"><table id="sites" class="sortable"></table></div>
<script type="application/json" id="data">{data}</script>
<script src="../page.js"></script>
<script src="../list.js"></script>
</body>
</html>
"""
LIST = """<h1>{title}</h1>
<p class="soft lines">{text}</p>
<div class="bar"><label>find <input id="filter" type="search"></label> <span id="shown" class="soft"></span></div>
<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>
<tbody>
"""
LIST_END = """</tbody></table></div>
<script src="list.js"></script>
</body>
</html>
"""


def write_shared_files(folder: Path) -> None:
    """Write what all pages share into `folder`."""
    web = resources.files("refattn.report") / "web"
    for name in OWN_FILES:
        write_text(folder / name, (web / name).read_text(encoding="utf-8"))


def write_page(path: Path | str, finding: ExplainedStructure, first: str, picture: str | None = None) -> None:
    """Write the page of a structure.

    Parameters
    ----------
    path : path            in a folder beside the shared files
    first : str            the column that is shown first
    picture : str, optional     its picture, as an address relative to the page
    """
    e = finding.explanation
    title = html.escape(f"{e.id} – {', '.join(finding.explanations)}")
    text = HEAD.format(title=title, root="../") + PAGE.format(
        id=html.escape(e.id),
        formula=finding.formula,
        amounts=html.escape(amounts_of_all(finding)),
        picture=f' – <a href="{picture}">picture</a>' if picture else "",
        data=_script_safe(to_json(page_data(finding, first))),
    )
    write_text(path, text)


def page_data(finding: ExplainedStructure, first: str) -> dict:
    """What the page's script draws, a dict for JSON: atoms, bonds, cell, and every column with its colours."""
    scene = Scene.of(finding.atoms)
    columns = finding.columns.values()
    keys = ("name", "text", "unit", "signed", "low", "high", "values")
    rows = ((c.name, c.about, c.unit, c.signed, *c.limits, c.values.tolist()) for c in columns)
    return {
        "elements": finding.atoms.get_chemical_symbols(),
        "site": scene.site.tolist(),
        "position": np.round(scene.position, DIGITS).tolist(),
        "radius": np.round(scene.radius, DIGITS).tolist(),
        "bonds": scene.bonds.tolist(),
        "box": np.round(scene.box, DIGITS).tolist(),
        "views": {name: np.round(view, DIGITS).tolist() for name, view in scene.views.items()},
        "columns": [dict(zip(keys, row, strict=True)) for row in rows],
        "colours": {"plain": colour_stops(False), "signed": colour_stops(True)},
        "first": first,
        "notes": _notes(finding),
    }


def _notes(finding):
    """{score: its correlations with the populations, in words}."""
    notes = {}
    for (score, population), rho in finding.correlations.items():
        notes.setdefault(score, []).append(f"Spearman with {population}: {in_words(rho, '')}")
    return {score: "; ".join(parts) for score, parts in notes.items()}


def _script_safe(text):
    """JSON that cannot end the script element that holds it, whatever an id says."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@contextlib.contextmanager
def list_writer(path: Path | str, title: str, text: str, first: str) -> Iterator[Callable]:
    """A function (ExplainedStructure, links) that adds a structure to the page that lists all of them.

    Parameters
    ----------
    path : path of index.html
    first : str            column whose highest site is named

    links is a dict of "thumbnail", "picture" and "page" -> address; what is missing has no link.
    """
    heads = None
    with replacing(path) as part, open(part, "w", encoding="utf-8") as stream:
        stream.write(HEAD.format(title=html.escape(title), root=""))

        def add(finding, links):
            nonlocal heads
            cells = _cells(finding, links, first)
            if heads is None:
                heads = "".join(_head(name, number) for name, number, _ in cells)
                stream.write(LIST.format(title=html.escape(title), text=html.escape(text), heads=heads))
            stream.write(f"<tr>{''.join(cell for _, _, cell in cells)}</tr>\n")

        yield add
        if heads is None:
            stream.write(LIST.format(title=html.escape(title), text=html.escape(text), heads=_head("id", False)))
        stream.write(LIST_END)


def _head(name, number):
    button = f'<button type="button">{html.escape(name)}</button>' if name else ""
    return f'<th scope="col" class="number">{button}</th>' if number else f'<th scope="col">{button}</th>'


def _cells(finding, links, first):
    """(heading, whether it is a number, cell) of a row of the list."""
    image = f'<img src="{links["thumbnail"]}" alt="" loading="lazy">' if "thumbnail" in links else ""
    name = html.escape(finding.id)
    name = f'<a href="{links["page"]}">{name}</a>' if "page" in links else name
    pictures = f'<a href="{links["picture"]}">picture</a>' if "picture" in links else ""
    cells = [
        ("", False, f"<td>{image}</td>"),
        ("id", False, f'<td class="id">{name}</td>'),
        ("formula", False, f"<td>{finding.formula}</td>"),
        ("sites", True, _number(len(finding.atoms))),
    ]
    for e, label in finding.of_targets():
        cells += _cells_of_target(finding, e, label, finding.column_name(first, e.target))
    return [*cells, ("", False, f"<td>{pictures}</td>")]


def _cells_of_target(finding, e, label, first):
    """The cells of a target: prediction, label, and the site where its column `first` is highest."""
    unit = f" ({e.unit})" if e.unit else ""
    about = f"{e.target.replace('_', ' ')}, " if len(finding.explanations) > 1 else ""
    top = finding.top_site(first)
    error = None if label is None else e.value - label
    cells = [
        (f"{e.target.replace('_', ' ')}, predicted{unit}", True, _number(e.value)),
        (f"{about}label{unit}", True, _number(label)),
        (f"{about}difference{unit}", True, _number(error)),
        (f"{about}top site", False, f"<td>{'' if top is None else finding.site_name(top)}</td>"),
        (first.replace("_", " "), True, _number(None if top is None else finding.columns[first].values[top])),
    ]
    for name in finding.populations:
        rho = _number(finding.correlations.get((first, name)))
        cells.append((f"{about}Spearman, {name.replace('_', ' ')}", True, rho))
    return cells


def _number(value):
    """A cell that sorts by its number; empty where it is None or not defined."""
    if value is None or not np.isfinite(value):
        return '<td class="number" data-value=""></td>'
    text = str(value) if isinstance(value, int) else f"{value:#.4g}".rstrip(".").replace("-", "−")
    return f'<td class="number" data-value="{float(value)!r}">{text}</td>'
