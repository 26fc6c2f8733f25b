"""Checks of the values of records, and what errors call these."""

import numpy as np

from gindex.errors import CorpusError

LARGEST = float(np.finfo(np.float32).max)
"""The largest weight: they are kept in float32."""


def check_encodable(text: str, what: str, place: str) -> None:
    """Check that a text has no half of a surrogate pair.

    Raises:
        CorpusError: It has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise half_pair(what, place, error) from error


def half_pair(what: str, place: str, error: UnicodeEncodeError) -> CorpusError:
    """The error of a text that is not of Unicode characters."""
    return CorpusError(
        field=place,
        expected=f"{what} of Unicode characters",
        found=f"half a surrogate pair at character {error.start}",
        remedy="correct or remove the record",
    )


def kind_of(value: object) -> str:
    """What a value is, in JSON's words."""
    names = {"NoneType": "null", "dict": "an object", "list": "an array", "str": "a string", "bool": "a boolean"}
    name = type(value).__name__
    return names.get(name, f"a value of type {name}")
