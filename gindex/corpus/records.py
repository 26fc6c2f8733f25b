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
from gindex.corpus.contents import Content
from gindex.corpus.forms import read_form, weight_of
from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.value_checks import check_encodable, half_pair, kind_of
from gindex.errors import CorpusError

# How numpy scalars become Python ones, by the kind of their dtype; dates and all other kinds become strings.
_SCALARS: dict[str, type] = {"b": bool, "i": int, "u": int, "f": float}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document of the corpus.

    Attributes:
        document_id: Unique within the corpus.
        text: The text; of other forms, the content as the model reads it, which takes a tokenizer to write.
        metadata: All other fields of the record, as plain JSON values.
        form: What it was made of: text, or one of the other forms.
        content: The fields of other forms, as plain JSON values.
        tokens: Of prepared tokens, these and how much each counts, while it is read.
        file: Of a picture or tensors, these, while it is read.
        pictures: Of a conversation, its pictures, while it is read.
        weight: What its loss is multiplied by, while it is read.
    """

    document_id: str
    text: str
    metadata: dict[str, Any]
    form: str = "text"
    content: dict[str, Any] = field(default_factory=dict)
    tokens: WeightedTokens | None = field(default=None, compare=False)
    file: Content | None = field(default=None, compare=False)
    pictures: tuple[Content, ...] = field(default=(), compare=False)
    weight: float = 1.0

    @property
    def characters(self) -> int:
        """About how long it is, before it is written as one text."""
        if self.tokens is not None:
            return 4 * len(self.tokens)
        if self.file is not None:
            return len(self.file.data)
        pictures = sum(len(picture.data) for picture in self.pictures)
        return pictures + (len(self.text) or len(str(self.content)))


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
        CorpusError: The record is not an object, is of no form, has no usable id, or a field that is not JSON.
    """
    if not isinstance(record.fields, Mapping):
        raise CorpusError(
            field=record.place,
            expected="a record that is an object",
            found=kind_of(record.fields),
            remedy=f'write every record as {{"{config.text_field}": "..."}}',
        )
    fields = {str(name): value for name, value in record.fields.items()}
    if len(fields) != len(record.fields):
        raise CorpusError(
            field=record.place, expected="names of fields that differ as text", found="equal ones", remedy="rename one"
        )
    form = read_form(fields, record.place, config)
    document_id = _document_id(fields, record, config)
    metadata = {
        name: _metadata(name, value, record.place)
        for name, value in fields.items()
        if name not in form.used and name != config.id_field
    }
    content = {name: to_json_value(value) for name, value in form.content.items()}
    content |= {"pictures": len(form.pictures)} if form.pictures else {}
    return Document(
        document_id=document_id,
        text=form.text or "",
        metadata=metadata,
        form=form.name,
        content=content,
        tokens=form.tokens,
        file=form.file,
        pictures=form.pictures,
        weight=weight_of(fields, record.place, config),
    )


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
    raise TypeError(kind_of(value))


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


def _document_id(fields: dict[str, Any], record: Record, config: CorpusConfig) -> str:
    own = fields.get(config.id_field, record.default_id)
    if isinstance(own, bool) or not isinstance(own, (int, str)) or own == "":
        shown = "an empty string" if own == "" else kind_of(own)
        raise CorpusError(
            field=record.place,
            expected=f"an integer or a string as id in the field {config.id_field!r}",
            found=shown,
            remedy="correct the record or name another field with `id_field`",
        )
    check_encodable(str(own), "an id", record.place)
    return str(own)


def _metadata(name: str, value: object, place: str) -> Any:
    check_encodable(name, f"the name of a field ({name!r})", place)
    try:
        return to_json_value(value)
    except UnicodeEncodeError as error:
        raise half_pair(f"text in the field {name!r}", place, error) from error
    except (TypeError, RecursionError) as error:
        found = "values nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CorpusError(
            field=place,
            expected=f"a JSON value in the field {name!r}",
            found=found,
            remedy="remove or convert the field",
        ) from error
