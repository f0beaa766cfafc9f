"""calibration.h5 of a run: where its training structures lie in representation space, and its errors on validation.

With it a run can say how sure a prediction is without its data set. It belongs to one model.h5, and says to which.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refattn.common.files import other_format, replacing
from refattn.common.hdf5 import UNREADABLE, NewFile, reading_hdf5
from refattn.errors import RunError, in_one_line
from refattn.network.checkpoint import Checkpoint
from refattn.network.evaluate import EvaluatedPart
from refattn.prediction.uncertainty import Conformal, TrainingSet, own_struct

FORMAT, VERSION = "refattn-calibration", 1
# With more structures intervals get no better, and the distances of all from all would take the square of the data set.
MAX_TRAIN, MAX_VALID = 100_000, 20_000


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a trained network did, for one target, on the structures of training and validation set that have its label.

    Of more than MAX_TRAIN or MAX_VALID some are drawn, the same ones whenever a set of that size is calibrated.

    representation : (T, G + 1) float32 `struct` of the training structures, and their numbers of sites
    label, prediction : (V,) float64    of the validation structures, in the label's unit
    distance : (V,) float64             of these to the training set; see TrainingSet
    group : (V,) int64                  of these, where the validation set is one of whole groups (data.valid_by); all
                                        their own otherwise
    """

    representation: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    distance: np.ndarray
    group: np.ndarray | None = None

    @classmethod
    def of(
        cls, train: EvaluatedPart, valid: EvaluatedPart, target: int = 0, member: int = 0, map_fn: Callable = map
    ) -> "Calibration":
        """Of the parts "train" and "valid" as the network `member` predicts `target`, of which the label is known.

        The groups are kept where no structure to train on is of them: then those of new structures can be like them.
        """
        known = _drawn(train.label[:, target], MAX_TRAIN)
        known_valid = _drawn(valid.label[:, target], MAX_VALID)
        n_targets = train.label.shape[1]
        representation = own_struct(train.structs[member][known], target, n_targets).astype(np.float32)
        struct = own_struct(valid.structs[member][known_valid], target, n_targets)
        distance = TrainingSet(representation).distance(struct, map_fn)
        label, prediction = valid.label[:, target], valid.predictions[member][:, target]
        group = None if valid.group is None or np.isin(valid.group, train.group).any() else valid.group[known_valid]
        return cls(representation, label[known_valid], prediction[known_valid], distance, group)


def _drawn(label, limit):
    """Rows with a known label, in order; `limit` of them, drawn at random, where there are more."""
    rows = np.flatnonzero(~np.isnan(label))
    return rows if len(rows) <= limit else np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))


def calibrations_of(
    train: EvaluatedPart, valid: EvaluatedPart, member: int = 0, map_fn: Callable = map
) -> list[Calibration]:
    """The Calibration of every target, see Calibration.of."""
    return [Calibration.of(train, valid, target, member, map_fn) for target in range(train.label.shape[1])]


FIELDS = {"representation": np.float32, "label": float, "prediction": float, "distance": float, "group": np.int64}


def _fields(calibration):
    """The names of FIELDS that it has; a group is there or not."""
    return [name for name in FIELDS if getattr(calibration, name) is not None]


def write_calibrations(path: Path | str, calibrations: list[Calibration], checkpoint: Checkpoint) -> None:
    """Write the Calibration of every target of a Checkpoint as HDF5; the file appears complete or not at all.

    Of one target the arrays stand in the file itself, of several in a group of each. Raises OutputError.
    """
    with replacing(path) as part, NewFile(part) as file:
        file.attrs.update(format=FORMAT, version=VERSION, model=_fingerprint(checkpoint))
        file.attrs["sha256"] = _checksum(calibrations)
        for group, calibration in zip(_groups(checkpoint), calibrations, strict=True):
            for name in _fields(calibration):
                file[f"{group}/{name}"] = getattr(calibration, name)


def _groups(checkpoint):
    """Where the file has the arrays of each target."""
    n_targets = checkpoint.config.model.n_targets
    return [""] if n_targets == 1 else [f"targets/{target}" for target in range(n_targets)]


def read_calibrations(path: Path | str, checkpoint: Checkpoint) -> list[Calibration]:
    """Read the Calibration of every target of a Checkpoint.

    Raises RunError for a file that is missing, damaged or of another model.
    """
    again = f"make it again with `refattn evaluate {Path(path).parent} --calibrate`"
    try:
        with reading_hdf5(path) as file:
            if wrong := other_format(file.attrs, FORMAT, VERSION, again):
                raise RunError(f"{path}: {wrong}")
            if file.attrs["model"] != _fingerprint(checkpoint):
                raise RunError(f"{path}: belongs to another model; {again}")
            found = [
                Calibration(
                    **{
                        name: file[f"{group}/{name}"][()].astype(dtype)
                        for name, dtype in FIELDS.items()
                        if name != "group" or f"{group}/group" in file
                    }
                )
                for group in _groups(checkpoint)
            ]
            if file.attrs["sha256"] != _checksum(found):
                raise RunError(f"{path}: the contents do not fit their checksum; {again}")
    except FileNotFoundError:
        raise RunError(
            f"{path}: there is no such file, so how sure predictions are is unknown; "
            f"{again.replace('make it again', 'make it')}"
        ) from None
    except UNREADABLE as error:
        raise RunError(f"{path}: cannot be read as a calibration ({in_one_line(error)}); {again}") from None
    return found


def read_conformals(files: list[Path], checkpoints: list[Checkpoint]) -> list[Conformal]:
    """The Conformal of every target of the members of an ensemble, or of a run alone, from their calibration files.

    Raises RunError as read_calibrations does, and where the members were not validated on the same labels.
    """
    members = [read_calibrations(path, checkpoint) for path, checkpoint in zip(files, checkpoints, strict=True)]
    return [_conformal(files, of_target) for of_target in zip(*members, strict=True)]


def _conformal(files, members):
    """The Conformal of one target, from the Calibration of each member."""
    label = members[0].label
    for path, member in zip(files, members):
        if not np.array_equal(member.label, label):
            raise RunError(f"{path}: has other validation labels than {files[0]}; train both on the same data set")
    predictions, distances = ([getattr(m, name) for m in members] for name in ("prediction", "distance"))
    spaces = [TrainingSet(member.representation) for member in members]
    return Conformal(label, predictions, distances, spaces, members[0].group)


def _checksum(calibrations):
    digest = hashlib.sha256()
    for calibration in calibrations:
        for name in _fields(calibration):
            array = getattr(calibration, name)
            digest.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _fingerprint(checkpoint):
    """SHA-256 of the parameters and of the scale of the label: what makes the predictions."""
    scale = np.array([*checkpoint.scale.mean, *checkpoint.scale.std])
    reference = b"" if checkpoint.reference is None else checkpoint.reference.tobytes()
    return hashlib.sha256(checkpoint.params.vector.tobytes() + scale.tobytes() + reference).hexdigest()
