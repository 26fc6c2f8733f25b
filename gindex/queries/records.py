"""Queries as records: objects of JSON, in a file or in a request, whose fields are those of `Query`."""

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from gindex.corpus.picture_pieces import with_pictures
from gindex.errors import QueryError
from gindex.queries.query import OTHER_FORMS, Query

FIELDS = tuple(each.name for each in fields(Query))
"""What a query may say."""

_SHARE_GPT_FIELD = "conversations"
_QUERY = "an object with prompt, or with messages, input_ids, chosen and rejected, or queries"
_TEXT = "a text"
_INTEGER = "an integer"
_NUMBER = "a number"
_NUMBERS = "a list of numbers"
_LIST = "a list"
_BASE64 = "the bytes of a file in base64"
_TENSORS = "an object of numbers or lists of them"
_LABEL = "a text, a number or a list of them"
_TEXT_OR_MESSAGES = "a text or a list of messages"
_KINDS: dict[str, str] = {
    **dict.fromkeys(("prompt", "completion", "pair", "loss", "aggregate", "document", "id"), _TEXT),
    "label": _LABEL,
    "image": _BASE64,
    "tensors": _TENSORS,
    **dict.fromkeys(("ref_chosen_logp", "ref_rejected_logp", "beta", "weight"), _NUMBER),
    "turn": _INTEGER,
    **dict.fromkeys(("input_ids", "labels", "loss_mask", "loss_weights"), _NUMBERS),
    **dict.fromkeys(("messages", "tools", "queries"), _LIST),
    **dict.fromkeys(("chosen", "rejected", "contrast"), _TEXT_OR_MESSAGES),
    "span": "START:END, or a list of both",
}


def read_query(record: object, place: str, also: Sequence[str] = ()) -> Query:
    """Query of a record; fields that are null are as if they were not there.

    A prompt and a completion that are lists of messages are one conversation, and a prompt of messages begins both
    sides of a preference. Whether the fields go together is seen when the query is asked.

    Args:
        record: The record.
        place: What messages of errors call it.
        also: Other fields that it may have, and that are not read.

    Raises:
        QueryError: It is no object, has an unknown field, or a value of another kind than the field takes.
    """
    given = {name: _with_read_pictures(value, place) for name, value in _given(record, place, also).items()}
    if isinstance(given.get("prompt"), list):
        given = _with_joined_prompt(given, place)
    for name, value in given.items():
        if not _ACCEPTED[_KINDS[name]](value):
            raise QueryError(field=place, expected=f"{_KINDS[name]} in {name}", found=_kind(value))
    if "queries" in given:
        given["queries"] = [_member(each, f"{place}, query {n}") for n, each in enumerate(given["queries"], 1)]
    if "image" in given:
        given["image"] = b64decode(given["image"])
    if "span" in given:
        given["span"] = read_span(given["span"], place)
    return Query(**given)


def read_span(value: str | Sequence[int], place: str) -> tuple[int, int]:
    """First character and that past the last of a span.

    Args:
        value: `START:END`, or both numbers.
        place: What messages of errors call it.

    Raises:
        QueryError: It is neither.
    """
    parts = value.split(":") if isinstance(value, str) else [str(each) for each in value]
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise QueryError(
            field=f"{place}, span", expected="START:END in characters from 0, as 0:12", found=repr(value)[:80]
        )
    return int(parts[0]), int(parts[1])


def _member(record: object, place: str) -> Query:
    """Query of a set."""
    if isinstance(record, Mapping) and "queries" in record:
        raise QueryError(field=place, expected="a query that is no set itself", found="another set")
    return read_query(record, place)


def _given(record: object, place: str, also: Sequence[str]) -> dict[str, Any]:
    """Fields of a record that are not null, of which all are known and some make a query."""
    if not isinstance(record, Mapping):
        raise QueryError(field=place, expected=_QUERY, found=_kind(record))
    given = {name: value for name, value in record.items() if value is not None and name not in also}
    if _SHARE_GPT_FIELD in given and "messages" not in given:
        given["messages"] = given.pop(_SHARE_GPT_FIELD)
    unknown = sorted(given.keys() - set(FIELDS))
    if unknown:
        known = f"its fields are {', '.join((*FIELDS, *also))}"
        raise QueryError(field=place, expected=_QUERY, found=f"the field {', '.join(unknown)}", remedy=known)
    if not given.keys() & {"prompt", *OTHER_FORMS}:
        raise QueryError(field=place, expected=_QUERY, found=f"the fields {', '.join(sorted(given)) or 'none'}")
    return given


def _with_joined_prompt(given: dict[str, Any], place: str) -> dict[str, Any]:
    """The same with the messages of the prompt before those that follow it."""
    given = dict(given)
    prompt, sides = given.pop("prompt"), [name for name in ("completion", "chosen", "rejected") if name in given]
    for side in sides:
        if not isinstance(given[side], list):
            raise QueryError(
                field=place, expected=f"messages in {side}, as in prompt", found=_kind(given[side]), remedy="give both"
            )
    if sides in ([], ["completion"]):
        return {"messages": [*prompt, *given.pop("completion", [])], **given}
    return given | {side: [*prompt, *given[side]] for side in sides}


def _with_read_pictures(value: Any, place: str) -> Any:
    """Messages whose pictures, in base64, are bytes: no query names a file. Anything else as it is.

    Raises:
        QueryError: A picture is given otherwise.
    """

    def read(picture: Any) -> bytes:
        data = picture.partition(";base64,")[2] or picture if isinstance(picture, str) else None
        if data is None or not _is_base64(data):
            raise QueryError(field=place, expected=f"{_BASE64}, for a picture of its messages", found="something else")
        return b64decode(data)

    return with_pictures(value, read) if isinstance(value, list) else value


def _is_base64(value: str) -> bool:
    try:
        b64decode(value, validate=True)
    except ValueError:
        return False
    return True


def _is_label(value: object) -> bool:
    return isinstance(value, str) or _is_number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    _TEXT: lambda value: isinstance(value, str),
    _INTEGER: lambda value: isinstance(value, int) and not isinstance(value, bool),
    _NUMBER: _is_number,
    _NUMBERS: lambda value: isinstance(value, list) and all(map(_is_number, value)),
    _BASE64: lambda value: isinstance(value, str) and _is_base64(value),
    _TENSORS: lambda value: isinstance(value, dict),
    _LIST: lambda value: isinstance(value, list),
    _LABEL: lambda value: _is_label(value) or (isinstance(value, list) and all(map(_is_label, value))),
    _TEXT_OR_MESSAGES: lambda value: isinstance(value, (str, list)),
    _KINDS["span"]: lambda value: isinstance(value, (str, list)),
}


def _kind(value: object) -> str:
    names = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "a text", "bool": "a boolean"}
    return names.get(type(value).__name__, f"a value of type {type(value).__name__}")
