"""Text that comes from files of others, on its way to a terminal, a table or a picture."""

import itertools
import re
from collections.abc import Callable, Iterable

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 structure, 2 structures."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in words: 5 s, 3 min 05 s, 2 h 07 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def column_name(text: str) -> str:
    """A name that extended XYZ can have for a column."""
    return re.sub(r"[\s:\"'=]", "_", text)


def first_free(name: str, is_free: Callable[[str], bool]) -> str:
    """The first of name, name-2, name-3, ... that is free."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(name for name in names if is_free(name))


def told_apart(names: Iterable[str], as_seen: Callable[[str], str] = str) -> list[str]:
    """The names, with a number behind each that one before it has too; alike are those of which as_seen is the same."""
    found = {}
    for name in names:
        free = first_free(name, lambda wanted: as_seen(wanted) not in found)
        found[as_seen(free)] = free
    return [*found.values()]


def printable(text: object) -> str:
    """Text in one line, with escapes such as \\x1b in the place of what a terminal would obey or cannot show."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def encodable(text: object) -> str:
    """Text that UTF-8 can hold: of a file name in another encoding its bytes as escapes such as \\udcff."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def csv_cell(value: object) -> object:
    """A cell of a table; text that a spreadsheet would calculate stands behind an apostrophe (see plain_cell)."""
    if isinstance(value, str) and value.lstrip("'").startswith(FORMULA):
        return f"'{value}"
    return value


def plain_cell(text: str) -> str:
    """The text that csv_cell made a cell of."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(FORMULA) else text


def in_picture(text: object) -> str:
    """Text for Matplotlib, which takes what stands between two dollar signs for a formula."""
    return printable(text).replace("$", r"\$")
