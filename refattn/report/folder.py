"""The folder that `refattn explain` writes: tables of all structures, pictures and pages of the first ones.

    structures.csv  sites.csv  edges.csv  explained.extxyz  explanations.h5      see tables.py
    pictures/NAME.png, .svg or .pdf                                             see pictures.py
    index.html  pages/NAME.html  thumbnails/NAME.png  and what they share       see pages.py

Every file appears complete or not at all. Those that hold all structures appear when all are done, or when something
goes wrong that is not theirs: then with the structures before it. What is left of an earlier call goes last.
"""

import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import refattn
from refattn.common.files import make_directory
from refattn.common.limits import OCCLUDED_SITES, PICTURE_SITES
from refattn.common.outputs import Mark, is_output, remove_earlier
from refattn.common.strict_json import to_json
from refattn.common.text import counted, encodable, first_free
from refattn.errors import OutputError
from refattn.prediction.predictor import Model
from refattn.prediction.targets import target_number
from refattn.report import png
from refattn.report.errors_of_run import errors_of_run
from refattn.report.findings import ExplainedStructure, share_limits
from refattn.report.pages import MARK, OWN_FILES, list_writer, write_page, write_shared_files
from refattn.report.pictures import picture, thumbnail
from refattn.report.tables import MARKS, tables

