"""Records, which are dataclasses, as the plain values of a JSON file, and back."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec

from gindex.config import BuildConfig

T = TypeVar("T")

_PLAIN = frozenset({str, int, float, bool})


def values_of(record: Any) -> Any:
    """A record as plain values; a field that is None by default is left out while it is None."""
    if record is None or type(record) in _PLAIN:
        return record
    if isinstance(record, BuildConfig):
        return record.settings()
    if is_dataclass(record):
        kind: Any = type(record)
        held = [(name, getattr(record, name), optional) for name, optional in _fields(kind)]
        return {name: values_of(of) for name, of, optional in held if of is not None or not optional}
    if isinstance(record, (list, tuple)):
        return [values_of(item) for item in record]
    return {name: values_of(of) for name, of in record.items()} if isinstance(record, dict) else record


@cache
def _fields(kind: Any) -> list[tuple[str, bool]]:
    """The fields of a dataclass, and whether each is None by default."""
    return [(field.name, field.default is None) for field in fields(kind)]


def record_of(kind: type[T], values: Any) -> T:
    """The record of a kind that plain values are of.

    Raises:
        ValueError: A field is missing, unknown, or of another type; names it.
        ConfigError: A setting of a build is out of its range.
    """
    try:
        record = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    unknown = _unknown(values, values_of(record))
    if unknown:
        raise ValueError(f"unknown field `{unknown}`")
    return record


def _unknown(values: Any, known: Any) -> str:
    """Place of the first field of some values that a record of them does not have; empty where there is none."""
    if isinstance(values, dict):
        named = [(f".{name}", name in known, of, known.get(name)) for name, of in values.items()]
    else:
        items = enumerate(zip(values, known, strict=True)) if isinstance(values, list) else ()
        named = [(f"[{n}]", True, *pair) for n, pair in items]
    for name, is_known, of, held in named:
        if not is_known:
            return name.removeprefix(".")
        if inner := _unknown(of, held):
            return f"{name}.{inner}".removeprefix(".").replace(".[", "[")
    return ""
