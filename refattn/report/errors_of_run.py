"""The errors of a run in a sentence, beside those of means that need no network, for pages of others."""

import json
from pathlib import Path

from refattn.common.attention_metrics import MEASURES
from refattn.network.checkpoint import model_file

WHO = ("network", "element", "even")


def errors_of_run(run: Path | str, targets: list[str]) -> str:
    """What metrics.json of a run says of its test set, a line for each target; empty where it says nothing."""
    folder = Path(run) if Path(run).is_dir() else model_file(run).parent
    try:
        summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        each = summary.get("targets") or {summary["target"]: summary}
        sentences = [_sentence(target, each[target]) for target in targets]
        began = sentence_of_origin(summary)
        return "\n".join([*sentences, began] if began else sentences)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def sentence_of_origin(summary: dict) -> str:
    """What the network that a run began with knew of the test set; empty where it began with none, or knew nothing."""
    init = summary.get("init", {"test_structures_seen": 0})
    n_seen = init["test_structures_seen"]
    if n_seen == 0:
        return ""
    knew = "may have been trained on" if n_seen is None else f"was trained or validated on {n_seen}"
    return f"The run began with {init['name']}, which {knew} structures of the test set."


def _sentence(target, found):
    if "auc" in found["test"]:
        own, composition = (
            "-" if auc is None else f"{auc:.3f}" for auc in (found["test"]["auc"], found["composition_auc"])
        )
        return (
            f"On its test set the area under the ROC curve of {target.replace('_', ' ')} is {own}; that of its share "
            f"in training structures of the same composition is {composition}."
        )
    own, mean, composition = (
        f"{error:.3g} {found['unit']}".rstrip()
        for error in (found["test"]["mae"], found["baseline_mae"], found["composition_mae"])
    )
    r2 = found.get("composition_r2")
    against = "" if r2 is None else f" (R2 against it {r2:.2f})".replace("-", "−")
    return (
        f"On its test set the mean absolute error of {target.replace('_', ' ')} is {own}; always the training mean has "
        f"{mean}, the training mean of the same composition {composition}{against}."
        f"{_of_attention(found['attention']) if 'attention' in found else ''}"
    )


def _of_attention(found):
    """How taught attention agrees with its array on the test set; in brackets the element alone, and even attention."""
    test = found["test"]
    parts = []
    for name, text in MEASURES.items():
        own, *others = ("-" if test[who][name] is None else f"{test[who][name]:.2f}" for who in WHO)
        parts.append(f"{text} {own} ({', '.join(others)})")
    return (
        f" Its attention was taught {found['array']}; on the test set, and in brackets by the element alone and of "
        f"even attention: {', '.join(parts)}."
    )
