"""JSON documents that others wrote: every key once."""

import json
from typing import Any


class RepeatedKey(ValueError):
    """One object of a document has a key twice; one line that names it."""


def require_each_key_once(text: str | bytes) -> None:
    """Of a key that stands twice a parser keeps the last in silence. Raises RepeatedKey.

    Text that is no JSON passes: who reads it says what is wrong.
    """
    try:
        json.loads(text, object_pairs_hook=_once)
    except RepeatedKey:
        raise
    except (ValueError, RecursionError):
        return


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKey(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found
