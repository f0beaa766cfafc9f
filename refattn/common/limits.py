"""Limits of what a file may ask for (docs/security.md); REFATTN_NAME in the environment changes the limit NAME."""

import os

from refattn.errors import ConfigError


def _limit(name, value):
    text = os.environ.get(f"REFATTN_{name}", str(value))
    if not (text.isascii() and text.isdecimal() and 0 < len(text) <= 15 and int(text) > 0):
        raise ConfigError(f"REFATTN_{name} is {text!r:.40}; it must be a number of at most 15 digits, such as {value}")
    return int(text)


SMALL = _limit("SMALL", 64 << 20)  # bytes that any file may declare or unpack to
HDF5_EXPANSION = _limit("HDF5_EXPANSION", 20)  # bytes beyond these that an HDF5 file may declare, for each of its own
HDF5_OBJECTS = _limit("HDF5_OBJECTS", 100_000)  # groups and data sets of an HDF5 file
HDF5_SECONDS = _limit("HDF5_SECONDS", 10)  # for another process to look at an HDF5 file without checksums
UNPACKING = _limit("UNPACKING", 100)  # bytes that a compressed file may unpack to, for each of its own
MEMBER = _limit("MEMBER", 1 << 26)  # bytes of one member or line of an archive that is read at once
MAPPED = _limit("MAPPED", 1 << 30)  # bytes of a data set beyond which it is mapped from a flat file beside it
PARAMETERS = _limit("PARAMETERS", 100_000_000)  # of a network
LAYERS = _limit("LAYERS", 1000)  # of a network
OCCLUDED_SITES = _limit("OCCLUDED_SITES", 5000)  # of a structure that is computed once for each of them
PICTURE_SITES = _limit("PICTURE_SITES", 2000)  # of a structure that is drawn
PATH_SITES = _limit("PATH_SITES", 1 << 20)  # of a structure, times the nodes of its integrated gradients
