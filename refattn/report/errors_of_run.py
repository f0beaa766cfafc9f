"""The errors of a run in a sentence, beside those of means that need no network, for pages of others."""

import json
from pathlib import Path

from refattn.network.checkpoint import model_file


def errors_of_run(run: Path | str, targets: list[str]) -> str:
    """What metrics.json of a run says of its test set, a sentence for each target; empty where it says nothing."""
    folder = Path(run) if Path(run).is_dir() else model_file(run).parent
    try:
        summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        each = summary.get("targets") or {summary["target"]: summary}
        return " ".join(_sentence(target, each[target]) for target in targets)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def _sentence(target, found):
    own, mean, composition = (
        f"{error:.3g} {found['unit']}".rstrip()
        for error in (found["test"]["mae"], found["baseline_mae"], found["composition_mae"])
    )
    return (
        f"On its test set the mean absolute error of {target.replace('_', ' ')} is {own}; always the training mean has "
        f"{mean}, the training mean of the same composition {composition}."
    )
