"""calibration.h5 of a run: where its training structures lie in representation space, and its errors on validation.

With it a run can say how sure a prediction is without its data set. It belongs to one model.h5, and says to which.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from refattn.common.files import replacing
from refattn.common.hdf5 import UNREADABLE, NewFile, reading_hdf5
from refattn.errors import RunError, in_one_line
from refattn.network.checkpoint import Checkpoint
from refattn.network.evaluate import EvaluatedPart
from refattn.prediction.uncertainty import Conformal, TrainingSet

FORMAT, VERSION = "refattn-calibration", 1


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a trained network did on its training and validation set.

    representation : (T, G + 1) float32 `struct` of the training structures, and their numbers of sites
    label, prediction : (V,) float64    of the validation structures, in the label's unit
    distance : (V,) float64             of these to the training set; see TrainingSet
    """

    representation: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    distance: np.ndarray

    @classmethod
    def of(cls, train: EvaluatedPart, valid: EvaluatedPart, member: int = 0, map_fn: Callable = map) -> "Calibration":
        """Of the parts "train" and "valid" as the network `member` predicts them."""
        representation = train.structs[member].astype(np.float32)
        distance = TrainingSet(representation).distance(valid.structs[member], map_fn)
        return cls(representation, valid.label[:, 0], valid.predictions[member][:, 0], distance)


FIELDS = {"representation": np.float32, "label": float, "prediction": float, "distance": float}


def write_calibration(path: Path | str, calibration: Calibration, checkpoint: Checkpoint) -> None:
    """Write the Calibration of a Checkpoint as HDF5; the file appears complete or not at all. Raises OutputError."""
    with replacing(path) as part, NewFile(part) as file:
        file.attrs.update(format=FORMAT, version=VERSION, model=_fingerprint(checkpoint))
        file.attrs["sha256"] = _checksum(calibration)
        for name in FIELDS:
            file[name] = getattr(calibration, name)


def read_calibration(path: Path | str, checkpoint: Checkpoint) -> Calibration:
    """Read the Calibration of a Checkpoint. Raises RunError for a file that is missing, damaged or of another model."""
    again = f"make it again with `refattn evaluate {Path(path).parent} --calibrate`"
    try:
        with reading_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
                raise RunError(f"{path}: is not a {FORMAT} of version {VERSION}; {again}")
            if file.attrs["model"] != _fingerprint(checkpoint):
                raise RunError(f"{path}: belongs to another model; {again}")
            found = Calibration(**{name: file[name][()].astype(dtype) for name, dtype in FIELDS.items()})
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


def read_conformal(files: list[Path], checkpoints: list[Checkpoint]) -> Conformal:
    """The Conformal of the K members of an ensemble, or of a run alone, from their calibration files.

    Raises RunError as read_calibration does, and where the members were not validated on the same labels.
    """
    members = [read_calibration(path, checkpoint) for path, checkpoint in zip(files, checkpoints, strict=True)]
    label = members[0].label
    for path, member in zip(files, members):
        if not np.array_equal(member.label, label):
            raise RunError(f"{path}: has other validation labels than {files[0]}; train both on the same data set")
    predictions, distances = ([getattr(m, name) for m in members] for name in ("prediction", "distance"))
    return Conformal(label, predictions, distances, [TrainingSet(member.representation) for member in members])


def _checksum(calibration):
    digest = hashlib.sha256()
    for name in FIELDS:
        array = getattr(calibration, name)
        digest.update(f"{name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _fingerprint(checkpoint):
    """SHA-256 of the parameters and of the scale of the label: what makes the predictions."""
    scale = np.array([*checkpoint.scale.mean, *checkpoint.scale.std])
    reference = b"" if checkpoint.reference is None else checkpoint.reference.tobytes()
    return hashlib.sha256(checkpoint.params.vector.tobytes() + scale.tobytes() + reference).hexdigest()
