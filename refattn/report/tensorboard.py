"""Numbers over the epochs in a file that TensorBoard opens, written by hand: it is no more than this.

The file is a row of records: the length of the event (8 bytes), its checksum, the event, its checksum. An event is a
message of Protocol Buffers: wall_time (field 1, double), step (2, integer), file_version (3, text) in the first one, or
summary (5), which holds a value (1) with tag (1, text) and simple_value (2, float).
"""

import struct
import time
from pathlib import Path

import numpy as np

from refattn.common.files import make_directory

POLYNOMIAL = 0x82F63B78  # of CRC-32C (Castagnoli), reflected
MASK = 0xA282EAD8
EVENTS = "events.out.tfevents.{}.refattn"


def crc32c(data: bytes) -> int:
    """CRC-32C of bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ POLYNOMIAL * (crc & 1)
    return crc ^ 0xFFFFFFFF


class TensorBoard:
    """Adds the numbers of an epoch to a file of its own in `folder`, of members and folds in a folder of each.

    A run that goes on (`resumed`) writes another file; TensorBoard joins them by the epochs. One that begins removes
    those of the run that it replaces.
    """

    def __init__(self, folder: Path | str, resumed: bool = False):
        self.folder = Path(folder)
        self.resumed = resumed
        self.paths = {}

    def __call__(self, record: dict) -> None:
        """Add the record of an epoch, as log.jsonl has it; others are left alone."""
        if "valid_mae" not in record:
            return
        own = {f"{target}/{k}": v for target, each in record.get("targets", {}).items() for k, v in each.items()}
        numbers = {k: v for k, v in {**record, **own}.items() if isinstance(v, float)}
        member = f"member_{record['member']}" if "member" in record else "."
        with open(self._path(member), "ab") as stream:
            for name, value in numbers.items():
                stream.write(_record(_event(record["epoch"], name, value)))

    def _path(self, member):
        """The file of a member, which begins with its version."""
        if member not in self.paths:
            make_directory(self.folder / member)
            if not self.resumed:
                for old in (self.folder / member).glob(EVENTS.format("*")):
                    old.unlink()
            self.paths[member] = self.folder / member / EVENTS.format(time.time_ns())
            version = struct.pack("<Bd", 0x09, time.time()) + _field(3, b"brain.Event:2")
            self.paths[member].write_bytes(_record(version))
        return self.paths[member]


def _record(event):
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


def _checksum(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF)


def _event(step, tag, value):
    with np.errstate(over="ignore"):  # what is above the numbers of four bytes becomes infinity
        number = np.float32(value).astype("<f4").tobytes()
    scalar = _field(1, tag.encode()) + b"\x15" + number
    return struct.pack("<Bd", 0x09, time.time()) + b"\x10" + _varint(step) + _field(5, _field(1, scalar))


def _field(number, data):
    """A field of bytes: its number, their length, they themselves."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value):
    """An integer in groups of seven bits, the lowest first."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
