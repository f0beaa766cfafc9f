"""JSON that says one thing: Python's own writes NaN and Infinity, which RFC 8259 has not, and reads a key twice."""

import collections
import json
import math

from refattn.errors import DataError


def to_json(value: object, **options: object) -> str:
    """JSON text of `value`; a number that is not finite becomes null. Options are those of json.dumps.

    Characters that a terminal would obey or UTF-8 does not have are escaped, whatever `ensure_ascii` says.
    """
    text = json.dumps(_without_nan(value), allow_nan=False, **options)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def with_keys_once(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON. Raises DataError for a key that is there twice, of which a parser keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DataError(f"has the key {twice[:40]!r} twice in one object; keep one")
    return found


def _without_nan(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value
