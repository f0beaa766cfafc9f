"""The file for TensorBoard, read back here by the rules of TFRecord and Protocol Buffers."""

import struct

import numpy as np

from refattn.report.tensorboard import TensorBoard, crc32c


def records_of(data):
    """The events of a file, whose checksums must be right."""
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        for part, at in ((data[:8], 8), (data[12 : 12 + length], 12 + length)):
            crc = crc32c(part)
            masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
            assert struct.unpack("<I", data[at : at + 4]) == (masked,)
        yield data[12 : 12 + length]
        data = data[16 + length :]


def fields_of(message):
    """{number: value} of a message with numbers of one byte."""
    found = {}
    while message:
        number, kind = message[0] >> 3, message[0] & 7
        message = message[1:]
        if kind in (0, 2):
            value = shift = 0
            while True:
                byte, message = message[0], message[1:]
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            if kind == 2:
                value, message = message[:value], message[value:]
        else:
            form, size = {1: ("<d", 8), 5: ("<f", 4)}[kind]
            (value,), message = struct.unpack(form, message[:size]), message[size:]
        found[number] = value
    return found


def test_crc_of_the_standard():
    """The check value, and one of RFC 3720, B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_the_numbers_of_every_epoch(tmp_path):
    board = TensorBoard(tmp_path / "board")
    errors = {"homo": {"train_mae": 0.5, "valid_mae": 0.25}}
    board({"batch": 1, "epoch": 1, "n_epochs": 300})
    for epoch in (1, 300):
        seconds = 1e300 if epoch == 1 else 2.0  # no number of four bytes
        board({"epoch": epoch, "valid_mae": 0.1 * epoch, "seconds": seconds, "digest": "x", "targets": errors})
    (path,) = (tmp_path / "board").iterdir()
    first, *events = [fields_of(record) for record in records_of(path.read_bytes())]
    assert path.name.startswith("events.out.tfevents.") and first[3] == b"brain.Event:2"
    scalars = {
        (event[2], fields_of(fields_of(event[5])[1])[1]): fields_of(fields_of(event[5])[1])[2] for event in events
    }
    names = [b"valid_mae", b"seconds", b"homo/train_mae", b"homo/valid_mae"]
    assert [*scalars] == [(epoch, name) for epoch in (1, 300) for name in names]
    assert scalars[1, b"seconds"] == np.inf and scalars[300, b"seconds"] == 2
    assert scalars[300, b"valid_mae"] == np.float32(30) and scalars[1, b"homo/valid_mae"] == 0.25


def test_a_run_that_begins_replaces_the_curves_of_another(tmp_path):
    record = {"epoch": 1, "valid_mae": 0.5}
    other = tmp_path / "events.out.tfevents.1.host"  # of another program
    other.touch()
    TensorBoard(tmp_path)(record)
    [first] = tmp_path.glob("*.refattn")
    TensorBoard(tmp_path, resumed=True)(record)
    assert len({*tmp_path.glob("*.refattn")} - {first}) == 1 and first.exists()
    TensorBoard(tmp_path)(record)
    assert len([*tmp_path.glob("*.refattn")]) == 1 and not first.exists() and other.exists()
