"""JSON as the standard has it (RFC 8259): Python's own writes NaN and Infinity, which other readers refuse."""

import json
import math


def to_json(value: object, **options: object) -> str:
    """JSON text of `value`; a number that is not finite becomes null. Options are those of json.dumps.

    Characters that a terminal would obey or UTF-8 does not have are escaped, whatever `ensure_ascii` says.
    """
    text = json.dumps(_without_nan(value), allow_nan=False, **options)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _without_nan(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
