"""Strict JSON: an object with equal keys is refused, of which Python's parser would keep the last."""

import json
from typing import Any


class EqualKeysError(ValueError):
    """An object has the same key twice.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} twice in one object")
        self.key = key


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of some pairs: an `object_pairs_hook` for `json`.

    Raises:
        EqualKeysError: Two keys are equal.
    """
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise EqualKeysError(key)
            seen.add(key)
    return fields


def parse_json(text: str | bytes | bytearray) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: It is malformed, or an object in it has equal keys.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=distinct)
