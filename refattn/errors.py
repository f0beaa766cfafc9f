"""The errors that refattn raises on purpose: each message says what is wrong, where, and what to do."""

import re


class RefattnError(Exception):
    """Base of all errors below; the command line prints the message and exits with status 1."""


class StructureError(RefattnError):
    """A structure that has no graph: empty, NaN positions, coincident atoms, a singular cell."""


class DataError(RefattnError):
    """A file or data set that cannot be read or does not hold what was asked for."""


class ConfigError(RefattnError):
    """A configuration with an unknown key, a wrong type or an impossible value."""


class RunError(RefattnError):
    """A run directory or model file that is incomplete, damaged or of another kind."""


class OutputError(RefattnError):
    """A file that cannot be written."""


class TrainingError(RefattnError):
    """A training that cannot go on, such as a loss that is not finite."""


class DeviceError(RefattnError):
    """A GPU that refuses, or has too little memory."""


class BenchmarkError(RefattnError):
    """A benchmark that has no result, such as a peer that stops while it is measured."""


class MissingExtra(RefattnError):
    """An optional dependency that is not installed; the message names the extra."""


def in_one_line(error: Exception | str) -> str:
    """The reason that a library or server gives, as part of a sentence: one line, without HDF5's notes."""
    text = re.split(r": time = |, errno", " ".join(str(error).split()))[0]
    text = re.sub(r"^\[Errno \d+\] ", "", text)
    return text[:200] or type(error).__name__


def not_finite(id: str) -> DataError:
    """The error of a structure whose prediction is no number."""
    return DataError(f"the prediction of structure {id} is not finite; leave it out, or train again")
