"""Writes the tables of docs/benchmarks.md and the README from the results of the benchmarks.

    python benchmarks/report.py [--results benchmarks/results/cpu] [--check] [PAGE ...]

What stands between `<!-- benchmark: begin NAME -->` and `<!-- benchmark: end NAME -->` is replaced by the table NAME,
one of those in TABLES. A table whose results are not there is left as it is, and named. Running it again changes
nothing.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from report_tables import TABLES

ROOT = Path(__file__).resolve().parent
PAGES = [ROOT.parent / "docs" / "benchmarks.md", ROOT.parent / "README.md"]
MARK = re.compile(r"(<!-- benchmark: begin (\S+) -->\n)(.*?)(<!-- benchmark: end \2 -->)", re.DOTALL)


class ReportError(Exception):
    """Text without proper markers, or results that cannot be read; the message is one sentence."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=Path, nargs="*", default=PAGES, help="default: docs/benchmarks.md, README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "cpu")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is not up to date")
    arguments = parser.parse_args()
    try:
        results = read_results(arguments.results)
        stale = [page for page in arguments.pages if not fill(page, results, write=not arguments.check)]
    except (OSError, ReportError) as error:
        sys.exit(f"{error}")
    if arguments.check and stale:
        sys.exit(f"{', '.join(map(str, stale))}: not up to date; run benchmarks/report.py")
    for page in arguments.pages:
        print(f"{page}: {'written' if page in stale else 'nothing to change'}")


def fill(page, results, write):
    """Fill the tables of one page, and name those without results; returns whether it was up to date."""
    text = page.read_text(encoding="utf-8")
    new, left = filled(text, results)
    for name in left:
        print(f"{page}, {name}: left as it is, its results are not there", file=sys.stderr)
    if write and new != text:
        page.write_text(new, encoding="utf-8")
    return new == text


def read_results(folder):
    """{section: record} of every JSON file in a folder. Raises ReportError."""
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ReportError(f"{path}: is no JSON ({error}); measure this section again") from None
    return found


def filled(text, results):
    """The text with every table whose results are there, and the names of the others.

    Raises ReportError for a marker without its end, a name that occurs twice, and one that is no table's.
    """
    names = [name for _, name, _, _ in MARK.findall(text)]
    if text.count("<!-- benchmark:") != 2 * len(names):
        raise ReportError("a benchmark marker has no partner; write begin NAME and end NAME, each in a line")
    for name in names:
        if name not in TABLES or names.count(name) > 1:
            raise ReportError(f"the marker {name} is unknown or occurs twice; the tables are {', '.join(TABLES)}")
    left = []

    def table(found):
        head, name, _, tail = found.groups()
        lines = TABLES[name](results)
        if lines is None:
            left.append(name)
            return found.group(0)
        return head + "\n" + "\n".join(lines) + "\n\n" + tail

    return MARK.sub(table, text), left


if __name__ == "__main__":
    main()
