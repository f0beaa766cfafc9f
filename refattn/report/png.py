"""Pictures as PNG, which say in their metadata that they are refattn's."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from refattn.common.files import replacing

METADATA = {"Software": "refattn"}
MARK = re.compile(rb"\x89PNG\r\n\x1a\n.{25}.{4}tEXtSoftware\x00refattn", re.DOTALL)


def write_png(path: Path | str, figure: Figure, dpi: float) -> None:
    """Draw the figure into a file; it appears complete or not at all. Raises OutputError."""
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=dpi, metadata=METADATA)
