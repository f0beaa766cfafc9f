"""One commented TOML file per experiment; `refattn train NAME` and `load_experiment(NAME)` read them."""

import os
from pathlib import Path

from refattn.config import Config, load_config
from refattn.errors import ConfigError

FOLDER = Path(__file__).parent


def experiment_names() -> list[str]:
    """Names of the experiments that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_experiment(name: str) -> Config:
    """Config of an experiment by its name. Raises ConfigError for an unknown one."""
    if name not in experiment_names():
        raise ConfigError(f"there is no experiment {name!r}; there are {', '.join(experiment_names())}")
    return load_config(FOLDER / f"{name}.toml")


def experiment_or_file(name: str) -> Config:
    """Config of the experiment with that name, or else of a TOML file. Raises ConfigError."""
    if name in experiment_names():
        return load_experiment(name)
    if not os.path.exists(name):
        from refattn.data.builtin import SETS  # late: it loads NumPy

        names = ", ".join(experiment_names())
        if name in SETS:
            raise ConfigError(f"{name}: is a built-in data set and no experiment; give it as --data {name}")
        raise ConfigError(f"{name}: there is no such file, and no such experiment; the experiments are {names}")
    return load_config(name)
