"""refattn explain: what predictions rest on, as tables, pictures and pages."""

import math
from collections.abc import Callable
from pathlib import Path

import click

from refattn.cli.options import (
    LeftOut,
    Progress,
    StatusLine,
    as_json,
    cell,
    claim_outputs,
    count_structures,
    device,
    echo,
    note,
    note_of_sources,
    overwrite,
    reading_options,
    refuse_idle,
    row,
    threads,
)
from refattn.cli.validate import validate_scores
from refattn.common.environment import available_cores
from refattn.common.strict_json import to_json
from refattn.common.text import counted
from refattn.data.sources.files import open_files, read_structures
from refattn.explanation.comparison import POPULATIONS
from refattn.explanation.explain import COSTLY, DEFAULT, OF_ADDITIVE_HEAD, SITE_SCORES
from refattn.prediction.predictor import Model, Outside, load
from refattn.prediction.targets import target_number
from refattn.report.chemiscope import MARK, explanation_file, is_chemiscope
from refattn.report.findings import ExplainedStructure, findings
from refattn.report.folder import ReportOptions, ReportWriter, explanation_folder, files_of
from refattn.report.pictures import THEMES
from refattn.validation.study import Settings

OF_FOLDER = ("background", "picture_format", "one_scale", "max_pictures", "max_pages", "pages", "edges")
SHOWN = [*(score.name for score in SITE_SCORES), *POPULATIONS]


def parse_scores(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """Names with commas between, `all` or `none`, as a tuple."""
    names = {"all": COSTLY, "none": ()}.get(text, tuple(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in COSTLY]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(COSTLY)}, all, none")
    return names


def parse_share(context: click.Context, parameter: click.Parameter, text: str) -> float | str:
    """A number from 0 to 1, or `norm`."""
    try:
        share = text if text == "norm" else float(text)
    except ValueError:
        share = -1
    if share != "norm" and not 0 <= share <= 1:
        raise click.BadParameter("write a number from 0 to 1, or norm")
    return share


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, type=click.Path())
@click.option("--out", required=True, type=click.Path(), help="Folder for everything, or a .chemiscope.json.gz alone.")
@click.option(
    "--scores", default=",".join(DEFAULT), callback=parse_scores, help="Costly scores to compute, or all, or none."
)
@click.option("--target", help="Explain this one of several targets; by default all.")
@click.option("--share", default="0.5", callback=parse_share, help="Weight of the residual path, 0 to 1, or norm.")
@click.option("--compare", type=click.Choice(["orbitals"]), help="Add HOMO and LUMO populations: FILES' own, or xTB's.")
@click.option(
    "--method", default="", help="Of --compare: FUNCTIONAL/BASIS (b3lyp/6-31g*; extra pyscf) or gfn2-xtb (extra xtb)."
)
@click.option(
    "--score", multiple=True, type=click.Choice(SHOWN), default=["scaled_beta"], help="Shown; again for another row."
)
@click.option("--background", type=click.Choice([*THEMES]), default="light", help="Behind the pictures.")
@click.option(
    "--picture-format",
    type=click.Choice(["png", "svg", "pdf"]),
    default=ReportOptions.picture_format,
    help="Of the pictures.",
)
@click.option("--one-scale", is_flag=True, help="The same colours for the same numbers in all pictures and pages.")
@click.option(
    "--max-pictures", type=click.IntRange(min=0), default=ReportOptions.max_pictures, help="Draw only the first."
)
@click.option(
    "--max-pages", type=click.IntRange(min=0), default=ReportOptions.max_pages, help="Pages only of the first."
)
@click.option("--pages/--no-pages", default=True, help="Interactive pages.")
@click.option("--edges", is_flag=True, help="Write edges.csv too; explanations.h5 has the edges anyway.")
@click.option("--skip-bad", is_flag=True, help="Leave out structures that cannot be read or explained.")
@reading_options
@overwrite
@click.option("--validate", is_flag=True, help="Test the scores instead, and write a report.")
@click.option("--sample", type=click.IntRange(min=1), default=1000, help="Validate: at most so many structures.")
@click.option("--costly", type=click.IntRange(min=1), default=200, help="Validate: the slow tests on so many of them.")
@threads
@device
@as_json
def explain(run, files, out, scores, share, compare, skip_bad, validate, sample, costly, threads, as_json, **shown):
    """Explain the prediction for every structure in FILES: which of its sites it rests on.

    OUT gets tables (structures.csv, sites.csv, explanations.h5, and explained.extxyz for ASE and OVITO), pictures for
    print, and pages that need no network; open OUT/index.html. Sites are numbered from 0. FILES are read as by predict.

    With --validate OUT gets validation.html and validation.json instead: whether the scores are to be believed, on a
    random sample of structures that RUN was not trained on, of FILES or, without FILES, of the test part of its data.
    RUN may be an ensemble; how far its members agree is then tested too.
    """
    overwrite = shown.pop("overwrite")
    device = shown.pop("device")
    min_distance = shown.pop("min_distance")
    reading = {name: shown.pop(name) for name in ("recursive", "id_from")}
    method = shown.pop("method")
    if method and (validate or not compare):
        raise click.UsageError("--method is of --compare orbitals, without --validate")
    if validate:
        reading |= {"min_distance": min_distance}
        if not files:
            refuse_idle(reading, "without FILES to validate with")
        refuse_idle(("score", *OF_FOLDER), "with --validate")
        of_run = {"n_threads": threads or available_cores(), "target": shown["target"]}
        settings = Settings(scores, share, costly, bool(compare), **of_run)
        validate_scores(run, files, out, sample, settings, skip_bad, device, as_json, overwrite, reading)
        return
    refuse_idle(("sample", "costly"), "without --validate")
    alone = is_chemiscope(out)
    if alone:
        refuse_idle(OF_FOLDER, "on a chemiscope file alone")
    if not shown["pages"]:
        refuse_idle(["max_pages"], "with --no-pages")
    if not files:
        raise click.UsageError("name FILES to explain; only --validate can do without")
    shown["score"] = tuple(dict.fromkeys(shown["score"]))
    if not compare and set(shown["score"]) & POPULATIONS.keys():
        raise click.UsageError("populations are only shown with --compare orbitals")
    scores = tuple(dict.fromkeys([*scores, *(name for name in shown["score"] if name in COSTLY)]))
    model = load(run, device, min_distance)
    model.outside = Outside(model.checkpoints[0])
    target = shown["target"] and model.targets[target_number(model, shown["target"])]
    shown["target"] = target or ""
    missing = [name for name in shown["score"] if name in OF_ADDITIVE_HEAD and model.config.model.head != "additive"]
    if missing:
        raise click.UsageError(f"{missing[0]} is of models with an additive head only; this one has the published head")
    sources = open_files(files, **reading)
    status = StatusLine()
    claim_outputs({Path(out): MARK} if alone else files_of(out, shown["pages"]), run, sources, (), overwrite)
    options = {"method": method, "scores": scores, "share": share, "n_threads": threads, "target": target}
    left_out = LeftOut(status)
    structures = read_structures(sources, target or model.target, left_out if skip_bad else None)
    total = Summary(model, run, out, left_out, target)
    attributes = {"scores": ",".join(scores), "share": share, "compare": method or compare or ""}
    show, options["report"] = progress_of(status, files, skip_bad, reading if method else None)
    folder = explanation_folder(out, model, run, ReportOptions(**shown), attributes, status.line)
    with explanation_file(out, f"{run}, explained") if alone else folder as writer:
        for finding in findings(model, structures, bool(compare), left_out if skip_bad else None, **options):
            writer.add(finding)
            total.add(finding)
            show(total.n, len(left_out.ids))
            if not as_json:
                echo(line_of(finding, shown["score"]))
    note_of_sources(sources)
    for text in (*model.outside.notes(), *total.notes()):
        note(text)
    if as_json:
        echo(to_json(total.record(writer)))
    status.line(total.in_words(writer))


