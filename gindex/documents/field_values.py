"""The values of a field of the metadata, and which documents have each: what documents are grouped by.

A value is a text, a number, true or false, as in `values`: 1 and 1.0 are one value, 1 and true two. A document whose
field is an array has each of its elements as a value, as a filter sees it. A document without the field, or with null
or an empty array in it, has the value None. An object is a value as a whole, whatever the order of its fields.

Axes: V values, P pairs of a document and a value.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.documents.comparisons import MetadataColumn
from gindex.documents.filters import field_column
from gindex.documents.selection import known_fields
from gindex.documents.table import DocumentTable
from gindex.documents.values import Value
from gindex.errors import FilterError
from gindex.search_options import HITS

SHOWN_CHARACTERS = 200
"""Most characters of a text that is shown as a value."""

READ_DOCUMENTS = 100_000
"""Documents whose values are read at once."""

Key = tuple[type, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldValues:
    """Which documents have which values of a field.

    Attributes:
        field: The field, as it was written.
        values: The distinct values [V] as they are shown: long texts cut, objects as JSON.
        documents_P: The document of each pair, by its ordinal, ascending.
        values_P: The value of each pair, by its place among the values.
    """

    field: str
    values: tuple[Value | None, ...]
    documents_P: npt.NDArray[np.int64]
    values_P: npt.NDArray[np.int64]


def read_field_values(table: DocumentTable, field: str) -> FieldValues:
    """Read the values of a field of all documents.

    Args:
        table: The documents.
        field: The field, written as in a filter: `source`, `origin.site`, or in backticks.

    Raises:
        FilterError: It is no field of the metadata, or no document has it.
    """
    column = field_column(field)
    if column is None:
        raise _error(table, field, "`id` is each document's own" if field == "id" else repr(field))
    places: dict[Key, int] = {}
    shown: list[Value | None] = []
    places_of: dict[str | None, list[int]] = {}
    documents, values = [], []
    for document, stored in _stored(table, column):
        if stored not in places_of:
            found = [_place(value, places, shown) for value in _elements(stored)]
            places_of[stored] = list(dict.fromkeys(found))
        for place in places_of[stored]:
            documents.append(document)
            values.append(place)
    if not places_of.keys() - {None}:
        raise _error(table, field, repr(field))
    return FieldValues(
        field=field,
        values=tuple(shown),
        documents_P=np.array(documents, np.int64),
        values_P=np.array(values, np.int64),
    )


def _stored(table: DocumentTable, column: MetadataColumn) -> Iterator[tuple[int, str | None]]:
    """Yield the ordinal of every document, ascending, with the JSON in its field; None where it has none."""
    last = max((last or -1 for (last,) in table.rows("SELECT MAX(ordinal) FROM documents")), default=-1)
    statement = f"SELECT ordinal, {column.json.text} FROM documents WHERE ordinal >= ? AND ordinal < ? ORDER BY ordinal"
    for start in range(0, last + 1, READ_DOCUMENTS):
        yield from table.rows(statement, (*column.json.parameters, start, start + READ_DOCUMENTS))


def _elements(stored: str | None) -> list[Any]:
    value = None if stored is None else json.loads(stored)
    return (value or [None]) if isinstance(value, list) else [value]


def _place(value: Any, places: dict[Key, int], shown: list[Value | None]) -> int:
    """Place of a value among those that were seen; a new one goes to the end."""
    key = _key(value)
    if key not in places:
        places[key] = len(shown)
        shown.append(_shown(key[1] if isinstance(value, (dict, list)) else value))
    return places[key]


def _key(value: Any) -> Key:
    """What two equal values share: bool is a subtype of int, and 1 == 1.0 hash alike."""
    if isinstance(value, (dict, list)):
        return dict, json.dumps(value, sort_keys=True, ensure_ascii=False)
    return (int if isinstance(value, float) else type(value)), value


def _shown(value: Value | None) -> Value | None:
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return f"{value[:SHOWN_CHARACTERS]}..."
    return value


def _error(table: DocumentTable, field: str, found: str) -> FilterError:
    found = found if len(found) <= SHOWN_CHARACTERS else f"{found[:SHOWN_CHARACTERS]}..."
    remedy = f"`hits` {field} says what a hit is" if field in HITS else "write it as in a filter"
    return FilterError(field="group_by", expected=known_fields(table), found=found, remedy=remedy)
