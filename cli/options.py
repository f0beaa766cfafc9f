"""Options and outputs that several commands share.

Nothing that takes long to import is imported before a function needs it, so that --help is quick.
"""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from refattn.common.strict_json import to_json
from refattn.common.text import counted, duration, printable

if TYPE_CHECKING:
    from refattn.common.outputs import Mark
    from refattn.data.parts import Part
    from refattn.network.checkpoint import Checkpoint
    from refattn.prediction.predictor import Predictor

RECENT = 10  # steps of which the time left is the mean
LOG_SECONDS = 60  # between two passing states where stderr is no terminal
DEVICES = ("cpu", "reference", "cuda", "cuda-tf32")  # the last: products in TF32, on a GPU
threads = click.option("--threads", type=click.IntRange(min=1), help="Threads for the shards; default: one per core.")
device = click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="What computes.")
RECURSIVE = click.option("--recursive", is_flag=True, help="Read the folders in a folder too.")
ID_FROM = click.option(
    "--id-from",
    type=click.Choice(["id", "comment"]),
    default="id",
    help="XYZ files without id=: take the first word of the comment line.",
)
MIN_DISTANCE = click.option(
    "--min-distance",
    type=float,
    help="Refuse atoms nearer than this share of their covalent radii together; default: that of RUN, 0: none.",
)


def parse_part(context: click.Context, parameter: click.Parameter, text: str) -> "Part":
    """The Part that K/N names."""
    from refattn.data.parts import Part
    from refattn.errors import ConfigError

    try:
        return text and Part.parse(text)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from None


PART = click.option("--part", callback=parse_part, metavar="K/N", help="Only part K of N, for the jobs of an array.")


def reading_options(command: Callable) -> Callable:
    """The options of commands that read structures for a run."""
    return MIN_DISTANCE(RECURSIVE(ID_FROM(command)))


as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace other files too, but no input; own earlier output is replaced anyway."
)


