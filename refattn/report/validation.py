"""The report of a validation: validation.json with all numbers, validation.html with sentences, tables and figures."""

import html
import itertools
import re
from pathlib import Path

from refattn.common.files import write_text
from refattn.common.strict_json import to_json
from refattn.report.figures import figures
from refattn.report.pages import MARK
from refattn.report.sentences import FAILS, HOLDS, SITES, UNDECIDED, UNTESTED, sentences, title_of, with_error
from refattn.validation.agreement import MEASURES

FILES = ("validation.json", "validation.html")
RECORD = re.compile(rb'\{\n "target": [^\n]*\n "unit": [^\n]*\n "n_runs": ')
MARKS = {FILES[0]: RECORD, FILES[1]: MARK}  # how they begin
CLASSES = {HOLDS: "holds", FAILS: "fails", UNDECIDED: "open", UNTESTED: "open", "": ""}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="refattn">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; --text: #1b1f24; --back: #fff; --soft: #5d6673; --line: #d7dbe0; --holds: #1a7f4b;
  --fails: #b3261e; --open: #5d6673; }}
@media (prefers-color-scheme: dark) {{ :root {{ --text: #e6e9ed; --back: #14171c; --soft: #a3acb8; --line: #333a44;
  --holds: #63c48f; --fails: #f28b82; --open: #a3acb8; }} }}
body {{ margin: 0 auto; max-width: 60rem; padding: 1rem; color: var(--text); background: var(--back);
  font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1.15rem; margin-top: 2rem; }}
h3 {{ font-size: 1rem; margin: 1rem 0 0.3rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 0.2rem 0.7rem; border-bottom: 1px solid var(--line); text-align: right; }}
td {{ white-space: nowrap; }} th:first-child, td:first-child {{ text-align: left; white-space: normal; }}
ul {{ padding-left: 1.2rem; margin: 0.2rem 0; }}
.verdict {{ font-weight: 600; }} .holds {{ color: var(--holds); }} .fails {{ color: var(--fails); }}
.open, .soft {{ color: var(--open); }}
figure {{ margin: 1rem 0; }} figcaption {{ color: var(--soft); }}
img {{ max-width: 100%; background: #fff; border-radius: 6px; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<pre class="soft">{command}</pre>
{body}
<h2>How to read this</h2>
{notes}
</body>
</html>
"""
NOTES = (
    "A score holds beside an orbital where its mean rank correlation is at least 0.3, and exceeds that of the element "
    "alone by more than the 95 % interval of the mean difference over the structures. The element's own score is the "
    "mean population of that element in the other structures. A score that is the same everywhere ranks nothing and "
    "counts as 0. Of signed scores the magnitude is ranked. Populations are averaged over equivalent sites, so that "
    "the choice of one orbital of a degenerate set does not matter.",
    "Deletion and insertion hold where a score's areas are better than those of random orders by more than their 95 % "
    "intervals. A deleted site keeps its place: its neighbours still see something there.",
    "Seeds: holds from a mean rank correlation of 0.8, does not hold below 0.5. Random parameters: holds where less "
    "than 0.3 is left when all parameters are random. Equivalent sites: holds where scores differ by at most 1e-6 of "
    "the largest.",
    "Stability: how much a score changes at most, relative to its size, among five copies whose atoms were displaced "
    "by 0.01 Å (max sensitivity): holds up to 0.1, does not hold above 0.5. Complexity: the entropy of the sites' "
    "shares in a score's magnitude, which is small where few sites have most of it.",
    "A score can hang on the prediction without following any orbital, and the other way round: the two tests ask "
    "different questions.",
)


def write_report(folder: Path | str, record: dict, command: str) -> None:
    """Write validation.json and validation.html into `folder`.

    Parameters
    ----------
    record : dict        of study.validate, of one target or several
    command : str        that made it, for the page

    Raises OutputError.
    """
    text = to_json({**record, "sentences": [sentence._asdict() for sentence in sentences(record)]}, indent=1)
    write_text(Path(folder) / FILES[0], text + "\n")
    title = f"Is the explanation of {record['target'].replace('_', ' ')} to be believed?"
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in NOTES)
    page = PAGE.format(title=html.escape(title), command=html.escape(command), body=body_of(record), notes=notes)
    write_text(Path(folder) / FILES[1], page)


def body_of(record: dict) -> str:
    """Sentences, figures and tables of a study as HTML."""
    each = record.get("targets", {"": record}).items()
    about = {f"{name}: " if name else "": own for name, own in each}
    return "\n".join(part(own, name) for name, own in about.items() for part in (_verdicts, _figures, _tables))


def _heading(about, text):
    """A heading; `about` names the target where there are several."""
    return f"<h2>{html.escape(about + text if about else text[0].upper() + text[1:])}</h2>"


def _verdicts(record, about):
    parts = [_heading(about, "what holds and what does not")]
    for topic, group in itertools.groupby(sentences(record), key=lambda sentence: sentence.topic):
        items = "\n".join(f"<li>{_verdict(s.verdict)}{html.escape(s.text)}</li>" for s in group)
        parts.append(f"<h3>{html.escape(topic[0].upper() + topic[1:])}</h3>\n<ul>\n{items}\n</ul>")
    return "\n".join(parts)


def _verdict(verdict):
    return f'<span class="verdict {CLASSES[verdict]}">{verdict}:</span> ' if verdict else ""


def _tables(record, about):
    parts = []
    for population, by_sites in record["agreement"].items():
        for which, rows in by_sites.items():
            name = population.split("_")[0].upper()
            heads = ["score", *MEASURES.values(), "gain on element"]
            cells = [
                [
                    title_of(score, record),
                    *(with_error(row[measure], 3) for measure in MEASURES),
                    with_error(row["gain_on_element"], 3),
                ]
                for score, row in rows.items()
            ]
            parts += [_heading(about, f"{name} population, {SITES[which]}"), _table(heads, cells)]
    return "\n".join(parts)


def _table(heads, rows):
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "\n".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _figures(record, about):
    parts = [_heading(about, "figures")]
    for caption, png in figures(record):
        text = html.escape(about + caption)
        parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{png}"><figcaption>{text}</figcaption></figure>'
        )
    return "\n".join(parts)
