"""Model files: parameters, configuration, label and split, and for `last.h5` all that training needs to go on."""

import dataclasses
import hashlib
import itertools
import json
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from refattn.common.environment import processor, versions
from refattn.common.files import other_format, replacing
from refattn.common.hdf5 import UNREADABLE, NewFile, Strings, attribute_text, json_blocks, reading_hdf5, write_strings
from refattn.config import Config, config_from_dict, to_toml
from refattn.data.fingerprint import Extent, Fingerprint, check_fingerprint
from refattn.data.splits import Split
from refattn.data.store import Dataset
from refattn.errors import RefattnError, RunError, in_one_line
from refattn.models import shipped, why_no_model
from refattn.network.params import Parameters, from_arrays, parameter_table

FORMAT, VERSION = "refattn-model", 1


class Scale(typing.NamedTuple):
    """The `mean` and `std` of a Checkpoint as arrays (K,), and its `reference`."""

    mean: np.ndarray
    std: np.ndarray
    reference: np.ndarray | None = None


@dataclasses.dataclass
class Checkpoint:
    """A network with all that turns its output into a prediction; property = mean + std * output.

    Of several targets `unit` is a tuple and `mean` and `std` are arrays (K,). `reference` (K, 119) is there for the
    read-out "sum", whose mean is 0: what an atom of each atomic number adds to the property.
    `elements` are the atomic numbers that it was trained on; empty where that is unknown (imported models).
    `fingerprint` says which data it was trained on, `extent` how far they reach; None where that is unknown.
    `state` is empty in `model.h5`; in `last.h5` it holds the optimiser, the schedule and the place in the training.
    """

    config: Config
    params: Parameters
    unit: str | tuple[str, ...] = ""
    mean: float | np.ndarray = 0.0
    std: float | np.ndarray = 1.0
    elements: tuple[int, ...] = ()
    split: Split = Split([], [], [])
    state: dict = dataclasses.field(default_factory=dict)
    reference: np.ndarray | None = None
    fingerprint: Fingerprint | None = None
    extent: Extent | None = None

    @property
    def units(self) -> tuple[str, ...]:
        """The unit of every target."""
        return (self.unit,) if isinstance(self.unit, str) else self.unit

    @property
    def scale(self) -> Scale:
        """The scale of every target."""
        n_targets = self.config.model.n_targets
        mean, std = (np.broadcast_to(np.asarray(x, dtype=float), n_targets) for x in (self.mean, self.std))
        return Scale(mean, std, self.reference)


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a Checkpoint as HDF5; the file appears complete or not at all. Raises OutputError."""
    toml = to_toml(checkpoint.config)
    texts = {"unit": checkpoint.unit, "target": checkpoint.config.data.target}
    with replacing(path) as part, NewFile(part) as file:
        file.attrs.update(format=FORMAT, version=VERSION, versions=json.dumps(versions()), processor=processor())
        file.attrs.update({name: x if isinstance(x, str) else json.dumps(x) for name, x in texts.items()})
        file.attrs.update(mean=checkpoint.mean, std=checkpoint.std)
        file.attrs["sha256"] = _checksum(checkpoint, toml)
        write_strings(file, "config", toml)
        file["elements"] = np.array(checkpoint.elements, dtype=np.int32)
        if checkpoint.reference is not None:
            file["reference"] = checkpoint.reference
        for known in filter(None, (checkpoint.fingerprint, checkpoint.extent)):
            known.write(file)
        for name in checkpoint.params:
            file[f"parameters/{name}"] = checkpoint.params[name]
        for name, ids in checkpoint.split._asdict().items():
            write_strings(file, f"split/{name}", ids)
        for name, value in checkpoint.state.items():
            if isinstance(value, np.ndarray):
                file[f"state/{name}"] = value
            else:
                write_strings(file, f"state/{name}", json.dumps(value))


def check_data(checkpoint: Checkpoint, dataset: Dataset) -> None:
    """Raise DataError where a Dataset is not what a Checkpoint was trained on; see check_fingerprint."""
    data = checkpoint.config.data
    units = dict(zip(data.targets, checkpoint.units, strict=True))
    check_fingerprint(checkpoint.fingerprint, dataset, data.labels, units, checkpoint.split)


def of_each(values: Sequence[str] | np.ndarray) -> object:
    """What is known of each target as a Checkpoint has it: of one target that itself, of several a tuple or array."""
    if len(values) == 1:
        return values[0] if isinstance(values[0], str) else float(values[0])
    return values if isinstance(values, np.ndarray) else tuple(values)


def model_file(run: Path | str) -> Path:
    """The best model of a run directory or of a shipped model, by its name, or the model file itself."""
    path = Path(run) if (Path(run) / "model.h5").exists() else shipped(run)
    return path / "model.h5" if path.is_dir() else path


def calibration_file(run: Path | str) -> Path:
    """The calibration of a run directory, or of the one that a model file is in."""
    return model_file(run).with_name("calibration.h5")


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a Checkpoint. Raises RunError for a file that is missing, cut, damaged or of another kind."""
    try:
        with reading_hdf5(path) as file:
            if (file.attrs.get("format"), file.attrs.get("version")) != (FORMAT, VERSION):
                raise RunError(f"{path}: {other_format(file.attrs, FORMAT, VERSION, 'give a run of `refattn train`')}")
            return _read(file)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(why_no_model(Path(path))) from None
    except RefattnError as error:
        raise RunError(f"{error}" if str(path) in str(error) else f"{path}: {error}") from None
    except UNREADABLE as error:
        raise RunError(
            f"{path}: cannot be read as a model ({in_one_line(error)}); restore the file or train again"
        ) from None


