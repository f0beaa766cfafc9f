"""Targets of a model by their names."""

from refattn.errors import ConfigError
from refattn.prediction.predictor import Predictor


def target_number(model: Predictor, target: str | None) -> int:
    """Which of the model's targets has this name; None names the only one. Raises ConfigError."""
    names = model.targets
    if target is None and len(names) == 1:
        return 0
    if target not in names:
        what = "has several targets" if target is None else f"has no target {target!r}"
        raise ConfigError(f"the model {what}; choose one of {', '.join(names)}")
    return names.index(target)
