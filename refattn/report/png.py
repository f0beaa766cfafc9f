"""Pictures as PNG, SVG and PDF, which say in their metadata that they are refattn's."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from refattn.common.files import replacing

MARK = re.compile(rb"\x89PNG\r\n\x1a\n.{25}.{4}tEXtSoftware\x00refattn", re.DOTALL)
# By the suffix: without dates, so that the same picture is the same file.
METADATA = {
    "png": {"Software": "refattn"},
    "svg": {"Creator": "refattn", "Date": None},
    "pdf": {"Creator": "refattn", "CreationDate": None},
}
SIGNS = {"png": b"Software\x00refattn", "svg": b"<dc:title>refattn<", "pdf": b"/Creator (refattn)"}


def write_figure(path: Path | str, figure: Figure, dpi: float) -> None:
    """Draw the figure into a PNG, SVG or PDF; it appears complete or not at all. Raises OutputError."""
    suffix = Path(path).suffix[1:].lower()
    suffix = suffix if suffix in METADATA else "png"
    with replacing(path) as part:
        figure.savefig(part, format=suffix, dpi=dpi, metadata=METADATA[suffix])


def is_own(path: Path) -> bool:
    """Whether a file is a picture that write_figure wrote."""
    sign = SIGNS.get(path.suffix[1:].lower())
    return sign is not None and path.is_file() and sign in path.read_bytes()