def refuse_idle(names: Iterable[str], why: str) -> None:
    """Raise UsageError where one of these parameters of the present command was given: it would have no effect."""
    context = click.get_current_context()
    given = [name for name in names if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        option = next(p for p in context.command.params if p.name == given[0])
        name = (option.opts if context.params[option.name] is not False else option.secondary_opts or option.opts)[0]
        raise click.UsageError(f"{name} has no effect {why}; leave it out")


def echo(text: str = "") -> None:
    """Lines of results on stdout, without what a terminal would obey."""
    click.echo(_shown(text))


def note(text: str) -> None:
    """A line for people, on stderr; it is not worth the end of the command where nobody can read it."""
    _note(_shown(text) + "\n")


def _note(text):
    with contextlib.suppress(OSError, ValueError):  # full, gone, closed
        click.echo(text, err=True, nl=False)


def _shown(text):
    """Every line of a text as printable has it; tabs stay."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "\n".join(row(*line.split("\t")) for line in text.split("\n"))


def row(*cells: str) -> str:
    """A line of cells with tabs between; a cell is one whatever characters it has."""
    return "\t".join(cell if cell.isprintable() else printable(cell) for cell in cells)


def note_of_sources(sources: Iterable) -> None:
    """A line for everything else that should be known of what FilesSources have read."""
    for text in (text for source in sources for text in source.notes()):
        note(f"note: {text}")


def note_of_few_scores(model: "Predictor", coverage: float) -> None:
    """For every target whose intervals rest on little, what they can be expected to hold."""
    from refattn.prediction.uncertainty import FEW, held_coverage

    for target, conformal in zip(model.targets, model.conformals, strict=True):
        n = conformal.n_exchangeable
        if n < FEW:
            kind = "structure" if conformal.group is None else "group"
            low, high = held_coverage(n, coverage)
            note(
                f"note: the intervals of {target} rest on {counted(n, f'validation {kind}')}; {coverage:g} were asked "
                f"for, and 9 of 10 sets of that size hold {low:.2f} to {high:.2f}"
            )


def note_of_edits(run: Path | str, checkpoints: "Sequence[Checkpoint]") -> None:
    """A line for every member of a run whose config.toml is not what its model was trained with."""
    from refattn.network.checkpoint import model_file
    from refattn.prediction.ensemble import members_of
    from refattn.prediction.run_directory import notes_on_edits

    for member, checkpoint in zip(members_of(run), checkpoints, strict=False):
        for text in notes_on_edits(model_file(member).parent, checkpoint.config):
            note(text)


class StatusLine:
    """A line on stderr that overwrites itself on a terminal; elsewhere whole lines, for a log."""

    def __init__(self):
        self.terminal = bool(sys.stderr) and sys.stderr.isatty()
        self.width = 0
        self.written = time.monotonic()

    def update(self, text: str) -> None:
        """Show a passing state; where there is no terminal, only LOG_SECONDS after the last line."""
        if self.terminal:
            text = row(text)
            _note("\r" + text.ljust(self.width))
            self.width = len(text)
        elif time.monotonic() - self.written >= LOG_SECONDS:
            self.line(text)

    def line(self, text: str) -> None:
        """Write a line that stays."""
        _note(("\r" if self.terminal else "") + row(text).ljust(self.width) + "\n")
        self.width = 0
        self.written = time.monotonic()


def time_left(times: Sequence[float], n_left: int) -> str:
    """About how long `n_left` steps take, in words, where two or more `times` (s) are those of the last steps' ends."""
    return f"about {duration((times[-1] - times[0]) / (len(times) - 1) * n_left)} left"


class Progress:
    """What is done of a known total, and the time left, in a status line.

    The time is that of the last RECENT steps: what an earlier call has kept on the disk takes none.
    """

    def __init__(self, status: StatusLine, total: int, noun: str):
        self.status = status
        self.total = total
        self.noun = noun
        self.times = collections.deque([time.monotonic()], maxlen=RECENT + 1)
        self.text = ""

    def update(self, n_done: int, about: str = "") -> None:
        """Show that `n_done` are done; `about` comes after the noun."""
        if n_done:
            self.times.append(time.monotonic())
        left = ""
        if len(self.times) > 1 and n_done < self.total:
            left = f", {time_left(self.times, self.total - n_done)}"
        self.text = f"{n_done} of {counted(self.total, self.noun)}{about}{left}"
        self.status.update(self.text)

    def detail(self, text: str) -> None:
        """Show `text` after what is done: how far a step is that takes minutes."""
        self.status.update(f"{self.text}; {text}")


def count_structures(paths: Iterable[Path | str], skip_bad: bool, **options: object) -> int:
    """How many structures read_structures yields of open_files(paths, **options), and with `skip_bad` leaves out.

    All are read for it, so it is for what takes long beside that. Raises what read_structures raises.
    """
    from refattn.data.sources.files import open_files, read_structures

    left_out = []
    skip = (lambda id, error: left_out.append(id)) if skip_bad else None
    return sum(1 for _ in read_structures(open_files(paths, **options), skip=skip)) + len(left_out)


class LeftOut:
    """Called with the id of a structure that is left out and the reason; says so, and counts."""

    def __init__(self, status: StatusLine):
        self.status = status
        self.ids = []

    def __call__(self, id: str, error: Exception) -> None:
        self.ids.append(id)
        self.status.line(f"left out {id}: {str(error).removeprefix(f'{id}: ')}")

    def in_words(self) -> str:
        return f", {len(self.ids)} left out" if self.ids else ""


def claim_outputs(
    outputs: "Mapping[Path, Mark]", run: str | None, sources: Iterable, others: Iterable[str | None], overwrite: bool
) -> None:
    """See refattn.common.outputs.claim; the inputs are the files of a run, those of sources, and others.

    Parameters
    ----------
    run : str or None     a run, an ensemble or a model file
    sources               with a list `files` each
    """
    from refattn.common.outputs import claim
    from refattn.network.checkpoint import calibration_file, model_file
    from refattn.prediction.ensemble import members_of

    inputs = [file for source in sources for file in source.files]
    inputs += [path for path in others if path]
    for member in members_of(run) if run else ():
        inputs += [model_file(member), calibration_file(member)]
    claim(outputs, inputs, overwrite)


def cell(number: float | None, spec: str) -> str:
    """A number of a table; a dash stands for one that is not defined."""
    return "-" if number is None else format(number, spec)


def print_metrics(summary: dict, as_json: bool) -> None:
    """Mean absolute error, root mean square error and R2 of every part, as a table or as JSON."""
    if as_json:
        echo(to_json(summary))
        return
    for found in summary.get("targets", {"": summary}).values():
        if "n_folds" in summary:
            _print_folds(found, summary["n_folds"])
        else:
            _print_target(found)
    if "init" in summary:
        from refattn.report.errors_of_run import sentence_of_origin

        if sentence := sentence_of_origin(summary):
            echo(sentence)


def _print_folds(found, n_folds):
    title = found["target"] + (f" ({found['unit']})" if found["unit"] else "")
    echo(f"{title:<16}{'n':>7} {'MAE':>10} {'spread':>10}  of {counted(n_folds, 'fold')}")
    for name in ("valid", "test"):
        part = found[name]
        each = ", ".join(cell(mae, ".4g") for mae in part["mae_of_folds"])
        echo(f"  {name:<14}{part['n']:>7} {cell(part['mae'], '.4g'):>10} {cell(part['mae_std'], '.4g'):>10}  {each}")
    if "split_by" in found:
        echo(_which_error(found))
    for name, title in (("baseline", "always the training mean"), ("composition", "that of the same composition")):
        if f"{name}_mae" in found:
            echo(f"  {title}: MAE {found[f'{name}_mae']:.4g} on the test parts")


# Heading, key of metrics.json, format and width of what a table of errors has.
COLUMNS = (("MAE", "mae", ".4g", 11), ("RMSE", "rmse", ".4g", 11), ("R2", "r2", ".4f", 10))
CLASS_COLUMNS = (
    ("AUC", "auc", ".4f", 11),
    ("accuracy", "accuracy", ".4f", 11),
    ("cross entropy", "cross_entropy", ".4g", 15),
)


def _print_target(summary):
    title = summary["target"] + (f" ({summary['unit']})" if summary["unit"] else "")
    of_class = any("auc" in summary.get(name, {}) for name in ("train", "valid", "test"))
    columns = CLASS_COLUMNS if of_class else COLUMNS
    echo(f"{title:<16}{'n':>7}" + "".join(f"{head:>{width}}" for head, _, _, width in columns))
    for name in ("train", "valid", "test"):
        if name in summary:
            part = summary[name]
            cells = (f"{cell(part[key], spec):>{width}}" for _, key, spec, width in columns)
            echo(f"  {name:<14}{part['n']:>7}" + "".join(cells))
    if "split_by" in summary:
        _print_split(summary)
    if "composition_auc" in summary:
        auc = cell(summary["composition_auc"], ".4f")
        echo(f"  the share of the same composition in training: AUC {auc} on the test set")
    if "baseline_mae" in summary and not of_class:
        echo(f"  always the training mean: MAE {summary['baseline_mae']:.4g} on the test set")
    if "composition_mae" in summary and not of_class:
        r2 = cell(summary["composition_r2"], ".4f")
        echo(f"  the training mean of the same composition: MAE {summary['composition_mae']:.4g}, R2 against it {r2}")
    if "attention" in summary:
        _print_attention(summary["attention"])
    if "uncertainty" in summary:
        _print_uncertainty(summary["uncertainty"], summary["unit"])
        if "split_by" in summary and not summary["uncertainty"]["by_group"]:
            why = '; data.valid_by = "group" does'
            if summary["valid_by"] == "group":
                why = ": those of the validation part are shared with the training part"
            echo(f"  the test structures are of new groups, for which this promises nothing{why}")


def _which_error(summary):
    known = "other structures of the groups trained on: the random error"
    valid = known if summary["valid_by"] == "random" else "new groups too, which chose the best epoch"
    return f"  valid: {valid}; test: new groups (split_by {summary['split_by']})"


def _print_split(summary):
    """Which of the errors is of more of the same, and which of what is new."""
    echo(_which_error(summary))
    if summary["valid_by"] == "random":
        mae = cell(summary["valid"]["group_mae"], ".4g")
        echo(f"  the training mean of the same group: MAE {mae} on the validation set")


def _print_attention(found):
    """How the attention agrees with what it was taught on every part, and on the last one what others do."""
    from refattn.common.attention_metrics import MEASURES

    parts = [name for name in ("train", "valid", "test") if name in found]
    others = [("element", "element only"), ("even", "untaught: even")]
    rows = [(part, "network", part) for part in parts] + [
        (parts[-1], who, f"{parts[-1]}, {text}") for who, text in others
    ]
    echo(f"  {found['array']:<20}" + "".join(f"{title:>18}" for title in MEASURES.values()))
    for part, who, title in rows:
        if who in found[part]:
            echo(f"    {title:<20}" + "".join(f"{cell(found[part][who][name], '.3f'):>18}" for name in MEASURES))
    shares = [found[parts[-1]].get(who, {}).get("top_1_without_hydrogen") for who in ("network", "element")]
    if None not in shares:
        echo(
            "  the atom with most of it, hydrogen apart: found in {:.0f} %, by the element alone in {:.0f} %".format(
                *(100 * share for share in shares)
            )
        )


def _print_uncertainty(found, unit):
    width = f"{found['mean_width']:.4g} {unit}".rstrip()
    echo(f"  intervals of {found['wanted_coverage']:.4g}: hold {found['coverage']:.4f} of {found['n']} labels")
    echo(f"  they assume that {found['assumption']}")
    echo(f"  mean width {width}, calibration error {cell(found['calibration_error'], '.4f')}")
    echo(f"  rank correlation of error and uncertainty {cell(found['spearman'], '.3f')}")
    if "mean_spread" in found:
        spread = f"{found['mean_spread']:.4g} {unit}".rstrip()
        echo(f"  mean spread {spread}, its rank correlation with the error {cell(found['spearman_spread'], '.3f')}")
