"""The site of these pages: python -m sphinx -W docs site (extra `docs`). -W: a broken link is an error."""

import re
from pathlib import Path

import refattn

project, author = "refattn", "The refattn authors"
version = release = refattn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme, html_title = "furo", "refattn"
html_show_sourcelink = False
html_theme_options = {"light_css_variables": {"code-font-size": "0.75rem"}}  # formulas of 100 characters fit

myst_heading_anchors = 3
# Docstrings are plain text with formulas, such as |s|, that reStructuredText takes for markup of its own.
suppress_warnings = ["docutils", "ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have types and shapes

DOCS, ROOT = Path(__file__).parent, Path(__file__).parents[1]
# Pages whose text stands outside of docs/: a page holds a link to it, in whose line's place it is put.
OUTSIDE = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_source_read(app, docname, content):
    """Put in the text from outside, and keep links inside of the site."""
    text, folder = content[0], (DOCS / docname).parent
    content[0] = inside(text, folder)
    if docname in OUTSIDE:
        source = ROOT / OUTSIDE[docname]
        _, _, rest = text.partition("\n")
        content[0] = inside(source.read_text(encoding="utf-8"), ROOT) + rest


def inside(text, folder):
    """The text of a page, or of one that is put into it, with links from docs/.

    The pages are written to be read in the repository, where a link may lead to any file. On the site it leads to the
    page that is made of that file; where there is none its text stays, without a link.
    """
    pages = {ROOT / file: DOCS / f"{name}.md" for name, file in OUTSIDE.items()}

    def link(found):
        image, words, target, anchor = found[1], found[2], found[3], found[4] or ""
        if "://" in target:
            return found[0]
        place = (folder / target).resolve()
        place = pages.get(place, place)
        return f"{image}[{words}](/{place.relative_to(DOCS)}{anchor})" if place.is_relative_to(DOCS) else words

    return LINK.sub(link, text)


def on_docstring(app, what, name, obj, options, lines):
    """Make a note of a paragraph behind a section, such as "Raises ...", and a section of the fields of a class."""
    starts = [n for n in range(2, len(lines)) if not lines[n - 1].strip() and lines[n][:1].strip()]
    sections = [n for n in starts if lines[n + 1 : n + 2] and lines[n + 1].startswith("---")]
    notes = [n for n in starts if sections and n > sections[0] and n not in sections and " : " not in lines[n]]
    if notes:
        lines[notes[0] : notes[0]] = ["Notes", "-----"]
    fields = [n for n in starts if " : " in lines[n]]
    if what == "class" and fields and not sections:
        lines[fields[0] : fields[0]] = ["Attributes", "----------"]


def setup(app):
    app.connect("source-read", on_source_read)
    app.connect("autodoc-process-docstring", on_docstring, priority=400)  # before that of napoleon
