"""Model files: parameters, configuration, label and split, and for `last.h5` all that training needs to go on."""

import contextlib
import dataclasses
import json
import os
import tomllib
from pathlib import Path

import h5py
import numpy as np

from refattn.config import Config, config_from_dict, to_toml
from refattn.data.splits import Split
from refattn.environment import versions
from refattn.errors import RefattnError, RunError, in_one_line
from refattn.params import Parameters, from_arrays

FORMAT, VERSION = "refattn-model", 1
# What h5py, TOML and NumPy raise for a file that is cut, changed or of another kind.
UNREADABLE = (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError, MemoryError)


@dataclasses.dataclass
class Checkpoint:
    """A network with all that turns its output into a prediction; property = mean + std * output.

    `elements` are the atomic numbers that it was trained on; empty where that is unknown (imported models).
    `state` is empty in `model.h5`; in `last.h5` it holds the optimiser, the schedule and the place in the training.
    """

    config: Config
    params: Parameters
    unit: str = ""
    mean: float = 0.0
    std: float = 1.0
    elements: tuple = ()
    split: Split = Split([], [], [])
    state: dict = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside `path`, which takes its place when the block ends well and is removed otherwise."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error}); check the folder and its space") from None
    finally:
        with contextlib.suppress(OSError):  # such as a path below a file, where nothing was written either
            part.unlink()


def save_checkpoint(path, checkpoint):
    """Write a Checkpoint as HDF5; the file appears complete or not at all. Raises RunError."""
    with replacing(path) as part, h5py.File(part, "w") as file:
        file.attrs.update(format=FORMAT, version=VERSION, unit=checkpoint.unit, versions=json.dumps(versions()))
        file.attrs.update(target=checkpoint.config.data.target, mean=checkpoint.mean, std=checkpoint.std)
        file["config"] = to_toml(checkpoint.config)
        file["elements"] = np.array(checkpoint.elements, dtype=np.int32)
        for name in checkpoint.params:
            file[f"parameters/{name}"] = checkpoint.params[name]
        for name, ids in checkpoint.split._asdict().items():
            file.create_dataset(f"split/{name}", data=ids, dtype=h5py.string_dtype())
        for name, value in checkpoint.state.items():
            file[f"state/{name}"] = value if isinstance(value, np.ndarray) else json.dumps(value)


def load_checkpoint(path):
    """Read a Checkpoint. Raises RunError for a file that is missing, cut, damaged or of another kind."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
                raise RunError(f"{path}: is not a {FORMAT} of version {VERSION}; give a run of `refattn train`")
            return _read(file)
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; give the directory of a run that has trained") from None
    except RefattnError as error:
        raise RunError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from None
    except UNREADABLE as error:
        raise RunError(
            f"{path}: cannot be read as a model ({in_one_line(error)}); restore the file or train again"
        ) from None


def _read(file):
    config = config_from_dict(tomllib.loads(file["config"].asstr()[()]), "/config")
    arrays = {name: _finite(name, view[()]) for name, view in _datasets(file["parameters"])}
    state = {}
    for name, view in file.get("state", {}).items():
        state[name] = view[()] if view.dtype.kind in "fiu" else json.loads(view.asstr()[()])
    return Checkpoint(
        config=config,
        params=from_arrays(config.model, arrays, config.training.dtype),
        unit=str(file.attrs["unit"]),
        mean=float(file.attrs["mean"]),
        std=float(file.attrs["std"]),
        elements=tuple(int(z) for z in file["elements"][()]),
        split=Split(*(file[f"split/{name}"].asstr()[()].tolist() for name in Split._fields)),
        state=state,
    )


def _datasets(group):
    found = []
    group.visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return found


def _finite(name, array):
    if not np.isfinite(array).all():
        raise RunError(f"the parameter {name} holds a value that is not finite; restore the file or train again")
    return array