def progress_of(
    status: StatusLine, files: tuple[str, ...], skip_bad: bool, reading: dict | None
) -> tuple[Callable, Callable | None]:
    """A function (explained, left out) that shows both; with `reading`, how FILES are read, of which total and when all
    will be done, and one that shows how far a structure is. They are for structures that take seconds or minutes each:
    FILES are read once more for them."""
    if reading is None:
        return lambda explained, left_out: status.update(counted(explained, "structure")), None
    progress = Progress(status, count_structures(files, skip_bad, **reading), "structure")
    progress.update(0)
    return lambda explained, left_out: progress.update(explained + left_out), progress.detail


def line_of(finding: ExplainedStructure, names: tuple[str, ...]) -> str:
    """Id, prediction, the site where each shown column is largest, and correlations with the populations."""
    parts = []
    for target, e in finding.explanations.items():
        columns = [finding.column_name(name, target) for name in names]
        about = f"{target} " if len(finding.explanations) > 1 else ""
        parts.append(f"{about}{e.value:.6g} {e.unit}".rstrip())
        for name in columns:
            top = finding.top_site(name)
            parts.append(
                f"{name} {'-' if top is None else f'{finding.site_name(top)} {finding.columns[name].values[top]:.4g}'}"
            )
        for (score, population), rho in finding.correlations.items():
            if score == columns[0]:
                parts.append(f"Spearman {population} {cell(None if math.isnan(rho) else rho, '.4g')}")
    return row(finding.id, *parts)


class Summary:
    """What was explained, counted; correlations as means over the structures where they are defined."""

    def __init__(self, model: Model, run: str, out: str, left_out: LeftOut, target: str | None = None):
        unit = model.units[target_number(model, target)] if target else model.unit
        self.names = {"run": str(run), "out": str(out), "target": target or model.target, "unit": unit}
        self.n = 0
        self.left_out = left_out
        self.sums = {}
        self.weak = {}

    def add(self, finding: ExplainedStructure) -> None:
        """Count an ExplainedStructure."""
        self.n += 1
        for name in finding.weak:
            self.weak[name] = self.weak.get(name, 0) + 1
        for key, rho in finding.correlations.items():
            n, total = self.sums.get(key, (0, 0.0))
            self.sums[key] = (n + 1, total + rho) if rho == rho else (n, total)

    def notes(self) -> list[str]:
        """A sentence for every score on which predictions hardly depend."""
        each = [(name, counted(count, "structure")) for name, count in self.weak.items()]
        return [f"note: the predictions of {of} hardly depend on what {name} shows; see its title" for name, of in each]

    def record(self, writer: ReportWriter) -> dict:
        """A dict for JSON."""
        means = {}
        for (score, population), (n, total) in self.sums.items():
            means.setdefault(score, {})[population] = {"n": n, "mean_spearman": total / n if n else None}
        counts = {"structures": self.n, "left_out": self.left_out.ids}
        return {**self.names, **counts, "pictures": writer.n_pictures, "pages": writer.n_pages, "correlation": means}

    def in_words(self, writer: ReportWriter) -> str:
        """The last line for the user."""
        counts = f"{counted(self.n, 'structure')}{self.left_out.in_words()}"
        counts += f", {counted(writer.n_pictures, 'picture')}, {counted(writer.n_pages, 'page')}"
        return f"{counts}, written to {self.names['out']}"