UNDRAWN = f"pictures and pages are of structures of up to {PICTURE_SITES} (REFATTN_PICTURE_SITES)"
UNOCCLUDED = f"occlusion and removal are of structures of up to {OCCLUDED_SITES} sites (REFATTN_OCCLUDED_SITES)"
LONGEST = 60  # characters of a file's name
BESIDE = 2  # stacks of a picture
DRAWN = ("pictures", "pages", "thumbnails")  # folders


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What the folder shows.

    score : tuple of str                columns that pictures and pages show first; a picture has a row for each
    background : "light" or "dark"      of the pictures; pages follow the reader's system
    max_pictures, max_pages : int       so many of the first structures have one
    picture_format : str                png, svg or pdf
    one_scale : bool                    whether the colours are the same in all structures, which are drawn at the end
    target : str                        the one that is explained, of several; empty: all
    pages, edges : bool                 whether there are pages, and edges.csv
    """

    score: tuple[str, ...] = ("scaled_beta",)
    background: str = "light"
    max_pictures: int = 20
    max_pages: int = 200
    picture_format: str = "png"
    one_scale: bool = False
    target: str = ""
    pages: bool = True
    edges: bool = False


def files_of(folder: Path | str, pages: bool = True) -> dict[Path, Mark]:
    """The files that hold all structures or serve all pages, and how they begin."""
    shared = dict.fromkeys(OWN_FILES, re.compile(rb".*`refattn explain`"))
    marks = {**MARKS, **({"index.html": MARK, **shared} if pages else {})}
    return {Path(folder) / name: mark for name, mark in marks.items()}


def _earlier_files(folder):
    """What an earlier call left in the folder; pictures and pages are only looked for beside its other files."""
    found = [path for path, mark in files_of(folder).items() if path.is_file() and is_output(path, mark)]
    drawn = [path for name in DRAWN for path in folder.glob(f"{name}/*")] if found else []
    return found + [path for path in drawn if _is_own(path)]


def _is_own(path):
    """Whether a file is a picture or page of explanations."""
    return path.is_file() and (is_output(path, MARK) if path.suffix == ".html" else png.is_own(path))


@contextlib.contextmanager
def explanation_folder(
    folder: Path | str,
    model: Model,
    run: Path | str,
    shown: ReportOptions,
    attributes: dict,
    note: Callable[[str], None],
) -> "Iterator[ReportWriter]":
    """A ReportWriter, whose `add` takes one ExplainedStructure after the other.

    Parameters
    ----------
    run : path                 of the model, for the record
    attributes : dict          of explanations.h5, more of them
    note : callable            takes a sentence for the user

    Raises OutputError where the folder cannot be written.
    """
    folder = Path(folder)
    earlier = _earlier_files(folder)
    for name in ("", *(DRAWN if shown.pages else DRAWN[:1])):
        make_directory(folder / name)
    rule = to_json(dataclasses.asdict(model.config.graph))
    targets = [shown.target] if shown.target else list(model.targets)
    units = [model.units[target_number(model, target)] for target in targets]
    target, unit = (names[0] if len(names) == 1 else names for names in (targets, units))
    record = {"target": target, "unit": unit, "run": encodable(run), "neighbour_rule": rule}
    record |= {"created_by": f"refattn {refattn.__version__}", **attributes}
    with contextlib.ExitStack() as stack:
        writer = ReportWriter(folder, shown, note, stack.enter_context(tables(folder, record, shown.edges)))
        if shown.pages:
            write_shared_files(folder)
            title = f"{', '.join(targets).replace('_', ' ')}, explained"
            text = f"Predicted by {run}.\n{errors_of_run(run, targets)}"
            writer.list = stack.enter_context(list_writer(folder / "index.html", title, text, shown.score[0]))
        stopped = None
        try:
            yield writer
            writer.draw_waiting()
        except BaseException as error:
            if not writer.n_done or not writer.is_whole or isinstance(error, OSError | OutputError):
                raise
            stopped = error
    left_out = set() if shown.edges else {folder / "edges.csv"}
    written = files_of(folder, shown.pages).keys() - left_out
    remove_earlier(earlier, [*written, *writer.drawn])
    if stopped:
        note(f"the tables in {folder} hold the {counted(writer.n_done, 'structure')} before what went wrong")
        raise stopped


class ReportWriter:
    """Adds structures to the tables, draws the first of them, and lists all.

    n_done, n_pictures, n_pages : int     how many there are so far
    drawn : list of pathlib.Path          pictures, pages and thumbnails
    is_whole : bool                       whether the tables end with a whole structure
    """

    def __init__(
        self,
        folder: Path,
        shown: ReportOptions,
        note: Callable[[str], None],
        add_to_tables: Callable[[ExplainedStructure], None],
    ):
        self.folder = folder
        self.shown = shown
        self.note = note
        self.add_to_tables = add_to_tables
        self.list = None
        self.names = set()
        self.waiting = []
        self.drawn = []
        self.n_done = 0
        self.is_whole = True
        self.n_pictures = 0
        self.n_pages = 0

    def add(self, finding: ExplainedStructure) -> None:
        """Add a structure to everything."""
        self.is_whole = False
        self.add_to_tables(finding)
        self.is_whole = True
        self.n_done += 1
        links = {}
        name = None
        n_sites = len(finding.atoms)
        is_drawn = n_sites <= PICTURE_SITES  # what hides what costs the square of it
        if not is_drawn:
            self.note(f"{finding.id}: has {n_sites} sites; it is in the tables, but {UNDRAWN}")
        asked = any(x.occlusion is not None or x.removal is not None for x in finding.explanations.values())
        if asked and n_sites > OCCLUDED_SITES:
            self.note(f"{finding.id}: {UNOCCLUDED}")
        for e in finding.explanations.values():
            if e.settled is False:
                self.note(
                    f"{finding.id}: the integrated gradients of {e.target} are not settled after {e.n_nodes} nodes: "
                    f"their sum misses {abs(e.completeness_error):.2%} of what they explain (REFATTN_PATH_SITES)"
                )
        if is_drawn and self._within("pictures", self.n_pictures, self.shown.max_pictures):
            name = self._name_for(finding.id)
            self.n_pictures += 1
            links["picture"] = f"pictures/{name}.{self.shown.picture_format}"
        if self.list and is_drawn and self._within("pages", self.n_pages, self.shown.max_pages):
            name = name or self._name_for(finding.id)
            self.n_pages += 1
            links |= {"page": f"pages/{name}.html", "thumbnail": f"thumbnails/{name}.png"}
        self.drawn += [self.folder / link for link in links.values()]
        if self.shown.one_scale and links:
            self.waiting.append((finding, links))
        else:
            self._draw(finding, links)
        if self.list:
            self.list(finding, links)

    def draw_waiting(self) -> None:
        """Draw what waited for the scale that all have."""
        share_limits([finding.columns for finding, _ in self.waiting])
        share_limits([finding.projections for finding, links in self.waiting if "picture" in links])
        for finding, links in self.waiting:
            self._draw(finding, links)

    def _draw(self, finding, links):
        """The picture and the page of a structure, as far as it has them."""
        if "picture" in links:
            stacks = stacks_of(finding, self.shown.score)
            picture(self.folder / links["picture"], finding, stacks, self.shown.background)
        if "page" in links:
            column = finding.column_name(self.shown.score[0], finding.explanation.target)
            thumbnail(self.folder / links["thumbnail"], finding, column)
            beside = f"../{links['picture']}" if "picture" in links else None
            write_page(self.folder / links["page"], finding, column, beside)

    def _within(self, what, done, limit):
        """Whether one more is drawn; says so once when not, unless none was wanted."""
        if done == limit > 0 and what not in self.names:
            self.names.add(what)  # a name with no suffix, which no file has
            self.note(f"{what} only of the first {limit}; the tables hold all (see --max-{what})")
        return done < limit

    def _name_for(self, id):
        """A file name, without suffix, that no other structure has, on systems that do not tell cases apart either."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", id).strip("._")[-LONGEST:] or "structure"
        name = first_free(plain, lambda name: f"{name.lower()}." not in self.names and self._is_free(name))
        self.names.add(f"{name.lower()}.")
        return name

    def _is_free(self, name):
        """Whether pictures and pages of that name would replace nothing but earlier ones."""
        files = (f"pictures/{name}.{self.shown.picture_format}", f"pages/{name}.html", f"thumbnails/{name}.png")
        return all(not os.path.lexists(self.folder / file) or _is_own(self.folder / file) for file in files)


def stacks_of(finding: ExplainedStructure, scores: Iterable[str]) -> list[list[str]]:
    """What a picture shows: the scores of each target, and below them the orbital that it is about: its population, and
    its density where there is one.

    Targets that each have such an orbital stand side by side, as HOMO and LUMO; else there is one stack.
    """
    densities = [f"{name.split('_')[0]}_density" for name in finding.populations]
    pairs = itertools.chain(*zip(finding.populations, densities, strict=True))
    shown = [name for name in pairs if name in finding.populations or name in finding.densities]
    rows = [[finding.column_name(name, target) for name in scores] for target in finding.explanations]
    about = [[name for name in shown if name.split("_")[0] in target.lower()] for target in finding.explanations]
    stacks = [own + orbital for own, orbital in zip(rows, about, strict=True)]
    orbitals = [{name.split("_")[0] for name in orbital} for orbital in about]
    if len(stacks) <= BESIDE and all(len(names) == 1 for names in orbitals):
        return stacks
    rest = [] if any(about) else shown
    return [list(dict.fromkeys([*itertools.chain.from_iterable(stacks), *rest]))]
