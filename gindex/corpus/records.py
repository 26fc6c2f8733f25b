"""Documents from the records of any source, with every check on a record."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from math import isinf, isnan
from typing import Any
from uuid import UUID

from gindex.config import CorpusConfig
from gindex.errors import CorpusError

_SHOWN_FIELDS = 20
# How numpy scalars become Python ones, by the kind of their dtype; dates and all other kinds become strings.
_SCALARS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document of the corpus.

    Attributes:
        document_id: Unique within the corpus.
        text: The text, never blank; of other forms, the content as the model reads it.
        metadata: All other fields of the record, as plain JSON values.
        form: What it was made of: text, or one of the other forms.
        content: The fields of other forms, as plain JSON values.
        weight: What its loss is multiplied by.
    """

    document_id: str
    text: str
    metadata: dict[str, Any]
    form: str = "text"
    content: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A record as a reader gives it.

    Attributes:
        fields: The record as read; anything but a mapping is refused by `to_document`.
        place: Its file and line or number, for messages.
        default_id: The document id if the record has none.
    """

    fields: object
    place: str
    default_id: str


def to_document(record: Record, config: CorpusConfig) -> Document:
    """Check a record and return its document.

    Raises:
        CorpusError: The record is not an object, has no usable text or id, or a field that is not JSON.
    """
    if not isinstance(record.fields, Mapping):
        raise CorpusError(
            field=record.place,
            expected="a record that is an object",
            found=_type(record.fields),
            remedy=f'write every record as {{"{config.text_field}": "..."}}',
        )
    fields = {str(name): value for name, value in record.fields.items()}
    if len(fields) != len(record.fields):
        raise CorpusError(
            field=record.place, expected="names of fields that differ as text", found="equal ones", remedy="rename one"
        )
    text = _text(fields, record.place, config)
    document_id = _document_id(fields, record, config)
    metadata = {
        name: _metadata(name, value, record.place)
        for name, value in fields.items()
        if name not in (config.text_field, config.id_field)
    }
    return Document(document_id=document_id, text=text, metadata=metadata)


def to_json_value(value: Any) -> Any:
    """Return `value` as plain JSON.

    Dates, decimals, UUIDs and infinite numbers become strings, numpy values Python ones, NaN None.

    Raises:
        TypeError: The value, or one within it, has no such form.
        UnicodeEncodeError: A string in it has half a surrogate pair.
    """
    if isinstance(value, str):
        value.encode()
        return value
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return _from_float(value)
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (timedelta, Decimal, UUID)):
        return str(value)
    if type(value).__module__ == "numpy":
        return _from_numpy(value)
    raise TypeError(_type(value))


def is_deleted(deleted: Sequence[tuple[int, int]], part: int) -> bool:
    """Say whether a part lies in one of the deleted ranges of ordinals, which are in order."""
    position = bisect_right(deleted, part, key=lambda bounds: bounds[0]) - 1
    return position >= 0 and part < deleted[position][1]


def _from_float(value: float) -> float | str | None:
    """Return None for NaN, which stands for a missing value, and text for infinities, which JSON has no number for."""
    if isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return None if isnan(value) else float(value)


def _from_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    fields = {to_json_value(str(key)): to_json_value(item) for key, item in value.items()}
    if len(fields) != len(value):
        raise TypeError("keys that are equal as text")
    return fields


def _from_numpy(value: Any) -> Any:
    if value.ndim:
        return [to_json_value(item) for item in value]
    return to_json_value(_SCALARS.get(value.dtype.kind, str)(value))


def _text(fields: dict[str, Any], place: str, config: CorpusConfig) -> str:
    if config.text_field not in fields:
        found = ", ".join(map(repr, sorted(fields)[:_SHOWN_FIELDS])) or "none"
        found += f" and {len(fields) - _SHOWN_FIELDS} more" if len(fields) > _SHOWN_FIELDS else ""
        raise CorpusError(
            field=place,
            expected=f"the text field {config.text_field!r}",
            found=f"the fields {found}",
            remedy="name the right one with `text_field`",
        )
    text = fields[config.text_field]
    if not isinstance(text, str):
        raise CorpusError(
            field=place,
            expected=f"a string in the text field {config.text_field!r}",
            found=_type(text),
            remedy="correct or remove the record, or name another field with `text_field`",
        )
    if not text.strip():
        raise CorpusError(
            field=place, expected="text", found="an empty or blank one", remedy="remove the record or file"
        )
    _check_encodable(text, "text", place)
    return text


def _document_id(fields: dict[str, Any], record: Record, config: CorpusConfig) -> str:
    own = fields.get(config.id_field, record.default_id)
    if isinstance(own, bool) or not isinstance(own, (int, str)) or own == "":
        shown = "an empty string" if own == "" else _type(own)
        raise CorpusError(
            field=record.place,
            expected=f"an integer or a string as id in the field {config.id_field!r}",
            found=shown,
            remedy="correct the record or name another field with `id_field`",
        )
    _check_encodable(str(own), "an id", record.place)
    return str(own)


def _metadata(name: str, value: object, place: str) -> Any:
    _check_encodable(name, f"the name of a field ({name!r})", place)
    try:
        return to_json_value(value)
    except UnicodeEncodeError as error:
        raise _half_pair(f"text in the field {name!r}", place, error) from error
    except (TypeError, RecursionError) as error:
        found = "values nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CorpusError(
            field=place,
            expected=f"a JSON value in the field {name!r}",
            found=found,
            remedy="remove or convert the field",
        ) from error


def _check_encodable(text: str, what: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _half_pair(what, place, error) from error


def _half_pair(what: str, place: str, error: UnicodeEncodeError) -> CorpusError:
    return CorpusError(
        field=place,
        expected=f"{what} of Unicode characters",
        found=f"half a surrogate pair at character {error.start}",
        remedy="correct or remove the record",
    )


def _type(value: object) -> str:
    names = {"NoneType": "null", "dict": "an object", "list": "an array", "str": "a string", "bool": "a boolean"}
    name = type(value).__name__
    return names.get(name, f"a value of type {name}")