def _read(file):
    toml = file["config"].asstr()[()]
    config = config_from_dict(tomllib.loads(toml), "/config")
    params = file["parameters"]
    arrays = {entry.name: _floats(params, entry, config.training.dtype) for entry in parameter_table(config.model)}
    state = {}
    for name, view in file.get("state", {}).items():
        state[name] = view[()] if view.dtype.kind in "fiu" else json.loads(view.asstr()[()])
    unit = attribute_text(file, "unit")
    extent = file.get("extent", file.get("fingerprint/extent"))  # runs of before have it there, without `periodic`
    checkpoint = Checkpoint(
        config=config,
        params=from_arrays(config.model, arrays, config.training.dtype),
        unit=unit if config.model.n_targets == 1 else tuple(json.loads(unit)),
        mean=of_each(np.atleast_1d(file.attrs["mean"]).astype(float)),
        std=of_each(np.atleast_1d(file.attrs["std"]).astype(float)),
        elements=tuple(int(z) for z in file["elements"][()]),
        split=Split(*(_strings(file[f"split/{name}"]) for name in Split._fields)),
        state=state,
        reference=file["reference"][()].astype(float) if "reference" in file else None,
        fingerprint=Fingerprint.read(file["fingerprint"]) if "fingerprint" in file else None,
        extent=extent and Extent(*extent[()].astype(float).reshape(-1, 2)),
    )
    if file.attrs["sha256"] != _checksum(checkpoint, toml):
        raise RunError("the contents do not fit their checksum; restore the file or train again")
    return checkpoint


def _checksum(checkpoint, toml):
    """SHA-256 of all that is read back: a changed byte is to be an error, and not another number."""
    scale = [*checkpoint.scale.mean.tolist(), *checkpoint.scale.std.tolist()]
    elements = [int(z) for z in checkpoint.elements]
    vector = checkpoint.params.vector.astype(checkpoint.config.training.dtype)
    parts = [toml, *checkpoint.units, scale, elements]
    rest = [vector, *(checkpoint.state[name] for name in sorted(checkpoint.state))]
    rest += [] if checkpoint.reference is None else [checkpoint.reference]
    rest += [part for part in (*(checkpoint.fingerprint or ()), *(checkpoint.extent or ())) if part is not None]
    texts = (part if isinstance(part, np.ndarray) else json.dumps(part) for part in rest)
    digest = hashlib.sha256()
    for part in itertools.chain(map(json.dumps, parts), json_blocks(checkpoint.split), texts):
        digest.update(np.ascontiguousarray(part) if isinstance(part, np.ndarray) else part.encode())
    return digest.hexdigest()


def _strings(view):
    """The Strings of a data set of them."""
    if not h5py.check_string_dtype(view.dtype):
        raise TypeError(f"{view.name} holds no strings")
    return Strings(np.array(view[()], "S", ndmin=1))


def _floats(group, entry, dtype):
    """The array of an entry of the table of parameters."""
    view = group[entry.name]
    if view.shape != entry.shape:
        raise RunError(f"{entry.name} has shape {view.shape}, the configuration asks for {entry.shape}; train again")
    with np.errstate(over="ignore"):
        array = view[()].astype(dtype) if view.dtype.kind == "f" else np.full(1, np.nan)
    if not np.isfinite(array).all():
        raise RunError(f"the parameter {entry.name} holds a value that is not finite; restore the file or train again")
    return array
