"""Ways to damage files, for test_fuzz.py: every function takes the path of a file, and is repeatable."""

import functools
import zlib

import h5py
import numpy as np


def cut(part):
    """Keep the first `part` (0 to 1) of the bytes."""

    def damage(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])

    return damage


def cut_in_a_line(part):
    """Keep the first `part` of the lines, and the beginning of the next: a configuration is whole after any."""

    def damage(path):
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.strip()]
        n = int(part * len(lines))
        path.write_text("".join(lines[:n]) + lines[n][:2])

    return damage


def flip(seed, n=1):
    """Change `n` bytes at random places."""

    def damage(path):
        content = bytearray(path.read_bytes())
        rng = np.random.default_rng([seed, zlib.crc32(path.name.encode())])
        for place in rng.integers(len(content), size=n):
            content[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(content))

    return damage


def put(content):
    """Put text or bytes in the place of the content."""
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def swap(old, new):
    """Replace a piece of text that must be there."""

    def damage(path):
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return damage


def remove(path):
    path.unlink()


def folder(path):
    """Put a folder in the place of the file."""
    path.unlink()
    path.mkdir()


def edit(change):
    """Apply `change` to the open HDF5 file."""

    @functools.wraps(change)
    def damage(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def drop(name):
    """Delete a group or dataset, or with `group@attribute` an attribute."""

    def change(file):
        group, at, attribute = name.partition("@")
        if at:
            del file[group or "/"].attrs[attribute]
        else:
            del file[group]

    return edit(change)


def replace(name, value):
    """Put another value in the place of a dataset, or with `group@attribute` of an attribute."""

    def change(file):
        group, at, attribute = name.partition("@")
        if at:
            file[group or "/"].attrs[attribute] = value
        else:
            del file[group]
            file[group] = value

    return edit(change)


def fill(name, value, rows=slice(None)):
    """Write `value` into rows of a dataset."""

    def change(file):
        file[name][rows] = value

    return edit(change)


def swaps(old, *texts):
    """{what: damage} of several replacements of one text; the functions below likewise."""
    return {text or "nothing": swap(old, text) for text in texts}


def texts(*contents):
    return {content[:40] or "empty": put(content) for content in contents}


def values(name, *new):
    return {f"{name} = {str(value)[:20]}, {number}": replace(name, value) for number, value in enumerate(new)}


def drops(*names):
    return {f"no {name}": drop(name) for name in names}


def fills(**columns):
    return {f"{name} = {value}": fill(name.replace("__", "/"), value, 3) for name, value in columns.items()}
