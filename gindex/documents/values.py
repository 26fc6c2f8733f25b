"""What a comparison of a filter says of a value of metadata, exactly, and the functions that SQLite calls for it.

A comparison holds between two values of one type: text, number, or true and false. Integers are compared as they are,
of any size, floats as the 64-bit floats that JSON means; texts by their code points. An array has each of its elements
as a value. SQLite alone would end a text at a NUL, take true for 1, order any text after all numbers, and round
integers beyond 64 bits and some last digits; `comparisons` leaves to it what it does right and asks here for the rest.
"""

import json
import operator
import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Value = str | bool | int | float

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(found: Any, comparison: str, wanted: Value) -> bool:
    """Say whether a comparison holds for a value, or for an element of an array.

    Args:
        found: What the document has, as decoded from JSON.
        comparison: "=", "<", "<=", ">", ">=" or "like".
        wanted: What the filter compares with.
    """
    if isinstance(found, list):
        return any(_holds(element, comparison, wanted) for element in found)
    return _holds(found, comparison, wanted)


def forms(wanted: Value) -> list[str]:
    """Return every way in which a value equal to this one is written in metadata, which `json.dumps` wrote."""
    if isinstance(wanted, (str, bool)):
        return [json.dumps(wanted)]
    if wanted == 0:
        return ["0", "0.0", "-0.0"]
    found = [json.dumps(wanted)]
    if isinstance(wanted, float):
        return [*found, str(int(wanted))] if wanted.is_integer() else found
    try:
        same = float(wanted)
    except OverflowError:
        return found
    return [*found, json.dumps(same)] if same == wanted else found


def like(text: str, pattern: str) -> bool:
    """Say whether a text is like a pattern: % is any characters, _ one; ASCII letters have no case."""
    text, pieces = _folded(text), _folded(pattern).split("%")
    if len(pieces) == 1:
        return _piece(pieces[0]).fullmatch(text) is not None
    first, *middle, last = pieces
    if _piece(first).match(text) is None:
        return False
    position = len(first)
    for piece in middle:  # the leftmost place of each leaves most to those that follow
        match = _piece(piece).search(text, position)
        if match is None:
            return False
        position = match.end()
    end = len(text) - len(last)
    return end >= position and _piece(last).match(text, end) is not None


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that the statements of `comparisons` call."""
    connection.create_function("gindex_value", 2, _value, deterministic=True)
    connection.create_function("gindex_holds", 3, _stored_holds, deterministic=True)


def _holds(found: Any, comparison: str, wanted: Value) -> bool:
    if _kind(found) != _kind(wanted):
        return False
    if comparison == "=":
        return bool(found == wanted)
    if comparison == "like":
        return like(found, str(wanted))
    return ORDERS[comparison](found, wanted)


def _kind(value: Any) -> type:
    """Return one type for all numbers; bool is a subtype of int."""
    return int if isinstance(value, float) else type(value)


def _value(metadata: str, path: str) -> str | None:
    """Return what metadata have at a path, an array of names and positions, as JSON; None where nothing is there."""
    found = json.loads(metadata)
    for step in json.loads(path):
        if not isinstance(found, list if isinstance(step, int) else dict):
            return None
        if isinstance(found, dict) and step not in found:
            return None
        found = found[step]
    return json.dumps(found)


def _stored_holds(found: str | bytes, comparison: str, wanted: str) -> bool:
    """Compare what a table holds, JSON or the bytes of a text, with a value in JSON."""
    value = found.decode() if isinstance(found, bytes) else json.loads(found)
    return holds(value, comparison, _decoded(wanted))


@lru_cache(maxsize=256)
def _decoded(wanted: str) -> Value:
    value: Value = json.loads(wanted)
    return value


_UPPER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _folded(text: str) -> str:
    return text.translate(_UPPER)


@lru_cache(maxsize=256)
def _piece(piece: str) -> re.Pattern[str]:
    """Return what finds a piece of a pattern that has no %."""
    return re.compile("".join("." if character == "_" else re.escape(character) for character in piece), re.DOTALL)
