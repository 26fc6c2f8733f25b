"""The values of a field as keys: bytes in whose order values are compared as `values` defines it.

A key begins with its kind: no such field, null, none that compares (an object, or an array without a value that does),
true or false, number, text. Numbers of all sizes are in one order, integers and floats alike: 1 and 1.0 have one key.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from gindex.documents.comparisons import Names
from gindex.documents.values import Value

MISSING, NULL, OTHER = b"\0", b"\1", b"\2"
_TRUTH, _NUMBER, TEXT, _END = b"\3", b"\4", b"\5", b"\6"
_NEGATIVE, _ZERO, _POSITIVE = b"\0", b"\1", b"\2"
_EXPONENT = 1 << 31
"""What exponents are counted from, so that none is negative."""

KeyRange = tuple[bytes, bytes]
"""The first key of a range, and the one after its last."""

ABSENT: KeyRange = (MISSING, OTHER)
"""The keys of documents whose field is missing or null."""

KNOWN: KeyRange = (NULL, _END)
"""The keys of documents that have the field, null or not."""

TEXTS: KeyRange = (TEXT, _END)


def key_of(value: Value) -> bytes:
    """The key of a value that compares."""
    if isinstance(value, bool):
        return _TRUTH + bytes([value])
    return TEXT + value.encode() if isinstance(value, str) else _NUMBER + _number(value)


def keys_of(metadata: str, fields: Iterable[Names]) -> Iterator[frozenset[bytes]]:
    """The keys of each of some fields of a document: one, or of an array those of its elements.

    Args:
        metadata: Its metadata in JSON.
        fields: The fields.
    """
    content = json.loads(metadata)
    for names in fields:
        yield _keys(_reached(content, names))


def key_range(operator: str, wanted: Value) -> KeyRange:
    """The keys of the values that compare with one by "=" or an order."""
    key = key_of(wanted)
    kind, following = key[:1], key + b"\0"
    after_kind = bytes([kind[0] + 1])
    return {
        "=": (key, following),
        "<": (kind, key),
        "<=": (kind, following),
        ">": (following, after_kind),
        ">=": (key, after_kind),
    }[operator]


_NOTHING = object()


def _reached(content: Any, names: Names) -> Any:
    for name in names:
        if not isinstance(content, dict) or name not in content:
            return _NOTHING
        content = content[name]
    return content


def _keys(value: Any) -> frozenset[bytes]:
    if value is _NOTHING:
        return frozenset([MISSING])
    if value is None:
        return frozenset([NULL])
    elements = value if isinstance(value, list) else [value]
    return frozenset(key_of(each) for each in elements if isinstance(each, Value)) or frozenset([OTHER])


def _number(value: int | float) -> bytes:
    """A number as its sign, the exponent of two of its leading digit, and its digits to the last that is not 0.

    All bytes of a negative one are complemented, which turns their order round.
    """
    if value == 0:
        return _ZERO
    digits, divisor = abs(value).as_integer_ratio()  # a power of two
    exponent = digits.bit_length() - divisor.bit_length()
    digits >>= (digits & -digits).bit_length() - 1
    size = -(-digits.bit_length() // 7) * 7
    digits <<= size - digits.bit_length()
    sevens = bytearray((digits >> shift & 127) << 1 | (shift > 0) for shift in range(size - 7, -1, -7))
    code = (exponent + _EXPONENT).to_bytes(4, "big") + sevens
    return _POSITIVE + code if value > 0 else _NEGATIVE + bytes(255 - byte for byte in code)
