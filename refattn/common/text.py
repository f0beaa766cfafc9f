"""Text that comes from files of others, on its way to a terminal, a table or a picture."""

import re

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of a formula


def counted(number: int, noun: str) -> str:
    """A number and what it counts: 1 structure, 2 structures."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def column_name(text: str) -> str:
    """A name that extended XYZ can have for a column."""
    return re.sub(r"[\s:\"'=]", "_", text)


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
