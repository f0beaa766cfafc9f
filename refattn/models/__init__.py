"""Trained models that ship with the package, each in a folder of its own name, and their cards.

A folder holds what a run directory needs to predict: model.h5 without its split, calibration.h5 of a part of the
training structures, and metrics.json; and card.json, which says what the model is, how it was made and how good it is.
`tools/make_model.py` makes it of a run.
"""

import json
import os
from pathlib import Path

from refattn.errors import RunError, in_one_line

FOLDER = Path(__file__).parent
CARD = "card.json"
# What a card holds: name, description, data, licence, citation, not_for (list of str), without (formulas that the data
# have too many of), new_materials (set of benchmarks/new_materials.py, or ""), command, config (TOML), made_with,
# seconds and peak_memory_mb (of the last training), before (the same of those that it began with, in their order),
# sha256 (of model.h5), errors: {target: metrics of valid and test, baselines, without (test metrics without such a
# formula) and intervals (how many of the test labels they hold)}, and on_new, of networks of its recipe with n_train
# structures: [what was new, target, unit, n_train, MAE on more_of_the_same and on what was new].
KEYS = (
    *("name", "description", "data", "licence", "citation", "not_for", "without", "new_materials", "command", "config"),
    *("made_with", "seconds", "peak_memory_mb", "before", "sha256", "errors", "on_new"),
)


def model_names() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}"))


def shipped(run: str | os.PathLike) -> Path:
    """The path `run`; the folder of a shipped model where it is the name of one, and no file or run has that name."""
    path = Path(run)
    named = FOLDER / path.name
    if path.name != str(run) or not (named / CARD).is_file() or path.is_file():
        return path
    holds_runs = any(next(path.glob(pattern), None) for pattern in ("*.h5", "fold_*", "member_*"))
    return path if holds_runs else named


def why_no_model(path: Path) -> str:
    """Why there is no model file `path`, and where others are: a file or the folder of several runs is no run."""
    run = path.parent
    if run.is_file():
        return f"{run}: is a file, and no directory of a run; give the directory of a run of `refattn train`"
    goes_on = path.name == "last.h5"  # which a training goes on with
    if goes_on and (shipped(run) != run or FOLDER in path.resolve().parents):
        return f"{run.name}: a model that ships is no training to go on with; give a run of your own, or train --init"
    for pattern, what in (("fold_*", "folds, a run each"), ("member_*", "the members of an ensemble, a run each")):
        runs = sorted(folder for folder in run.glob(pattern) if (folder / "last.h5").exists())
        if runs:
            return f"{run}: holds {what}; give one of these, such as {runs[0]}"
    other = "" if goes_on else f", or one of `refattn models` ({', '.join(model_names())})"
    return f"{path}: there is no such file; give the directory of a run that has trained{other}"


def read_card(name: str) -> dict:
    """The card of a shipped model, with the keys KEYS. Raises RunError for an unknown name or a damaged card."""
    if name not in model_names():
        there = ", ".join(model_names()) or "none"
        raise RunError(f"there is no model {name!r} in the package; there are: {there}")
    path = FOLDER / name / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return {key: card[key] for key in KEYS}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as a card ({in_one_line(error)}); install refattn again") from None
